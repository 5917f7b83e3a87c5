//! A data directory of every format version that was ever released opens for ever.
//!
//! `tests/golden/data-<n>/` are such directories, and are never changed. Each holds all that the files of its
//! time can say: a stub, a sealed segment, one that was rewritten (compressed, with events gone and a gap that a
//! repair left), one without an index, and a last one with a torn end. `data-<n>-closed` is the same log after it was
//! opened and closed: all sealed but the last segment, and the stub merged into a snapshot. `data-<n>-kept` is the first
//! with a segment that was rewritten when a limit of the log had reached into it. `data-<n>-marked` is the first with what
//! alone says how far limits had reached (`earliest`) and how far the log was synced (`end.mark`), and with an index that
//! was made anew of what a snapshot knew. What a log remembers beside its events is in `data-<n>-once` (`upgrade/once.rs`).
//! `STRANDLINE_BLESS=1` makes the newest again where they are missing: with a new version under a new number, beside
//! the old ones.

use std::{
    collections::BTreeMap,
    env, fs,
    path::{Path, PathBuf},
    process,
};

use crate::common::{frame_of, staged};
use strandline_storage::{
    buffer::DiskBuffer,
    clock::Now,
    config::{LogConfig, SyncMode},
    control::Control,
    error::ReadError,
    event::{DataForm, EventId, EventKey, EventType, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed, Trust, gap, kept},
    index::{IndexBuilder, SegmentEnd, stub},
    io::real::RealDisk,
    log::Log,
    offset::Offset,
    reader::{ReadQuery, Reader},
    recovery::OpenReport,
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentHeader, SegmentName, Tag,
    },
    selection::Order,
    settings::{LogRetention, LogSettings},
    topic::TopicPattern,
    verify::verify,
};

mod once;

/// The newest one.
const NEWEST: &str = "data-1";
const NEWEST_CLOSED: &str = "data-1-closed";
const NEWEST_KEPT: &str = "data-1-kept";
const NEWEST_MARKED: &str = "data-1-marked";
const LOG: &str = "default/main";
const END: u64 = 120;
/// Where the log begins, and where it begins in [`NEWEST_KEPT`] and in [`NEWEST_MARKED`].
const START: u64 = 30;
const START_KEPT: u64 = 40;
const START_MARKED: u64 = 110;
/// The events before it are gone from [`NEWEST_MARKED`]. The others are there though a limit has passed them.
const TAKEN_MARKED: u64 = 102;
/// [`NEWEST_MARKED`] has settings of the log behind the events.
const END_MARKED: u64 = END + 2;
/// Where its last segment begins.
const LAST_MARKED: u64 = END + 1;
/// What was made anew in it.
const REMADE: &str = "00000000000000000090.2.idx";
const NOW: Now = Now { wall_ms: 1_800_000_000_000, boot_ms: 1 };
const LATER: Now = Now { wall_ms: 1_800_000_010_000, boot_ms: 10_001 };

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The event with this offset, in all versions.
fn event(offset: u64) -> StagedEvent {
    let time_ms = 1_763_700_000_000 + offset * 1000;
    let (number, topic) = [(0, "a"), (1, "rooms/1/messages"), (2, "rooms/2/messages")]
        [usize::try_from(offset % 3).expect("small")];
    let mut staged =
        staged(offset, time_ms, number, topic, format!("{{\"n\":{offset}}}").as_bytes());
    match offset % 4 {
        1 => {
            staged.event.event_type = EventType::parse("note").expect("a type");
            staged.event.id = Some(EventId::parse(&format!("id-{offset}")).expect("an id"));
            staged.event.key = Some(EventKey::parse("key").expect("a key"));
        }
        2 => {
            staged.event.form = DataForm::Text;
            staged.event.content_type = "text/plain".into();
            staged.event.headers = vec![("trace".into(), offset.to_string().into())];
            staged.event.data = "x".repeat(3000).into();
        }
        3 => {
            staged.event.form = DataForm::Binary;
            staged.event.content_type = "application/octet-stream".into();
            staged.event.data = vec![0xff, 0].into();
        }
        _ => {}
    }
    staged
}

/// Whether compaction had taken it.
fn is_gone(offset: u64) -> bool {
    offset < 30 || ((60..80).contains(&offset) && offset.is_multiple_of(5))
}

