//! The data of an event: who sent it as which one and when it was due, and text up to the wanted length.
//!
//! ```text
//! 0   1           9           17                  33                        bytes
//! +---+-----------+-----------+-------------------+-------------------------+
//! | @ | publisher | sequence  | due_ns            | text                    |
//! +---+-----------+-----------+-------------------+-------------------------+
//! ```
//! Numbers are lower-case hexadecimal with leading zeroes. The text follows from publisher and sequence,
//! so that every byte of a delivery is checked; it repeats itself about as much as the fields of
//! small records do, so that compression has neither nothing nor everything to find. All of it is ASCII
//! that no text format escapes.

/// The shortest payload: no text.
pub const PAYLOAD_BYTES_MIN: usize = 33;
/// The longest: what a server takes as one event unless told otherwise.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// The text begins at one of so many places of a longer one: together they fit the first cache.
const TEXT_STARTS: usize = 16 << 10;

/// What a payload says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Which publisher sent it, from 0.
    pub publisher: u32,
    /// As which of its events, from 0.
    pub sequence: u32,
    /// When it was due, in ns of the generator's clock.
    pub due_ns: u64,
}

/// Payloads of one length.
#[derive(Clone, Debug)]
pub struct Payloads {
    bytes: usize,
    text: Box<[u8]>,
}

impl Payloads {
    /// Payloads of `bytes` bytes, from [`PAYLOAD_BYTES_MIN`] to [`PAYLOAD_BYTES_MAX`].
    pub fn new(bytes: usize) -> Payloads {
        assert!((PAYLOAD_BYTES_MIN..=PAYLOAD_BYTES_MAX).contains(&bytes));
        Payloads { bytes, text: text(TEXT_STARTS + bytes).into() }
    }

    /// Their length in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Replaces `out` by the payload that says `stamp`.
    pub fn write(&self, stamp: Stamp, out: &mut Vec<u8>) {
        let Stamp { publisher, sequence, due_ns } = stamp;
        out.clear();
        out.push(b'@');
        out.extend_from_slice(&hex(publisher));
        out.extend_from_slice(&hex(sequence));
        out.extend_from_slice(&hex(high(due_ns)));
        out.extend_from_slice(&hex(low(due_ns)));
        out.extend_from_slice(self.text_of(publisher, sequence));
    }

    /// What `payload` says, or `None` if it is not one of these, whole and unchanged.
    #[inline]
    pub fn read(&self, payload: &[u8]) -> Option<Stamp> {
        if payload.len() != self.bytes {
            return None;
        }
        let (head, text) = payload.split_first_chunk::<PAYLOAD_BYTES_MIN>()?;
        let (mark, numbers) = head.split_first()?;
        let (numbers, _) = numbers.as_chunks::<8>();
        let [publisher, sequence, due_high, due_low] = numbers else { return None };
        let (publisher, sequence) = (number(*publisher)?, number(*sequence)?);
        let due_ns = u64::from(number(*due_high)?) << 32 | u64::from(number(*due_low)?);
        let is_ours = *mark == b'@' && text == self.text_of(publisher, sequence);
        is_ours.then_some(Stamp { publisher, sequence, due_ns })
    }

    fn text_of(&self, publisher: u32, sequence: u32) -> &[u8] {
        let mixed = sequence.wrapping_mul(61).wrapping_add(publisher.wrapping_mul(4099));
        let start = usize::try_from(mixed).expect("32 bits") % TEXT_STARTS;
        &self.text[start..start + self.bytes - PAYLOAD_BYTES_MIN]
    }
}

fn high(number: u64) -> u32 {
    u32::try_from(number >> 32).expect("the upper half")
}

fn low(number: u64) -> u32 {
    u32::try_from(number & u64::from(u32::MAX)).expect("the lower half")
}

/// Each byte of a word the same.
const fn each(byte: u8) -> u64 {
    u64::from_be_bytes([byte; 8])
}

/// Eight digits, the highest first.
pub(super) fn hex(number: u32) -> [u8; 8] {
    let mut digits = u64::from(number);
    digits = (digits | digits << 16) & 0x0000_ffff_0000_ffff;
    digits = (digits | digits << 8) & 0x00ff_00ff_00ff_00ff;
    digits = (digits | digits << 4) & each(0x0f);
    let letters = ((digits + each(6)) >> 4) & each(1);
    (digits + each(b'0') + letters * u64::from(b'a' - b'9' - 1)).to_be_bytes()
}

