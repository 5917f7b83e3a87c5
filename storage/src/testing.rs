//! Logs on a simulated disk for the tests of those who read: made frame by frame, or small ones that a [`Log`]
//! has written; and all that is in one.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use crate::{
    buffer::DiskBuffer,
    clock::Now,
    config::{LogConfig, SyncMode},
    error::ReadError,
    event::{DataForm, EventKind, EventType, EventView, NewEvent, StagedEvent},
    frame::{self, Frame, FrameFlags, FrameMeta, Seed},
    index::{IndexBuilder, SegmentEnd},
    io::{Access, Disk, DiskFile, sim::SimDisk},
    log::Log,
    offset::{Offset, Position},
    reader::{ReadQuery, Reader},
    segment::{
        FIRST_FRAME_POSITION, Incarnation, SEGMENT_VERSION, SegmentFile, SegmentHeader,
        SegmentName, Tag,
    },
    segment_set::{SealedSegment, SegmentSet},
    selection::Order,
    topic::{Topic, TopicNumber},
};

/// An event as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    pub offset: u64,
    pub time_ms: u64,
    pub topic: String,
    pub data: Vec<u8>,
}

/// A log that is written frame by frame, and all that is in it.
pub(crate) struct TestLog {
    pub disk: SimDisk,
    pub dir: PathBuf,
    pub events: Vec<Written>,
    /// The segments in offset order, and where the frames of each lie.
    pub segments: Vec<(SegmentName, Vec<FrameAt>)>,
    topics: HashMap<String, u32>,
    time_ms: u64,
    sealed: usize,
}

/// Where a frame was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FrameAt {
    pub position: u64,
    pub bytes: u64,
    pub base: u64,
    pub end: u64,
}

impl TestLog {
    pub fn new(seed: u64) -> Self {
        let disk = SimDisk::new(seed);
        let dir = PathBuf::from("/log");
        disk.create_dir(&dir).expect("an empty disk");
        TestLog {
            disk,
            dir,
            events: Vec::new(),
            segments: Vec::new(),
            topics: HashMap::new(),
            time_ms: 1_000,
            sealed: 0,
        }
    }

    /// The offset behind the last event.
    pub fn end(&self) -> Offset {
        Offset::new(self.events.len() as u64)
    }

    /// What comes next is written as by another log: topics are numbered anew, and time begins again.
    pub fn forget_topics_and_time(&mut self) {
        self.topics.clear();
        self.time_ms = 1_000;
    }

    /// Adds a segment with these frames of (topic, data), and its index. Time goes on by 10 ms with
    /// each event.
    pub fn add_sealed(&mut self, frames: &[Vec<(&str, Vec<u8>)>]) -> SegmentName {
        let (name, builder, end) = self.add_log(frames);
        self.write_index(name, &builder.finish(&end));
        self.sealed = self.segments.len();
        name
    }

    /// Adds a segment that has no index, followed by some zeroes.
    pub fn add_unsealed(&mut self, frames: &[Vec<(&str, Vec<u8>)>]) -> SegmentName {
        let (name, ..) = self.add_log(frames);
        let file = self.open(name, SegmentFile::Log);
        let size = file.size().expect("a file");
        file.set_size(size + 64 * 4096).expect("space");
        file.sync_data().expect("a disk that works");
        name
    }

    /// Adds the log of a segment; returns what its index is made of.
    pub fn add_log(
        &mut self,
        frames: &[Vec<(&str, Vec<u8>)>],
    ) -> (SegmentName, IndexBuilder, SegmentEnd) {
        let name = SegmentName::first_generation(self.end());
        let mut bits = [7; 16];
        bits[..8].copy_from_slice(&(self.segments.len() as u64).to_le_bytes());
        let header = SegmentHeader {
            version: SEGMENT_VERSION,
            base_offset: self.end(),
            created_at_ms: self.time_ms,
            incarnation: Incarnation::new(bits),
            tag: Tag::parse("test1").expect("a tag"),
            sync: SyncMode::Commit,
        };
        let seed = Seed::of(&header.incarnation);
        let mut builder = IndexBuilder::new(&header);
        let mut bytes = header.encode().to_vec();
        let mut end = SegmentEnd {
            end_offset: self.end(),
            end_position: FIRST_FRAME_POSITION,
            end_checksum: seed.chain_start(),
        };
        let mut places = Vec::new();
        for events in frames {
            let frame = self.frame(events, end.end_checksum, seed);
            builder.add(&frame, end.end_position).expect("a frame of ours");
            bytes.extend_from_slice(frame.as_bytes());
            places.push(FrameAt {
                position: end.end_position.get(),
                bytes: frame.frame_bytes() as u64,
                base: frame.base_offset().get(),
                end: frame.end_offset().get(),
            });
            end = SegmentEnd {
                end_offset: frame.end_offset(),
                end_position: end.end_position.plus(frame.frame_bytes() as u64),
                end_checksum: frame.header().checksum,
            };
        }
        self.write(&self.path(name, SegmentFile::Log), &bytes);
        self.segments.push((name, places));
        (name, builder, end)
    }

