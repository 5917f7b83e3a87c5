//! Writes of several frames, over zeroes and into blocks alone, of which a crash leaves whatever sectors it likes.

use std::{path::Path, sync::Arc};

use bytes::Bytes;
use strandline_storage::{
    buffer::DiskBuffer,
    config::LogConfig,
    error::OpenError,
    event::NewEvent,
    frame::{FrameHeader, Seed},
    io::{
        Access, Disk, DiskFile,
        sim::{SimDisk, rng::SimRng},
    },
    offset::{Offset, Position},
    segment::{SEGMENT_HEADER_BYTES, SegmentHeader},
    topic::Topic,
};

use crate::{
    Script, disk, files, from_environment,
    simulation::{BEGIN, DIR, Pending, Process, is_row, model::Model, to_usize},
};

const SECTOR_BYTES: usize = 512;

/// With so many that wait the second of two writes still has three frames.
const APPENDS: usize = 14;

/// Each batch has a frame of its own, and as many of them as wait go into two writes.
fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 512 << 10,
        frame_bytes_target: 1,
        writes_in_flight_max: 2,
        preallocate_bytes_min: 32 << 10,
        preallocate_bytes_max: 64 << 10,
        compress_after_s: 1_000_000,
        ..crate::config()
    }
}

fn open(disk: &SimDisk, model: &mut Model) -> Process {
    Process::open(disk, config(), BEGIN, model).expect("nothing is wrong with this log")
}

/// Appends an event that nearly fills a frame of one block.
fn append_long(process: &mut Process, rng: &mut SimRng, model: &mut Model) {
    let len = to_usize(Offset::new(rng.between(2_400, 2_800)));
    let topic = *rng.pick(&["a", "b", "rooms/1"]);
    let topic = Topic::parse(topic).expect("a topic");
    let event = NewEvent::json(topic, Bytes::from(rng.bytes(len)));
    process.append_batch(vec![event], model, BEGIN);
}

#[test]
fn a_crash_at_every_operation_leaves_no_write_of_several_frames_in_part_that_counts() {
    let append = |process: &mut Process, rng: &mut SimRng, model: &mut Model, now| {
        (0..APPENDS).for_each(|_| append_long(process, rng, model));
        process.append(rng, model, now);
    };
    // One life that is longer, since there are zeroes at first. They are in the way, and so there are blocks then.
    let config = LogConfig { compress_after_s: 0, ..config() };
    let script = Script { config, lives: 1, rounds: 13, zeroes_ms: 5, append, ..Script::usual() };
    let (tally, _) = script.crash_at_every_operation();
    // Half of what was met when this was written.
    assert!(tally.rows_cut > 140 && tally.rows_cut_in_blocks > 40, "{tally:?}");
}

/// A write that was under way when its process was killed.
struct Torn {
    disk: SimDisk,
    /// Behind what was safe.
    begin: u64,
    buffer: Arc<DiskBuffer>,
    /// Where in the buffer each frame begins, and the offset behind its events.
    frames: Vec<(usize, u64)>,
}

impl Torn {
    /// The `index`-th of the writes that are under way.
    fn of(process: &Process, index: usize) -> Torn {
        let begin = process.log.synced().get();
        let disk = process.disk.fork(begin).kill();
        let (buffer, ..) = disk.late_write(index);
        let header = disk.bytes(&active_file(&disk)).expect("it is listed");
        let header = SegmentHeader::decode(&header[..SEGMENT_HEADER_BYTES]).expect("a header");
        let seed = Seed::of(&header.incarnation);
        let (mut frames, mut start) = (Vec::new(), 0);
        while start < buffer.len() {
            let frame = FrameHeader::decode(&buffer.as_slice()[start..], seed).expect("a frame");
            frames.push((start, frame.end_offset.get()));
            start += frame.frame_bytes();
        }
        Torn { disk, begin, buffer, frames }
    }

    fn sectors(&self) -> usize {
        self.buffer.len() / SECTOR_BYTES
    }

    /// The offset behind its last frame.
    fn end(&self) -> u64 {
        self.frames.last().expect("it has frames").1
    }

    /// Where the frame ends that begins `index`-th.
    fn end_of(&self, index: usize) -> usize {
        self.frames.get(index + 1).map_or(self.buffer.len(), |(start, _)| *start)
    }

