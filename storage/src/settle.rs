//! Which deletions and trims are done with: no segment holds anything of the topic that they took, so
//! nobody has to be kept from reading it.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::{
    index::IndexError,
    io::{Disk, DiskFile},
    offset::Offset,
    rules::Floors,
    segment_set::{SealedSegment, SegmentSet},
};

/// So many blocks of topics are read at once.
const BLOCKS_PER_READ: usize = 16;

/// The floors below which no segment of a log holds an event of their topic, all below them being
/// sealed. Reads of each index the blocks that may name such a topic; blocks.
pub(crate) fn settled<D: Disk>(
    segments: &SegmentSet<D>,
    floors: &Floors,
    is_cancelled: &AtomicBool,
) -> Vec<(String, Offset)> {
    let sealed = floors.iter().filter(|(_, floor)| *floor <= segments.end());
    let mut left: Vec<(&str, Offset)> = sealed.collect();
    left.sort_unstable();
    for segment in segments.iter() {
        if left.is_empty() || is_cancelled.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let mut held = held(segment, &left).into_iter();
        left.retain(|_| !held.next().expect("one for each"));
    }
    left.into_iter().map(|(topic, floor)| (topic.to_owned(), floor)).collect()
}

/// Of each topic, whether a segment may hold events of it below its floor. The topics are in order. A block that cannot
/// be read may name all that it would have been asked for: none that the filter excludes, which reads go by as well.
fn held<D: Disk>(segment: &SealedSegment<D>, wanted: &[(&str, Offset)]) -> Vec<bool> {
    let index = segment.index();
    let mut held = vec![false; wanted.len()];
    let mut blocks: Vec<(usize, usize)> = Vec::new();
    for (at, (topic, floor)) in wanted.iter().enumerate() {
        if *floor > segment.base() && index.may_contain(topic) {
            let guess = blocks.last().map_or(0, |(block, _)| *block);
            blocks.extend(index.topic_block(topic, guess).map(|block| (block, at)));
        }
    }
    let mut rest = blocks.as_slice();
    while let Some((first, _)) = rest.first() {
        let mut end = first + 1;
        let count = rest.partition_point(|(block, _)| {
            let joins = *block <= end && block - first < BLOCKS_PER_READ;
            end = if joins { end.max(block + 1) } else { end };
            joins
        });
        let (run, behind) = rest.split_at(count);
        rest = behind;
        if look(segment, wanted, run, &mut held).is_ok() {
            continue;
        }
        for of_one in run.chunk_by(|(one, _), (other, _)| one == other) {
            if look(segment, wanted, of_one, &mut held).is_err() {
                of_one.iter().for_each(|(_, at)| held[*at] = true);
            }
        }
    }
    held
}

/// A block of the index of a segment cannot be read.
struct Unreadable;

impl From<IndexError> for Unreadable {
    fn from(_: IndexError) -> Self {
        Unreadable
    }
}

