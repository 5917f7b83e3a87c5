//! The first 64 bytes of a frame, which can be trusted without the rest.
//!
//! Little-endian throughout.
//! ```text
//! 0        4         6       8             16           24              32               40
//! +--------+---------+-------+-------------+------------+---------------+----------------+--
//! | magic  | version | flags | base offset | end offset | synced offset | commit time ms | ..
//! +--------+---------+-------+-------------+------------+---------------+----------------+--
//! 40            44           48         52                  56     60           64
//! +-------------+------------+----------+-------------------+------+------------+------
//! | event count | body bytes | body crc | previous checksum | zero | header crc | body ..
//! +-------------+------------+----------+-------------------+------+------------+------
//! ```
//! Both checksums are CRC-32 (IEEE) that begin with the segment's [`Seed`] instead of 0. The header's
//! covers bytes 0 to 60, and with them the body's: it *is* the checksum of the frame. `previous
//! checksum` is that of the frame before in the same segment, or [`Seed::chain_start`]. Flags: 1,
//! [`FrameFlags::CLEAN_END`]; 2, [`FrameFlags::COMPRESSED`].

use crate::{
    event::archive::{BodyBounds, BodyError},
    fields::{u32_at, u64_at},
    frame::{EVENTS_MAX, FRAME_ALIGN_BYTES, FRAME_BYTES_MAX, FRAME_HEADER_BYTES, FRAME_VERSION},
    mutation::{self, Mutation},
    offset::Offset,
    segment::Incarnation,
};

const MAGIC: [u8; 4] = *b"SLFR";
const HEADER_CRC_AT: usize = 60;
/// The longest body.
pub(super) const BODY_BYTES_MAX: usize = FRAME_BYTES_MAX - FRAME_HEADER_BYTES;

/// What every checksum of a segment's frames begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(u32);

impl Seed {
    /// The seed of a segment's frames.
    pub fn of(incarnation: &Incarnation) -> Seed {
        if mutation::is_planted(Mutation::StaleFrameTaken) {
            return Seed(0);
        }
        Seed(crc32fast::hash(&incarnation.bits()))
    }

    /// The seed with which these bytes, which look like a frame, have the checksum in its header; `None` if
    /// they do not look so. For a segment whose own header is lost: whoever asks has to find a second frame, or a
    /// body, that agrees.
    ///
    /// A CRC is linear: with `c(s)` that of some bytes begun with `s`, `c(s) ^ c(0)` is a sum (xor) of what each
    /// bit of `s` gives alone. 32 equations for 32 bits, solved by elimination.
    pub(crate) fn solve(frame: &[u8]) -> Option<Seed> {
        let bytes =
            frame.first_chunk::<FRAME_HEADER_BYTES>().filter(|bytes| bytes[..4] == MAGIC)?;
        let crc = |seed: u32| Seed(seed).crc(&bytes[..HEADER_CRC_AT]);
        let constant = crc(0);
        let mut target = u32_at(bytes, HEADER_CRC_AT) ^ constant;
        // What a set of the seed's bits gives, and which set; reduced to one leading bit each.
        let mut rows: Vec<(u32, u32)> = Vec::with_capacity(32);
        for bit in (0..32).map(|place| 1 << place) {
            let (mut gives, mut bits) = (crc(bit) ^ constant, bit);
            for (row_gives, row_bits) in &rows {
                if gives ^ row_gives < gives {
                    (gives, bits) = (gives ^ row_gives, bits ^ row_bits);
                }
            }
            if gives == 0 {
                return None;
            }
            rows.push((gives, bits));
            rows.sort_unstable_by_key(|(gives, _)| std::cmp::Reverse(*gives));
        }
        let mut seed = 0;
        for (gives, bits) in rows {
            if target ^ gives < target {
                (target, seed) = (target ^ gives, seed ^ bits);
            }
        }
        (target == 0).then_some(Seed(seed))
    }

    /// What the first frame of a segment has as its `previous_checksum`.
    pub fn chain_start(self) -> u32 {
        self.crc(b"first frame")
    }

    /// The checksum of `bytes` in files with this seed.
    pub(crate) fn crc(self, bytes: &[u8]) -> u32 {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finalize()
    }

    /// The same for bytes that come in parts.
    pub(crate) fn hasher(self) -> crc32fast::Hasher {
        crc32fast::Hasher::new_with_initial(self.0)
    }
}

/// What a frame says about itself beyond its events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FrameFlags(u16);

