//! Chunks of which a socket has taken a part, for those who still owe it the rest: for the subscribers of a log a
//! shard keeps [`KEPT_BYTES_MAX`] of them, however many stall.
//!
//! ```text
//!   a part is taken --> Here ---- too much is kept: the oldest first ---> Gone
//!                         ^                                                |
//!                         '-- one of its sockets takes bytes again: read --'
//!                             from the log and encoded anew
//! ```
//! A chunk is one for all who stand in it, wherever that is: it is kept once, goes once and comes back
//! once.
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
//! 2. A chunk is in `by_age` and `by_address` exactly while it is `Here`.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::ops::Range;
use std::rc::{Rc, Weak};

use bytes::Bytes;
use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;
use strandline_storage::selection::Order;

use super::{Inner, SlotId, Subscribers};
use crate::log_handle::LogHandle;
use crate::stream::catch_up::Turn;
use crate::stream::chunk::Render;
use crate::stream::view::View;
use crate::stream::wanted::Wanted;
use crate::stream::whole_log::WholeLog;

/// So much is kept of begun chunks: 60 events of a megabyte, or 2,000 of the usual chunks. Beyond it an event is
/// read and encoded once for each time that a socket has space again, not once a packet: it says so when much of
/// its buffer is free.
const KEPT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What a begun chunk costs beside its bytes, about.
const BEGUN_COST_BYTES: usize = 256;

/// So many chunks are encoded anew at once, each with one of the turns to read.
const ENCODERS_MAX: usize = 4;

/// The begun chunks of a shard.
pub(super) struct BegunChunks {
    kept: RefCell<Kept>,
    bytes_max: usize,
}

#[derive(Default)]
struct Kept {
    by_age: BTreeMap<u64, Weak<Begun>>,
    by_address: HashMap<usize, Weak<Begun>>,
    bytes: usize,
    /// Numbers chunks by when they came.
    made: u64,
}

impl Default for BegunChunks {
    fn default() -> Self {
        BegunChunks { kept: RefCell::default(), bytes_max: KEPT_BYTES_MAX }
    }
}

/// A chunk that a socket has taken a part of.
pub(super) struct Begun {
    /// Absent while it is gone.
    bytes: RefCell<Option<Bytes>>,
    number: Cell<u64>,
    len: usize,
    /// Of its bytes, once they have gone.
    checksum: Cell<u32>,
    wanted: Rc<Wanted>,
    render: Rc<dyn Render>,
    events: Range<Offset>,
    /// Those whose sockets would take bytes.
    waiting: RefCell<HashSet<SlotId>>,
    all: Rc<BegunChunks>,
}

impl BegunChunks {
    /// The chunk `bytes` of a view's `events`, of which some have left.
    pub(super) fn begin(
        self: &Rc<Self>,
        view: &View,
        events: Range<Offset>,
        bytes: &Bytes,
    ) -> Rc<Begun> {
        // Nothing else can begin at the address of what is there.
        let known = self.kept.borrow().by_address.get(&address(bytes)).and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| known.len == bytes.len()) {
            return known;
        }
        let begun = Rc::new(Begun {
            bytes: RefCell::default(),
            number: Cell::new(0),
            len: bytes.len(),
            checksum: Cell::new(0),
            wanted: view.key.wanted.clone(),
            render: view.render.clone(),
            events,
            waiting: RefCell::default(),
            all: self.clone(),
        });
        begun.keep(bytes.clone());
        begun
    }

    /// Lets the oldest go until no more is kept than may be. The newest stays in any case: it is about to be
    /// sent.
    fn let_go_of_oldest(&self) {
        loop {
            let oldest = {
                let kept = self.kept.borrow();
                let is_over = kept.bytes > self.bytes_max && kept.by_age.len() > 1;
                kept.by_age.values().next().filter(|_| is_over).and_then(Weak::upgrade)
            };
            let Some(oldest) = oldest else { return };
            oldest.let_go();
        }
    }
}

impl Begun {
    /// Its bytes, unless they have gone.
    pub(super) fn bytes(&self) -> Option<Bytes> {
        self.bytes.borrow().clone()
    }

