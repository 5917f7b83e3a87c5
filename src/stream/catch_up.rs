//! From the log to the live edge: what a subscriber reads for itself while its view's ring cannot
//! serve it, and whose turn it is to do so.
//!
//! Reading takes memory (a frame, the chunks made of it) and time of the shard. So at most
//! [`TURNS_MAX`] subscribers of a log do it at once on a shard, first come, first served; one that has
//! sent [`TURN_BYTES_MAX`] goes behind those that wait, as does a search after [`TURN_MS_MAX`], and one
//! whose socket stays full gives its turn back. All of them together work in slices, between which the live edge and everything else runs.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::reader::Hits;

use super::chunk::{ChunkBuilder, PAGE_CHUNK_BYTES, Render};
use super::pages::{Hidden, Page};
use super::whole_log::WholeLog;
use crate::local::{Kept, Promise, promise};
use crate::runtime::{SLICE_US, Slice, give_way, gives_way_at_once};

/// How many subscribers read a log at once on a shard.
pub const TURNS_MAX: usize = 16;

/// How many bytes a subscriber sends before others that wait have their turn.
pub const TURN_BYTES_MAX: usize = 1024 * 1024;

/// How long a search has its turn, in ms, before others that wait have theirs: it may find nothing in all of a
/// log, and sixteen of them would keep everybody else from it for minutes. It goes on where it stood, and reads
/// again what the disk had read ahead for it.
pub const TURN_MS_MAX: u64 = 50;

/// How many slices of pushes go by for one of those who read the log, while members of views wait for
/// something new: at one each, half of the time of a round over many members was the readers'. These have a
/// fifth of it at the least: their slice is as long as those of the pushes, on average.
pub const LIVE_SLICES_MAX: u32 = 4;

/// A page ends with the event that reaches this length: one send. With half as much a reader costs 2 % more.
pub const PAGE_BYTES: usize = 256 * 1024;

/// The turns of one log on one shard.
#[derive(Clone)]
pub struct Turns(Rc<TurnsInner>);

struct TurnsInner {
    free: Cell<usize>,
    waiting: RefCell<VecDeque<Promise<Turn>>>,
    slice: Cell<Slice>,
    /// Somebody gives way to everything else, and will have the next slice; the others stand in line.
    is_giving_way: Cell<bool>,
    in_line: RefCell<VecDeque<Promise<Way>>>,
    /// How long the last slice of the live edge was, if that had more to do when it ended.
    live_slice: Cell<Option<Duration>>,
}

impl Default for Turns {
    fn default() -> Self {
        Turns(Rc::new(TurnsInner {
            free: Cell::new(TURNS_MAX),
            waiting: RefCell::default(),
            slice: Cell::new(Slice::begin()),
            is_giving_way: Cell::new(false),
            in_line: RefCell::default(),
            live_slice: Cell::new(None),
        }))
    }
}

impl Turns {
    /// Resolves when it is the caller's turn; dropping the future leaves the queue.
    pub fn wait(&self) -> Kept<Turn> {
        if let Some(free) = self.0.free.get().checked_sub(1) {
            self.0.free.set(free);
            return Kept::ready(Turn::begin(self));
        }
        let (promise, kept) = promise();
        self.0.waiting.borrow_mut().push_back(promise);
        kept
    }

    /// How long a slice of pushes was, if views had members left to be served when it ended.
    pub fn note_live(&self, slice: Option<Duration>) {
        self.0.live_slice.set(slice);
    }

    /// Resolves when the caller is the one to give way.
    fn way(&self) -> Kept<Way> {
        if !self.0.is_giving_way.replace(true) {
            return Kept::ready(Way(self.clone()));
        }
        let (promise, kept) = promise();
        self.0.in_line.borrow_mut().push_back(promise);
        kept
    }

    fn give_back(&self) {
        match first_who_waits(&self.0.waiting) {
            Some(promise) => promise.keep(Turn::begin(self)),
            None => self.0.free.set(self.0.free.get() + 1),
        }
    }
}

/// The first of a line whose waiter is not gone. Thousands may have hung up while they stood in it: if each were given
/// what it does not want, and gave it back, that would be as many calls within each other.
fn first_who_waits<T>(line: &RefCell<VecDeque<Promise<T>>>) -> Option<Promise<T>> {
    loop {
        let first = line.borrow_mut().pop_front()?;
        if first.is_waited_for() {
            return Some(first);
        }
    }
}

/// The right to read ahead; dropping it gives it to the next.
pub struct Turn {
    turns: Turns,
    since: Instant,
}

impl Turn {
    fn begin(turns: &Turns) -> Self {
        Turn { turns: turns.clone(), since: Instant::now() }
    }

    /// Whether somebody waits for it.
    pub fn is_wanted_by_others(&self) -> bool {
        !self.turns.0.waiting.borrow().is_empty()
    }

    /// Whether a search is to let others go first: it has lasted, and they wait.
    pub fn is_over(&self) -> bool {
        self.is_wanted_by_others() && self.since.elapsed() >= Duration::from_millis(TURN_MS_MAX)
    }

