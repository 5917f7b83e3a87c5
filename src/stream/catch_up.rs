//! From the log to the live edge: what a subscriber reads for itself while its view's ring cannot
//! serve it, and whose turn it is to do so.
//!
//! Reading takes memory (a frame, the chunks made of it) and time of the shard. So at most
//! [`TURNS_MAX`] subscribers of a log do it at once on a shard, first come, first served; one that has
//! sent [`TURN_BYTES_MAX`] goes behind those that wait, and one whose socket stays full gives its turn
//! back. All of them together work in slices, between which the live edge and everything else runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::reader::Hits;

use super::chunk::{Chunk, ChunkBuilder, Render};
use super::whole_log::WholeLog;
use crate::local::{Kept, Promise, promise};
use crate::runtime::{Slice, end_slice};

/// How many subscribers read a log at once on a shard.
pub const TURNS_MAX: usize = 16;

/// How many bytes a subscriber sends before others that wait have their turn.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;

/// How many bytes are read ahead of a socket: one send.
pub const READ_AHEAD_BYTES: usize = 128 * 1024;

/// The turns of one log on one shard.
#[derive(Clone)]
pub struct Turns(Rc<TurnsInner>);

struct TurnsInner {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Promise<Turn>>>,
    slice: Cell<Slice>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns(Rc::new(TurnsInner {
            free: Cell::new(TURNS_MAX),
            waiting: RefCell::default(),
            slice: Cell::new(Slice::begin()),
        }))
    }
}

impl Turns {
    /// Resolves when it is the caller's turn; dropping the future leaves the queue.
    pub fn wait(&self) -> Kept<Turn> {
        if let Some(free) = self.0.free.get().checked_sub(1) {
            self.0.free.set(free);
            return Kept::ready(Turn(self.clone()));
        }
        let (promise, kept) = promise();
        self.0.waiting.borrow_mut().push_back(promise);
        kept
    }

    fn give_back(&self) {
        // A promise whose waiter is gone gives its turn back in turn, so the borrow ends first.
        let first = self.0.waiting.borrow_mut().pop_front();
        match first {
            Some(promise) => promise.keep(Turn(self.clone())),
            None => self.0.free.set(self.0.free.get() + 1),
        }
    }
}

/// The right to read ahead; dropping it gives it to the next.
pub struct Turn(Turns);

impl Turn {
    fn is_wanted_by_others(&self) -> bool {
        !self.0.0.waiting.borrow().is_empty()
    }

    /// Lets everything else run if the readers of this shard together have worked for a slice.
    pub async fn end_slice_if_over(&self) {
        let slice = &self.0.0.slice;
        if slice.get().is_over() {
            end_slice().await;
            if slice.get().is_over() {
                slice.set(Slice::begin());
            }
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

/// One subscriber's way through a range of the log.
pub struct CatchUp {
    turn: Turn,
    walk: WholeLog,
    hits: Option<(Hits, usize)>,
    sent_bytes: usize,
    scratch: Vec<u8>,
}

impl CatchUp {
    /// Reads what `walk`, which is ascending, goes over.
    pub fn new(turn: Turn, walk: WholeLog) -> Self {
        CatchUp { turn, walk, hits: None, sent_bytes: 0, scratch: Vec::new() }
    }

    /// Whether it is time to let others read.
    pub fn is_over(&self) -> bool {
        self.sent_bytes >= TURN_BYTES_MAX && self.turn.is_wanted_by_others()
    }

    /// Whether everything in its range has been considered.
    pub fn is_at_end(&self) -> bool {
        self.hits.is_none() && self.walk.rest().is_empty()
    }

    /// Puts the next chunks into `batch`, about [`READ_AHEAD_BYTES`] of them; returns the offset below
    /// which everything has then been considered. Returns early, perhaps with nothing, when a slice
    /// is over, so that a long search shows its progress.
    pub async fn next(
        &mut self,
        render: &dyn Render,
        batch: &mut Vec<Chunk>,
    ) -> Result<Offset, ReadError> {
        self.turn.end_slice_if_over().await;
        let slice = Slice::begin();
        let mut bytes = 0;
        let mut considered = self.walk.rest().start;
        loop {
            if self.hits.is_none() {
                match self.walk.next().await {
                    Ok(Some(hits)) => self.hits = Some((hits, 0)),
                    Ok(None) => break,
                    // What was found before the gap is sent first; the walk reports it but once.
                    Err(error) => return Err(error),
                }
            }
            let Some((hits, done)) = &mut self.hits else { break };
            let wanted = self.walk.wanted();
            let mut builder = ChunkBuilder::new(render, &mut self.scratch);
            let mut is_full = false;
            while *done < hits.len() && !is_full {
                let frame = hits.frame.as_ref().expect("there is a frame if there are picks");
                let event = frame.event(hits.picks.index(*done));
                *done += 1;
                if wanted.takes(&event)
                    && let Some(chunk) = builder.push(&event)
                {
                    bytes += chunk.bytes.len();
                    considered = chunk.end;
                    batch.push(chunk);
                    is_full = bytes >= READ_AHEAD_BYTES;
                }
            }
            if let Some(chunk) = builder.finish() {
                bytes += chunk.bytes.len();
                batch.push(chunk);
            }
            if *done == hits.len() {
                considered = hits.considered;
                self.hits = None;
            }
            if bytes >= READ_AHEAD_BYTES || slice.is_over() {
                break;
            }
        }
        self.sent_bytes += bytes;
        Ok(considered)
    }
}
