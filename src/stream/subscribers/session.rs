//! What an edge adds to the subscriptions of a connection that talks back: a WebSocket.

use strandline_storage::error::ReadError;
use strandline_storage::offset::Offset;

use super::Port;
use crate::log_calls::{AckFuture, Acked, AppendRefused};
use crate::problem::CloseCode;

/// Why a session goes no further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// We end it.
    Close(CloseCode),
    /// The client did, with this code.
    Closed(Option<u16>),
    /// Without a word: nobody is there.
    Lost,
}

/// The talking side of a connection. It is called when something happens and keeps no task; what it
/// wants done it does through the [`Port`] that it is given.
pub trait Session {
    /// Bytes came in, which it may only be given while [`Session::may_receive`].
    fn receive(&mut self, bytes: &[u8], port: &mut Port<'_>) -> Result<(), End>;

    /// Goes on with what has come in, if it stopped in the middle of it.
    fn resume(&mut self, port: &mut Port<'_>) -> Result<(), End>;

    /// Whether it takes more bytes now.
    fn may_receive(&self) -> bool;

    /// Whether it stopped in the middle of what has come in.
    fn has_input(&self) -> bool;

    /// Whether it did so to let others go first: it is called again as soon as they have.
    fn lets_others_first(&self) -> bool;

    /// Whether there are bytes to be sent before any further event.
    fn has_answers(&self) -> bool;

    /// Takes them: whole frames.
    fn take_answers(&mut self) -> Vec<u8>;

    /// A search that it asked for has found where a subscription begins.
    fn found(
        &mut self,
        search: u32,
        from: Result<Offset, ReadError>,
        port: &mut Port<'_>,
    ) -> Result<(), End>;

    /// The first append without an answer: [`Session::acknowledged`] is called with what becomes of it.
    fn next_append(&mut self) -> Option<AckFuture>;

    /// The first append has its answer.
    fn acknowledged(&mut self, result: Result<Acked, AppendRefused>);

    /// Whether any append has no answer.
    fn has_appends(&self) -> bool;

    /// Its client, who waited for us to encode what it is owed, is sent that from now on.
    fn was_kept_waiting(&mut self);

    /// Its heartbeat is due. Not while its client waits for us ([`Session::was_kept_waiting`]).
    fn beat(&mut self, port: &mut Port<'_>) -> Result<(), End>;

    /// Puts its last words among the answers; nothing more is asked of it.
    fn close(&mut self, end: End);
}
