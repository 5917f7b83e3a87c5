//! Any bytes are an index or an error, and every lookup in one ends without a panic.
//!
//! The input is tried as it is, and as sections behind a header and blocks whose checksums are right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    index::{self, IndexError, ResidentIndex, TopicList},
    offset::Offset,
    topic::TopicPattern,
};

fuzz_target!(|data: &[u8]| {
    read(data);
    if let Some(bytes) = with_good_checksums(data) {
        read(&bytes);
    }
});

fn read(bytes: &[u8]) {
    let _ = index::check_all(bytes);
    let Ok(resident) = ResidentIndex::decode(bytes) else { return };
    for number in [0, 1, 7, 255, u64::MAX] {
        let _ = resident.frame_at(Offset::new(number));
        let _ = resident.frame_at_time(number);
    }
    for pattern in ["**", "a", "a/**", "a/*", "*/b"] {
        let pattern = TopicPattern::parse(pattern).expect("a pattern");
        let _ = read_topics(&resident, bytes, &pattern);
    }
}

fn read_topics(
    resident: &ResidentIndex,
    bytes: &[u8],
    pattern: &TopicPattern,
) -> Result<(), IndexError> {
    let blocks = resident.topic_blocks(pattern);
    let (position, len) = resident.topic_blocks_place(&blocks);
    let Some(content) = part(bytes, position.get(), len) else { return Ok(()) };
    let mut topics = resident.read_topics(content, blocks)?;
    while let Some(entry) = topics.next_entry()? {
        let _ = pattern.matches(entry.name);
        if let TopicList::Stored(list) = entry.list()?
            && let Some(content) = part(bytes, list.position.get(), list.list_bytes)
        {
            list.decode(content)?;
        }
    }
    Ok(())
}

fn part(bytes: &[u8], start: u64, len: usize) -> Option<&[u8]> {
    bytes.get(usize::try_from(start).ok()?..)?.get(..len)
}

/// An index whose numbers and section lengths come from the start of the input, and whose sections
/// are the rest.
fn with_good_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let (numbers, rest) = data.split_first_chunk::<16>()?;
    let incarnation = [7; 16];
    let seed = crc32fast::hash(&incarnation);
    let crc = |parts: &[&[u8]]| {
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        parts.iter().for_each(|part| hasher.update(part));
        hasher.finalize()
    };
    let (frames, rest) = rest.split_at(rest.len().min(usize::from(numbers[0]) * 24));
    let (fence, rest) = rest.split_at(rest.len().min(usize::from(numbers[1])));
    let (filter, rest) = rest.split_at(rest.len().min(usize::from(numbers[2])));
    let (lists, rest) = rest.split_at(rest.len().min(usize::from(numbers[3])));
    let (other, entries) = rest.split_at(rest.len().min(usize::from(numbers[14])));
    let mut topics = Vec::new();
    if !entries.is_empty() {
        let entries = &entries[..entries.len().min(4088)];
        let used = u16::try_from(8 + entries.len()).expect("at most 4096");
        let mut block = vec![0; 4];
        block.extend_from_slice(&u16::from(numbers[4]).to_le_bytes());
        block.extend_from_slice(&used.to_le_bytes());
        block.extend_from_slice(entries);
        block.resize(4096, 0);
        let checksum = crc(&[&0u32.to_le_bytes(), &block[4..]]);
        block[..4].copy_from_slice(&checksum.to_le_bytes());
        topics = block;
    }
    let mut sections: Vec<(u32, &[u8])> =
        vec![(1, frames), (2, fence), (3, filter), (4, &topics), (5, lists)];
    let mut resident_bytes = 512 + (frames.len() + fence.len() + filter.len()) as u64;
    // The state's delta, what marks a stub, and what there is only now and then.
    let kind = [6, 7, 8, 10, 9, 18, 16, 17][usize::from(numbers[13] % 8)];
    let is_resident = matches!(kind, 16 | 17);
    if is_resident {
        resident_bytes += other.len() as u64;
    }
    if !other.is_empty() {
        sections.insert(if is_resident { 3 } else { 5 }, (kind, other));
    }
    let index_bytes = 512 + sections.iter().map(|(_, content)| content.len() as u64).sum::<u64>();
    let mut header = vec![0; 512];
    let mut put = |at: usize, bytes: &[u8]| header[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"STRLNIDX");
    put(8, &1u32.to_le_bytes());
    put(16, &u64::from(numbers[5]).to_le_bytes());
    put(24, &(u64::from(numbers[5]) + u64::from(numbers[6])).to_le_bytes());
    put(32, &(u64::from(numbers[7]) * 4096).to_le_bytes());
    put(44, &u32::try_from(sections.len()).expect("few").to_le_bytes());
    put(48, &incarnation);
    put(64, b"fuzz");
    put(80, &u64::from(numbers[8]).to_le_bytes());
    put(88, &(u64::from(numbers[8]) + u64::from(numbers[9])).to_le_bytes());
    put(96, &u64::from(numbers[10]).to_le_bytes());
    put(104, &u64::from(numbers[11]).to_le_bytes());
    put(112, &u64::from(numbers[12]).to_le_bytes());
    put(120, &resident_bytes.to_le_bytes());
    put(128, &index_bytes.to_le_bytes());
    let mut position = 512u64;
    for (index, (kind, content)) in sections.iter().enumerate() {
        let at = 136 + index * 24;
        put(at, &kind.to_le_bytes());
        put(at + 4, &crc(&[content]).to_le_bytes());
        put(at + 8, &position.to_le_bytes());
        put(at + 16, &(content.len() as u64).to_le_bytes());
        position += content.len() as u64;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&header[..12]);
    hasher.update(&header[16..]);
    header[12..16].copy_from_slice(&hasher.finalize().to_le_bytes());
    for (_, content) in sections {
        header.extend_from_slice(content);
    }
    Some(header)
}
