//! Frames on their way to one shard, bounded by the memory that they hold.

use std::{
    cell::RefCell,
    sync::{Arc, Weak},
};

use strandline_storage::{buffer::DiskBuffer, frame::Frame};

use crate::mesh::Sender;

/// The owner's end of the mailbox in which a shard gets frames.
///
/// The frames of one write lie in the memory that it was written from, all of which stays for as long as one of them
/// waits. So the first that is taken weighs as much as that, and the others of that write nothing. What is not counted
/// is the rest of a write whose first frame the shard has taken out: it is the next that it takes, and so of one write.
pub(crate) struct Outbox {
    sender: Sender<Arc<Frame>>,
    /// What the last frame lies in that found room. Held weakly, it goes when the shard lets go of it, and yet no other
    /// comes to lie where it was.
    last: RefCell<Weak<DiskBuffer>>,
}

impl Outbox {
    pub(crate) fn new(sender: Sender<Arc<Frame>>) -> Self {
        Outbox { sender, last: RefCell::default() }
    }

    /// Gives the shard a frame, if there is room for it; whether there was.
    pub(super) fn give(&self, frame: &Arc<Frame>) -> bool {
        let memory = frame.buffer();
        let is_counted = std::ptr::eq(self.last.borrow().as_ptr(), Arc::as_ptr(memory));
        let bytes = if is_counted { 0 } else { memory.capacity() };
        let is_given = self.sender.try_send(Arc::clone(frame), bytes).is_ok();
        if is_given && !is_counted {
            *self.last.borrow_mut() = Arc::downgrade(memory);
        }
        is_given
    }

    /// Rings without a frame: the shard is to look at what all of them know.
    pub(super) fn ring(&self) {
        self.sender.ring();
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use strandline_storage::{
        event::{NewEvent, StagedEvent},
        frame::{FrameFlags, FrameMeta, FrameRow, Seed},
        io::sim::rng::SimRng,
        offset::Offset,
        segment::Incarnation,
        topic::{Topic, TopicNumber},
    };

    use super::*;
    use crate::mesh::{Doorbell, MailboxLimits, mailbox};

    const BYTES_MAX: usize = 1 << 20;
    const WRITE_BYTES_MAX: usize = 256 << 10;

    /// A write of frames of one event each, of these lengths, from `base` on, in memory for `room_bytes` at least.
    fn write(base: u64, lens: &[usize], room_bytes: usize) -> Vec<Arc<Frame>> {
        let seed = Seed::of(&Incarnation::new([7; 16]));
        let mut row = FrameRow::with_capacity(room_bytes);
        for (offset, len) in (base..).map(Offset::new).zip(lens) {
            let topic = Topic::parse("a").expect("a topic");
            let event = NewEvent::json(topic, Bytes::from(vec![b'1'; *len]));
            let meta = FrameMeta {
                base_offset: offset,
                commit_time_ms: 0,
                synced_offset: Offset::ZERO,
                previous_checksum: 0,
                flags: FrameFlags::NONE,
            };
            let topic_number = TopicNumber::new(0);
            row.push(&meta, &[StagedEvent { offset, time_ms: 0, topic_number, event }], seed);
        }
        row.finish().0.map(Arc::new).collect()
    }

    /// Long frames with a short one behind them, of which only the short ones find room at the end; short ones in memory
    /// that is not used up; and a shard that stands still, or takes some.
    #[test]
    fn what_waits_holds_no_more_memory_than_its_limit_and_a_write() {
        let mut rng = SimRng::new(1);
        let limits = MailboxLimits { messages_max: 4096, bytes_max: BYTES_MAX };
        let (sender, receiver) = mailbox(limits, Arc::new(Doorbell::new()));
        let outbox = Outbox::new(sender);
        let mut memories: Vec<Weak<DiskBuffer>> = Vec::new();
        let (mut base, mut most_bytes, mut refused) = (0, 0, 0);
        for round in 0..2_000 {
            let (lens, room_bytes) = match rng.below(4) {
                0 => (vec![100], 0),
                1 => (vec![100; 1 + rng.index(5)], WRITE_BYTES_MAX),
                _ => (vec![100 << 10, 100 << 10, 100], WRITE_BYTES_MAX),
            };
            let frames = write(base, &lens, room_bytes);
            base += frames.len() as u64;
            memories.push(Arc::downgrade(frames[0].buffer()));
            for frame in frames {
                refused += usize::from(!outbox.give(&frame));
            }
            // For a while it takes none.
            if round % 500 > 300 {
                (0..rng.below(8)).for_each(|_| drop(receiver.try_take()));
            }
            memories.retain(|memory| memory.strong_count() > 0);
            let held = memories.iter().filter_map(Weak::upgrade).map(|memory| memory.capacity());
            assert!(held.clone().all(|bytes| bytes <= WRITE_BYTES_MAX));
            let held_bytes: usize = held.sum();
            assert!(held_bytes <= BYTES_MAX + WRITE_BYTES_MAX, "{held_bytes} in round {round}");
            most_bytes = most_bytes.max(held_bytes);
        }
        assert!(most_bytes > BYTES_MAX * 3 / 4, "{most_bytes}: it is made use of");
        assert!(refused > 100, "{refused} found no room");
        while receiver.try_take().is_some() {}
        let frames = write(base, &[100 << 10, 100], WRITE_BYTES_MAX);
        assert!(frames.iter().all(|frame| outbox.give(frame)), "there is room again");
        let taken = std::iter::from_fn(|| receiver.try_take()).map(|frame| frame.base_offset());
        assert!(taken.eq(frames.iter().map(|frame| frame.base_offset())), "in the order given");
    }
}
