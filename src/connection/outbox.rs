//! What leaves a connection: answers in the order of their requests, as many in one write as are ready.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    os::fd::{BorrowedFd, RawFd},
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use monoio::{
    io::{AsyncWriteRent, AsyncWriteRentExt, OwnedWriteHalf},
    net::TcpStream,
    time::timeout,
};
use rustix::{io::Errno, net::SendFlags};

use crate::{append::AckAnswer, local::Signal};

/// A write carries about so much: what is ready beyond it goes with the next one.
const WRITE_BYTES: usize = 256 * 1024;

/// An answer that takes its time: the bytes of all of it.
pub type AnswerFuture = Pin<Box<dyn Future<Output = Vec<u8>>>>;

/// An answer that is sent in parts: it gets the way out, and returns whether it ended properly, so that
/// the connection can go on.
pub type StreamedAnswer =
    Box<dyn FnOnce(BodyWriter) -> Pin<Box<dyn Future<Output = (BodyWriter, bool)>>>>;

/// One answer, or what becomes one.
pub(super) enum Item {
    /// Bytes that are there.
    Ready(Vec<u8>),
    /// An append's, once it is durable.
    Append { answer: AckAnswer, event_bytes: usize },
    /// Any other that has to wait.
    Pending(AnswerFuture),
    /// One that is sent in parts.
    Streamed(StreamedAnswer),
}

/// The way out while an answer is sent in parts.
pub struct BodyWriter {
    half: OwnedWriteHalf<TcpStream>,
    /// The socket of `half`, which keeps it open.
    socket: RawFd,
    stall: Duration,
}

impl BodyWriter {
    /// Sends all of `bytes`. Fails when the client is gone, or takes nothing for the time that it has.
    ///
    /// What the socket takes at once, which is nearly always everything, leaves by a plain `send`: the
    /// ring would add a completion to each answer, and a timer.
    pub async fn send(&mut self, mut bytes: Vec<u8>) -> io::Result<()> {
        let sent = self.send_now(&bytes)?;
        if sent == bytes.len() {
            return Ok(());
        }
        bytes.drain(..sent);
        match timeout(self.stall, self.half.write_all(bytes)).await {
            Ok((result, _)) => result.map(|_| ()),
            // The write is dropped with the connection: nothing is sent after it.
            Err(_) => Err(io::ErrorKind::TimedOut.into()),
        }
    }

    /// Sends as much of `bytes` as there is space for now; returns how many.
    fn send_now(&self, bytes: &[u8]) -> io::Result<usize> {
        // SAFETY: `half` owns the descriptor and is ours, so it is open.
        let socket = unsafe { BorrowedFd::borrow_raw(self.socket) };
        match rustix::net::send(socket, bytes, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
            Ok(count) => Ok(count),
            Err(Errno::AGAIN | Errno::INTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }
}

/// What becomes of the socket when all answers have left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client is told that nothing more comes.
    Shutdown,
    /// Somebody else goes on with it.
    KeepSocket,
}

/// Answers between those who make them and the socket. Both belong to one task: the reader is polled
/// first, so that what it pushes is seen by the writer without a wake-up.
#[derive(Default)]
pub(super) struct Outbox {
    items: RefCell<VecDeque<Item>>,
    /// Requests without an answer in the kernel's hands, and the bytes of their events.
    unanswered: Cell<usize>,
    unanswered_bytes: Cell<usize>,
    /// No more will be pushed, and what then becomes of the socket.
    ending: Cell<Option<Ending>>,
    /// Whether the writing side failed: what is pushed is in vain.
    is_broken: Cell<bool>,
    progress: Signal,
}

impl Outbox {
    pub(super) fn push(&self, item: Item) {
        if let Item::Append { event_bytes, .. } = &item {
            self.unanswered_bytes.set(self.unanswered_bytes.get() + event_bytes);
        }
        self.unanswered.set(self.unanswered.get() + 1);
        self.items.borrow_mut().push_back(item);
    }

    /// No more answers: the writer ends when those that are there have left.
    pub(super) fn close(&self, ending: Ending) {
        self.ending.set(Some(ending));
    }

    /// Whether all answers are in the kernel's hands.
    pub(super) fn is_flushed(&self) -> bool {
        self.unanswered.get() == 0 || self.is_broken.get()
    }

    /// Resolves once all answers are in the kernel's hands; false if they will never be.
    pub(super) async fn flushed(&self) -> bool {
        while !self.is_flushed() {
            self.progress.wait().await;
        }
        !self.is_broken.get()
    }