#[test]
fn every_version_opens() {
    let mut versions = 0;
    for entry in fs::read_dir(golden("")).expect("the golden files") {
        let entry = entry.expect("a golden file");
        if entry.file_name().to_string_lossy().starts_with("data-") {
            versions += 1;
            match once::is_one(&entry.path()) {
                true => once::check(&entry.path()),
                false => check(&entry.path()),
            }
        }
    }
    assert!(versions > 0);
}

#[test]
fn the_newest_is_there() {
    if !golden(NEWEST).exists() && env::var_os("STRANDLINE_BLESS").is_some() {
        bless(NEWEST, Segment::new(30, 1).plain(60));
    }
    if !golden(NEWEST_KEPT).exists() && env::var_os("STRANDLINE_BLESS").is_some() {
        bless(NEWEST_KEPT, Segment::new(30, 2).kept(START_KEPT).compressed(60));
    }
    if !golden(NEWEST_CLOSED).exists() && env::var_os("STRANDLINE_BLESS").is_some() {
        bless_closed();
    }
    if !golden(NEWEST_MARKED).exists() && env::var_os("STRANDLINE_BLESS").is_some() {
        bless_marked();
    }
    assert!(golden(NEWEST).join("STRANDLINE").exists());
    assert!(golden(NEWEST_KEPT).join("STRANDLINE").exists());
    let names = fs::read_dir(golden(NEWEST_CLOSED).join(LOG)).expect("the closed one");
    let names: Vec<_> = names.map(|entry| entry.expect("a file").file_name()).collect();
    let has = |ending: &str| names.iter().any(|name| name.to_string_lossy().ends_with(ending));
    assert!(has(".snap") && has(".idx") && has(".log"), "{names:?}");
    let marked = |name: &str| fs::read(golden(NEWEST_MARKED).join(LOG).join(name)).expect(name);
    assert!(marked("earliest").starts_with(b"STRLNEAR"));
    assert!(marked("end.mark").starts_with(b"STRLNEND"));
    assert!(marked(REMADE).windows(8).any(|bytes| bytes == b"remade\0\0"));
}

/// Its end mark alone knows that the log went on.
#[test]
fn a_marked_version_misses_its_last_segment() {
    let copy = Copy::named(&golden(NEWEST_MARKED), "missing");
    let last = SegmentName::first_generation(Offset::new(LAST_MARKED)).log_file_name();
    fs::remove_file(copy.0.join(LOG).join(&last)).expect("its last segment");
    let refused = Log::open(RealDisk, &copy.0.join(LOG), LogConfig::default(), NOW).err();
    let refused = refused.expect("its last segment is missing").to_string();
    assert!(refused.contains(&last), "{refused}");
}

fn check(from: &Path) {
    // Where its first segment that is not gone begins, the events that are there, what it keeps; and where it ends.
    let (base, first, start, end) = match from {
        from if from.ends_with(NEWEST_KEPT) => (30, START_KEPT, START_KEPT, END),
        from if from.ends_with(NEWEST_MARKED) => (90, TAKEN_MARKED, START_MARKED, END_MARKED),
        _ => (30, START, START, END),
    };
    let copy = Copy::of(from);
    let dir = copy.0.join(LOG);
    let found = verify(&RealDisk, &dir, &mut |finding| panic!("{}: {finding}", from.display()));
    assert_eq!(found.expect("nobody uses it").end, Offset::new(end));
    let (mut log, report) = Log::open(RealDisk, &dir, LogConfig::default(), NOW).expect("it opens");
    assert_eq!((report.end, report.tag.as_str()), (Offset::new(end), "k3f9q"));
    assert_eq!(report.remade, []);
    assert_eq!(log.start(), Offset::new(start));
    let expected: Vec<u64> =
        (first..END).filter(|offset| !is_gone(*offset) && !(80..90).contains(offset)).collect();
    let gaps: Vec<_> = [(80, 90)].into_iter().filter(|(_, to)| *to > first).collect();
    assert_eq!(read(&log, &[], base), (expected.clone(), gaps.clone()));
    let of_topic = expected.iter().copied().filter(|offset| offset % 3 == 2).collect();
    assert_eq!(read(&log, &["rooms/2/*"], base), (of_topic, gaps));
    check_rules(from, &log);
    if from.ends_with(NEWEST) || from.ends_with(NEWEST_KEPT) {
        check_ids(from, first);
    }
    // And it goes on.
    let next = event(END).event;
    log.append(vec![next], NOW).expect("a log that is open");
    log.run_ops(NOW);
    assert_eq!(log.visible(), Offset::new(end + 1));
}

