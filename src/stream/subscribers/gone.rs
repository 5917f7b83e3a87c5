//! Begun chunks that have gone and are wanted again: a line, and those who read the log for it.

use std::collections::VecDeque;
use std::rc::Rc;

use bytes::Bytes;
use strandline_storage::error::ReadError;
use strandline_storage::selection::Order;

use super::begun::Begun;
use super::{Inner, SlotId, Subscribers};
use crate::log_handle::LogHandle;
use crate::stream::catch_up::Turn;
use crate::stream::whole_log::WholeLog;

/// So many chunks are encoded anew at once, each with one of the turns to read.
const ENCODERS_MAX: usize = 4;

/// Chunks that have gone and are wanted.
#[derive(Default)]
pub(super) struct Gone {
    waiting: VecDeque<Rc<Begun>>,
    encoders: usize,
}

impl Inner {
    /// A connection's socket takes bytes, and perhaps what it wants has gone.
    pub(super) fn ask_for_rest(&mut self, owner: &Subscribers, id: SlotId) {
        let missing = self.slots.get_mut(id).and_then(|slot| slot.wire.ask());
        let Some(begun) = missing else { return };
        begun.waiting.borrow_mut().push(id);
        if begun.waiting.borrow().len() > 1 {
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

    /// What a connection waits for has come back, or a part of it; returns how much of it was sent before, if
    /// the connection is there.
    fn go_on(&mut self, owner: &Subscribers, id: SlotId) -> Option<usize> {
        let sent = self.slots.get_mut(id)?.wire.go_on();
        // It could be sent nothing meanwhile, which says nothing about its client.
        self.call(owner, id, |session, _| {
            session.was_kept_waiting();
            Ok(())
        });
        sent
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
                let there = |id: &SlotId| Some((*id, inner.go_on(self, *id)?));
                let mut waiting = waiting.iter().filter_map(there).collect::<Vec<_>>().into_iter();
                // The first at once: however many chunks come and go, each makes one go on.
                if let Some((first, sent)) = waiting.next() {
                    inner.tick = self.tick();
                    inner.begun.set_tick(inner.tick);
                    begun.come_back(&bytes, sent);
                    inner.views.hide(&self.log.floors());
                    inner.run(self, first);
                    inner.behind.start_readers(self);
                }
                waiting.for_each(|(id, _)| inner.queue(id));
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

impl Begun {
    /// Makes it anew of what the log has; `None` where that is not what it was.
    async fn encode_again(
        &self,
        log: &Rc<LogHandle>,
        turn: &Turn,
    ) -> Result<Option<Bytes>, ReadError> {
        let (wanted, events) = (self.wanted.clone(), self.events.clone());
        let mut walk = WholeLog::new(log.clone(), wanted, events, Order::Ascending);
        let mut out = Vec::with_capacity(self.len() + self.len() / 8);
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
        Ok(self.is_of(&out[range.clone()]).then(|| Bytes::from(out).slice(range)))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::io::Read;
    use std::os::unix::net::UnixStream;

    use strandline_storage::offset::Offset;

    use super::super::begun::BegunChunks;
    use super::super::testing::{Unsaid, everything, guard, on_a_shard};
    use super::super::{End, Port, Session};
    use super::*;
    use crate::log_calls::{AckFuture, Acked, AppendRefused};
    use crate::stream::chunk::Chunk;
    use crate::stream::subscription::Subscription;
    use crate::stream::view::View;

    /// A session that says nothing, and what it was told.
    #[derive(Clone, Default)]
    struct Quiet(Rc<Told>);

    #[derive(Default)]
    struct Told {
        beats: Cell<u32>,
        waits: Cell<u32>,
    }

    impl Session for Quiet {
        fn receive(&mut self, _: &[u8], _: &mut Port<'_>) -> Result<(), End> {
            Ok(())
        }

        fn resume(&mut self, _: &mut Port<'_>) -> Result<(), End> {
            Ok(())
        }

        fn may_receive(&self) -> bool {
            true
        }

        fn has_input(&self) -> bool {
            false
        }

        fn lets_others_first(&self) -> bool {
            false
        }

        fn has_answers(&self) -> bool {
            false
        }

        fn take_answers(&mut self) -> Vec<u8> {
            Vec::new()
        }

        fn found(
            &mut self,
            _: u32,
            _: Result<Offset, ReadError>,
            _: &mut Port<'_>,
        ) -> Result<(), End> {
            Ok(())
        }

        fn next_append(&mut self) -> Option<AckFuture> {
            None
        }

        fn acknowledged(&mut self, _: Result<Acked, AppendRefused>) {}

        fn has_appends(&self) -> bool {
            false
        }

        fn was_kept_waiting(&mut self) {
            self.0.waits.set(self.0.waits.get() + 1);
        }

        fn beat(&mut self, _: &mut Port<'_>) -> Result<(), End> {
            self.0.beats.set(self.0.beats.get() + 1);
            Ok(())
        }

        fn close(&mut self, _: End) {}
    }

    /// A connection whose socket has taken a part of a chunk.
    struct Stalled {
        id: SlotId,
        client: UnixStream,
        told: Rc<Told>,
        got: Vec<u8>,
    }

    fn chunk(at: u64) -> Chunk {
        let bytes: Vec<u8> = (at..).take(300_000).map(|n| n.to_le_bytes()[0]).collect();
        Chunk::whole(Offset::new(at), Offset::new(at + 1), bytes.into())
    }

    fn stalled(subscribers: &Subscribers, chunk: &Chunk) -> Stalled {
        let (socket, client) = UnixStream::pair().expect("a pair of sockets");
        socket.set_nonblocking(true).expect("a socket does not block");
        let session = Quiet::default();
        let told = session.0.clone();
        let id = subscribers
            .add_session(socket.into(), Box::new(session), &[], 15, guard())
            .expect("it is added");
        let mut inner = subscribers.inner.borrow_mut();
        let begun = inner.begun.clone();
        let view = View::new(everything(), Rc::new(Unsaid), Offset::ZERO, 0);
        let wire = &mut inner.slots.get_mut(id).expect("it was added").wire;
        let mut place = Subscription::new(chunk.start);
        let chunks = std::iter::once(chunk);
        assert!(!wire.push(&mut place, &view, &begun, None, chunks).expect("it is sent"));
        Stalled { id, client, told, got: Vec::new() }
    }

    impl Stalled {
        fn read(&mut self) {
            let mut part = vec![0; 1 << 20];
            let count = self.client.read(&mut part).expect("bytes");
            self.got.extend_from_slice(&part[..count]);
        }

        /// Its client takes what there is, so that it asks for more.
        fn ask(&mut self, subscribers: &Subscribers) {
            self.read();
            let mut inner = subscribers.inner.borrow_mut();
            inner.slots.get_mut(self.id).expect("it is there").wire.is_full = false;
            inner.run(subscribers, self.id);
            assert!(inner.slots.get_mut(self.id).expect("it is there").wire.is_waiting());
        }
    }

    /// None is kept but the chunk that was begun last.
    fn keep_nothing(subscribers: &Subscribers) {
        subscribers.inner.borrow_mut().begun = Rc::new(BegunChunks::new(0));
    }

    /// The only chunk in line, which is encoded now.
    fn take(subscribers: &Subscribers) -> Rc<Begun> {
        let mut inner = subscribers.inner.borrow_mut();
        let begun = inner.gone.waiting.pop_front().expect("one is asked for");
        assert!(inner.gone.waiting.is_empty());
        begun
    }

    #[test]
    fn who_hangs_up_in_line_leaves_what_comes_to_the_next() {
        on_a_shard(|subscribers| {
            keep_nothing(&subscribers);
            let (one, other) = (chunk(1), chunk(2));
            let mut all = [1, 2, 3].map(|_| stalled(&subscribers, &one));
            let mut last = stalled(&subscribers, &other);
            all.iter_mut().for_each(|stalled| stalled.ask(&subscribers));
            let begun = take(&subscribers);
            subscribers.inner.borrow_mut().remove(all[0].id);
            subscribers.go_on_in(&begun, Ok(Some(one.bytes.clone())));
            drop(begun);
            let next = &mut all[1];
            next.read();
            assert!(one.bytes.starts_with(&next.got), "it goes on at the very byte");
            let mut inner = subscribers.inner.borrow_mut();
            assert!(inner.ready.contains(&all[2].id), "and so will who came after it");
            all.iter().for_each(|stalled| inner.remove(stalled.id));
            inner.gone.waiting.clear();
            drop(inner);

            last.ask(&subscribers);
            let begun = take(&subscribers);
            subscribers.inner.borrow_mut().remove(last.id);
            subscribers.go_on_in(&begun, Ok(Some(other.bytes.clone())));
            assert!(!begun.is_here(), "nobody wants it");
        });
    }

    #[test]
    fn who_stands_in_what_cannot_be_had_again_is_cut_off_when_it_asks() {
        on_a_shard(|subscribers| {
            keep_nothing(&subscribers);
            let (one, other) = (chunk(1), chunk(2));
            let mut all = [1, 2].map(|_| stalled(&subscribers, &one));
            let _last = stalled(&subscribers, &other);
            for stalled in &mut all {
                stalled.ask(&subscribers);
                let begun = take(&subscribers);
                assert!(subscribers.has(stalled.id));
                subscribers.go_on_in(&begun, Ok(None));
                assert!(!subscribers.has(stalled.id));
            }
        });
    }

    /// A WebSocket that waited for its chunk for a minute was taken for lost.
    #[test]
    fn nobody_is_asked_for_signs_of_life_while_it_waits_for_us() {
        on_a_shard(|subscribers| {
            keep_nothing(&subscribers);
            let (one, other) = (chunk(1), chunk(2));
            let mut stalled_in_one = stalled(&subscribers, &one);
            let last = stalled(&subscribers, &other);
            stalled_in_one.ask(&subscribers);
            let ring = |tick| {
                let mut inner = subscribers.inner.borrow_mut();
                inner.tick = tick;
                inner.take_alarms();
                while let Some(id) = inner.rung.pop() {
                    inner.ring(&subscribers, id);
                }
            };
            ring(1000);
            let told = |stalled: &Stalled| (stalled.told.beats.get(), stalled.told.waits.get());
            assert_eq!((told(&stalled_in_one), told(&last)), ((0, 0), (1, 0)));
            let mut parts = 0;
            while !subscribers.inner.borrow().gone.waiting.is_empty() {
                let begun = take(&subscribers);
                subscribers.go_on_in(&begun, Ok(Some(one.bytes.clone())));
                parts += 1;
            }
            assert_eq!(told(&stalled_in_one), (0, parts), "it could take nothing before");
            ring(2000);
            assert_eq!((told(&stalled_in_one), told(&last)), ((1, parts), (2, 0)));
        });
    }
}
