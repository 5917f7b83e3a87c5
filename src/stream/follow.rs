//! Published frames on their way to the views of one log on one shard.
//!
//! Each frame is offered once to each view whose patterns may match one of its topics; an event costs
//! nothing for the other views. The view encodes what it wants into its ring, and its waiting
//! subscribers are woken, the first few at once, the others in slices, so that an acknowledgement
//! does not wait behind thousands of sends.
//!
//! Invariants:
//! 1. Every view's ring has considered every offset from its start up to `considered`.
//! 2. `considered` never passes the visible offset, and never goes back.
//! 3. `ring_bytes` is the sum over all rings, and at most `ring_bytes_max` after each frame.
//! 4. A view is in `holding` exactly when its ring holds a chunk.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};

use strandline_storage::frame::Frame;
use strandline_storage::offset::Offset;

use super::chunk::{Chunk, ChunkBuilder, Render, RingRead};
use super::outlet::{SEND_BYTES_MAX, SEND_CHUNKS_MAX};
use super::view::{View, ViewId, ViewKey};

/// A view's ring keeps at most this many bytes: a few sends' worth. Who is further behind reads the
/// log, whose recent frames are in memory too.
pub const VIEW_RING_BYTES_MAX: usize = 1024 * 1024;

/// All rings of a log on a shard keep at most this many bytes together; then the views give up their
/// oldest chunks in turn.
pub const SHARD_RING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// So many subscribers are woken before everything else has its turn: their sends take about a
/// quarter of a millisecond.
const WAKES_PER_SLICE: usize = 64;

/// The views of one log on one shard.
pub struct Follow {
    inner: RefCell<Inner>,
}

struct Inner {
    views: HashMap<ViewId, View>,
    by_key: HashMap<Rc<ViewKey>, ViewId>,
    exact: HashMap<Box<str>, Vec<ViewId>>,
    patterned: Vec<ViewId>,
    holding: VecDeque<ViewId>,
    considered: Offset,
    ring_bytes: usize,
    ring_bytes_max: usize,
    view_id_next: u64,
    scratch: Vec<u8>,
    wakes: VecDeque<Waker>,
    waker_of_wakes: Option<Waker>,
}

impl Follow {
    /// No views yet; frames are expected from `visible` on.
    pub fn new(visible: Offset) -> Rc<Self> {
        Self::with_limit(visible, SHARD_RING_BYTES_MAX)
    }

    fn with_limit(visible: Offset, ring_bytes_max: usize) -> Rc<Self> {
        let inner = Inner {
            views: HashMap::new(),
            by_key: HashMap::new(),
            exact: HashMap::new(),
            patterned: Vec::new(),
            holding: VecDeque::new(),
            considered: visible,
            ring_bytes: 0,
            ring_bytes_max,
            view_id_next: 0,
            scratch: Vec::new(),
            wakes: VecDeque::new(),
            waker_of_wakes: None,
        };
        Rc::new(Follow { inner: RefCell::new(inner) })
    }

    /// Takes a place among the subscribers of the view of `key`, which `render` renders if it is new.
    pub fn join(
        self: &Rc<Self>,
        key: ViewKey,
        render: impl FnOnce() -> Rc<dyn Render>,
    ) -> Attachment {
        let mut inner = self.inner.borrow_mut();
        let view_id = match inner.by_key.get(&key) {
            Some(view_id) => *view_id,
            None => inner.add_view(key, render()),
        };
        let place = inner.view(view_id).waiters.enter();
        Attachment { follow: self.clone(), view_id, place }
    }

    /// Gives a frame to the views that it may matter to. One that was seen already is ignored; one
    /// that comes after a lost one makes every ring start anew.
    pub fn publish(&self, frame: &Frame) {
        let mut woken = VecDeque::new();
        {
            let mut inner = self.inner.borrow_mut();
            if frame.end_offset() <= inner.considered {
                return;
            }
            if frame.base_offset() > inner.considered {
                inner.restart(frame.base_offset(), &mut woken);
            }
            inner.publish(frame, &mut woken);
        }
        self.wake(woken);
    }