    /// Resolves once there are fewer requests and bytes without an answer; false if the client is gone.
    pub(super) async fn room(&self, requests_max: usize, bytes_max: usize) -> bool {
        while self.unanswered.get() >= requests_max || self.unanswered_bytes.get() >= bytes_max {
            if self.is_broken.get() {
                break;
            }
            self.progress.wait().await;
        }
        !self.is_broken.get()
    }

    /// Sends answers until the outbox is closed and empty; returns the socket's half if it is to be
    /// kept. `socket` is the descriptor of `half`. Fails when the client is gone; then the answers that
    /// are missing are dropped, which undoes nothing of what they tell of.
    pub(super) async fn write_all(
        &self,
        half: OwnedWriteHalf<TcpStream>,
        socket: RawFd,
        stall: Duration,
    ) -> io::Result<Option<OwnedWriteHalf<TcpStream>>> {
        let result = self.write_on(BodyWriter { half, socket, stall }).await;
        if result.is_err() {
            self.is_broken.set(true);
            self.items.borrow_mut().clear();
        }
        self.progress.raise();
        let mut half = result?.half;
        if self.ending.get() == Some(Ending::KeepSocket) {
            return Ok(Some(half));
        }
        half.shutdown().await?;
        Ok(None)
    }

    async fn write_on(&self, mut writer: BodyWriter) -> io::Result<BodyWriter> {
        let mut waiting = None;
        loop {
            let batch = poll_fn(|context| self.poll_batch(&mut waiting, context)).await;
            if batch.answers == 0 && batch.streamed.is_none() {
                return Ok(writer);
            }
            if !batch.bytes.is_empty() {
                writer.send(batch.bytes).await?;
            }
            let mut answers = batch.answers;
            if let Some(streamed) = batch.streamed {
                let (back, is_whole) = streamed(writer).await;
                writer = back;
                answers += 1;
                if !is_whole {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
            }
            self.unanswered.set(self.unanswered.get() - answers);
            self.unanswered_bytes.set(self.unanswered_bytes.get() - batch.event_bytes);
            self.progress.raise();
        }
    }

    /// Ready with what can be sent: all answers up to the first that is not there yet. Without any, the
    /// outbox is closed and empty.
    fn poll_batch(&self, waiting: &mut Option<Item>, context: &mut Context<'_>) -> Poll<Batch> {
        let mut batch = Batch::default();
        while batch.bytes.len() < WRITE_BYTES {
            // The item is out of the queue while it is polled: it may do anything.
            let next = waiting.take().or_else(|| self.items.borrow_mut().pop_front());
            let Some(mut item) = next else { break };
            match item.poll_into(&mut batch, context) {
                Poll::Ready(()) if batch.streamed.is_some() => break,
                Poll::Ready(()) => {}
                Poll::Pending => {
                    *waiting = Some(item);
                    break;
                }
            }
        }
        let is_empty = batch.answers == 0 && batch.streamed.is_none();
        if is_empty && !(self.ending.get().is_some() && waiting.is_none()) {
            return Poll::Pending;
        }
        Poll::Ready(batch)
    }
}

/// What one write carries.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    answers: usize,
    event_bytes: usize,
    /// Then this takes over.
    streamed: Option<StreamedAnswer>,
}

impl Item {
    fn poll_into(&mut self, batch: &mut Batch, context: &mut Context<'_>) -> Poll<()> {
        match self {
            Item::Ready(bytes) if batch.bytes.is_empty() => batch.bytes = std::mem::take(bytes),
            Item::Ready(bytes) => batch.bytes.extend_from_slice(bytes),
            Item::Append { answer, event_bytes } => {
                std::task::ready!(answer.poll_into(&mut batch.bytes, context));
                batch.event_bytes += *event_bytes;
            }
            Item::Pending(answer) => {
                let bytes = std::task::ready!(answer.as_mut().poll(context));
                batch.bytes.extend_from_slice(&bytes);
            }
            Item::Streamed(_) => {
                let placeholder = Item::Ready(Vec::new());
                let Item::Streamed(streamed) = std::mem::replace(self, placeholder) else {
                    unreachable!("it was matched")
                };
                batch.streamed = Some(streamed);
                return Poll::Ready(());
            }
        }
        batch.answers += 1;
        Poll::Ready(())
    }
}
