//! What leaves a connection: answers in the order of their requests, as many in one write as are ready.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use monoio::time::timeout;

use crate::{
    append::AckAnswer, config::Limits, local::Signal, socket::Socket, workspace::Workspace,
};

/// A write carries about so much: what is ready beyond it goes with the next one. It carries less where as much
/// is held, for clients that take nothing, that a page would be shorter.
const WRITE_BYTES: usize = 256 * 1024;

/// Of answers that are ready so much waits at most, and one more: who asks for many, and takes none, is not read
/// on. Without, 512 requests of 60 bytes for a file of ours took 6 MiB.
const READY_BYTES_MAX: usize = 64 * 1024;

/// So many answers wait to be made up at most: each holds what was asked for, a filter and patterns among it, of up
/// to 36 KiB. (With 512 of them 60 clients that took nothing had 1.1 GiB.)
const UNMADE_MAX: usize = 8;

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
    socket: Rc<Socket>,
    stall: Duration,
}

impl BodyWriter {
    /// Sends all of `bytes`. Fails when the client is gone, or takes nothing for the time that it has.
    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        loop {
            rest = &rest[self.socket.send_now(rest)?..];
            // The socket takes nearly always everything at once.
            if rest.is_empty() {
                return Ok(());
            }
            let writable = poll_fn(|context| self.socket.poll_writable(context));
            timeout(self.stall, writable).await.map_err(|_| io::ErrorKind::TimedOut)?;
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
    /// Answers, but those to appends, that are still to be made up. They tell of the log as it is when their
    /// turn comes: until then nothing that was asked for behind them may change it.
    unmade: Cell<usize>,
    /// The bytes of answers that were ready when they were pushed, and are not in the kernel's hands.
    ready_bytes: Cell<usize>,
    /// No more will be pushed, and what then becomes of the socket.
    ending: Cell<Option<Ending>>,
    /// Whether the writing side failed: what is pushed is in vain.
    is_broken: Cell<bool>,
    progress: Signal,
}

impl Outbox {
    pub(super) fn push(&self, item: Item) {
        match &item {
            Item::Append { event_bytes, .. } => {
                self.unanswered_bytes.set(self.unanswered_bytes.get() + event_bytes);
            }
            Item::Ready(answer) => self.ready_bytes.set(self.ready_bytes.get() + answer.len()),
            Item::Pending(_) | Item::Streamed(_) => self.unmade.set(self.unmade.get() + 1),
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

    /// Whether every answer is made up, or will tell of nothing but its own append.
    pub(super) fn is_made(&self) -> bool {
        self.unmade.get() == 0
    }

    /// Resolves once [`Outbox::is_made`]; false if the client is gone.
    pub(super) async fn made(&self) -> bool {
        while !self.is_made() && !self.is_broken.get() {
            self.progress.wait().await;
        }
        !self.is_broken.get()
    }

    fn count_made(&self, answers: usize) {
        self.unmade.set(self.unmade.get() - answers);
        self.progress.raise();
    }

    /// Whether there are fewer requests and bytes without an answer than these limits, and ours.
    pub(super) fn has_room(&self, limits: &Limits) -> bool {
        self.unanswered.get() < limits.pipelined_requests_max
            && self.unanswered_bytes.get() < limits.pipelined_bytes_max
            && self.ready_bytes.get() < READY_BYTES_MAX
            && self.unmade.get() < UNMADE_MAX
    }

    /// Resolves once [`Outbox::has_room`]; false if the client is gone.
    pub(super) async fn room(&self, limits: &Limits) -> bool {
        while !self.has_room(limits) && !self.is_broken.get() {
            self.progress.wait().await;
        }
        !self.is_broken.get()
    }

    /// Sends answers until the outbox is closed and empty. Fails when the client is gone; then the answers
    /// that are missing are dropped, which undoes nothing of what they tell of.
    pub(super) async fn write_all(
        &self,
        socket: &Rc<Socket>,
        workspace: &Workspace,
        stall: Duration,
    ) -> io::Result<()> {
        let result = self.write_on(BodyWriter { socket: socket.clone(), stall }, workspace).await;
        if result.is_err() {
            self.is_broken.set(true);
            self.items.borrow_mut().clear();
        }
        self.progress.raise();
        result?;
        match self.ending.get() {
            Some(Ending::KeepSocket) => Ok(()),
            _ => socket.shut_down_writing(),
        }
    }

    async fn write_on(&self, mut writer: BodyWriter, workspace: &Workspace) -> io::Result<()> {
        let mut waiting = None;
        loop {
            let send = |context: &mut Context<'_>| {
                self.poll_send(&mut waiting, &writer.socket, workspace, context)
            };
            let Some(sent) = poll_fn(send).await? else { return Ok(()) };
            if !sent.unsent.is_empty() {
                let _held = workspace.unsent().hold(sent.unsent.len());
                // Boxed, as few connections ever wait here.
                Box::pin(writer.send(&sent.unsent)).await?;
            }
            let mut answers = sent.answers;
            if let Some(streamed) = sent.streamed {
                let (back, is_whole) = streamed(writer).await;
                writer = back;
                answers += 1;
                if !is_whole {
                    return Err(io::ErrorKind::BrokenPipe.into());
                }
                self.count_made(1);
            }
            self.unanswered.set(self.unanswered.get() - answers);
            self.unanswered_bytes.set(self.unanswered_bytes.get() - sent.event_bytes);
            self.ready_bytes.set(self.ready_bytes.get() - sent.ready_bytes);
            self.progress.raise();
        }
    }

    /// Ready when answers were sent: all up to the first that is not there yet. With none, the outbox is
    /// closed and empty.
    fn poll_send(
        &self,
        waiting: &mut Option<Item>,
        socket: &Socket,
        workspace: &Workspace,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Sent>>> {
        if waiting.is_none() && self.items.borrow().is_empty() && self.ending.get().is_none() {
            return Poll::Pending;
        }
        let (mut sent, mut bytes) = (Sent::default(), workspace.take_output());
        let bytes_max = workspace.unsent().page_bytes_max().min(WRITE_BYTES);
        while bytes.len() < bytes_max {
            // The item is out of the queue while it is polled: it may do anything.
            let next = waiting.take().or_else(|| self.items.borrow_mut().pop_front());
            let Some(mut item) = next else { break };
            match item.poll_into(&mut bytes, &mut sent, context) {
                Poll::Ready(()) if sent.streamed.is_some() => break,
                Poll::Ready(()) => {}
                Poll::Pending => {
                    *waiting = Some(item);
                    break;
                }
            }
        }
        if sent.made > 0 {
            self.count_made(sent.made);
        }
        if sent.answers > 0 {
            let count = socket.send_now(&bytes)?;
            if count < bytes.len() {
                sent.unsent = bytes[count..].to_vec();
            }
        }
        workspace.give_output(bytes);
        if sent.answers > 0 || sent.streamed.is_some() {
            return Poll::Ready(Ok(Some(sent)));
        }
        let is_over = self.ending.get().is_some() && waiting.is_none();
        if is_over { Poll::Ready(Ok(None)) } else { Poll::Pending }
    }
}

/// What one write carried.
#[derive(Default)]
struct Sent {
    answers: usize,
    /// Of them, those that had to be made up.
    made: usize,
    event_bytes: usize,
    ready_bytes: usize,
    /// For what the socket had no space.
    unsent: Vec<u8>,
    /// Then this takes over.
    streamed: Option<StreamedAnswer>,
}

impl Item {
    /// Ready when the answer has been appended to `bytes`, and counted.
    fn poll_into(
        &mut self,
        bytes: &mut Vec<u8>,
        sent: &mut Sent,
        context: &mut Context<'_>,
    ) -> Poll<()> {
        match self {
            Item::Ready(answer) => {
                bytes.extend_from_slice(answer);
                sent.ready_bytes += answer.len();
            }
            Item::Append { answer, event_bytes } => {
                std::task::ready!(answer.poll_into(bytes, context));
                sent.event_bytes += *event_bytes;
            }
            Item::Pending(answer) => {
                let answer = std::task::ready!(answer.as_mut().poll(context));
                bytes.extend_from_slice(&answer);
                sent.made += 1;
            }
            Item::Streamed(_) => {
                let placeholder = Item::Ready(Vec::new());
                let Item::Streamed(streamed) = std::mem::replace(self, placeholder) else {
                    unreachable!("it was matched")
                };
                sent.streamed = Some(streamed);
                return Poll::Ready(());
            }
        }
        sent.answers += 1;
        Poll::Ready(())
    }
}
