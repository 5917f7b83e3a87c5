//! Reads a log that no server has open, without changing anything: also one that was killed, whose
//! last segments have no index yet.

use std::{
    ops::ControlFlow,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    end_mark::{self, END_MARK_FILE_NAME},
    error::{Corruption, OpenError, ReadError},
    frame::Seed,
    index::IndexHeader,
    io::{Access, Disk, DiskFile},
    listing,
    offset::{Offset, Position},
    reader::{Hits, ReadQuery, Reader},
    scan::{self, FrameScan},
    segment::{SEGMENT_HEADER_BYTES, SegmentHeader, SegmentName},
    segment_set::{SealedSegment, SegmentSet},
    selection::{Order, Selection},
    snapshot::{self, read},
    verify::lock_shared,
};

/// A log in a directory, locked against being opened by a server.
pub struct StoppedLog<D: Disk> {
    disk: D,
    dir: PathBuf,
    /// In offset order, and whether each has an index.
    segments: Vec<(SegmentName, bool)>,
    /// The last of them, if the end mark alone knows of it.
    missing: Option<SegmentName>,
    /// Nothing before it is kept.
    begin: Offset,
    /// Everything below was synced: a snapshot says so, or the end mark.
    synced: Offset,
    /// The file that says so.
    says: PathBuf,
    _lock: D::Lock,
}

/// Whoever takes what is read says whether to go on.
pub type Taker<'a> = &'a mut dyn FnMut(Result<Hits, ReadError>) -> ControlFlow<()>;

impl<D: Disk> StoppedLog<D> {
    /// Locks the log in `dir`; others may read it too.
    pub fn open(disk: &D, dir: &Path) -> Result<Self, OpenError> {
        let lock = lock_shared(disk, dir)?;
        let names = disk.list(dir).map_err(OpenError::io("listing", dir))?;
        let snapshots = read::offsets(&names);
        let begin = read::begin(disk, dir, &snapshots)?;
        let segments = listing::readable_from(disk, dir, &names, begin)?;
        let mut segments: Vec<_> =
            segments.iter().map(|listed| (listed.name, listed.has_index)).collect();
        let mark = end_mark::read_sound(disk, dir)?;
        let last_base = segments.last().map(|(name, _)| name.base_offset);
        let missing = end_mark::missing(mark, last_base).map(|(name, _)| name);
        segments.extend(missing.map(|name| (name, false)));
        let newest = snapshots.first().copied().unwrap_or_default();
        let (synced, says) = match mark {
            Some(mark) if mark.synced >= newest => (mark.synced, dir.join(END_MARK_FILE_NAME)),
            _ => (newest, dir.join(snapshot::file_name(newest))),
        };
        let (disk, dir) = (disk.clone(), dir.to_owned());
        Ok(StoppedLog { disk, dir, segments, missing, begin, synced, says, _lock: lock })
    }

    /// Where what is kept begins: of what was before it nothing is left, on purpose.
    pub fn kept_from(&self) -> Result<Offset, OpenError> {
        let mut begin = self.begin;
        for (name, has_index) in &self.segments {
            match self.stub_end(*name, *has_index)? {
                Some(end) if name.base_offset == begin => begin = end,
                _ => break,
            }
        }
        Ok(begin)
    }

