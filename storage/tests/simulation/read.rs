//! Reads a log as its owner does: the sealed part, and what is not sealed yet.

use std::{ops::Range, sync::Arc};

use strandline_storage::{
    error::ReadError,
    frame::{Frame, Trust},
    io::{Disk, ReadIo},
    log::{Log, UnsealedPiece},
    offset::Offset,
    reader::{Hits, ReadQuery, Reader},
    selection::{Order, Selection},
};

/// How many bytes of unsealed frames are asked for at once: few, so that it takes several steps.
const STEP_BYTES: usize = 20_000;

/// What a query finds, in its order, and which offsets are reported as lost.
pub async fn read<D: Disk, I: ReadIo<D>>(
    log: &Log<D>,
    reads: &I,
    query: &ReadQuery,
) -> (Vec<Hits>, Vec<Range<Offset>>) {
    let (mut found, mut lost) = (Vec::new(), Vec::new());
    if query.order == Order::Descending {
        read_unsealed(log, reads, query, &mut found).await;
    }
    let mut reader = Reader::new(Arc::clone(log.segments()), query);
    loop {
        match reader.next(reads).await {
            Ok(None) => break,
            Ok(Some(hits)) => found.push(hits),
            Err(ReadError::Gap { from, to, corruption }) => {
                eprintln!("lost: {from} to {to}, {corruption}");
                lost.push(from..to);
            }
            Err(error) => panic!("{error}"),
        }
    }
    if query.order == Order::Ascending {
        read_unsealed(log, reads, query, &mut found).await;
    }
    (found, lost)
}

async fn read_unsealed<D: Disk, I: ReadIo<D>>(
    log: &Log<D>,
    reads: &I,
    query: &ReadQuery,
    found: &mut Vec<Hits>,
) {
    let selection = Selection::new(&query.topics);
    let mut left = query.from.max(log.unsealed_start())..query.end;
    while left.start < left.end {
        let asked = ReadQuery { from: left.start, end: left.end, ..query.clone() };
        let plan = log.plan_unsealed(&asked, STEP_BYTES);
        for piece in plan.pieces {
            let mut frames = Vec::new();
            match piece {
                UnsealedPiece::Frame(frame) => frames.push(frame),
                UnsealedPiece::Read(piece) => {
                    let bytes = reads.read(&piece.file, piece.position, piece.len).await;
                    let bytes = Arc::new(bytes.expect("readable"));
                    let mut start = 0;
                    while start < piece.len {
                        let frame = Frame::parse_at(&bytes, start, piece.seed, Trust::Checksum);
                        let frame = frame.expect("an unsealed frame is whole");
                        start += frame.frame_bytes();
                        frames.push(Arc::new(frame));
                    }
                    assert_eq!(frames[0].base_offset(), piece.offsets.start);
                    assert_eq!(frames[frames.len() - 1].end_offset(), piece.offsets.end);
                }
            }
            if query.order == Order::Descending {
                frames.reverse();
            }
            for frame in frames {
                found.push(Hits::of_frame(&frame, &selection, left.clone(), query.order));
            }
        }
        match query.order {
            Order::Ascending => left.start = plan.considered,
            Order::Descending => left.end = plan.considered,
        }
    }
}