/// What is set for the log, and what that has let go: nothing but in [`NEWEST_MARKED`].
fn check_rules(from: &Path, log: &Log<RealDisk>) {
    let is_marked = from.ends_with(NEWEST_MARKED);
    let age_s = is_marked.then_some(age_s_marked());
    assert_eq!(log.rules().log().retain, LogRetention { age_s, ..LogRetention::default() });
    let keep_from = if is_marked { TAKEN_MARKED } else { 0 };
    assert_eq!(log.rules().keep_from(), Offset::new(keep_from));
    assert!(log.rules().topics().len() == 0 && log.rules().floors().is_empty());
}

/// Each id that is there is known a moment after the last event, though its event may be gone.
fn check_ids(from: &Path, first: u64) {
    let copy = Copy::named(from, "ids");
    let now = Now { wall_ms: event(END).time_ms, boot_ms: 1 };
    let opened = Log::open(RealDisk, &copy.0.join(LOG), LogConfig::default(), now);
    let (mut log, _) = opened.expect("it opens");
    for offset in (0..END).filter(|offset| event(*offset).event.id.is_some()) {
        // What was rewritten by hand says nothing of events that are gone.
        let is_lost = (START..first).contains(&offset) || (80..90).contains(&offset);
        if is_lost || (offset >= START && is_gone(offset)) {
            continue;
        }
        let retry = log.append(vec![event(offset).event], now).expect("a log that is open");
        assert_eq!((retry.first, retry.duplicates), (Offset::new(offset), 1));
    }
}

/// The offsets of the events of some topics, each checked to the byte, and the gaps.
fn read(log: &Log<RealDisk>, topics: &[&str], base: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
    let topics = topics.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect();
    let (from, end) = (Offset::ZERO, Offset::MAX);
    let query = ReadQuery { topics, from, end, order: Order::Ascending };
    let mut reader = Reader::new(log.segments().clone(), &query);
    let (mut offsets, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next_blocking() {
            Ok(None) => return (offsets, gaps),
            Ok(Some(hits)) => {
                // Behind them are settings.
                for view in hits.events().take_while(|view| view.offset() < Offset::new(END)) {
                    let offset = view.offset().get();
                    let StagedEvent { time_ms, event, .. } = event(offset);
                    assert_eq!((view.time_ms(), view.topic()), (time_ms, event.topic.as_str()));
                    assert_eq!((view.data(), view.form()), (&event.data[..], event.form));
                    assert_eq!(view.event_type(), event.event_type.as_str());
                    assert_eq!(view.id(), event.id.as_deref());
                    assert_eq!(view.key(), event.key.as_deref());
                    assert_eq!(view.headers().len(), event.headers.len());
                    offsets.push(offset);
                }
            }
            Err(ReadError::Gap { from, to, .. }) => gaps.push((from.get(), to.get())),
            Err(ReadError::Expired { earliest }) => assert_eq!(earliest, Offset::new(base)),
            Err(error) => panic!("{error}"),
        }
    }
}

/// A copy that may be changed, removed at the end.
struct Copy(PathBuf);

impl Copy {
    fn of(from: &Path) -> Copy {
        Copy::named(from, &from.file_name().expect("a name").to_string_lossy())
    }

    fn named(from: &Path, name: &str) -> Copy {
        let to = env::temp_dir().join(format!("strandline-upgrade-{}-{name}", process::id()));
        fs::create_dir_all(to.join(LOG)).expect("a temporary directory");
        for dir in ["", LOG] {
            for entry in fs::read_dir(from.join(dir)).expect("a golden directory") {
                let path = entry.expect("a file").path();
                if path.is_file() {
                    let name = path.file_name().expect("a name");
                    fs::copy(&path, to.join(dir).join(name)).expect("space");
                }
            }
        }
        Copy(to)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("it is ours");
    }
}

