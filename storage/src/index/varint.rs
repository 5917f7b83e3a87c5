//! Whole numbers in as few bytes as they need: 7 bits a byte, the lowest first, the high bit set on
//! all but the last (LEB128).

use crate::index::IndexError;

/// The most bytes that a number takes.
const VARINT_BYTES_MAX: usize = 10;

/// Appends `value`.
pub(crate) fn write(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(low_bits(value) | 0x80);
        value >>= 7;
    }
    out.push(low_bits(value));
}

/// How many bytes a number takes.
pub(crate) fn len(value: u64) -> usize {
    (value | 1).ilog2() as usize / 7 + 1
}

fn low_bits(value: u64) -> u8 {
    u8::try_from(value & 0x7f).expect("masked to 7 bits")
}

/// Takes a number from the start of `bytes`.
pub(crate) fn read(bytes: &mut &[u8]) -> Result<u64, IndexError> {
    let mut value = 0u64;
    for (count, byte) in bytes.iter().take(VARINT_BYTES_MAX).enumerate() {
        let bits = u64::from(byte & 0x7f);
        if count == VARINT_BYTES_MAX - 1 && bits > 1 {
            break;
        }
        value |= bits << (7 * count);
        if byte & 0x80 == 0 {
            *bytes = &bytes[count + 1..];
            return Ok(value);
        }
    }
    Err(IndexError::Content { what: "a number" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            write(&mut bytes, value);
            assert!(bytes.len() <= VARINT_BYTES_MAX);
            assert_eq!(bytes.len(), len(value));
            bytes.push(99);
            let mut rest = &bytes[..];
            assert_eq!(read(&mut rest), Ok(value));
            assert_eq!(rest, [99]);
        }
    }

    #[test]
    fn what_is_cut_or_too_large_is_refused() {
        for bytes in [&[][..], &[0x80], &[0xff; 9], &[0xff; 11]] {
            assert!(read(&mut &*bytes).is_err(), "{bytes:?}");
        }
        let above_64_bits = [0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02];
        assert!(read(&mut &above_64_bits[..]).is_err());
    }
}
