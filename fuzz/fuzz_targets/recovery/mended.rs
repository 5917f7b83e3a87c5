//! Makes the checksums of a log's files right again after their bytes were changed, so that more than checksums is tested.

const BLOCK_BYTES: usize = 4096;
const FRAME_HEADER_BYTES: usize = 64;
const INDEX_HEADER_BYTES: usize = 512;
const SNAPSHOT_HEADER_BYTES: usize = 256;
/// The kind of the section of an index whose blocks have checksums as well.
const TOPICS: u32 = 4;

/// A `.log`: its header, and its frames, each of which says the checksum of the one before. Returns the last one's.
pub fn segment(bytes: &mut [u8]) -> Option<u32> {
    let seed = crc32fast::hash(bytes.get(32..48)?);
    whole(bytes.get_mut(..BLOCK_BYTES)?);
    let mut previous = crc(seed, b"first frame");
    let mut at = BLOCK_BYTES;
    while let Some(header) = bytes.get(at..at + FRAME_HEADER_BYTES) {
        let body_at = at + FRAME_HEADER_BYTES;
        let body = body_at..body_at.saturating_add(u32_at(header, 44) as usize);
        let Some(body) = bytes.get(body.clone()).filter(|_| header.starts_with(b"SLFR")) else {
            at += BLOCK_BYTES;
            continue;
        };
        let frame_bytes = FRAME_HEADER_BYTES + body.len();
        let body_crc = crc(seed, body);
        // What stands for events that are lost has it inverted.
        let body_crc = if body.starts_with(b"STRLNGAP") { !body_crc } else { body_crc };
        put(bytes, at + 48, body_crc);
        put(bytes, at + 52, previous);
        previous = crc(seed, &bytes[at..at + 60]);
        put(bytes, at + 60, previous);
        at += frame_bytes.next_multiple_of(BLOCK_BYTES);
    }
    Some(previous)
}

/// An `.idx`, and what it says of the last frame of its log file, if that is there.
pub fn index(bytes: &mut [u8], end_checksum: Option<u32>) {
    if bytes.len() < INDEX_HEADER_BYTES {
        return;
    }
    let seed = crc32fast::hash(&bytes[48..64]);
    let sections = u32_at(bytes, 44).min(15) as usize;
    for entry in (136..).step_by(24).take(sections) {
        let kind = u32_at(bytes, entry);
        let place = (u64_at(bytes, entry + 8), u64_at(bytes, entry + 16));
        let Some(section) = part(bytes, place.0, place.1) else { continue };
        if kind == TOPICS {
            for (number, block) in (0u32..).zip(section.chunks_exact_mut(BLOCK_BYTES)) {
                let checksum = crc(crc(seed, &number.to_le_bytes()), &block[4..]);
                put(block, 0, checksum);
            }
        }
        let checksum = crc(seed, section);
        put(bytes, entry + 4, checksum);
    }
    if let Some(checksum) = end_checksum {
        put(bytes, 40, checksum);
    }
    whole(&mut bytes[..INDEX_HEADER_BYTES]);
}

/// A `.snap`.
pub fn snapshot(bytes: &mut [u8]) {
    if bytes.len() < SNAPSHOT_HEADER_BYTES {
        return;
    }
    let seed = crc32fast::hash(&bytes[40..56]);
    let mut position = SNAPSHOT_HEADER_BYTES as u64;
    for entry in (72..168).step_by(16) {
        let section_bytes = u64_at(bytes, entry);
        let Some(section) = part(bytes, position, section_bytes) else { break };
        let checksum = crc(seed, section);
        put(bytes, entry + 8, checksum);
        position += section_bytes;
    }
    whole(&mut bytes[..SNAPSHOT_HEADER_BYTES]);
}

/// `earliest` and `end.mark`: each of their slots that was written.
pub fn slots(bytes: &mut [u8]) {
    let slots = bytes.chunks_exact_mut(BLOCK_BYTES);
    slots.filter(|slot| slot.iter().any(|byte| *byte != 0)).for_each(whole);
}

/// Where bytes 12 to 16 are the checksum of all others.
fn whole(bytes: &mut [u8]) {
    let checksum = crc(crc32fast::hash(&bytes[..12]), &bytes[16..]);
    put(bytes, 12, checksum);
}

fn part(bytes: &mut [u8], start: u64, len: u64) -> Option<&mut [u8]> {
    bytes.get_mut(usize::try_from(start).ok()?..)?.get_mut(..usize::try_from(len).ok()?)
}

fn crc(seed: u32, bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new_with_initial(seed);
    hasher.update(bytes);
    hasher.finalize()
}

fn put(bytes: &mut [u8], at: usize, number: u32) {
    bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8 bytes"))
}
