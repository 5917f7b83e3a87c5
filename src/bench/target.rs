//! What the load generator needs to know of a server: how to reach it, and how it speaks.
//!
//! ```text
//! Target --- publisher(index) ----> PublisherWire     events in, bytes out; bytes in, acknowledgements out
//!        \-- subscriber(index) ---> SubscriberWire    bytes in, deliveries out
//! ```
//! A wire is one connection's protocol, sans-I/O: it neither reads nor writes, knows no clock, and keeps
//! only what its protocol needs between two calls. Sockets, buffers, time and checking are the
//! generator's, the same for every target, so that servers are compared and not clients.
//!
//! The generator is generic over its target: a delivery costs no call through a pointer.

use std::{io, net::SocketAddr};

/// A server under load.
pub trait Target {
    /// How a connection that appends speaks.
    type Publisher: PublisherWire;
    /// How a connection that receives speaks.
    type Subscriber: SubscriberWire;

    /// What it is called in tables.
    fn name(&self) -> &str;

    /// Where it listens.
    fn address(&self) -> SocketAddr;

    /// The processes whose CPU time and memory are counted as the server's; none if that is unknown.
    fn processes(&self) -> Vec<u32>;

    /// Makes it ready for events: creates the topic, the stream, the consumer group. Called once, before
    /// the first connection.
    fn prepare(&self) -> io::Result<()> {
        Ok(())
    }

    /// The wire of publisher `index`, from 0.
    fn publisher(&self, index: u32) -> Self::Publisher;

    /// The wire of subscriber `index`, from 0, which is to receive all that comes from `start` on.
    fn subscriber(&self, index: u32, start: &From) -> Self::Subscriber;
}

/// Where a subscriber begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// With what is appended after it became ready.
    Latest,
    /// With the first event of the topic.
    Earliest,
    /// Behind the event that was delivered with this cursor ([`Delivery::cursor`]).
    After(Box<[u8]>),
}

/// One event as it came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delivery<'a> {
    /// The event's data, as the publisher was given it ([`PublisherWire::push_event`]).
    pub payload: &'a [u8],
    /// What to begin behind, in [`From::After`]; empty where the protocol has nothing of the kind.
    pub cursor: &'a [u8],
    /// How many bytes of what was given to [`SubscriberWire::take`] it ends behind: these make it whole.
    /// `None` where it was made whole from something else, such as a compressed block.
    pub end: Option<usize>,
}

/// One connection that appends.
///
/// Payloads are ASCII without quotes, backslashes, `<`, `&` and control characters, all of the same
/// length in a run: they may stand as they are in JSON strings, in text, in lines.
pub trait PublisherWire {
    /// Appends what is sent first to `out`, if anything: a greeting, an upgrade.
    fn hello(&mut self, out: &mut Vec<u8>);

    /// Whether events may be sent. Until then whatever comes goes to [`take_acks`](Self::take_acks),
    /// which counts none.
    fn is_ready(&self) -> bool {
        true
    }

    /// Appends one event's request to `out`. Where events are acknowledged in batches ([`batch_events`](
    /// Self::batch_events)), it is a part of one.
    fn push_event(&mut self, payload: &[u8], out: &mut Vec<u8>);

    /// How many events are acknowledged together; the generator always begins and ends whole batches.
    fn batch_events(&self) -> u32 {
        1
    }

    /// Takes received bytes: returns how many of them it is done with, and how many events they
    /// acknowledge as durable, in the order in which they were pushed. The rest is given again with what
    /// comes behind it. What must be answered (a ping) goes to `out`. An error ends the run: it says
    /// what the server refused.
    fn take_acks(&mut self, input: &[u8], out: &mut Vec<u8>) -> Result<(usize, u32), String>;
}

/// One connection that receives.
pub trait SubscriberWire {
    /// Appends what is sent first to `out`: the request, the subscription.
    fn hello(&mut self, out: &mut Vec<u8>);

    /// Whether the subscription holds: everything appended from now on will be delivered.
    fn is_ready(&self) -> bool;

    /// Whether what was taken says nothing about what comes next: it is between two events, and would read
    /// the same bytes as the same events as any other connection of the run that is. Then it may be spared
    /// what others have read. A wire that numbers its events, or answers them, never is.
    fn is_between(&self) -> bool {
        false
    }

    /// Takes received bytes: calls `on_event` for each event in them and returns how many of them it is
    /// done with. The rest, the beginning of an event, is given again with what comes behind it, so that
    /// a wire needs no buffer of its own. What must be answered (a ping, an acknowledgement of a
    /// delivery) goes to `out`. An error says why the connection can go on no longer.
    ///
    /// This is the hot path: millions of events a second come through it on one core.
    fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        on_event: impl FnMut(Delivery<'_>),
    ) -> Result<usize, String>;
}