    /// Gives it to the next, and waits for another behind all that wait now. Any number may wait, so the
    /// caller holds nothing meanwhile that it has read.
    pub async fn go_behind(self) -> Turn {
        let next = self.turns.wait();
        drop(self);
        next.await.expect("turns outlive their waiters")
    }

    /// Lets everything else run if the readers of this shard together have worked for a slice.
    pub async fn end_slice_if_over(&self) {
        let TurnsInner { slice, live_slice, .. } = &*self.turns.0;
        if !slice.get().is_over() {
            return;
        }
        // All that have come back from the ring together would else have a slice each, before anybody else
        // has one. Where giving way takes a timer's millisecond they may, unless pushes wait.
        let is_in_line = live_slice.get().is_some() || gives_way_at_once();
        let _way = match is_in_line {
            true => Some(self.turns.way().await.expect("turns outlive their waiters")),
            false => None,
        };
        let mut pushed = Duration::ZERO;
        for _ in 0..LIVE_SLICES_MAX {
            give_way().await;
            let Some(live) = live_slice.get() else { break };
            pushed += live;
        }
        if is_in_line || slice.get().is_over() {
            let share = pushed / LIVE_SLICES_MAX;
            slice.set(Slice::of(share.max(Duration::from_micros(SLICE_US))));
        }
    }
}

/// Who has it gives way for all, and then has a slice; dropping it lets the next do so.
struct Way(Turns);

impl Drop for Way {
    fn drop(&mut self) {
        match first_who_waits(&self.0.0.in_line) {
            Some(promise) => promise.keep(Way(self.0.clone())),
            None => self.0.0.is_giving_way.set(false),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.give_back();
    }
}

/// What a read made of a part of the log.
pub(super) struct ReadPage {
    pub(super) page: Page,
    /// Whether the read can go on behind it: it has not come to the end of its range, and nothing
    /// went wrong.
    pub(super) goes_on: bool,
}

/// A read of the log for one view, that makes pages of what it goes over.
pub(super) struct Parked {
    walk: WholeLog,
    hits: Option<(Hits, usize)>,
    next: Offset,
    /// Of the hits.
    hidden: Option<Hidden>,
    scratch: Vec<u8>,
}

impl Parked {
    /// Reads what `walk`, which is ascending, goes over.
    pub(super) fn new(walk: WholeLog) -> Self {
        let next = walk.rest().start;
        Parked { walk, hits: None, next, hidden: None, scratch: Vec::new() }
    }

    /// The first offset that has not been considered.
    pub(super) fn next(&self) -> Offset {
        self.next
    }

    /// Where it ends: no page goes beyond that.
    pub(super) fn end(&self) -> Offset {
        self.walk.rest().end
    }

    /// The next page, about [`PAGE_BYTES`] of it, and not beyond `until` by more than a frame. Returns
    /// early, perhaps with an empty page, when a slice is over, so that a long search shows its
    /// progress. An error is of what stands at the place where the page would begin.
    pub(super) async fn read(
        &mut self,
        turn: &Turn,
        render: &dyn Render,
        until: Offset,
    ) -> Result<ReadPage, ReadError> {
        turn.end_slice_if_over().await;
        let slice = Slice::begin();
        let start = self.next;
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut builder = ChunkBuilder::new(render, PAGE_CHUNK_BYTES, &mut scratch);
        let (mut chunks, mut bytes, mut goes_on) = (Vec::new(), 0, true);
        loop {
            if self.hits.is_none() {
                let next = self.walk.next().await;
                if let Some(more) = self.walk.take_hidden() {
                    self.hidden = Some(self.hidden.map_or(more, |known| known.and(more)));
                }
                match next {
                    Ok(Some(hits)) => self.hits = Some((hits, 0)),
                    Ok(None) => {
                        // What was passed over by its index alone gave no hits.
                        self.next = self.next.max(self.walk.rest().start);
                        goes_on = false;
                        break;
                    }
                    Err(error) if self.next == start => return Err(error),
                    // What stands before it is sent first; whoever comes to it finds it again.
                    Err(_) => {
                        goes_on = false;
                        break;
                    }
                }
            }
            let Some((hits, done)) = &mut self.hits else { break };
            let wanted = self.walk.wanted();
            let mut is_full = false;
            while *done < hits.len() && !is_full {
                let frame = hits.frame.as_ref().expect("there is a frame if there are picks");
                let event = frame.event(hits.picks.index(*done));
                *done += 1;
                if wanted.takes(&event) {
                    if let Some(chunk) = builder.push(&event) {
                        bytes += chunk.bytes.len();
                        chunks.push(chunk);
                    }
                    self.next = event.offset().plus(1);
                    is_full = bytes + builder.begun_bytes() >= PAGE_BYTES;
                }
            }
            if *done == hits.len() {
                self.next = hits.considered.max(self.next);
                self.hits = None;
            }
            if is_full || self.next >= until || slice.is_over() {
                break;
            }
        }
        chunks.extend(builder.finish());
        self.scratch = scratch;
        // How soon it goes on is for its client to say.
        self.walk.let_go();
        goes_on &= self.hits.is_some() || !self.walk.rest().is_empty();
        let (end, hidden) = (self.next, self.take_hidden());
        Ok(ReadPage { page: Page { end, chunks: chunks.into(), hidden }, goes_on })
    }