    /// Hands over what the log holds of a query, oldest first whatever its order says, and each gap
    /// where it lies. A torn tail that nothing shows to have been synced is not there.
    ///
    /// Fails if a file was written by a newer version.
    pub fn read(&self, query: &ReadQuery, take: Taker<'_>) -> Result<(), OpenError> {
        let mut query = ReadQuery { order: Order::Ascending, ..query.clone() };
        let mut end = self.begin;
        for (index, (name, has_index)) in self.segments.iter().enumerate() {
            let successor = self.segments.get(index + 1).map(|(next, _)| next.base_offset);
            let base = name.base_offset;
            if base > end && query.from < base && query.end > end {
                let what = "the segments before this one are missing";
                if take(Err(self.gap(*name, end.max(query.from)..base, what))).is_break() {
                    return Ok(());
                }
            }
            query.from = query.from.max(base);
            if query.from >= query.end {
                return Ok(());
            }
            if self.missing == Some(*name) {
                end = base;
                if self.synced <= base {
                    let what = end_mark::lost_with_last(self.synced);
                    let _ = take(Err(self.gap(*name, base..base, &what)));
                }
                break; // What is known to have been in it is told at the end.
            }
            if let Some(end_offset) = self.stub_end(*name, *has_index)? {
                end = end_offset;
                continue;
            }
            let (flow, segment_end) = match self.open_sealed(*name, *has_index)? {
                Some(sealed) => {
                    let end = sealed.end();
                    (read_sealed(sealed, &query, take), end)
                }
                None => self.read_unsealed(*name, successor, &query, take)?,
            };
            if flow.is_break() {
                return Ok(());
            }
            end = segment_end;
        }
        let lost = end.max(query.from)..self.synced;
        if lost.start < lost.end && query.end > lost.start {
            let corruption = read::lost_behind(&self.says, self.synced, end);
            // It is the last part: whether to go on does not matter.
            let _ = take(Err(ReadError::Gap { from: lost.start, to: lost.end, corruption }));
        }
        Ok(())
    }

    /// Where a segment ends whose events are gone on purpose.
    fn stub_end(&self, name: SegmentName, has_index: bool) -> Result<Option<Offset>, OpenError> {
        if !has_index {
            return Ok(None);
        }
        let header = listing::index_header(&self.disk, &self.dir, name)?;
        Ok(header.filter(IndexHeader::is_stub).map(|header| header.end_offset))
    }