/// The number of eight digits, `None` if one is not.
fn number(digits: [u8; 8]) -> Option<u32> {
    let bytes = u64::from_be_bytes(digits);
    // The top bit of each byte says whether it is at least so much; no sum carries, as all are ASCII.
    let at_least = |byte: u8| bytes + each(0x80 - byte);
    let decimal = at_least(b'0') & !at_least(b'9' + 1);
    let letter = at_least(b'a') & !at_least(b'f' + 1);
    if bytes & each(0x80) != 0 || (decimal | letter) & each(0x80) != each(0x80) {
        return None;
    }
    let mut number = (bytes & each(0x0f)) + 9 * ((bytes >> 6) & each(1));
    number = (number | number >> 4) & 0x00ff_00ff_00ff_00ff;
    number = (number | number >> 8) & 0x0000_ffff_0000_ffff;
    Some(low(number | number >> 16))
}

/// The next of a row of numbers that look like chance (Marsaglia, "Xorshift RNGs", 2003); `state` is not 0.
pub(super) fn xorshift(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state
}

/// Text as records have it: a few words over and over, numbers that are always others.
fn text(bytes: usize) -> Vec<u8> {
    const WORDS: [&str; 16] = [
        "side=buy",
        "side=sell",
        "venue=XNAS",
        "venue=XLON",
        "symbol=ACME",
        "symbol=INIT",
        "symbol=GLOB",
        "status=open",
        "status=filled",
        "region=eu-west-1",
        "region=us-east-2",
        "user=anonymous",
        "level=info",
        "level=warning",
        "ok=true",
        "ok=false",
    ];
    let mut out = Vec::with_capacity(bytes + 32);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    while out.len() < bytes {
        // The same text on every machine.
        xorshift(&mut state);
        let word = WORDS[usize::try_from(state % 16).expect("less than 16")];
        out.extend_from_slice(
            format!("{word};price={}.{:02};", state >> 47, state % 97).as_bytes(),
        );
    }
    out.truncate(bytes);
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn written(payloads: &Payloads, stamp: Stamp) -> Vec<u8> {
        let mut out = Vec::new();
        payloads.write(stamp, &mut out);
        out
    }

    #[test]
    fn the_layout_is_as_stated() {
        let stamp = Stamp { publisher: 0x1a, sequence: 7, due_ns: 0x0123_4567_89ab_cdef };
        let payload = written(&Payloads::new(64), stamp);
        assert_eq!(payload.len(), 64);
        assert_eq!(&payload[..33], b"@0000001a000000070123456789abcdef");
        let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"@=;.-".contains(byte);
        assert!(payload.iter().all(plain), "{}", String::from_utf8_lossy(&payload));
    }

    #[test]
    fn a_changed_byte_is_noticed() {
        let payloads = Payloads::new(256);
        let payload = written(&payloads, Stamp { publisher: 3, sequence: 9, due_ns: 5 });
        assert!(payloads.read(&payload[..255]).is_none());
        for at in [0, 4, 40, 255] {
            let mut changed = payload.clone();
            changed[at] = b'#';
            assert_eq!(payloads.read(&changed), None, "byte {at}");
        }
    }

    #[test]
    fn only_lower_case_digits_are_digits() {
        for byte in 0..=u8::MAX {
            let digits = [b'0', b'0', b'0', byte, b'0', b'0', b'0', b'f'];
            let wanted = match byte {
                b'0'..=b'9' | b'a'..=b'f' => {
                    u32::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).ok()
                }
                _ => None,
            };
            assert_eq!(number(digits), wanted, "{byte}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            publisher: u32, sequence: u32, due_ns: u64, bytes in PAYLOAD_BYTES_MIN..600,
        ) {
            let payloads = Payloads::new(bytes);
            let stamp = Stamp { publisher, sequence, due_ns };
            let payload = written(&payloads, stamp);
            prop_assert_eq!(payload.len(), bytes);
            prop_assert_eq!(payloads.read(&payload), Some(stamp));
        }
    }
}