    /// How many they are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether they are here.
    pub(super) fn is_here(&self) -> bool {
        self.bytes.borrow().is_some()
    }

    /// It is here from now on, the newest of all.
    fn keep(self: &Rc<Self>, bytes: Bytes) {
        {
            let mut kept = self.all.kept.borrow_mut();
            kept.made += 1;
            self.number.set(kept.made);
            kept.bytes += self.kept_bytes();
            kept.by_age.insert(self.number.get(), Rc::downgrade(self));
            kept.by_address.insert(address(&bytes), Rc::downgrade(self));
        }
        self.bytes.replace(Some(bytes));
        self.all.let_go_of_oldest();
    }

    /// It goes: what it was is known by its checksum.
    fn let_go(&self) {
        if let Some(bytes) = self.forget() {
            self.checksum.set(crc32fast::hash(&bytes));
        }
    }

    /// It counts no longer; returns what it held.
    fn forget(&self) -> Option<Bytes> {
        let bytes = self.bytes.take()?;
        let mut kept = self.all.kept.borrow_mut();
        kept.bytes -= self.kept_bytes();
        kept.by_age.remove(&self.number.get());
        kept.by_address.remove(&address(&bytes));
        Some(bytes)
    }

    fn kept_bytes(&self) -> usize {
        self.len + BEGUN_COST_BYTES
    }

    /// Makes it anew of what the log has; `None` where that is not what it was.
    async fn encode_again(
        &self,
        log: &Rc<LogHandle>,
        turn: &Turn,
    ) -> Result<Option<Bytes>, ReadError> {
        let (wanted, events) = (self.wanted.clone(), self.events.clone());
        let mut walk = WholeLog::new(log.clone(), wanted, events, Order::Ascending);
        let mut out = Vec::with_capacity(self.len + self.len / 8);
        self.render.open(&mut out);
        let opened = out.len();
        turn.end_slice_if_over().await;
        while let Some(hits) = walk.next().await? {
            for event in hits.events().filter(|event| self.wanted.takes(event)) {
                self.render.event(&event, &mut out);
            }
            turn.end_slice_if_over().await;
        }
        if out.len() == opened {
            // All of it is gone; a chunk of nothing would end an answer.
            return Ok(None);
        }
        let range = self.render.close(&mut out);
        Ok(self.is_of(&out[range.clone()]).then(|| Bytes::copy_from_slice(&out[range])))
    }

    fn is_of(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.len && crc32fast::hash(bytes) == self.checksum.get()
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        self.forget();
    }
}

fn address(bytes: &Bytes) -> usize {
    bytes.as_ptr().addr()
}

/// Chunks that have gone and are wanted.
#[derive(Default)]
pub(super) struct Gone {
    waiting: VecDeque<Rc<Begun>>,
    encoders: usize,
}

impl Inner {
    /// A connection's socket takes bytes, and perhaps what it wants has gone.
    pub(super) fn ask_for_rest(&mut self, owner: &Subscribers, id: SlotId) {
        let missing = self.slots.get_mut(id).and_then(|slot| slot.wire.missing());
        let Some(begun) = missing else { return };
        let is_first = {
            let mut waiting = begun.waiting.borrow_mut();
            waiting.insert(id) && waiting.len() == 1
        };
        if !is_first {
            return;
        }
        self.gone.waiting.push_back(begun);
        if self.gone.encoders < ENCODERS_MAX
            && let Some(owner) = owner.me.upgrade()
        {
            self.gone.encoders += 1;
            monoio::spawn(encode_on(owner));
        }
    }
}

/// Encodes what is missing until nothing is.
async fn encode_on(owner: Rc<Subscribers>) {
    loop {
        let turn = owner.turns.wait().await.expect("turns outlive their waiters");
        let begun = {
            let mut inner = owner.inner.borrow_mut();
            let begun = inner.gone.waiting.pop_front();
            inner.gone.encoders -= usize::from(begun.is_none());
            begun
        };
        let Some(begun) = begun else { return };
        if Rc::strong_count(&begun) == 1 {
            // All who stood in it have left.
            continue;
        }
        let encoded = begun.encode_again(&owner.log, &turn).await;
        owner.go_on_in(&begun, encoded);
    }
}

