//! What a segment without an index holds: its frames up to the first that is not valid.

use std::{collections::VecDeque, io};

use crate::{
    frame::{FrameError, FrameFlags},
    index::{IndexBuilder, SegmentEnd},
    io::DiskFile,
    offset::{Offset, Position},
    scan::{FrameScan, ScanEnd},
    segment::{FIRST_FRAME_POSITION, SegmentHeader},
};

/// The outcome of scanning one segment.
pub(super) struct TailScan {
    pub(super) index: IndexBuilder,
    /// Behind the last valid frame.
    pub(super) end: SegmentEnd,
    /// What stands there.
    pub(super) why: ScanEnd,
    /// Frames from here on are stated by no header to have been synced.
    pub(super) in_doubt_from: Position,
    /// The last frame says that the log was closed behind it.
    pub(super) is_clean: bool,
}

impl TailScan {
    /// Scans a segment, up to the offset at which its successor begins if it has one: what lies
    /// behind that is the late write of a process that was killed, not part of the log.
    pub(super) fn run<F: DiskFile>(
        file: &F,
        header: &SegmentHeader,
        successor: Option<Offset>,
    ) -> io::Result<TailScan> {
        let mut frames = FrameScan::new(file, header);
        let mut index = IndexBuilder::new(header);
        let mut doubt = Doubt::new();
        let mut end = frames.end();
        let mut is_clean = false;
        let why = loop {
            if successor.is_some_and(|successor| end.end_offset >= successor) {
                break ScanEnd::Successor;
            }
            let (frame, position) = match frames.next_frame()? {
                Ok(next) => next,
                Err(ScanEnd::Invalid(FrameError::Lost { why })) => {
                    let Some((lost, position, frame_bytes)) = frames.step_over_lost()? else {
                        break ScanEnd::Invalid(FrameError::Lost { why });
                    };
                    end = frames.end();
                    doubt.frame(lost.start, &end, false);
                    index.add_gap(lost, position, frame_bytes);
                    continue;
                }
                Err(why) => break why,
            };
            if let Err(error) = index.add(&frame, position) {
                break ScanEnd::Content(error);
            }
            end = frames.end();
            doubt.frame(frame.header().synced_offset, &end, frame.is_empty());
            is_clean = frame.header().flags.has(FrameFlags::CLEAN_END);
        };
        Ok(TailScan { index, end, why, in_doubt_from: doubt.from, is_clean })
    }
}

/// Which frames had been synced, as the headers behind them say.
struct Doubt {
    from: Position,
    /// The ends of the frames of which none says so yet, and the synced offset that says so.
    frames: VecDeque<(SegmentEnd, Offset)>,
}

impl Doubt {
    fn new() -> Self {
        Doubt { from: FIRST_FRAME_POSITION, frames: VecDeque::new() }
    }

    fn frame(&mut self, synced: Offset, end: &SegmentEnd, is_empty: bool) {
        while let Some((end, _)) = self.frames.pop_front_if(|(_, proof)| *proof <= synced) {
            self.from = end.end_position;
        }
        // An empty frame ends where the one before it does: only what was synced behind it shows
        // that it had been.
        let proof = end.end_offset.plus(u64::from(is_empty));
        self.frames.push_back((*end, proof));
    }
}