    /// Everything below `visible` can be read. Where the news of a frame was lost, subscribers will
    /// read it from the log.
    pub fn advance(&self, visible: Offset) {
        let mut woken = VecDeque::new();
        {
            let mut inner = self.inner.borrow_mut();
            if visible <= inner.considered {
                return;
            }
            inner.restart(visible, &mut woken);
        }
        self.wake(woken);
    }

    /// How many views there are.
    pub fn view_count(&self) -> usize {
        self.inner.borrow().views.len()
    }

    /// The bytes that all rings hold.
    pub fn ring_bytes(&self) -> usize {
        self.inner.borrow().ring_bytes
    }

    /// Wakes the first few and leaves the others to [`Follow::wake_in_slices`].
    fn wake(&self, mut woken: VecDeque<Waker>) {
        let now = {
            let mut inner = self.inner.borrow_mut();
            let count = if inner.wakes.is_empty() { WAKES_PER_SLICE.min(woken.len()) } else { 0 };
            let later = woken.split_off(count);
            inner.wakes.extend(later);
            if !inner.wakes.is_empty() {
                woken.extend(inner.waker_of_wakes.take());
            }
            woken
        };
        now.into_iter().for_each(Waker::wake);
    }

    /// Runs until `follow` is dropped: wakes subscribers, so many a slice.
    pub async fn wake_in_slices(follow: Weak<Follow>) {
        loop {
            // The task is woken by what it looks after, so it must not keep that alive.
            let has_more = std::future::poll_fn(|context| {
                let Some(follow) = follow.upgrade() else { return Poll::Ready(false) };
                let mut inner = follow.inner.borrow_mut();
                if inner.wakes.is_empty() {
                    inner.waker_of_wakes = Some(context.waker().clone());
                    return Poll::Pending;
                }
                Poll::Ready(true)
            });
            if !has_more.await {
                return;
            }
            crate::runtime::end_slice().await;
            let woken: Vec<Waker> = {
                let Some(follow) = follow.upgrade() else { return };
                let mut inner = follow.inner.borrow_mut();
                let count = WAKES_PER_SLICE.min(inner.wakes.len());
                inner.wakes.drain(..count).collect()
            };
            woken.into_iter().for_each(Waker::wake);
        }
    }
}

impl Inner {
    fn view(&mut self, view_id: ViewId) -> &mut View {
        self.views.get_mut(&view_id).expect("a view lives as long as its subscribers")
    }

    fn add_view(&mut self, key: ViewKey, render: Rc<dyn Render>) -> ViewId {
        let view_id = ViewId(self.view_id_next);
        self.view_id_next += 1;
        let key = Rc::new(key);
        match exact_topics(&key) {
            Some(topics) => {
                for topic in topics {
                    self.exact.entry(topic.into()).or_default().push(view_id);
                }
            }
            None => self.patterned.push(view_id),
        }
        self.by_key.insert(key.clone(), view_id);
        self.views.insert(view_id, View::new(key, render, self.considered));
        view_id
    }

    fn drop_view(&mut self, view_id: ViewId) {
        let view = self.views.remove(&view_id).expect("it is dropped once");
        self.by_key.remove(&view.key);
        match exact_topics(&view.key) {
            Some(topics) => {
                for topic in topics {
                    if let Some(view_ids) = self.exact.get_mut(topic) {
                        view_ids.retain(|other| *other != view_id);
                        if view_ids.is_empty() {
                            self.exact.remove(topic);
                        }
                    }
                }
            }
            None => self.patterned.retain(|other| *other != view_id),
        }
        if !view.ring.is_empty() {
            self.holding.retain(|other| *other != view_id);
        }
        self.ring_bytes -= view.ring.bytes();
    }