    /// The segment with its index, if that is sound.
    fn open_sealed(
        &self,
        name: SegmentName,
        has_index: bool,
    ) -> Result<Option<SealedSegment<D>>, OpenError> {
        if !has_index {
            return Ok(None);
        }
        match SealedSegment::open(&self.disk, &self.dir, name) {
            Ok(segment) => Ok(Some(segment)),
            Err(OpenError::Corrupt(_)) => Ok(None),
            Err(OpenError::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn gap(&self, name: SegmentName, lost: std::ops::Range<Offset>, what: &str) -> ReadError {
        let file = self.dir.join(name.log_file_name());
        let corruption = Corruption { file, position: Position::default(), what: what.to_owned() };
        ReadError::Gap { from: lost.start, to: lost.end, corruption }
    }

    /// Reads a segment frame by frame. Returns where it ends.
    fn read_unsealed(
        &self,
        name: SegmentName,
        successor: Option<Offset>,
        query: &ReadQuery,
        take: Taker<'_>,
    ) -> Result<(ControlFlow<()>, Offset), OpenError> {
        let path = self.dir.join(name.log_file_name());
        let header = || {
            let file = self.disk.open(&path, Access::Read).map_err(|error| error.to_string())?;
            let mut bytes = vec![0; SEGMENT_HEADER_BYTES];
            file.read_exact_at(&mut bytes, Position::default())
                .map_err(|error| error.to_string())?;
            let header = SegmentHeader::decode(&bytes).map_err(|error| error.to_string())?;
            match header.base_offset == name.base_offset {
                true => Ok((file, header)),
                false => Err("it begins at another offset than its name says".to_owned()),
            }
        };
        let (file, header) = match header() {
            Ok(opened) => opened,
            Err(what) => {
                let end = successor.unwrap_or(name.base_offset);
                return Ok((take(Err(self.gap(name, name.base_offset..end, &what))), end));
            }
        };
        let selection = Selection::new(&query.topics);
        let mut frames = FrameScan::new(&file, &header);
        let reading = |source| ReadError::Io { file: path.clone(), source };
        loop {
            let at = frames.end();
            if successor.is_some_and(|successor| at.end_offset >= successor)
                || at.end_offset >= query.end
            {
                return Ok((ControlFlow::Continue(()), at.end_offset));
            }
            let mut next = frames.next_frame();
            if matches!(next, Ok(Err(_))) {
                let seed = Seed::of(&header.incarnation);
                let is_torn = successor.is_none()
                    && at.end_offset >= self.synced
                    && scan::synced_beyond(&file, seed, at.end_position, at.end_offset)
                        .is_ok_and(|proof| proof.is_none());
                if is_torn {
                    return Ok((ControlFlow::Continue(()), at.end_offset));
                }
                // Readers of the running log found it, and a repair does.
                next = match frames.next_readable() {
                    Ok(Ok(frame)) => Ok(Ok(frame)),
                    _ => next,
                };
            }
            let outcome = match next {
                Ok(Ok((frame, _))) => {
                    let range = query.from..query.end;
                    Ok(Hits::of_frame(&Arc::new(frame), &selection, range, Order::Ascending))
                }
                Ok(Err(why)) => {
                    let lost = frames.step_over();
                    if matches!(lost, Ok(None))
                        && successor.is_none()
                        && at.end_offset < self.synced
                    {
                        // That is told at the end.
                        return Ok((ControlFlow::Continue(()), at.end_offset));
                    }
                    let to = match &lost {
                        Ok(Some(lost)) => lost.end,
                        _ => successor.unwrap_or(at.end_offset),
                    };
                    let what = why.to_string();
                    let (file, position) = (path.clone(), at.end_position);
                    let corruption = Corruption { file, position, what };
                    let gap = ReadError::Gap { from: at.end_offset, to, corruption };
                    if !matches!(lost, Ok(Some(_))) {
                        return Ok((take(Err(gap)), to));
                    }
                    Err(gap)
                }
                Err(error) => {
                    let end = successor.unwrap_or(at.end_offset);
                    return Ok((take(Err(reading(error))), end));
                }
            };
            if matches!(&outcome, Ok(hits) if hits.is_empty()) {
                continue;
            }
            if take(outcome).is_break() {
                return Ok((ControlFlow::Break(()), at.end_offset));
            }
        }
    }
}

fn read_sealed<D: Disk>(
    segment: SealedSegment<D>,
    query: &ReadQuery,
    take: Taker<'_>,
) -> ControlFlow<()> {
    let mut reader = Reader::new(Arc::new(SegmentSet::new([segment])), query);
    loop {
        match reader.next_blocking() {
            Ok(None) => return ControlFlow::Continue(()),
            Ok(Some(hits)) if hits.is_empty() => {}
            Ok(Some(hits)) => take(Ok(hits))?,
            Err(ReadError::Io { file, source }) => {
                take(Err(ReadError::Io { file, source }))?;
                return ControlFlow::Continue(());
            }
            Err(error) => take(Err(error))?,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{segment::SegmentFile, testing::TestLog, topic::TopicPattern};

    fn frames(count: usize) -> Vec<Vec<(&'static str, Vec<u8>)>> {
        vec![vec![("a", vec![1]), ("b", vec![2])]; count]
    }

    /// The offsets that are read, and the gaps.
    fn read(log: &TestLog, topics: &[&str], from: u64) -> (Vec<u64>, Vec<(u64, u64)>) {
        let query = ReadQuery {
            topics: topics
                .iter()
                .map(|text| TopicPattern::parse(text).expect("a pattern"))
                .collect(),
            from: Offset::new(from),
            end: Offset::MAX,
            order: Order::Ascending,
        };
        let (mut offsets, mut gaps) = (Vec::new(), Vec::new());
        let stopped = StoppedLog::open(&log.disk, &log.dir).expect("not in use");
        stopped
            .read(&query, &mut |part| {
                match part {
                    Ok(hits) => offsets.extend(hits.events().map(|event| event.offset().get())),
                    Err(ReadError::Gap { from, to, .. }) => gaps.push((from.get(), to.get())),
                    Err(error) => panic!("{error}"),
                }
                ControlFlow::Continue(())
            })
            .expect("of this version");
        (offsets, gaps)
    }

    fn log() -> TestLog {
        let mut log = TestLog::new(1);
        log.add_sealed(&frames(3));
        log.add_sealed(&frames(2));
        log.add_unsealed(&frames(1));
        log.add_unsealed(&frames(3));
        log
    }

    #[test]
    fn sealed_and_unsealed_segments_are_read_in_order() {
        let log = log();
        assert_eq!(read(&log, &[], 0), ((0..18).collect(), vec![]));
        assert_eq!(read(&log, &["b"], 5), (vec![5, 7, 9, 11, 13, 15, 17], vec![]));
        assert_eq!(read(&log, &["b"], 15), (vec![15, 17], vec![]));
        assert_eq!(read(&log, &[], 99), (vec![], vec![]));
        log.disk.remove(&log.path(log.segments[0].0, SegmentFile::Index)).expect("a file");
        assert_eq!(read(&log, &[], 0), ((0..18).collect(), vec![]), "an index is not needed");
    }

    /// It was read by the newest generation that has an index, be that damaged.
    #[test]
    fn the_generation_that_a_start_takes_is_read() {
        for damaged_at in [100, 600] {
            let log = log();
            log.add_cut_short(0, damaged_at);
            assert_eq!(read(&log, &[], 0), ((0..18).collect(), vec![]), "{damaged_at}");
            // What is left of one of them is read all the same.
            let index = log.path(log.segments[0].0, SegmentFile::Index);
            log.disk.flip_bit(&index, Position::new(damaged_at), 1);
            assert_eq!(read(&log, &[], 6).0, (6..18).collect::<Vec<_>>());
        }
    }

    /// The newest with an index was read, though its log file was gone, and so nothing.
    #[test]
    fn a_generation_whose_log_file_is_gone_is_not_read() {
        let log = log();
        let newer = log.add_cut_short(0, 100);
        log.disk.remove(&log.path(newer, SegmentFile::Log)).expect("a file");
        let index = log.path(log.segments[0].0, SegmentFile::Index);
        log.disk.flip_bit(&index, Position::new(100), 1);
        assert_eq!(read(&log, &[], 0), ((0..18).collect(), vec![]));
    }

    /// The oldest generation was read, of which there is no log file.
    #[test]
    fn of_generations_without_a_sound_index_one_with_a_log_file_is_read() {
        let log = log();
        let name = log.segments[0].0;
        let next = name.next_generation().expect("the second");
        let path = log.path(name, SegmentFile::Log);
        log.write(&log.path(next, SegmentFile::Log), &log.disk.bytes(&path).expect("a file"));
        log.disk.remove(&path).expect("a file");
        log.disk.flip_bit(&log.path(name, SegmentFile::Index), Position::new(100), 1);
        assert_eq!(read(&log, &[], 0), ((0..18).collect(), vec![]));
    }

    #[test]
    fn damage_and_missing_files_are_gaps() {
        let log = log();
        let flip = |segment: usize, frame: usize| {
            let (name, places) = &log.segments[segment];
            let position = Position::new(places[frame].position + 100);
            log.disk.flip_bit(&log.path(*name, SegmentFile::Log), position, 1);
        };
        flip(0, 1);
        flip(3, 0);
        let (offsets, gaps) = read(&log, &[], 0);
        assert_eq!(gaps, [(2, 4), (12, 14)]);
        assert_eq!(offsets, [0, 1, 4, 5, 6, 7, 8, 9, 10, 11, 14, 15, 16, 17]);
        flip(3, 0);
        flip(3, 2);
        let (offsets, gaps) = read(&log, &[], 10);
        assert_eq!((offsets, gaps), ((10..16).collect(), vec![]), "a torn tail is not there");
        for file in [SegmentFile::Log, SegmentFile::Index] {
            log.disk.remove(&log.path(log.segments[1].0, file)).expect("a file");
        }
        assert_eq!(read(&log, &[], 0).1, [(2, 4), (6, 10)]);
        assert_eq!(read(&log, &[], 8).1, [(8, 10)]);
        assert_eq!(read(&log, &[], 10).1, []);
    }
}
