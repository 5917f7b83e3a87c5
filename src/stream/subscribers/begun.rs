//! Chunks of which a socket has taken a part, for those who still owe it the rest: for the subscribers of a log a
//! shard keeps [`KEPT_BYTES_MAX`] of them, however many stall.
//!
//! ```text
//!   a part is taken --> Here ---- too much is kept: who was sent none of it for longest ---> Gone
//!                         ^                                                                   |
//!                         '-- one of its sockets takes bytes again: read from the log and ----'
//!                             encoded anew (`super::gone`), of which a part is kept
//! ```
//! A chunk is one for all who stand in it, wherever that is: it is kept once, goes once and comes back
//! once.
//!
//! **What comes back**, for a single socket, is the rest that it is owed; if that would put out what another socket was
//! sent of in the last [`IDLE_MS`], no more than a share of what may be kept. A slow socket takes some 60 KB at a time. If
//! each had its whole event kept, 200 of a megabyte would put out each other's, and each would be encoded for each 60 KB.
//! With a share for each, all that read have something of theirs here; whoever stalls for good has nothing. A chunk in
//! which several stand comes back whole: they may stand anywhere in it. (Rejected: to let nobody put out what another is
//! sent of, in turns: fewer encodings, but a slow socket would have others wait.)
//!
//! Why what is encoded anew may go on in the middle of what went before: a chunk is a function of its
//! events and its rendering alone. Its borders are offsets, which are kept; no compressor carries
//! anything from one chunk into another; a tail that was joined is what would have been made of its
//! events. So bytes could differ only where the events do, because retention, a deletion, a rewrite or
//! rot has taken some since. Length and checksum of the whole chunk are kept, and tell. Whoever stands in a chunk
//! that cannot be had again is cut off: half of an event is on its wire, behind which nothing true
//! can follow; it comes back by its cursor. (Rejected: to cut off whoever is slowest while the events are there;
//! a copy of each rest, which 10,000 stalled subscribers of large events would have 10 GiB of; a file, which is
//! the log once more.)
//!
//! Invariants:
//! 1. `bytes` is the sum of what chunks that are `Here` hold.
//! 2. A chunk is in `here` and `by_address` exactly while it is `Here`, and in `lately` if a socket took some of it
//!    or asked for it in the last [`IDLE_MS`], wherever it is.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use strandline_storage::offset::Offset;

use super::SlotId;
use super::wheel::ticks;
use crate::stream::chunk::Render;
use crate::stream::view::View;
use crate::stream::wanted::Wanted;

/// So much is kept of begun chunks: 60 events of a megabyte, or 2,000 of the usual chunks. Beyond it an event is
/// read and encoded once for each part of it that a socket has kept, not once a packet: a socket says that it takes bytes
/// when much of its buffer is free.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a begun chunk costs beside its bytes, about.
const BEGUN_COST_BYTES: usize = 256;

/// A part that comes back has at least so much: what a socket that has space again takes at once, about.
const PART_BYTES_MIN: usize = 64 * 1024;

/// A chunk nothing was sent of for so long makes room for others to come back whole. So those that come and go
/// are no more in so long than what may be kept.
const IDLE_MS: u64 = 10_000;

/// The begun chunks of a shard.
pub(super) struct BegunChunks {
    kept: RefCell<Kept>,
    bytes_max: usize,
    /// The tick that it is.
    now: Cell<u32>,
}

#[derive(Default)]
struct Kept {
    /// By their last use.
    here: BTreeMap<u64, Weak<Begun>>,
    /// The ticks of last uses, by the same numbers.
    lately: BTreeMap<u64, u32>,
    by_address: HashMap<usize, Weak<Begun>>,
    bytes: usize,
    /// Numbers uses in the order in which they come.
    uses: u64,
}

impl Default for BegunChunks {
    fn default() -> Self {
        BegunChunks::new(KEPT_BYTES_MAX)
    }
}