    fn restart(&mut self, start: Offset, woken: &mut VecDeque<Waker>) {
        assert!(start > self.considered, "what was considered stays so");
        for view in self.views.values_mut() {
            self.ring_bytes -= view.ring.restart(start);
            view.waiters.take(woken);
        }
        self.holding.clear();
        self.considered = start;
        assert_eq!(self.ring_bytes, 0, "no ring holds anything");
    }

    fn publish(&mut self, frame: &Frame, woken: &mut VecDeque<Waker>) {
        for view_id in self.views_for(frame) {
            self.give(view_id, frame, woken);
        }
        self.considered = frame.end_offset();
        while self.ring_bytes > self.ring_bytes_max {
            let Some(view_id) = self.holding.pop_front() else { break };
            let ring = &mut self.view(view_id).ring;
            let freed = ring.evict_oldest();
            if !ring.is_empty() {
                self.holding.push_back(view_id);
            }
            self.ring_bytes -= freed;
        }
    }

    fn views_for(&self, frame: &Frame) -> Vec<ViewId> {
        let mut view_ids = Vec::new();
        if !self.exact.is_empty() {
            for (_, topic) in frame.topics() {
                view_ids.extend(self.exact.get(topic).into_iter().flatten());
            }
            view_ids.sort_unstable();
            view_ids.dedup();
        }
        view_ids.extend(self.patterned.iter().filter(|view_id| {
            let selection = &self.views[*view_id].selection;
            frame.topics().any(|(_, topic)| selection.matches(topic))
        }));
        view_ids
    }

    fn give(&mut self, view_id: ViewId, frame: &Frame, woken: &mut VecDeque<Waker>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let considered = self.considered;
        let view = self.view(view_id);
        let (held, was_empty) = (view.ring.bytes(), view.ring.is_empty());
        let mut has_news = false;
        for chunk in encode(view, frame, considered, &mut scratch) {
            view.ring.push(chunk);
            has_news = true;
        }
        if has_news {
            view.waiters.take(woken);
            while view.ring.bytes() > VIEW_RING_BYTES_MAX {
                view.ring.evict_oldest();
            }
            let (holds, is_empty) = (view.ring.bytes(), view.ring.is_empty());
            self.ring_bytes = self.ring_bytes - held + holds;
            match (was_empty, is_empty) {
                (true, false) => self.holding.push_back(view_id),
                (false, true) => self.holding.retain(|other| *other != view_id),
                _ => (),
            }
        }
        self.scratch = scratch;
    }
}

/// The topics of a view that wants no pattern.
fn exact_topics(key: &ViewKey) -> Option<Vec<&str>> {
    key.wanted.patterns().iter().map(|pattern| pattern.exact()).collect()
}

fn encode(view: &View, frame: &Frame, from: Offset, scratch: &mut Vec<u8>) -> Vec<Chunk> {
    let picks = view.selection.pick(frame, from..frame.end_offset());
    let mut builder = ChunkBuilder::new(view.render.as_ref(), scratch);
    let mut chunks = Vec::new();
    for event in picks.events(frame).filter(|event| view.key.wanted.takes(event)) {
        chunks.extend(builder.push(&event));
    }
    chunks.extend(builder.finish());
    chunks
}

/// A subscriber's place in a view; dropping it leaves, and the last one takes the view along.
pub struct Attachment {
    follow: Rc<Follow>,
    view_id: ViewId,
    place: usize,
}

impl Attachment {
    /// Puts the chunks for a subscriber at `next` into `batch`, up to the bounds of one send.
    pub fn read(&self, next: Offset, batch: &mut Vec<Chunk>) -> RingRead {
        let mut inner = self.follow.inner.borrow_mut();
        let considered = inner.considered;
        let ring = &inner.view(self.view_id).ring;
        ring.read(next, considered, batch, (SEND_BYTES_MAX, SEND_CHUNKS_MAX))
    }

    /// Wakes `waker` once when the view has something new. Ask [`Attachment::read`] first: nothing
    /// can come between the two.
    pub fn wait(&self, waker: &Waker) {
        let old = self.follow.inner.borrow_mut().view(self.view_id).waiters.wait(self.place, waker);
        drop(old);
    }

