//! What leaves a connection: answers in the order of their requests, as many in one write as are ready.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::poll_fn,
    io,
    task::{Context, Poll},
    time::Duration,
};

use monoio::{
    io::{AsyncWriteRent, AsyncWriteRentExt, OwnedWriteHalf},
    net::TcpStream,
    time::timeout,
};

use crate::{append::AckAnswer, local::Signal};

/// A write carries about so much: what is ready beyond it goes with the next one.
const WRITE_BYTES: usize = 256 * 1024;

/// One answer, or what becomes one.
pub(super) enum Item {
    /// Bytes that are there.
    Ready(Vec<u8>),
    /// An append's, once it is durable.
    Append { answer: AckAnswer, event_bytes: usize },
}

/// Answers between those who make them and the socket. Both belong to one task: the reader is polled
/// first, so that what it pushes is seen by the writer without a wake-up.
#[derive(Default)]
pub(super) struct Outbox {
    items: RefCell<VecDeque<Item>>,
    /// Requests without an answer in the kernel's hands, and the bytes of their events.
    unanswered: Cell<usize>,
    unanswered_bytes: Cell<usize>,
    /// No more will be pushed.
    is_closed: Cell<bool>,
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
    pub(super) fn close(&self) {
        self.is_closed.set(true);
    }

    /// Whether all answers are in the kernel's hands.
    pub(super) fn is_flushed(&self) -> bool {
        self.unanswered.get() == 0 || self.is_broken.get()
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

    /// Sends answers until the outbox is closed and empty, and then says that nothing more comes. Fails
    /// when the client is gone; then the answers that are missing are dropped, which undoes nothing of
    /// what they tell of.
    pub(super) async fn write_all(
        &self,
        mut half: OwnedWriteHalf<TcpStream>,
        stall: Duration,
    ) -> io::Result<()> {
        let result = self.write_on(&mut half, stall).await;
        if result.is_err() {
            self.is_broken.set(true);
            self.items.borrow_mut().clear();
        }
        self.progress.raise();
        result?;
        half.shutdown().await
    }

    async fn write_on(
        &self,
        half: &mut OwnedWriteHalf<TcpStream>,
        stall: Duration,
    ) -> io::Result<()> {
        let mut waiting = None;
        loop {
            let batch = poll_fn(|context| self.poll_batch(&mut waiting, context)).await;
            if batch.answers == 0 {
                return Ok(());
            }
            match timeout(stall, half.write_all(batch.bytes)).await {
                Ok((result, _)) => result?,
                // The write is dropped with the connection: nothing is sent after it.
                Err(_) => return Err(io::ErrorKind::TimedOut.into()),
            };
            self.unanswered.set(self.unanswered.get() - batch.answers);
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
                Poll::Ready(()) => {}
                Poll::Pending => {
                    *waiting = Some(item);
                    break;
                }
            }
        }
        if batch.answers == 0 && !(self.is_closed.get() && waiting.is_none()) {
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
        }
        batch.answers += 1;
        Poll::Ready(())
    }
}