    /// The offset behind the last frame before the first that is not whole when these sectors have landed. Zeroes
    /// stood there before.
    fn expected_end(&self, taken: &[bool]) -> u64 {
        let mut end = self.begin;
        for (index, (start, offset)) in self.frames.iter().enumerate() {
            let bytes = &self.buffer.as_slice()[*start..self.end_of(index)];
            let taken = &taken[start / SECTOR_BYTES..];
            let is_there =
                |(sector, taken): (&[u8], &bool)| *taken || sector.iter().all(|byte| *byte == 0);
            if !bytes.chunks(SECTOR_BYTES).zip(taken).all(is_there) {
                break;
            }
            end = *offset;
        }
        end
    }
}

/// The segment that frames are written to.
fn active_file(disk: &SimDisk) -> std::path::PathBuf {
    let mut names = disk.list(DIR.as_ref()).expect("the log's directory");
    names.retain(|name| name.ends_with(".log"));
    names.sort();
    Path::new(DIR).join(names.last().expect("there is always one"))
}

/// A log with two writes of three frames or more under way, the first of them in blocks alone or in zeroes.
fn with_rows_under_way(seed: u64, into_blocks: bool) -> (Process, SimRng, Model) {
    let mut rng = SimRng::new(seed);
    let mut model = Model::default();
    let disk = disk(seed);
    disk.refuse_allocation(!into_blocks);
    let mut process = open(&disk, &mut model);
    for _ in 0..100 {
        for _ in 0..APPENDS {
            append_long(&mut process, &mut rng, &mut model);
        }
        process.start_ops(&mut model, BEGIN);
        let killed = process.disk.fork(seed).kill();
        let writes: Vec<_> =
            (0..killed.late_writes()).map(|index| killed.late_write(index)).collect();
        let is_right = matches!(&writes[..], [(first, _, is_first_into_blocks), (second, ..)]
            if is_row(first.as_slice()) && is_row(second.as_slice())
                && *is_first_into_blocks == into_blocks);
        if is_right {
            return (process, rng, model);
        }
        process.settle(&mut rng, &mut model, BEGIN);
    }
    panic!("there are no such writes");
}

/// The sectors of a write that reach the device: each beginning of it, all but each one, each one alone, and others.
fn tearings(sectors: usize, rng: &mut SimRng) -> Vec<Vec<bool>> {
    let mut all: Vec<Vec<bool>> = Vec::new();
    for at in 0..sectors {
        all.push((0..sectors).map(|sector| sector < at).collect());
        all.push((0..sectors).map(|sector| sector != at).collect());
        all.push((0..sectors).map(|sector| sector == at).collect());
    }
    all.push(vec![true; sectors]);
    for percent in [20, 50, 80, 95] {
        all.extend((0..10).map(|_| (0..sectors).map(|_| rng.chance(percent)).collect()));
    }
    all
}

/// The log ends exactly behind the last frame before the first that is not whole, also where the write behind it landed.
#[test]
fn of_a_torn_write_the_frames_before_the_first_torn_one_are_left() {
    for (seed, into_blocks) in [(1, false), (2, true), (3, false), (4, true)] {
        let (process, mut rng, model) = with_rows_under_way(seed, into_blocks);
        let [first, second] = [0, 1].map(|index| Torn::of(&process, index));
        let (mut between, mut both) = (0, 0);
        for taken in tearings(first.sectors(), &mut rng) {
            for second_landed in [false, true] {
                let (disk, mut model) = (first.disk.fork(seed), model.clone());
                if second_landed {
                    disk.land_late(1);
                }
                disk.land_late_sectors(0, |sector| taken[sector]);
                let first_end = first.end();
                let mut expected = first.expected_end(&taken);
                let is_whole = expected == first_end;
                if is_whole && second_landed {
                    expected = second.end();
                    both += 1;
                }
                between += u64::from(expected > first.begin && expected < first_end);
                while disk.late_writes() > 0 {
                    disk.drop_late(0);
                }
                let mut process = open(&disk.power_cut(), &mut model);
                assert_eq!(process.log.visible().get(), expected, "seed {seed}, {taken:?}");
                append_long(&mut process, &mut rng, &mut model);
                process.settle(&mut rng, &mut model, BEGIN);
                let process = open(&process.disk.power_cut(), &mut model);
                assert_eq!(process.log.visible().get(), expected + 1, "seed {seed}, {taken:?}");
                process.check_reads(&mut rng, &model);
            }
        }
        assert!(between > 20 && both > 0, "{between} in the middle, {both} whole");
    }
}