    /// What the view wants.
    pub fn key(&self) -> Rc<ViewKey> {
        self.follow.inner.borrow_mut().view(self.view_id).key.clone()
    }
}

impl Drop for Attachment {
    fn drop(&mut self) {
        let left = {
            let mut inner = self.follow.inner.borrow_mut();
            let view = inner.view(self.view_id);
            let left = view.waiters.leave(self.place);
            if view.waiters.is_empty() {
                inner.drop_view(self.view_id);
            }
            left
        };
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use bytes::Bytes;
    use strandline_storage::buffer::DiskBuffer;
    use strandline_storage::event::{EventType, EventView, NewEvent, StagedEvent};
    use strandline_storage::frame::{self, FrameFlags, FrameMeta, Seed};
    use strandline_storage::segment::Incarnation;
    use strandline_storage::topic::{Topic, TopicNumber, TopicPattern};

    use super::super::view::{Rendering, Wanted};
    use super::*;

    const SSE: Rendering = Rendering::Sse { is_object: false, is_chunked: false };

    /// A frame of one event a topic, from `base` on; a topic may be followed by ` type`.
    fn frame(base: u64, topics: &[&str]) -> Frame {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        let events: Vec<StagedEvent> = topics
            .iter()
            .zip(base..)
            .map(|(text, offset)| {
                let (topic, event_type) = text.split_once(' ').unwrap_or((text, "message"));
                let topic = Topic::parse(topic).expect("a topic");
                let data = Bytes::from(format!("{offset}"));
                let mut event = NewEvent::json(topic, data);
                event.event_type = EventType::parse(event_type).expect("a type");
                let number = event.topic.as_str().len().try_into().expect("a small number");
                StagedEvent {
                    offset: Offset::new(offset),
                    time_ms: 1,
                    topic_number: TopicNumber::new(number),
                    event,
                }
            })
            .collect();
        let meta = FrameMeta {
            base_offset: Offset::new(base),
            commit_time_ms: 1,
            synced_offset: Offset::ZERO,
            previous_checksum: seed.chain_start(),
            flags: FrameFlags::default(),
        };
        frame::encode(&meta, &events, seed, DiskBuffer::with_capacity(4096))
    }

    struct Numbers;

    impl Render for Numbers {
        fn event(&self, event: &EventView<'_>, out: &mut Vec<u8>) {
            out.extend_from_slice(event.data());
            out.push(b' ');
        }
    }

    fn key(patterns: &[&str], types: &[&str]) -> ViewKey {
        let pattern = |text: &&str| TopicPattern::parse(text).expect("a pattern");
        let event_type = |text: &&str| EventType::parse(text).expect("a type");
        let patterns = patterns.iter().map(pattern).collect();
        let types = types.iter().map(event_type).collect();
        ViewKey { wanted: Wanted::new(patterns, types), rendering: SSE }
    }

    fn join(follow: &Rc<Follow>, patterns: &[&str]) -> Attachment {
        follow.join(key(patterns, &[]), || Rc::new(Numbers))
    }

    fn read(attachment: &Attachment, next: u64) -> (String, RingRead) {
        let mut batch = Vec::new();
        let read = attachment.read(Offset::new(next), &mut batch);
        let bytes: Vec<u8> = batch.iter().flat_map(|chunk| chunk.bytes.to_vec()).collect();
        (String::from_utf8(bytes).expect("digits"), read)
    }

    fn through(text: &str, end: u64) -> (String, RingRead) {
        (text.into(), RingRead::Through(Offset::new(end)))
    }

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn a_view_gets_what_matches_and_only_its_subscribers_wake() {
        let follow = Follow::new(Offset::new(10));
        let exact = join(&follow, &["a/b"]);
        let pattern = join(&follow, &["a/*", "c"]);
        let all = join(&follow, &[]);
        let typed = follow.join(key(&[], &["trade"]), || Rc::new(Numbers));
        let woken = Arc::new(Woken::default());
        pattern.wait(&Waker::from(woken.clone()));
        follow.publish(&frame(10, &["x", "a/b", "cc trade"]));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        pattern.wait(&Waker::from(woken.clone()));
        follow.publish(&frame(13, &["x", "y", "z"]));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&exact, 10), through("11 ", 16));
        assert_eq!(read(&pattern, 10), through("11 ", 16));
        assert_eq!(read(&all, 10), through("10 11 12 13 14 15 ", 16));
        assert_eq!(read(&typed, 10), through("12 ", 16));
        assert_eq!(follow.ring_bytes(), 3 + 3 + 18 + 3);
    }

    #[test]
    fn subscribers_share_a_view_and_the_last_one_takes_it_along() {
        let follow = Follow::new(Offset::ZERO);
        let first = join(&follow, &["a", "b"]);
        let second = join(&follow, &["b", "a", "a"]);
        assert_eq!(follow.view_count(), 1);
        follow.publish(&frame(0, &["a", "b"]));
        drop(first);
        assert_eq!(read(&second, 0), through("0 1 ", 2));
        drop(second);
        assert_eq!((follow.view_count(), follow.ring_bytes()), (0, 0));
        follow.publish(&frame(2, &["a"]));
        let late = join(&follow, &["a"]);
        assert_eq!(read(&late, 2).1, RingRead::Behind(Offset::new(3)));
        assert_eq!(read(&late, 3), through("", 3));
    }

    #[test]
    fn a_lost_frame_is_read_from_the_log_and_an_old_one_is_ignored() {
        let follow = Follow::new(Offset::ZERO);
        let all = join(&follow, &[]);
        follow.publish(&frame(0, &["a"]));
        let woken = Arc::new(Woken::default());
        all.wait(&Waker::from(woken.clone()));
        follow.publish(&frame(5, &["a"]));
        assert_eq!(woken.0.load(Ordering::Relaxed), 1);
        assert_eq!(read(&all, 1).1, RingRead::Behind(Offset::new(5)));
        assert_eq!(read(&all, 5), through("5 ", 6));
        follow.publish(&frame(1, &["a", "a", "a", "a"]));
        assert_eq!(read(&all, 5), through("5 ", 6));
        all.wait(&Waker::from(woken.clone()));
        follow.advance(Offset::new(9));
        assert_eq!(woken.0.load(Ordering::Relaxed), 2);
        assert_eq!(read(&all, 6).1, RingRead::Behind(Offset::new(9)));
        follow.advance(Offset::new(7));
        follow.publish(&frame(9, &["a"]));
        assert_eq!(read(&all, 9), through("9 ", 10));
    }

    #[test]
    fn rings_are_bounded_together() {
        let follow = Follow::with_limit(Offset::ZERO, 10);
        let views = ["a", "b", "c"].map(|topic| join(&follow, &[topic]));
        for (topic, base) in ["a", "b", "c"].into_iter().cycle().zip(0..30) {
            follow.publish(&frame(base, &[topic]));
            assert!(follow.ring_bytes() <= 10);
        }
        assert_eq!(read(&views[2], 29), through("29 ", 30));
        assert!(matches!(read(&views[0], 0).1, RingRead::Behind(_)));
        drop(views);
        assert_eq!(follow.ring_bytes(), 0);
    }

    #[test]
    fn many_are_woken_in_turns() {
        let follow = Follow::new(Offset::ZERO);
        let woken = Arc::new(Woken::default());
        let attachments: Vec<Attachment> = (0..200)
            .map(|_| {
                let attachment = join(&follow, &[]);
                attachment.wait(&Waker::from(woken.clone()));
                attachment
            })
            .collect();
        follow.publish(&frame(0, &["a"]));
        assert_eq!(woken.0.load(Ordering::Relaxed), WAKES_PER_SLICE);
        drop(attachments);
        assert_eq!(follow.inner.borrow().wakes.len(), 200 - WAKES_PER_SLICE);
    }
}