// ---------------------------------------------------------------------------------------------
// How the newest was made.

/// A segment in memory.
struct Segment {
    name: SegmentName,
    seed: Seed,
    bytes: Vec<u8>,
    index: IndexBuilder,
    end: SegmentEnd,
}

impl Segment {
    fn new(base: u64, generation: u32) -> Segment {
        let mut bits = *b"strandline tests";
        bits[..8].copy_from_slice(&base.to_le_bytes());
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: Offset::new(base),
            created_at_ms: 1_763_700_000_000,
            incarnation: Incarnation::new(bits),
            tag: Tag::parse("k3f9q").expect("a tag"),
            sync: SyncMode::Commit,
        };
        let seed = Seed::of(&header.incarnation);
        Segment {
            name: SegmentName { base_offset: header.base_offset, generation },
            seed,
            bytes: header.encode().to_vec(),
            index: IndexBuilder::new(&header),
            end: SegmentEnd {
                end_offset: header.base_offset,
                end_position: FIRST_FRAME_POSITION,
                end_checksum: seed.chain_start(),
            },
        }
    }

    fn meta(&self) -> FrameMeta {
        FrameMeta {
            base_offset: self.end.end_offset,
            commit_time_ms: 1_763_700_000_500,
            synced_offset: self.end.end_offset,
            previous_checksum: self.end.end_checksum,
            flags: FrameFlags::NONE,
        }
    }

    /// Frames of five events each up to `end`.
    fn plain(mut self, end: u64) -> Segment {
        while self.end.end_offset.get() < end {
            let base = self.end.end_offset.get();
            let events: Vec<_> = (base..end.min(base + 5)).map(event).collect();
            let frame = frame::encode(&self.meta(), &events, self.seed, DiskBuffer::default());
            self.push(&frame, frame.as_bytes());
        }
        self
    }

    /// One frame up to `end`, without what is gone.
    fn compressed(mut self, end: u64) -> Segment {
        let events: Vec<_> =
            (self.end.end_offset.get()..end).filter(|at| !is_gone(*at)).map(event).collect();
        let end = Offset::new(end);
        let (frame, stored) = frame::encode_compressed(&self.meta(), end, &events, self.seed);
        assert!(frame.header().flags.has(FrameFlags::COMPRESSED));
        self.push(&frame, stored.as_slice());
        self
    }

    /// Says that nothing before `from` is kept.
    fn kept(mut self, from: u64) -> Segment {
        let (base, checksum) = (self.end.end_offset, self.end.end_checksum);
        let (_, bytes) = kept::encode(base, Offset::new(from), 1, self.seed, checksum);
        let frame = Frame::parse(bytes.clone(), self.seed, Trust::Bytecheck).expect("a frame");
        self.push(&frame, bytes.as_slice());
        self
    }

    fn push(&mut self, frame: &Frame, stored: &[u8]) {
        let position = self.end.end_position;
        self.index.add(frame, position).expect("a frame of ours");
        self.bytes.extend_from_slice(stored);
        self.end = SegmentEnd {
            end_offset: frame.end_offset(),
            end_position: position.plus(frame.frame_bytes() as u64),
            end_checksum: frame.header().checksum,
        };
    }

    fn gap(mut self, end: u64) -> Segment {
        let (from, to, position) = (self.end.end_offset, Offset::new(end), self.end.end_position);
        let (header, bytes) = gap::encode(from, to, 1, "a test", self.seed, self.end.end_checksum);
        self.index.add_gap(from..to, position, bytes.len());
        self.bytes.extend_from_slice(bytes.as_slice());
        self.end = SegmentEnd {
            end_offset: to,
            end_position: position.plus(bytes.len() as u64),
            end_checksum: header.checksum,
        };
        self
    }

    fn index_bytes(&self) -> Vec<u8> {
        self.index.finish(&self.end)
    }
}

