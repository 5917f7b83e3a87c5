//! PRODUCERS of an index file, read piece by piece: what a million come to is never in memory whole.

use std::{io, sync::Arc};

use crate::{
    frame::Seed,
    index::{
        IndexError, IndexHeader, Section, SectionKind,
        delta::{PRODUCERS_READ_BYTES, ProducersReader},
    },
    io::DiskFile,
    once::ProducerEntry,
    parts::{Part, StoredPart},
};

/// Hands over the entries of PRODUCERS. After an inner error they say nothing.
pub(crate) fn read_producers(
    file: &impl DiskFile,
    header: &IndexHeader,
    mut take: impl FnMut(ProducerEntry),
) -> io::Result<Result<(), IndexError>> {
    let section = header.section(SectionKind::PRODUCERS);
    let mut reader = ProducersReader::new(header.end_offset);
    let mut hasher = header.seed().hasher();
    read_pieces(file, &section, |piece| {
        hasher.update(piece);
        reader.take(piece, &mut take);
        Ok(())
    })?;
    if section.bytes > 0 && hasher.finalize() != section.checksum {
        return Ok(Err(IndexError::Checksum { section: SectionKind::PRODUCERS }));
    }
    Ok(reader.finish())
}

/// What another index with this seed takes over of PRODUCERS: who has appended at `since_s` or later. They are read
/// once to see that they are good, and once more when they are written.
pub(crate) fn taken_over<F: DiskFile>(
    file: &Arc<F>,
    header: &IndexHeader,
    since_s: u32,
    seed: Seed,
) -> io::Result<Result<Part<'static>, IndexError>> {
    let (mut bytes, mut hasher) = (0, seed.hasher());
    let read = read_producers(&**file, header, |entry| {
        if entry.time_s >= since_s {
            bytes += ProducerEntry::BYTES as u64;
            hasher.update(&entry.encode());
        }
    })?;
    let (file, section) = (Arc::clone(file), header.section(SectionKind::PRODUCERS));
    let part = StoredPart::new(bytes, (seed, hasher.finalize()), move |take| {
        let mut kept = Vec::new();
        read_pieces(&*file, &section, |piece| {
            kept.clear();
            for entry in piece.chunks_exact(ProducerEntry::BYTES) {
                if ProducerEntry::decode(entry).time_s >= since_s {
                    kept.extend_from_slice(entry);
                }
            }
            take(&kept)
        })
    });
    Ok(read.map(|()| Part::Stored(part)))
}

/// Hands over a section in pieces of whole entries.
fn read_pieces(
    file: &impl DiskFile,
    section: &Section,
    mut take: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()> {
    let mut position = section.position;
    let mut piece = Vec::new();
    while position < section.end() {
        let left = usize::try_from(section.end().get() - position.get()).unwrap_or(usize::MAX);
        piece.resize(left.min(PRODUCERS_READ_BYTES), 0);
        file.read_exact_at(&mut piece, position)?;
        take(&piece)?;
        position = position.plus(piece.len() as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::{
        append::{Append, OffsetScope, ProducerClaim, ProducerId},
        config::LogConfig,
        index::{
            check_all,
            delta::decode_producers,
            stub::{StubLimits, make_stub},
        },
        io::{Access, Disk, sim::SimDisk},
        log::{Log, Now},
        offset::Position,
        retire::RetireJob,
        segment_set::SealedSegment,
        testing::{event, now, small_segments},
    };

    /// More than are read at a time.
    const PRODUCERS: u64 = 5_000;
    const DIR: &str = "/log";

    fn index_of(disk: &SimDisk, segment: &SealedSegment<SimDisk>) -> Vec<u8> {
        let path = Path::new(DIR).join(segment.name().index_file_name());
        let file = disk.open(&path, Access::Read).expect("an index");
        let mut bytes = vec![0; usize::try_from(file.size().expect("a size")).expect("small")];
        file.read_exact_at(&mut bytes, Position::default()).expect("readable");
        bytes
    }

    fn producers_of(index: &[u8]) -> Vec<ProducerEntry> {
        let header = check_all(index).expect("a sound index").header().clone();
        let section = &index[header.section(SectionKind::PRODUCERS).range()];
        decode_producers(section, header.end_offset).expect("sound producers")
    }

    /// A log whose first segment is sealed, and has an append of each.
    fn log() -> (SimDisk, Log<SimDisk>, Now) {
        let config = LogConfig {
            segment_bytes: 2 << 20,
            frame_bytes_target: 64 << 10,
            frame_bytes_max: 256 << 10,
            event_bytes_max: 64 << 10,
            compress_after_s: 1_000,
            ..small_segments()
        };
        let (disk, mut at) = (SimDisk::new(1), now());
        let (mut log, _) = Log::open(disk.clone(), Path::new(DIR), config, at).expect("new");
        for number in 0..PRODUCERS {
            let id = ProducerId::parse(&format!("p{number}")).expect("a name");
            let producer = Some(ProducerClaim { id, epoch: 0, seq: 0, scope: OffsetScope::Log });
            let append = Append { events: vec![event("a", b"1")], expected: None, producer };
            log.append(append, at).expect("staged");
            (at.wall_ms, at.boot_ms) = (at.wall_ms + 10, at.boot_ms + 10);
            if number.is_multiple_of(100) {
                log.run_ops(at);
            }
        }
        while log.segments().is_empty() {
            log.append(vec![event("a", &[1; 30_000])], at).expect("staged");
            log.run_ops(at);
        }
        (disk, log, at)
    }

    #[test]
    fn a_rewrite_and_a_stub_take_over_what_was_there() {
        let (disk, mut log, at) = log();
        let first = |log: &Log<SimDisk>| log.segments().iter().next().expect("sealed").clone();
        let before = producers_of(&index_of(&disk, &first(&log)));
        assert_eq!(before.len() as u64, PRODUCERS);
        let (wall_ms, boot_ms) = (at.wall_ms + 2_000_000, at.boot_ms + 2_000_000);
        log.run_ops(Now { wall_ms, boot_ms });
        let segment = first(&log);
        assert_eq!(segment.name().generation, 2, "it was rewritten");
        let whole = index_of(&disk, &segment);
        assert!(producers_of(&whole) == before);

        let producers_since_s = before[3_000].time_s;
        let limits = StubLimits { ids_since_ms: 0, producers_since_s };
        let job = RetireJob { dir: DIR.into(), segment: Arc::clone(&segment), limits };
        job.put_stub_if(&disk, || true).expect("a stub");
        let stub = index_of(&disk, &segment);
        assert!(stub == make_stub(&whole, &limits).expect("a stub"));
        let kept = before.iter().filter(|entry| entry.time_s >= producers_since_s);
        assert!(producers_of(&stub).iter().eq(kept));
    }
}