/// A disk that loses what it has confirmed leaves the same hole as a crash leaves of a write that was under way. Only
/// what was written later tells them apart: the third write, which began once the first of two was confirmed, says that
/// this one was synced. Where it landed, nothing is cut, whatever became of the second.
#[test]
fn a_hole_in_a_write_that_a_later_one_says_was_synced_is_not_cut() {
    for (seed, into_blocks) in [(1, false), (2, true)] {
        let (mut process, mut rng, mut model) = with_rows_under_way(seed, into_blocks);
        let first = Torn::of(&process, 0);
        let (first_end, position) = (first.end(), first.disk.late_write(0).1);
        complete_write(&mut process, 0, &mut model);
        assert_eq!(process.log.synced().get(), first_end, "the disk has confirmed it");
        (0..3).for_each(|_| append_long(&mut process, &mut rng, &mut model));
        process.start_ops(&mut model, BEGIN);
        let third_end = Torn::of(&process, 1).end();
        complete_write(&mut process, 1, &mut model);
        assert_eq!(process.log.synced().get(), first_end, "the second is still under way");

        let path = active_file(&process.disk);
        let disk = process.disk.kill();
        let (mut whole, mut refused) = (0, 0);
        for taken in tearings(first.sectors(), &mut rng) {
            for second_landed in [false, true] {
                let (disk, mut model) = (disk.fork(seed), model.clone());
                match second_landed {
                    true => disk.land_late(0),
                    false => disk.drop_late(0),
                }
                lose_sectors(&disk, &path, position, |sector| !taken[sector], taken.len());
                let disk = disk.power_cut();
                let before = files(&disk);
                let cut = first.expected_end(&taken);
                let context = format!("seed {seed}, {second_landed}, {taken:?}");
                match Process::open(&disk, config(), BEGIN, &mut model) {
                    Ok(process) => {
                        assert_eq!(cut, first_end, "cut in silence; {context}");
                        let end = if second_landed { third_end } else { first_end };
                        assert_eq!(process.log.visible().get(), end, "{context}");
                        process.check_reads(&mut rng, &model);
                        whole += 1;
                    }
                    Err(OpenError::Corrupt(corruption)) => {
                        assert!(cut < first_end, "{corruption:?}; {context}");
                        let torn = first.frames.iter().position(|(_, end)| *end > cut);
                        let start = first.frames[torn.expect("it is cut before the end")].0 as u64;
                        let place = (&corruption.file, corruption.position);
                        assert_eq!(place, (&path, position.plus(start)), "{context}");
                        assert!(files(&disk) == before, "nothing is changed; {context}");
                        refused += 1;
                    }
                    Err(error) => panic!("{error}; {context}"),
                }
            }
        }
        assert!(whole > 0 && refused > 100, "{whole} whole, {refused} refused");
    }
}

/// Completes the `nth`-oldest of the writes under way.
fn complete_write(process: &mut Process, nth: usize, model: &mut Model) {
    let id_of = |(index, pending): (usize, &Pending)| match pending {
        Pending::Write { id, .. } => Some((*id, index)),
        _ => None,
    };
    let mut writes: Vec<_> = process.pending.iter().enumerate().filter_map(id_of).collect();
    writes.sort_unstable();
    process.complete(writes[nth].1, model, BEGIN);
}

/// The device does not have these sectors of what was written here, of so many, but zeroes as before.
fn lose_sectors(
    disk: &SimDisk,
    path: &Path,
    position: Position,
    is_lost: impl Fn(usize) -> bool,
    sectors: usize,
) {
    let file = disk.open(path, Access::Write).expect("it is listed");
    for sector in (0..sectors).filter(|sector| is_lost(*sector)) {
        let start = position.plus((sector * SECTOR_BYTES) as u64);
        file.write_all_at(&[0; SECTOR_BYTES], start).expect("it has space there");
    }
    file.sync_data().expect("nothing is wrong");
}

/// How the frame is torn before one that landed whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hole {
    Nothing,
    HeaderAlone,
    NoHeader,
    LastSectorMissing,
}

const HOLES: [Hole; 4] =
    [Hole::Nothing, Hole::HeaderAlone, Hole::NoHeader, Hole::LastSectorMissing];