/// A chunk that a socket has taken a part of.
pub(super) struct Begun {
    here: RefCell<Option<Part>>,
    /// Of its last use, and when that was.
    number: Cell<u64>,
    used_tick: Cell<u32>,
    len: usize,
    /// Of all its bytes, once any have gone.
    checksum: Cell<Option<u32>>,
    pub(super) wanted: Rc<Wanted>,
    pub(super) render: Rc<dyn Render>,
    pub(super) events: Range<Offset>,
    /// Those whose sockets would take bytes that have gone, in the order in which they asked.
    pub(super) waiting: RefCell<Vec<SlotId>>,
    all: Rc<BegunChunks>,
}

/// What is here of a chunk.
struct Part {
    /// Where it begins in the chunk.
    at: usize,
    bytes: Bytes,
}

/// What a socket has taken a part of, and is owed the rest of.
pub(super) struct Owed {
    chunk: Rc<Begun>,
    sent: usize,
    /// It waits for what has gone.
    is_waiting: bool,
}

impl Owed {
    /// What is to be sent next; `None` while it has gone.
    pub(super) fn first(&self) -> Option<Bytes> {
        let here = self.chunk.here.borrow();
        let part = here.as_ref()?;
        let bytes = part.bytes.get(self.sent.checked_sub(part.at)?..)?;
        Some(part.bytes.slice_ref(bytes)).filter(|bytes| !bytes.is_empty())
    }

    /// So much of it was taken.
    pub(super) fn advance(&mut self, count: usize) {
        self.sent += count;
        self.chunk.touch();
    }

    /// How much of the chunk has been taken.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// Whether all of it has been taken.
    pub(super) fn is_over(&self) -> bool {
        self.sent == self.chunk.len
    }

    /// Whether it waits for what has gone.
    pub(super) fn is_waiting(&self) -> bool {
        self.is_waiting
    }

    /// The chunk, if what is to be sent next has gone, and was not asked for yet.
    pub(super) fn ask(&mut self) -> Option<Rc<Begun>> {
        if self.is_waiting || self.first().is_some() {
            return None;
        }
        self.is_waiting = true;
        self.chunk.touch();
        Some(self.chunk.clone())
    }

    /// What it waits for has come back, or a part of it.
    pub(super) fn go_on(&mut self) {
        self.is_waiting = false;
    }
}

impl BegunChunks {
    pub(super) fn new(bytes_max: usize) -> Self {
        BegunChunks { kept: RefCell::default(), bytes_max, now: Cell::new(0) }
    }

    /// It is so late.
    pub(super) fn set_tick(&self, tick: u32) {
        self.now.set(tick);
    }

    /// The chunk `bytes` of a view's `events`, of which `sent` have left.
    pub(super) fn begin(
        self: &Rc<Self>,
        view: &View,
        events: Range<Offset>,
        bytes: &Bytes,
        sent: usize,
    ) -> Owed {
        // Nothing else can begin at the address of what is there.
        let known = self.kept.borrow().by_address.get(&address(bytes)).and_then(Weak::upgrade);
        let chunk = known.filter(|known| known.len == bytes.len()).unwrap_or_else(|| {
            let begun = Rc::new(Begun {
                here: RefCell::default(),
                number: Cell::new(0),
                used_tick: Cell::new(0),
                len: bytes.len(),
                checksum: Cell::new(None),
                wanted: view.key.wanted.clone(),
                render: view.render.clone(),
                events,
                waiting: RefCell::default(),
                all: self.clone(),
            });
            begun.keep(0, bytes.clone());
            begun
        });
        Owed { chunk, sent, is_waiting: false }
    }

    /// Lets go of those that were used longest ago, and not since `before`, until so many bytes are no more than may be
    /// kept.
    fn make_room(&self, bytes: usize, before: u32) {
        loop {
            let oldest = {
                let kept = self.kept.borrow();
                if kept.bytes + bytes <= self.bytes_max {
                    return;
                }
                kept.here.values().next().and_then(Weak::upgrade)
            };
            match oldest {
                Some(oldest) if oldest.used_tick.get() < before => oldest.let_go(),
                _ => return,
            }
        }
    }