/// Says of each topic of a run of blocks whether the segment holds events of it below its floor.
fn look<D: Disk>(
    segment: &SealedSegment<D>,
    wanted: &[(&str, Offset)],
    run: &[(usize, usize)],
    held: &mut [bool],
) -> Result<(), Unreadable> {
    let (Some((first, _)), Some((last, _))) = (run.first(), run.last()) else { return Ok(()) };
    let range = *first..last + 1;
    let index = segment.index();
    let (position, len) = index.topic_blocks_place(&range);
    let mut bytes = vec![0; len];
    segment.index_file().read_exact_at(&mut bytes, position).map_err(|_| Unreadable)?;
    let mut entries = index.read_topics(&bytes, range)?;
    let mut run = run.iter().peekable();
    while let Some(entry) = entries.next_entry()? {
        while run.next_if(|(_, at)| wanted[*at].0 < entry.name).is_some() {}
        let Some((_, at)) = run.peek() else { break };
        let (topic, floor) = wanted[*at];
        held[*at] = topic == entry.name && entry.summary.first_offset < floor;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        io::sim::SimDisk,
        segment::{SegmentFile, SegmentName},
        testing::TestLog,
    };

    #[test]
    fn a_floor_is_settled_once_no_segment_has_anything_below_it() {
        let mut log = TestLog::new(1);
        let names: Vec<String> = (0..900).map(|number| format!("runs/{number:04}")).collect();
        fn frame(names: &[String]) -> Vec<(&str, Vec<u8>)> {
            names.iter().map(|name| (name.as_str(), vec![1])).collect()
        }
        log.add_sealed(&[frame(&names[..300]), frame(&names[300..600])]);
        log.add_sealed(&[frame(&names[600..])]);
        let set = log.set();
        let mut floors = Floors::default();
        floors.raise("runs/0007", Offset::new(7), Offset::new(7)); // Its event is the first that is kept.
        floors.raise("runs/0008", Offset::new(9), Offset::new(9)); // Its event lies below.
        floors.raise("runs/0599", Offset::new(900), Offset::new(900));
        floors.raise("runs/0700", Offset::new(600), Offset::new(600)); // Nothing of it in the first segment.
        floors.raise("runs/0701", Offset::new(900), Offset::new(900));
        floors.raise("gone", Offset::new(600), Offset::new(600));
        floors.raise("zzz", Offset::new(900), Offset::new(900));
        floors.raise("not/sealed", Offset::new(901), Offset::new(901));
        let settled = settled(&set, &floors, &AtomicBool::new(false));
        let settled: Vec<&str> = settled.iter().map(|(topic, _)| topic.as_str()).collect();
        assert_eq!(settled, ["gone", "runs/0007", "runs/0700", "zzz"]);
    }

    /// What the filter excludes was kept with it, and each deletion in a log that begins with a damaged segment.
    #[test]
    fn behind_an_index_that_cannot_be_read_that_alone_is_settled_which_its_filter_excludes() {
        let mut log = TestLog::new(1);
        log.add_sealed(&[vec![("a", vec![1]), ("b", vec![1])]]);
        let name = log.add_sealed(&[vec![("a", vec![1]), ("e", vec![1])]]);
        let set = log.set();
        damage(&log, name, set.iter().nth(1).expect("two"), 0);
        let mut floors = Floors::default();
        floors.raise("c", Offset::new(2), Offset::new(2)); // Which it cannot hold.
        floors.raise("d", Offset::new(4), Offset::new(4)); // Nor this.
        floors.raise("e", Offset::new(4), Offset::new(4));
        let is_cancelled = AtomicBool::new(false);
        let both = [("c".to_owned(), Offset::new(2)), ("d".to_owned(), Offset::new(4))];
        assert_eq!(settled(&set, &floors, &is_cancelled), both);
        floors.forget("e", Offset::new(4));
        assert_eq!(settled(&set, &floors, &is_cancelled), both, "the filter alone was asked");
        is_cancelled.store(true, Ordering::Relaxed);
        assert_eq!(settled(&set, &floors, &is_cancelled).len(), 0);
    }

    #[test]
    fn a_block_that_cannot_be_read_keeps_the_floors_of_its_own_topics() {
        let mut log = TestLog::new(1);
        let names: Vec<String> = (0..900).map(|number| format!("runs/{number:04}")).collect();
        let name = log.add_sealed(&[names.iter().map(|name| (name.as_str(), vec![1])).collect()]);
        let set = log.set();
        let segment = set.iter().next().expect("one");
        assert!(segment.index().topic_block_count() > 3);
        damage(&log, name, segment, 2);
        let mut floors = Floors::default();
        // Nothing lies below any of them.
        for (topic, offset) in names.iter().zip(1..) {
            floors.raise(topic, Offset::new(offset - 1), Offset::new(900));
        }
        let settled = settled(&set, &floors, &AtomicBool::new(false));
        let settled: Vec<&str> = settled.iter().map(|(topic, _)| topic.as_str()).collect();
        let is_sound = |topic: &&str| segment.index().topic_block(topic, 0) != Some(2);
        let sound: Vec<&str> = names[1..].iter().map(String::as_str).filter(is_sound).collect();
        assert_eq!(settled, sound);
        assert!(sound.len() < 899, "some topics are in that block");
    }

    /// A block of the topics of a segment becomes something else.
    fn damage(log: &TestLog, name: SegmentName, segment: &SealedSegment<SimDisk>, block: usize) {
        let file = log.open(name, SegmentFile::Index);
        let (place, _) = segment.index().topic_blocks_place(&(block..block + 1));
        file.write_at(&[0xff; 64], place).expect("space");
        file.sync_data().expect("a disk that works");
    }
}