impl Subscribers {
    /// Hands those who wait for a chunk what came of it.
    fn go_on_in(&self, begun: &Rc<Begun>, encoded: Result<Option<Bytes>, ReadError>) {
        let mut inner = self.inner.borrow_mut();
        let waiting = begun.waiting.take();
        match encoded {
            Ok(Some(bytes)) => {
                begun.keep(bytes);
                let mut waiting = waiting.into_iter();
                // The first at once: however many chunks come and go, each makes one go on.
                if let Some(first) = waiting.find(|id| inner.slots.get_mut(*id).is_some()) {
                    inner.tick = self.tick();
                    inner.views.hide(&self.log.floors());
                    inner.run(self, first);
                    inner.behind.start_readers(self);
                }
                waiting.for_each(|id| inner.queue(id));
            }
            Ok(None) | Err(_) => {
                let (from, to) = (begun.events.start.get(), begun.events.end.get());
                match &encoded {
                    Err(error @ ReadError::Gap { from, to, .. }) => {
                        self.gaps.report(*from, *to, error);
                    }
                    Err(error @ ReadError::Io { .. }) => {
                        tracing::error!(%error, "a subscriber's part of the log cannot be read");
                    }
                    _ => tracing::debug!(from, to, "a subscriber stands in events that have gone"),
                }
                waiting.into_iter().for_each(|id| inner.remove(id));
            }
        }
        drop(inner);
        self.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use super::super::testing::{Unsaid, everything};
    use super::super::wire::{Source, Wire};
    use super::*;
    use crate::stream::chunk::Chunk;
    use crate::stream::subscription::Subscription;

    fn view() -> View {
        View::new(everything(), Rc::new(Unsaid), Offset::ZERO, 0)
    }

    fn begun_chunks(bytes_max: usize) -> Rc<BegunChunks> {
        Rc::new(BegunChunks { kept: RefCell::default(), bytes_max })
    }

    fn chunk(at: u64, bytes: usize) -> Chunk {
        let bytes: Vec<u8> = (at..).take(bytes).map(|n| n.to_le_bytes()[0]).collect();
        Chunk::whole(Offset::new(at), Offset::new(at + 1), bytes.into())
    }

    /// A subscriber whose socket took a part of `chunk`.
    fn stalled(view: &View, begun: &Rc<BegunChunks>, chunk: &Chunk) -> (Wire, UnixStream) {
        let (socket, client) = UnixStream::pair().expect("a pair of sockets");
        socket.set_nonblocking(true).expect("a socket does not block");
        let bytes = 4096 + 8 * usize::try_from(chunk.start.get()).expect("small");
        rustix::net::sockopt::set_socket_send_buffer_size(&socket, bytes).expect("a size");
        let mut wire = Wire::new(socket.into());
        let mut place = Subscription::new(chunk.start);
        let chunks = std::iter::once(chunk);
        let is_taken = wire.push(&mut place, view, begun, None, chunks).expect("it is sent");
        assert!(!is_taken && wire.is_full && !wire.is_drained(), "a part of it");
        assert_eq!(place.next(), chunk.end);
        (wire, client)
    }

    /// Reads what `wire` has for its client until nothing is left of it, encoding anew what has gone.
    fn read_on(wire: &mut Wire, client: &mut UnixStream, of: &Chunk) -> (Vec<u8>, usize) {
        let (mut got, mut came_back) = (Vec::new(), 0);
        loop {
            let mut part = vec![0; 1 << 20];
            let count = client.read(&mut part).expect("bytes");
            got.extend_from_slice(&part[..count]);
            wire.is_full = false;
            if let Some(begun) = wire.missing() {
                assert!(!wire.flush().expect("nothing is sent") && !wire.is_full);
                let again = Bytes::copy_from_slice(&of.bytes);
                assert!(begun.is_of(&again) && !begun.is_of(&again[1..]));
                begun.keep(again);
                came_back += 1;
            }
            if wire.flush().expect("it is sent") {
                break;
            }
        }
        let mut rest = vec![0; of.bytes.len() - got.len()];
        client.read_exact(&mut rest).expect("the rest");
        got.extend_from_slice(&rest);
        (got, came_back)
    }

    /// Each kept its whole chunk, for as long as it stalled: a thousand of large events a gigabyte.
    #[test]
    fn a_thousand_that_stall_in_chunks_of_their_own_keep_no_more_than_may_be_kept() {
        const BYTES_MAX: usize = 4 * 1024 * 1024;
        let (view, begun) = (view(), begun_chunks(BYTES_MAX));
        let chunks: Vec<Chunk> = (0..1000).map(|at| chunk(at, 100_000)).collect();
        // Two descriptors each.
        crate::runtime::raise_file_limit();
        let mut all = Vec::new();
        for (at, chunk) in chunks.iter().enumerate() {
            all.push(stalled(&view, &begun, chunk));
            if at % 100 == 99 {
                let held = chunks.iter().filter(|chunk| !chunk.bytes.is_unique());
                let held: usize = held.map(|chunk| chunk.bytes.len()).sum();
                assert!(held <= BYTES_MAX, "{held} bytes are held for {}", at + 1);
                assert!(held > BYTES_MAX / 2, "room is used: {held}");
                assert!(begun.kept.borrow().bytes <= BYTES_MAX);
            }
        }
        let mut came_back = 0;
        for ((mut wire, mut client), chunk) in all.into_iter().zip(&chunks) {
            let (got, again) = read_on(&mut wire, &mut client, chunk);
            assert!(got == chunk.bytes, "{:?}", chunk.start);
            came_back += again;
        }
        assert!(came_back > 900, "{came_back}");
        let kept = begun.kept.borrow();
        assert_eq!((kept.bytes, kept.by_age.len(), kept.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn a_chunk_is_kept_once_for_all_who_stand_in_it() {
        let (view, begun) = (view(), begun_chunks(250_000));
        let (one, other) = (chunk(1, 100_000), chunk(2, 100_000));
        let mut all: Vec<_> = (0..50).map(|_| stalled(&view, &begun, &one)).collect();
        assert_eq!(begun.kept.borrow().bytes, 100_000 + BEGUN_COST_BYTES);
        let _other = stalled(&view, &begun, &other);
        assert!(!one.bytes.is_unique() && !other.bytes.is_unique());
        let third = chunk(3, 100_000);
        let _third = stalled(&view, &begun, &third);
        assert!(one.bytes.is_unique() && !other.bytes.is_unique(), "the oldest goes, once");
        let mut came_back = 0;
        for (wire, client) in &mut all {
            wire.is_full = false;
            let (got, again) = read_on(wire, client, &one);
            assert!(got == one.bytes);
            came_back += again;
        }
        assert_eq!(came_back, 1, "and comes back once");
        assert!(one.bytes.is_unique() && other.bytes.is_unique() != third.bytes.is_unique());
    }

    #[test]
    fn a_short_rest_lets_go_of_its_chunk() {
        let (view, begun, chunk) = (view(), begun_chunks(0), chunk(1, 100_000));
        let (mut wire, _client) = stalled(&view, &begun, &chunk);
        let source = &Source { view: &view, begun: &begun };
        wire.keep_rest(source, chunk.start..chunk.end, &chunk.bytes, chunk.bytes.len() - 513);
        assert!(!chunk.bytes.is_unique());
        wire.keep_rest(source, chunk.start..chunk.end, &chunk.bytes, chunk.bytes.len() - 512);
        assert!(chunk.bytes.is_unique());
    }

    #[test]
    fn words_stand_behind_a_chunk_that_has_gone() {
        let (view, begun) = (view(), begun_chunks(1));
        let (one, other) = (chunk(1, 100_000), chunk(2, 100_000));
        let (mut wire, mut client) = stalled(&view, &begun, &one);
        let _other = stalled(&view, &begun, &other);
        assert!(one.bytes.is_unique(), "it has gone");
        assert!(!wire.append(b"goodbye").expect("it waits"));
        assert!(wire.missing().is_none(), "nobody takes it yet");
        let (got, again) = read_on(&mut wire, &mut client, &one);
        assert_eq!(again, 1);
        assert!(got[..] == one.bytes[..]);
        let mut words = [0; 7];
        client.read_exact(&mut words).expect("the words");
        assert_eq!(&words, b"goodbye");
    }
}