fn bless(version: &str, second: Segment) {
    let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    let retired = Segment::new(0, 1).plain(30);
    let stub =
        stub::make_stub(&retired.index_bytes(), &stub::StubLimits::default()).expect("an index");
    files.insert(retired.name.index_file_name(), stub);
    for sealed in [second, Segment::new(60, 2).compressed(80).gap(90)] {
        files.insert(sealed.name.index_file_name(), sealed.index_bytes());
        files.insert(sealed.name.log_file_name(), sealed.bytes);
    }
    let full = Segment::new(90, 1).plain(110);
    files.insert(full.name.log_file_name(), [full.bytes, vec![0; 8192]].concat());
    let mut last = Segment::new(110, 1).plain(END);
    // What says that all of it had been synced, and a frame of which a part is missing.
    let synced = frame::encode(&last.meta(), &[], last.seed, DiskBuffer::default());
    last.push(&synced, synced.as_bytes());
    let torn = frame_of(END, last.end.end_checksum, &[event(END)]);
    let bytes = [&last.bytes, &torn.as_bytes()[..200], &[0; 8192 - 200]].concat();
    files.insert(last.name.log_file_name(), bytes);

    let dir = golden(version).join(LOG);
    fs::create_dir_all(&dir).expect("a free name");
    fs::write(golden(version).join("STRANDLINE"), "strandline data 1\n").expect("space");
    for (name, bytes) in files {
        fs::write(dir.join(name), bytes).expect("space");
    }
}

/// The newest as it is after an hour with a server.
fn bless_closed() {
    let copy = Copy::named(&golden(NEWEST), "closing");
    let (mut log, _) = open_blessed(&copy, 1);
    log.run_ops(NOW);
    assert!(log.snapshot_totals().made > 0);
    close(log);
    bless_copy(&copy, NEWEST_CLOSED);
}

/// The newest when limits of the log had come to it, an index was made anew, and a segment was passed whose removal the
/// power went before.
fn bless_marked() {
    let copy = Copy::named(&golden(NEWEST), "marking");
    let retain = |log: &mut Log<RealDisk>, retain: LogRetention| {
        log.append_control(&Control::Log(LogSettings { retain }), NOW).expect("a log that is open");
        log.run_ops(NOW);
        // Limits are looked at again, and settings do not know what time it is.
        log.run_ops(LATER);
    };
    let (mut log, _) = open_blessed(&copy, 1);
    let count = Some(END + 1 - TAKEN_MARKED);
    retain(&mut log, LogRetention { count, ..LogRetention::default() });
    assert_eq!(log.start(), Offset::new(TAKEN_MARKED));
    close(log);
    let passed = [REMADE, "00000000000000000090.2.log"].map(|name| copy.0.join(LOG).join(name));
    fs::remove_file(&passed[0]).expect("the index of a rewritten segment");
    let (mut log, report) = open_blessed(&copy, usize::MAX);
    assert_eq!(report.remade.len(), 1);
    let contents = passed.each_ref().map(|path| fs::read(path).expect("a segment"));
    let age_s = Some(age_s_marked());
    retain(&mut log, LogRetention { age_s, ..LogRetention::default() });
    assert_eq!(log.start(), Offset::new(START_MARKED));
    close(log);
    for (path, content) in passed.iter().zip(contents) {
        fs::write(path, content).expect("space");
    }
    bless_copy(&copy, NEWEST_MARKED);
}

/// The age by which [`NEWEST_MARKED`] is limited.
fn age_s_marked() -> u64 {
    (LATER.wall_ms - event(START_MARKED).time_ms) / 1000
}

fn open_blessed(copy: &Copy, snapshot_segments: usize) -> (Log<RealDisk>, OpenReport) {
    let config = LogConfig {
        snapshot_segments,
        reserve_bytes: 0,
        preallocate_bytes_min: 8192,
        ..LogConfig::default()
    };
    Log::open(RealDisk, &copy.0.join(LOG), config, NOW).expect("it opens")
}

fn close(mut log: Log<RealDisk>) {
    log.begin_close();
    log.run_ops(NOW);
    assert!(log.is_closed());
}

fn bless_copy(copy: &Copy, version: &str) {
    let to = golden(version);
    fs::create_dir_all(to.join(LOG)).expect("a free name");
    for dir in ["", LOG] {
        for entry in fs::read_dir(copy.0.join(dir)).expect("the copy") {
            let path = entry.expect("a file").path();
            if path.is_file() {
                fs::copy(&path, to.join(dir).join(path.file_name().expect("a name")))
                    .expect("space");
            }
        }
    }
}