impl FrameFlags {
    /// Nothing.
    pub const NONE: FrameFlags = FrameFlags(0);
    /// The log was closed behind this frame: nothing was written after it, so nothing visible can
    /// have been lost.
    pub const CLEAN_END: FrameFlags = FrameFlags(1);

    /// The body is the archive's length (u32) and the archive as zstd frames (RFC 8878).
    pub const COMPRESSED: FrameFlags = FrameFlags(2);

    const KNOWN: u16 = 3;

    /// Whether all of `flags` are set.
    pub fn has(self, flags: FrameFlags) -> bool {
        self.0 & flags.0 == flags.0
    }
}

/// What the writer knows about a frame besides its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Where the frame before it ended.
    pub base_offset: Offset,
    /// Wall clock at the commit.
    pub commit_time_ms: u64,
    /// Everything below it was on the device when the frame was made; at most `base_offset`.
    pub synced_offset: Offset,
    /// The checksum of the frame before it, or [`Seed::chain_start`].
    pub previous_checksum: u32,
    /// What else it says.
    pub flags: FrameFlags,
}

/// The first 64 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHeader {
    /// The first offset that it stands for.
    pub base_offset: Offset,
    /// The first offset behind those.
    pub end_offset: Offset,
    /// How many events it holds.
    pub event_count: u32,
    /// Wall clock at the commit.
    pub commit_time_ms: u64,
    /// Everything below it was on the device when the frame was made.
    pub synced_offset: Offset,
    /// The checksum of the frame before it, or [`Seed::chain_start`].
    pub previous_checksum: u32,
    /// The length of the body as it is stored, without padding.
    pub body_bytes: u32,
    /// What the body's checksum must be.
    pub body_checksum: u32,
    /// What else it says.
    pub flags: FrameFlags,
    /// The checksum of the frame: of the header, which holds the body's.
    pub checksum: u32,
}

/// Why bytes are no frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// There are only zeroes where a header would be: nothing was written here yet.
    #[error("nothing was written here")]
    Blank,
    /// The bytes end before the frame does.
    #[error("{bytes} bytes, but the frame has {frame_bytes}")]
    Truncated {
        /// How many there are.
        bytes: usize,
        /// How many the frame has.
        frame_bytes: usize,
    },
    /// Something else stands here.
    #[error("no frame begins here")]
    Magic,
    /// The header is damaged, or belongs to another incarnation.
    #[error("checksum of the frame header does not match")]
    HeaderChecksum,
    /// The header holds and the body is damaged: the next frame is where the header says.
    #[error("checksum of the frame body does not match")]
    BodyChecksum,
    /// Both checksums hold, and what lies between the body and the next frame is damaged: nothing is lost by that.
    #[error("padding behind the frame body is damaged")]
    Padding,
    /// A newer program wrote it.
    #[error("frame format {version} with flags {flags:#x} is newer than {FRAME_VERSION}")]
    NewerVersion {
        /// Its format.
        version: u16,
        /// Its flags.
        flags: u16,
    },
    /// It stands for events that a repair found to be lost: see [`crate::frame::gap`].
    #[error("lost before a repair: {why}")]
    Lost {
        /// What the repair found.
        why: String,
    },
    /// The checksum holds and the content does not: no program of ours wrote it.
    #[error("{what} in the frame is out of range")]
    Content {
        /// Which field.
        what: &'static str,
    },
    /// The same, in the body.
    #[error("frame body: {0}")]
    Body(#[from] BodyError),
}

impl FrameHeader {
    /// The header that `bytes` begin with; what lies behind its 64 bytes is not looked at.
    pub fn decode(bytes: &[u8], seed: Seed) -> Result<FrameHeader, FrameError> {
        let Some(bytes) = bytes.first_chunk::<FRAME_HEADER_BYTES>() else {
            let frame_bytes = FRAME_ALIGN_BYTES;
            return Err(FrameError::Truncated { bytes: bytes.len(), frame_bytes });
        };
        if bytes.iter().all(|byte| *byte == 0) {
            return Err(FrameError::Blank);
        }
        if bytes[0..4] != MAGIC {
            return Err(FrameError::Magic);
        }
        let checksum = u32_at(bytes, HEADER_CRC_AT);
        if seed.crc(&bytes[..HEADER_CRC_AT]) != checksum {
            return Err(FrameError::HeaderChecksum);
        }
        let (version, flags) = (u16_at(bytes, 4), u16_at(bytes, 6));
        if version > FRAME_VERSION || flags & !FrameFlags::KNOWN != 0 {
            return Err(FrameError::NewerVersion { version, flags });
        }
        let header = FrameHeader {
            base_offset: Offset::new(u64_at(bytes, 8)),
            end_offset: Offset::new(u64_at(bytes, 16)),
            synced_offset: Offset::new(u64_at(bytes, 24)),
            commit_time_ms: u64_at(bytes, 32),
            event_count: u32_at(bytes, 40),
            body_bytes: u32_at(bytes, 44),
            body_checksum: u32_at(bytes, 48),
            previous_checksum: u32_at(bytes, 52),
            flags: FrameFlags(flags),
            checksum,
        };
        header.check(version, u32_at(bytes, 56))?;
        Ok(header)
    }

