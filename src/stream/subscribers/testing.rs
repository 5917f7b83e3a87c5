//! Subscribers to everything from the start on, and a shard without a server, for tests.

use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::sync::Arc;

use strandline_storage::event::EventView;
use strandline_storage::io::uring::{UringFiles, UringReads};
use strandline_storage::log::WriteMode;
use strandline_storage::offset::Offset;
use strandline_storage::once::IdWindow;
use strandline_storage::segment::Tag;
use strandline_storage::topic::TopicPattern;

use super::slot::{Slot, Sub, Subs};
use super::{Inner, Port, SlotId, SubState, Subscribers};
use crate::local::{Guard, Leave};
use crate::log_calls::Guest;
use crate::log_handle::{LogHandle, Seat};
use crate::log_shared::{LogFacts, LogShared};
use crate::mesh::{CallLimits, Doorbell, MailboxLimits, call_pair, mailbox};
use crate::runtime::{Driver, Slice, block_on};
use crate::shutdown::{Control, Drain};
use crate::stream::catch_up::Turns;
use crate::stream::chunk::{Render, Word};
use crate::stream::compression::Encoding;
use crate::stream::subscription::Subscription;
use crate::stream::view::{Member, Rendering, ViewId, ViewKey};
use crate::stream::wanted::Wanted;

/// Says nothing.
pub(super) struct Unsaid;

impl Render for Unsaid {
    fn event(&self, _: &EventView<'_>, _: &mut Vec<u8>) {}

    fn say(&self, _: Word, _: &mut Vec<u8>) {}
}

struct Nobody;

impl Leave for Nobody {
    fn left(&self) {}
}

/// What is dropped with a connection.
pub fn guard() -> Guard {
    Guard::new(Rc::new(Nobody))
}

/// Does `job` on a shard's thread, with the subscribers of an empty log, whose owner answers nobody.
pub fn on_a_shard(job: impl FnOnce(Rc<Subscribers>) + Send + 'static) {
    let on_thread = move || {
        let work = async move {
            let control = Arc::new(Control::new(Vec::new()));
            let (turns, drain, gaps) = (Turns::default(), Drain::new(control), Arc::default());
            job(Subscribers::start(empty_log(), turns, drain, gaps).expect("they can be watched"));
        };
        block_on(Driver::detect().0, true, work).expect("a runtime");
    };
    std::thread::spawn(on_thread).join().expect("no panic");
}

/// The log of those.
pub fn empty_log() -> Rc<LogHandle> {
    empty_log_and_shared().0
}

/// Such a log, and what its owner tells all shards of it.
pub fn empty_log_and_shared() -> (Rc<LogHandle>, Arc<LogShared>) {
    let bell = || Arc::new(Doorbell::new());
    let limits = || MailboxLimits { messages_max: 1, bytes_max: 1 };
    let calls = CallLimits { requests: limits(), unanswered_max: 1 };
    let guest = Guest::new(call_pair(calls, bell(), bell()).0, mailbox(limits(), bell()).1);
    let facts = LogFacts {
        tag: Tag::of_random(1),
        sync: Default::default(),
        write_mode: WriteMode::Direct,
        id_window: IdWindow { events: 0, time_ms: 0 },
        visible: Offset::ZERO,
        synced: Offset::ZERO,
        earliest: Offset::ZERO,
        segments: Arc::default(),
        floors: Arc::default(),
    };
    let reads = UringReads::new(Rc::new(UringFiles::new()));
    let shared = Arc::new(LogShared::new(facts, 1));
    let log = LogHandle::new(0, shared.clone(), Seat::Guest(guest), 0, reads);
    (Rc::new(log), shared)
}

/// What they want.
pub(super) fn everything() -> ViewKey {
    let all = TopicPattern::parse("**").expect("a pattern");
    let wanted = Rc::new(Wanted::new([all].into(), [].into()));
    let encoding = Encoding::Identity;
    ViewKey { wanted, rendering: Rendering::Sse { is_object: false, is_chunked: false, encoding } }
}

/// A subscriber with subscription 0, and its client.
pub(super) fn add(inner: &mut Inner, state: SubState) -> (SlotId, UnixStream) {
    let (socket, client) = UnixStream::pair().expect("a pair of sockets");
    let sub = Sub {
        number: 0,
        state,
        has_sent: false,
        view: ViewId(0),
        position: 0,
        place: Subscription::new(Offset::ZERO),
        told_deleted: Offset::ZERO,
    };
    let subs = Subs::One { sub, is_pinging: false };
    let slot = Slot::new(socket.into(), subs, 1, 0, guard());
    let id = inner.slots.insert(slot);
    let member = Member { slot: id.index, number: 0 };
    let (view, position) = inner.views.join(&everything(), member, || Rc::new(Unsaid));
    let sub = inner.slots.get_mut(id).and_then(|slot| slot.sub_mut(0)).expect("it was added");
    (sub.view, sub.position) = (view, position);
    (id, client)
}

/// Gives `job` what a session has of its connection while it is called.
pub fn with_port(subscribers: &Subscribers, id: SlotId, job: impl FnOnce(&mut Port<'_>)) {
    let inner = &mut *subscribers.inner.borrow_mut();
    job(&mut Port { inner, owner: subscribers, id });
}

/// One step for a connection to which its client has spoken, where it is time for others already: it does as little as it
/// may. Returns whether it has another turn.
pub fn step_when_a_slice_is_over(subscribers: &Subscribers, id: SlotId) -> bool {
    let mut inner = subscribers.inner.borrow_mut();
    inner.slice = Slice::begin();
    while !inner.slice.is_over() {
        std::hint::spin_loop();
    }
    if let Some(slot) = inner.slots.get_mut(id) {
        slot.has_input = true;
    }
    inner.run(subscribers, id);
    let session_has_more = |slot: &mut Slot| match &slot.subs {
        Subs::Many(many) => many.session.as_ref().expect("it is not called now").has_input(),
        Subs::One { .. } => false,
    };
    inner.slots.get_mut(id).is_some_and(|slot| slot.is_queued && session_has_more(slot))
}