    /// What lies before the end of the page; the rest is the next one's.
    fn take_hidden(&mut self) -> Option<Hidden> {
        let hidden = self.hidden.take_if(|hidden| hidden.first < self.next)?;
        if hidden.last < self.next {
            return Some(hidden);
        }
        self.hidden = Some(Hidden { first: self.next, ..hidden });
        Some(Hidden { last: self.next.previous().unwrap_or_default(), ..hidden })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::{Driver, block_on};

    const SLICE: Duration = Duration::from_micros(SLICE_US);

    fn run<F: Future<Output = ()> + 'static>(job: impl FnOnce() -> F + Send + 'static) {
        std::thread::spawn(move || block_on(Driver::detect().0, true, job()).expect("a runtime"))
            .join()
            .expect("no panic");
    }

    fn work_for(slices: u32) {
        let slice = Slice::of(SLICE * slices);
        while !slice.is_over() {
            std::hint::spin_loop();
        }
    }

    /// How many usual slices `readers` have together while the live edge has 40 that are so many times as long.
    async fn slices_beside(readers: usize, live: u32, turns: &Turns) -> u32 {
        let slices = Rc::new(Cell::new(0));
        let is_over = Rc::new(Cell::new(false));
        let mut tasks = Vec::new();
        for _ in 0..readers {
            let (slices, is_over) = (slices.clone(), is_over.clone());
            let turn = turns.wait().await.expect("a turn");
            tasks.push(monoio::spawn(async move {
                while !is_over.get() {
                    turn.end_slice_if_over().await;
                    if !is_over.get() {
                        work_for(1);
                        slices.set(slices.get() + 1);
                    }
                }
            }));
        }
        for _ in 0..40 {
            work_for(live);
            turns.note_live(Some(SLICE * live));
            give_way().await;
        }
        turns.note_live(None);
        is_over.set(true);
        for task in tasks {
            task.await;
        }
        slices.get()
    }

    /// A round of pushes took twice as long when anybody was catching up.
    #[test]
    fn the_live_edge_goes_first_while_it_has_something_and_readers_do_not_starve() {
        run(|| async {
            for (readers, live) in [(1, 1), (3, 1), (TURNS_MAX, 1), (3, 4)] {
                let slices = slices_beside(readers, live, &Turns::default()).await;
                let wanted = 5 * live..=15 * live;
                assert!(
                    wanted.contains(&slices),
                    "{readers} readers: {slices} beside {}",
                    40 * live
                );
            }
        });
    }

    /// Each of them was handed the turn, and handed it on from within that.
    #[test]
    fn any_number_may_hang_up_while_they_wait() {
        run(|| async {
            let turns = Turns::default();
            let mut held = Vec::new();
            for _ in 0..TURNS_MAX {
                held.push(turns.wait().await.expect("a turn"));
            }
            let gone: Vec<_> = (0..1_000_000).map(|_| turns.wait()).collect();
            let next = turns.wait();
            drop(gone);
            held.pop();
            assert!(next.await.is_some());
            held.clear();
            assert_eq!(turns.0.free.get(), TURNS_MAX);
        });
    }

    /// Who searches all of a log in vain let nobody else read it for minutes.
    #[test]
    fn a_turn_that_others_want_is_over_in_time_and_goes_behind_them() {
        run(|| async {
            let turns = Turns::default();
            let mut held = Vec::new();
            for _ in 0..TURNS_MAX {
                held.push(turns.wait().await.expect("a turn"));
            }
            let first = held.pop().expect("many");
            monoio::time::sleep(Duration::from_millis(TURN_MS_MAX)).await;
            assert!(!first.is_over(), "nobody wants it");
            let waiting = turns.wait();
            assert!(first.is_over());
            let order = Rc::new(RefCell::new(Vec::new()));
            let tasks = [
                monoio::spawn({
                    let order = order.clone();
                    async move {
                        let turn = first.go_behind().await;
                        order.borrow_mut().push("first");
                        assert!(!turn.is_over(), "it has begun anew");
                    }
                }),
                monoio::spawn({
                    let order = order.clone();
                    async move {
                        let turn = waiting.await.expect("a turn");
                        order.borrow_mut().push("waiting");
                        monoio::time::sleep(Duration::from_micros(SLICE_US)).await;
                        drop(turn);
                    }
                }),
            ];
            for task in tasks {
                task.await;
            }
            assert_eq!(*order.borrow(), ["waiting", "first"]);
            held.clear();
            assert_eq!(turns.0.free.get(), TURNS_MAX, "all are given back");
        });
    }
}