/// What lies whole behind a torn frame is never taken, also when new events end exactly where it begins; neither where
/// it lies, nor where it turns up at the end of the new segment, as a block of an older file may, nor when all of the
/// write lands late. The torn frame may be the first of its segment, whose name the new one takes then.
#[test]
fn a_whole_frame_behind_a_torn_one_never_comes_back() {
    for seed in 0..from_environment("STRANDLINE_RUNS").unwrap_or(5) {
        for hole in HOLES {
            for (torn, into_blocks) in [(0, false), (1, false), (1, true)] {
                let (process, mut rng, mut model) = match torn {
                    0 => at_the_beginning(seed),
                    _ => with_rows_under_way(seed, into_blocks),
                };
                let write = Torn::of(&process, 0);
                let context = format!("seed {seed}, {hole:?} of frame {torn}, {into_blocks}");
                behind_a_hole(&write, torn, hole, &mut rng, &mut model, &context);
            }
        }
    }
}

/// The same, the first frame of the segment being the first of the write.
fn at_the_beginning(seed: u64) -> (Process, SimRng, Model) {
    let (mut rng, mut model) = (SimRng::new(seed), Model::default());
    let mut process = open(&disk(seed), &mut model);
    for _ in 0..APPENDS {
        append_long(&mut process, &mut rng, &mut model);
    }
    process.start_ops(&mut model, BEGIN);
    (process, rng, model)
}

fn behind_a_hole(
    write: &Torn,
    torn: usize,
    hole: Hole,
    rng: &mut SimRng,
    model: &mut Model,
    context: &str,
) {
    let Torn { disk, buffer, frames, .. } = write;
    let (old_path, (_, position, _)) = (active_file(disk), disk.late_write(0));
    let disk = disk.fork(rng.next_u64());
    let (hole_start, hole_end) = (frames[torn].0, write.end_of(torn));
    let (third_start, third_end) = (frames[torn + 1].0, write.end_of(torn + 1));
    let content_end = buffer.as_slice()[..hole_end].iter().rposition(|byte| *byte != 0);
    let last_sector = content_end.expect("it is not empty") / SECTOR_BYTES;
    let taken = |sector: usize| {
        let at = sector * SECTOR_BYTES;
        let is_torn = (hole_start..hole_end).contains(&at);
        let survives = match hole {
            Hole::Nothing => false,
            Hole::HeaderAlone => at == hole_start,
            Hole::NoHeader => at != hole_start,
            Hole::LastSectorMissing => sector != last_sector,
        };
        at < third_end && (!is_torn || survives)
    };
    disk.land_late_sectors(0, taken);
    while disk.late_writes() > 0 {
        disk.drop_late(0);
    }
    let expected = torn.checked_sub(1).map_or(write.begin, |before| frames[before].1);
    let third = frames[torn].1;
    assert_eq!(third, expected + 1, "each frame has one event");
    let mut process = open(&disk.power_cut(), model);
    assert_eq!(process.log.visible().get(), expected, "{context}");

    append_long(&mut process, rng, model);
    process.settle(rng, model, BEGIN);
    assert_eq!(process.log.visible().get(), third, "it ends where the third began; {context}");
    process.check_reads(rng, model);
    let (new_path, disk) = (active_file(&process.disk), process.disk.fork(rng.next_u64()).kill());
    let mut cut = model.clone();
    let process = open(&disk.fork(rng.next_u64()).power_cut(), &mut cut);
    assert_eq!(process.log.visible().get(), third, "{context}");
    process.check_reads(rng, &cut);

    // The block of the third frame turns up where the next one of the new segment would be.
    let mut planted = model.clone();
    let after = disk.fork(rng.next_u64());
    let new_file = after.open(&new_path, Access::Write).expect("it was listed");
    let bytes = after.bytes(&new_path).expect("it was listed");
    let end = bytes.rchunks(4096).position(|block| block.iter().any(|byte| *byte != 0));
    let end = bytes.len() - 4096 * end.expect("it is not empty");
    let third_bytes = &buffer.as_slice()[third_start..third_end];
    new_file.write_all_at(third_bytes, Position::new(end as u64)).expect("space");
    new_file.sync_data().expect("nothing is wrong");
    let process = open(&after.power_cut(), &mut planted);
    assert_eq!(process.log.visible().get(), third, "{context}");
    process.check_reads(rng, &planted);

    // All of the write lands late, where the first process had given it to the disk.
    if old_path != new_path {
        let after = disk.fork(rng.next_u64());
        let old_file = after.open(&old_path, Access::Write).expect("frames are in it");
        old_file.write_all_at(buffer.as_slice(), position).expect("space");
        old_file.sync_data().expect("nothing is wrong");
        let process = open(&after.power_cut(), model);
        assert_eq!(process.log.visible().get(), third, "{context}");
        process.check_reads(rng, model);
    }
}
