//! A thread for work that blocks: names, locks, zeroing, seals, and commits where there is no
//! io_uring.
//!
//! Work runs in the order in which it was given, one piece at a time. The result goes to a callback
//! on the disk thread, which hands it to its shard and wakes it, or to a future that any runtime
//! can await if its wakers work across threads.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex,
        mpsc::{self, SyncSender, TrySendError},
    },
    task::{Context, Poll, Waker},
    thread::{self, JoinHandle},
};

/// How much work may wait. Each log has at most its frames in flight, one sync and a few jobs
/// outstanding, so more than this is a bug, and panics.
pub const QUEUE_MAX: usize = 4096;

type Work = Box<dyn FnOnce() + Send>;

/// A thread that runs closures in order. Dropping it runs what was queued, then joins.
#[derive(Debug)]
pub struct DiskThread {
    queue: Option<SyncSender<Work>>,
    thread: Option<JoinHandle<()>>,
}

impl DiskThread {
    /// Starts a thread of that name (15 bytes of it are shown). Fails if there can be no more
    /// threads.
    pub fn start(name: &str) -> io::Result<Self> {
        let (queue, waiting) = mpsc::sync_channel::<Work>(QUEUE_MAX);
        let thread = thread::Builder::new().name(name.to_owned()).spawn(move || {
            for work in waiting {
                work();
            }
        })?;
        Ok(DiskThread { queue: Some(queue), thread: Some(thread) })
    }

    /// Runs `work`, then `done` with its result, both on the disk thread.
    pub fn run<T>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
        done: impl FnOnce(T) + Send + 'static,
    ) {
        let queue = self.queue.as_ref().expect("it is there until dropped");
        match queue.try_send(Box::new(move || done(work()))) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => panic!("more than {QUEUE_MAX} pieces of work wait"),
            Err(TrySendError::Disconnected(_)) => panic!("the disk thread has panicked"),
        }
    }

    /// Runs `work`; the future gives its result. Dropping the future does not undo the work.
    pub fn call<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Call<T> {
        let shared = Arc::new(Mutex::new(Answer { state: AnswerState::Open, waker: None }));
        let promise = Promise(Arc::clone(&shared));
        self.run(work, move |result| promise.keep(result));
        Call(shared)
    }
}

impl Drop for DiskThread {
    fn drop(&mut self) {
        drop(self.queue.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been reported by the hook; a second one here would abort.
            drop(thread.join());
        }
    }
}

struct Answer<T> {
    state: AnswerState<T>,
    waker: Option<Waker>,
}

enum AnswerState<T> {
    Open,
    Kept(T),
    Broken,
}

/// The side that gives the result.
struct Promise<T>(Arc<Mutex<Answer<T>>>);

impl<T> Promise<T> {
    fn keep(self, result: T) {
        self.settle(AnswerState::Kept(result));
    }

    fn settle(&self, state: AnswerState<T>) {
        let mut answer = self.0.lock().expect("no panic while an answer is locked");
        if matches!(answer.state, AnswerState::Open) {
            answer.state = state;
        }
        let waker = answer.waker.take();
        drop(answer);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        self.settle(AnswerState::Broken);
    }
}

/// The result of [`DiskThread::call`], to come.
#[must_use = "the work runs anyway, but its result is lost"]
pub struct Call<T>(Arc<Mutex<Answer<T>>>);

impl<T> Future for Call<T> {
    type Output = T;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let mut answer = self.0.lock().expect("no panic while an answer is locked");
        match std::mem::replace(&mut answer.state, AnswerState::Open) {
            AnswerState::Kept(result) => Poll::Ready(result),
            AnswerState::Broken => panic!("work on the disk thread has panicked"),
            AnswerState::Open => {
                answer.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a future by parking this thread.
    fn block_on<T>(future: impl Future<Output = T>) -> T {
        struct Unpark(thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(thread::current())).into();
        let mut future = std::pin::pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(result) => return result,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn work_runs_in_order_and_results_come_back() {
        let disk = DiskThread::start("disk").expect("a thread");
        let (results, received) = mpsc::channel();
        for number in 0..100 {
            let results = results.clone();
            disk.run(move || number * 2, move |double| results.send(double).expect("received"));
        }
        assert_eq!(block_on(disk.call(|| 7)), 7);
        drop(results);
        assert_eq!(received.iter().collect::<Vec<_>>(), (0..200).step_by(2).collect::<Vec<_>>());
    }

    #[test]
    fn dropping_it_finishes_what_was_queued() {
        let disk = DiskThread::start("disk").expect("a thread");
        let (results, received) = mpsc::channel();
        for number in 0..10 {
            let results = results.clone();
            disk.run(move || number, move |number| results.send(number).expect("received"));
        }
        drop(disk.call(|| ()));
        drop((disk, results));
        assert_eq!(received.iter().count(), 10);
    }

    #[test]
    #[should_panic(expected = "has panicked")]
    fn a_panic_there_is_not_waited_for() {
        let disk = DiskThread::start("disk").expect("a thread");
        block_on(disk.call(|| {
            std::panic::panic_any("on purpose");
        }));
    }

    #[test]
    #[should_panic(expected = "pieces of work wait")]
    fn too_much_waiting_work_is_a_bug() {
        let disk = DiskThread::start("disk").expect("a thread");
        let (_go, wait) = mpsc::channel::<()>();
        disk.run(move || wait.recv(), drop);
        for _ in 0..QUEUE_MAX + 2 {
            disk.run(|| (), drop);
        }
    }
}
