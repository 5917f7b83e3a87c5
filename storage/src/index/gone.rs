//! GONE: the topics of whose events compaction has taken the last one, so that what a topic's last
//! event ever was, and which number it has, is not forgotten.
//!
//! ```text
//! entries (varints): name bytes, name, number, last offset - the segment's base, last time ms
//! ```

use crate::{
    index::{IndexError, varint},
    offset::Offset,
    topic::{TOPIC_BYTES_MAX, TopicNumber},
};

/// A topic whose last event in the segment is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoneTopic {
    /// Its name.
    pub name: String,
    /// Its number.
    pub number: TopicNumber,
    /// Its last event in the segment.
    pub last_offset: Offset,
    /// When that was appended.
    pub last_time_ms: u64,
}

/// The bytes of GONE.
pub fn encode_gone(topics: &[GoneTopic], base: Offset) -> Vec<u8> {
    let mut bytes = Vec::new();
    for topic in topics {
        varint::write(&mut bytes, topic.name.len() as u64);
        bytes.extend_from_slice(topic.name.as_bytes());
        varint::write(&mut bytes, u64::from(topic.number.get()));
        varint::write(&mut bytes, topic.last_offset.since(base));
        varint::write(&mut bytes, topic.last_time_ms);
    }
    bytes
}

/// The entries of GONE, which must lie below `end`.
pub fn decode_gone(
    mut bytes: &[u8],
    base: Offset,
    end: Offset,
) -> Result<Vec<GoneTopic>, IndexError> {
    let wrong = || IndexError::Content { what: "GONE" };
    let mut topics = Vec::new();
    while !bytes.is_empty() {
        let len = usize::try_from(varint::read(&mut bytes)?).unwrap_or(usize::MAX);
        if len > TOPIC_BYTES_MAX {
            return Err(wrong());
        }
        let (name, rest) = bytes.split_at_checked(len).ok_or_else(wrong)?;
        bytes = rest;
        let name = std::str::from_utf8(name).map_err(|_| wrong())?.to_owned();
        let number = u32::try_from(varint::read(&mut bytes)?).map_err(|_| wrong())?;
        let offset = base.get().checked_add(varint::read(&mut bytes)?).map(Offset::new);
        let last_offset = offset.filter(|offset| *offset < end).ok_or_else(wrong)?;
        let last_time_ms = varint::read(&mut bytes)?;
        topics.push(GoneTopic {
            name,
            number: TopicNumber::new(number),
            last_offset,
            last_time_ms,
        });
    }
    Ok(topics)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_read_as_they_were_written_and_no_cut_one_is() {
        let topic = |name: &str, last| GoneTopic {
            name: name.to_owned(),
            number: TopicNumber::new(7),
            last_offset: Offset::new(last),
            last_time_ms: 1_763_700_000_000,
        };
        let (base, end) = (Offset::new(100), Offset::new(200));
        let topics = [topic("a/é", 100), topic("b", 199)];
        let bytes = encode_gone(&topics, base);
        assert_eq!(decode_gone(&bytes, base, end), Ok(topics.to_vec()));
        let first_bytes = encode_gone(&topics[..1], base).len();
        for cut in (1..bytes.len()).filter(|cut| *cut != first_bytes) {
            assert!(decode_gone(&bytes[..cut], base, end).is_err(), "{cut}");
        }
        assert!(decode_gone(&bytes, base, Offset::new(199)).is_err());
    }
}
