//! What the headers of all files have alike: little-endian numbers at fixed places, and behind the magic and the
//! version, 8 and 4 bytes, a checksum (CRC-32, IEEE) of everything in the header but itself.

/// Where the checksum of a header stands.
pub(crate) const CRC_AT: usize = 12;

/// The checksum of a header.
pub(crate) fn crc_without_field(header: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..CRC_AT]);
    hasher.update(&header[CRC_AT + 4..]);
    hasher.finalize()
}

/// The number of four bytes at a place that is inside.
pub(crate) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*bytes[at..].first_chunk().expect("the length was checked"))
}

/// The number of eight bytes at a place that is inside.
pub(crate) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(*bytes[at..].first_chunk().expect("the length was checked"))
}