    fn frame(&mut self, events: &[(&str, Vec<u8>)], previous_checksum: u32, seed: Seed) -> Frame {
        let base_offset = self.end();
        let meta = FrameMeta {
            base_offset,
            commit_time_ms: self.time_ms,
            synced_offset: base_offset,
            previous_checksum,
            flags: FrameFlags::NONE,
        };
        let mut staged = Vec::new();
        for (topic, data) in events {
            let next = u32::try_from(self.topics.len()).expect("few topics");
            let number = *self.topics.entry((*topic).to_owned()).or_insert(next);
            self.time_ms += 10;
            staged.push(StagedEvent {
                offset: self.end(),
                time_ms: self.time_ms,
                topic_number: TopicNumber::new(number),
                event: event(topic, data),
            });
            self.events.push(Written {
                offset: self.events.len() as u64,
                time_ms: self.time_ms,
                topic: (*topic).to_owned(),
                data: data.clone(),
            });
        }
        frame::encode(&meta, &staged, seed, DiskBuffer::default())
    }

    /// Adds the beginning of a newer generation of a segment, and an index of it that is damaged at a position: what the
    /// older one says counts.
    pub fn add_cut_short(&self, segment: usize, damaged_at: u64) -> SegmentName {
        let (name, frames) = &self.segments[segment];
        let next = name.next_generation().expect("the second");
        let bytes = |file| self.disk.bytes(&self.path(*name, file)).expect("a file");
        let end = usize::try_from(frames[1].position).expect("small");
        self.write(&self.path(next, SegmentFile::Log), &bytes(SegmentFile::Log)[..end]);
        self.write_index(next, &bytes(SegmentFile::Index));
        let index = self.path(next, SegmentFile::Index);
        self.disk.flip_bit(&index, Position::new(damaged_at), 1);
        next
    }

    pub fn write_index(&self, name: SegmentName, bytes: &[u8]) {
        self.write(&self.path(name, SegmentFile::Index), bytes);
    }

    /// Writes a file anew, durably.
    pub fn write(&self, path: &Path, bytes: &[u8]) {
        let _ = self.disk.remove(path);
        let file = self.disk.create(path, Access::Write).expect("a free name");
        assert_eq!(file.write_at(bytes, Position::default()).expect("space"), bytes.len());
        file.sync_data().expect("a disk that works");
        self.disk.sync_dir(&self.dir).expect("a disk that works");
    }

    pub fn path(&self, name: SegmentName, file: SegmentFile) -> PathBuf {
        self.dir.join(name.file_name(file))
    }

    pub fn open(&self, name: SegmentName, file: SegmentFile) -> impl DiskFile {
        self.disk.open(&self.path(name, file), Access::Write).expect("the file is there")
    }

    /// The sealed segments.
    pub fn set(&self) -> Arc<SegmentSet<SimDisk>> {
        let open = |(name, _): &(SegmentName, Vec<FrameAt>)| {
            SealedSegment::open(&self.disk, &self.dir, *name).expect("a sealed segment")
        };
        Arc::new(SegmentSet::new(self.segments[..self.sealed].iter().map(open)))
    }
}

/// An event of a topic, with JSON or any other data.
pub(crate) fn event(topic: &str, data: &[u8]) -> NewEvent {
    NewEvent {
        topic: Topic::parse_reserved(topic).expect("a topic"),
        event_type: EventType::message(),
        id: None,
        key: None,
        headers: Vec::new(),
        content_type: "".into(),
        form: DataForm::Binary,
        kind: EventKind::Data,
        data: Bytes::copy_from_slice(data),
    }
}

pub(crate) fn now() -> Now {
    Now { wall_ms: 1_700_000_000_000, boot_ms: 1 }
}

/// Segments of 128 KiB, so that a few events fill some.
pub(crate) fn small_segments() -> LogConfig {
    LogConfig {
        segment_bytes: 128 << 10,
        preallocate_bytes_min: 16 << 10,
        preallocate_bytes_max: 32 << 10,
        ..LogConfig::default()
    }
}

/// Appends events of topic `a`, each in a frame of its own and its offset its data.
pub(crate) fn append_numbers(log: &mut Log<SimDisk>, count: usize) {
    for _ in 0..count {
        let topic = Topic::parse("a").expect("a topic");
        let data = Bytes::from(log.next().to_string().into_bytes());
        log.append(vec![NewEvent::json(topic, data)], now()).expect("staged");
        log.run_ops(now());
    }
}

/// What finds every event, in order.
pub(crate) fn everything() -> ReadQuery {
    let (from, end) = (Offset::ZERO, Offset::MAX);
    ReadQuery { topics: Vec::new(), from, end, order: Order::Ascending }
}

/// Reads what a query finds: what `get` makes of each event, and from where to where nothing can be read.
pub(crate) fn read_all<T>(
    set: &Arc<SegmentSet<SimDisk>>,
    query: &ReadQuery,
    get: impl Fn(EventView<'_>) -> T,
) -> (Vec<T>, Vec<(u64, u64)>) {
    let mut reader = Reader::new(set.clone(), query);
    let (mut events, mut gaps) = (Vec::new(), Vec::new());
    loop {
        match reader.next_blocking() {
            Ok(None) => return (events, gaps),
            Ok(Some(hits)) => events.extend(hits.events().map(&get)),
            Err(ReadError::Gap { from, to, .. }) => gaps.push((from.get(), to.get())),
            Err(error) => panic!("{error}"),
        }
    }
}