    fn check(&self, version: u16, reserved: u32) -> Result<(), FrameError> {
        let span = self.end_offset.since(self.base_offset);
        let events = u64::from(self.event_count);
        let wrong = |what| Err(FrameError::Content { what });
        if version == 0 {
            return wrong("version");
        }
        if self.end_offset < self.base_offset || self.end_offset > Offset::MAX {
            return wrong("end offset");
        }
        if self.synced_offset > self.base_offset {
            return wrong("synced offset");
        }
        if events > span || events > EVENTS_MAX as u64 || span > u64::from(u32::MAX) {
            return wrong("event count");
        }
        if self.body_bytes as usize > BODY_BYTES_MAX || (events == 0) != (self.body_bytes == 0) {
            return wrong("body length");
        }
        if reserved != 0 {
            return wrong("reserved field");
        }
        Ok(())
    }

    /// How many bytes the frame takes in its file, padding included.
    pub fn frame_bytes(&self) -> usize {
        padded_bytes(self.body_bytes as usize)
    }

    /// The header's bytes; sets its `checksum`.
    pub(super) fn encode(&mut self, seed: Seed) -> [u8; FRAME_HEADER_BYTES] {
        let mut bytes = [0; FRAME_HEADER_BYTES];
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&FRAME_VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&self.flags.0.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.base_offset.get().to_le_bytes());
        bytes[16..24].copy_from_slice(&self.end_offset.get().to_le_bytes());
        bytes[24..32].copy_from_slice(&self.synced_offset.get().to_le_bytes());
        bytes[32..40].copy_from_slice(&self.commit_time_ms.to_le_bytes());
        bytes[40..44].copy_from_slice(&self.event_count.to_le_bytes());
        bytes[44..48].copy_from_slice(&self.body_bytes.to_le_bytes());
        bytes[48..52].copy_from_slice(&self.body_checksum.to_le_bytes());
        bytes[52..56].copy_from_slice(&self.previous_checksum.to_le_bytes());
        self.checksum = seed.crc(&bytes[..HEADER_CRC_AT]);
        bytes[HEADER_CRC_AT..].copy_from_slice(&self.checksum.to_le_bytes());
        bytes
    }

    pub(super) fn bounds(&self) -> BodyBounds {
        BodyBounds {
            base_offset: self.base_offset,
            end_offset: self.end_offset,
            event_count: self.event_count as usize,
        }
    }
}

/// The length of a frame whose body has `body_bytes`.
pub(super) fn padded_bytes(body_bytes: usize) -> usize {
    (FRAME_HEADER_BYTES + body_bytes).next_multiple_of(FRAME_ALIGN_BYTES)
}

fn u16_at(bytes: &[u8; FRAME_HEADER_BYTES], at: usize) -> u16 {
    u16::from_le_bytes(*bytes[at..].first_chunk().expect("inside the header"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{buffer::DiskBuffer, frame};

    #[test]
    fn a_seed_is_found_from_any_frame() {
        for number in 0..50u8 {
            let seed = Seed::of(&Incarnation::new([number.wrapping_mul(37); 16]));
            let meta = FrameMeta {
                base_offset: Offset::new(u64::from(number) << 20),
                commit_time_ms: 1,
                synced_offset: Offset::ZERO,
                previous_checksum: 77,
                flags: FrameFlags::NONE,
            };
            let frame = frame::encode(&meta, &[], seed, DiskBuffer::default());
            assert_eq!(Seed::solve(frame.as_bytes()), Some(seed));
            let mut damaged = frame.as_bytes().to_vec();
            damaged[20] ^= 1;
            assert_ne!(Seed::solve(&damaged), Some(seed));
            damaged[0] = 0;
            assert_eq!(Seed::solve(&damaged), None);
        }
    }
}