    fn has_room(&self, bytes: usize) -> bool {
        self.kept.borrow().bytes + bytes <= self.bytes_max
    }

    /// What is there for each chunk that was used since `since`.
    fn share(&self, since: u32) -> usize {
        let lately = &mut self.kept.borrow_mut().lately;
        while lately.first_key_value().is_some_and(|(_, tick)| *tick < since) {
            lately.pop_first();
        }
        self.bytes_max / lately.len().max(1)
    }
}

impl Begun {
    /// `bytes` of it, which begin at `at`, are here from now on, the newest of all: these stay in any case, as they
    /// are about to be sent.
    fn keep(self: &Rc<Self>, at: usize, bytes: Bytes) {
        self.all.make_room(bytes.len() + BEGUN_COST_BYTES, u32::MAX);
        {
            let mut kept = self.all.kept.borrow_mut();
            kept.bytes += bytes.len() + BEGUN_COST_BYTES;
            kept.by_address.insert(address(&bytes), Rc::downgrade(self));
        }
        self.here.replace(Some(Part { at, bytes }));
        self.touch();
    }

    /// It is the one that was used last.
    fn touch(self: &Rc<Self>) {
        let mut kept = self.all.kept.borrow_mut();
        kept.here.remove(&self.number.get());
        kept.lately.remove(&self.number.get());
        kept.uses += 1;
        self.number.set(kept.uses);
        self.used_tick.set(self.all.now.get());
        kept.lately.insert(self.number.get(), self.all.now.get());
        if self.here.borrow().is_some() {
            kept.here.insert(self.number.get(), Rc::downgrade(self));
        }
    }

    /// `whole`, which it is, was encoded anew for those who stand in it, the first of whom was sent `sent` bytes of
    /// it.
    pub(super) fn come_back(self: &Rc<Self>, whole: &Bytes, sent: usize) {
        self.forget();
        // Whoever has it encoded holds it too.
        let is_shared = Rc::strong_count(self) > 2;
        let from = if is_shared { 0 } else { sent };
        let mut part = from..self.len;
        let since = self.all.now.get().saturating_sub(ticks(IDLE_MS));
        self.all.make_room(part.len() + BEGUN_COST_BYTES, since);
        if !is_shared && !self.all.has_room(part.len() + BEGUN_COST_BYTES) {
            let share = self.all.share(since).saturating_sub(BEGUN_COST_BYTES);
            let share = share.max(PART_BYTES_MIN);
            part.end = part.end.min(from + share);
        }
        self.keep(part.start, Bytes::copy_from_slice(&whole[part]));
    }

    /// It goes: what it was is known by its checksum.
    fn let_go(&self) {
        if let Some(part) = self.forget()
            && self.checksum.get().is_none()
        {
            assert_eq!(part.bytes.len(), self.len, "nothing of it has gone before");
            self.checksum.set(Some(crc32fast::hash(&part.bytes)));
        }
    }

    /// It counts no longer; returns what it held.
    fn forget(&self) -> Option<Part> {
        let part = self.here.take()?;
        let mut kept = self.all.kept.borrow_mut();
        kept.bytes -= part.bytes.len() + BEGUN_COST_BYTES;
        kept.here.remove(&self.number.get());
        kept.by_address.remove(&address(&part.bytes));
        Some(part)
    }

    /// How many bytes it has.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether any of it is here.
    #[cfg(test)]
    pub(super) fn is_here(&self) -> bool {
        self.here.borrow().is_some()
    }

    /// Whether it was these.
    pub(super) fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len && self.checksum.get() == Some(crc32fast::hash(bytes))
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.forget();
        self.all.kept.borrow_mut().lately.remove(&self.number.get());
    }
}

fn address(bytes: &Bytes) -> usize {
    bytes.as_ptr().addr()
}

#[cfg(test)]
mod tests;
