//! Any bytes are a snapshot or an error, and what a snapshot says is read to its end without a panic. The same of the
//! end mark, which says as much of a log in two numbers, and of the steps behind it.
//!
//! The input is tried as it is, and as sections behind a header whose checksums are right.

#![no_main]

use libfuzzer_sys::fuzz_target;
use strandline_storage::{
    end_mark::{
        Latest, SLOT_BYTES,
        steps::{self, LatestSteps},
    },
    offset::Offset,
    once::IdWindow,
    snapshot::{Snapshot, SnapshotError, SnapshotHeader},
    state::LogState,
};

const HEADER_BYTES: usize = 256;
const SECTIONS: usize = 6;

fuzz_target!(|data: &[u8]| {
    let _ = SnapshotHeader::decode(data);
    mark(data);
    steps_of(data);
    if let Some(bytes) = with_good_checksum(data, *b"STRLNEND") {
        mark(&bytes);
    }
    if let Some(bytes) = with_good_checksum(data, *b"STRLNSTP") {
        steps_of(&bytes);
    }
    read(data);
    if let Some(bytes) = with_good_checksums(data) {
        read(&bytes);
    }
});

fn read(bytes: &[u8]) {
    let Ok(mut snapshot) = Snapshot::decode(bytes) else { return };
    let mut before = None;
    let walked = snapshot.for_each_topic(|topic| {
        assert!(before < Some(topic.number), "numbers ascend");
        assert!(topic.first <= topic.last && topic.last < snapshot.offset());
        before = Some(topic.number);
        Ok::<(), SnapshotError>(())
    });
    assert_eq!(walked, Ok(()));
    let mut end = Offset::ZERO;
    for segment in snapshot.segments() {
        assert!(segment.base >= end && segment.end > segment.base);
        end = segment.end;
    }
    assert!(end <= snapshot.offset());
    let mut state = LogState::new(IdWindow { events: 1_000, time_ms: 60_000 });
    snapshot.give_to(&mut state);
}

fn mark(bytes: &[u8]) {
    if let Ok(Latest { mark, .. }) = Latest::decode(bytes) {
        assert!(mark.active <= mark.synced);
        let again = Latest::decode(&mark.encode(1)).expect("what was written is read");
        assert_eq!(again.mark, mark);
    }
}

fn steps_of(bytes: &[u8]) {
    if let Ok(LatestSteps { steps, .. }) = LatestSteps::decode(bytes) {
        let again =
            LatestSteps::decode(&steps::encode(&steps, 1)).expect("what was written is read");
        assert_eq!(again.steps, steps);
    }
}

/// One slot of a file `end.mark`, whose fields come from the input.
fn with_good_checksum(data: &[u8], magic: [u8; 8]) -> Option<Vec<u8>> {
    let mut bytes = vec![0; SLOT_BYTES];
    bytes[..8].copy_from_slice(&magic);
    bytes[8] = *data.first()? % 3;
    let fields = &data[1..data.len().min(64)];
    bytes[16..16 + fields.len()].copy_from_slice(fields);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    let crc = hasher.finalize();
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    Some(bytes)
}

/// A snapshot whose offsets and section lengths come from the start of the input, and whose sections are the rest.
fn with_good_checksums(data: &[u8]) -> Option<Vec<u8>> {
    let (numbers, mut rest) = data.split_first_chunk::<12>()?;
    let incarnation = [7; 16];
    let seed = crc32fast::hash(&incarnation);
    let mut bytes = vec![0; HEADER_BYTES];
    let mut put =
        |at: usize, content: &[u8]| bytes[at..at + content.len()].copy_from_slice(content);
    put(0, b"STRLNSNP");
    put(8, &1u32.to_le_bytes());
    let kept_from = u64::from(u16::from_le_bytes([numbers[0], numbers[1]]));
    put(16, &(kept_from + u64::from(numbers[2])).to_le_bytes());
    put(24, &kept_from.to_le_bytes());
    put(32, &u64::from(numbers[3]).to_le_bytes());
    put(40, &incarnation);
    put(56, &((HEADER_BYTES + rest.len()) as u64).to_le_bytes());
    put(64, &u64::from(numbers[4]).to_le_bytes());
    let content = rest;
    for section in 0..SECTIONS {
        let len = match numbers.get(5 + section) {
            Some(len) if section + 1 < SECTIONS => rest.len().min(usize::from(*len)),
            _ => rest.len(),
        };
        let (part, behind) = rest.split_at(len);
        let mut hasher = crc32fast::Hasher::new_with_initial(seed);
        hasher.update(part);
        put(72 + section * 16, &(len as u64).to_le_bytes());
        put(80 + section * 16, &hasher.finalize().to_le_bytes());
        rest = behind;
    }
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..12]);
    hasher.update(&bytes[16..]);
    let crc = hasher.finalize();
    bytes[12..16].copy_from_slice(&crc.to_le_bytes());
    bytes.extend_from_slice(content);
    Some(bytes)
}
