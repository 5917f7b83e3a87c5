//! What the tasks of one shard wait on: nothing here crosses a thread.
//!
//! A [`Signal`] is raised again and again and wakes whoever waits; a [`Promise`] is kept once, for one.

use std::{
    cell::{Cell, RefCell},
    future::{Future, poll_fn},
    pin::{Pin, pin},
    rc::Rc,
    task::{Context, Poll, Waker},
};

/// Wakes all that wait, each time it is raised. Thousands may wait: one entry each.
#[derive(Debug, Default)]
pub struct Signal {
    /// How often it was raised.
    epoch: Cell<u64>,
    /// Who waits for the next time, by place; free places are `None`.
    waiting: RefCell<Vec<Option<Waker>>>,
    free: RefCell<Vec<usize>>,
}

impl Signal {
    /// A signal that nobody waits for.
    pub fn new() -> Self {
        Self::default()
    }

    /// Wakes all that wait now.
    pub fn raise(&self) {
        self.epoch.set(self.epoch.get().wrapping_add(1));
        self.free.borrow_mut().clear();
        let waiting = self.waiting.take();
        for waker in waiting.into_iter().flatten() {
            waker.wake();
        }
    }

    /// Resolves once the signal is raised after *this call*; so: call it, look at the state, await it.
    pub fn wait(&self) -> SignalWait<'_> {
        SignalWait { signal: self, epoch: self.epoch.get(), place: None }
    }
}

/// A wait for a [`Signal`].
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct SignalWait<'a> {
    signal: &'a Signal,
    epoch: u64,
    place: Option<usize>,
}

impl SignalWait<'_> {
    /// Whether the signal was raised since the wait began.
    pub fn is_over(&self) -> bool {
        self.signal.epoch.get() != self.epoch
    }
}

impl Future for SignalWait<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.is_over() {
            self.place = None;
            return Poll::Ready(());
        }
        let mut waiting = self.signal.waiting.borrow_mut();
        match self.place {
            Some(place) => {
                let known = waiting[place].as_mut().expect("a place is kept until the next raise");
                if !known.will_wake(context.waker()) {
                    *known = context.waker().clone();
                }
            }
            None => {
                let waker = Some(context.waker().clone());
                let place = match self.signal.free.borrow_mut().pop() {
                    Some(place) => {
                        waiting[place] = waker;
                        place
                    }
                    None => {
                        waiting.push(waker);
                        waiting.len() - 1
                    }
                };
                drop(waiting);
                self.place = Some(place);
            }
        }
        Poll::Pending
    }
}

impl Drop for SignalWait<'_> {
    fn drop(&mut self) {
        if let Some(place) = self.place
            && self.signal.epoch.get() == self.epoch
        {
            self.signal.waiting.borrow_mut()[place] = None;
            self.signal.free.borrow_mut().push(place);
        }
    }
}

/// So much of something for all tasks of a shard.
#[derive(Debug)]
pub struct Budget {
    left: Cell<usize>,
}

impl Budget {
    /// All of it is there.
    pub fn new(amount: usize) -> Rc<Self> {
        Rc::new(Budget { left: Cell::new(amount) })
    }

    /// Takes `wanted`, or half of what is left if that is less: the next one finds some as well. `None` if
    /// it would be less than `least`.
    pub fn take(self: &Rc<Self>, wanted: usize, least: usize) -> Option<Share> {
        let amount = wanted.min(self.left.get() / 2);
        if amount < least {
            return None;
        }
        self.left.set(self.left.get() - amount);
        Some(Share { amount, budget: self.clone() })
    }
}

/// A part of a [`Budget`], given back when it is dropped.
#[derive(Debug)]
pub struct Share {
    amount: usize,
    budget: Rc<Budget>,
}

impl Share {
    /// How much it is.
    pub fn amount(&self) -> usize {
        self.amount
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.left.set(self.budget.left.get() + self.amount);
    }
}

/// Learns that somebody has left.
pub trait Leave {
    /// One has.
    fn left(&self);
}

/// Tells of its end, wherever it is dropped. It costs no memory of its own: all guards of one keeper
/// share it.
pub struct Guard(Rc<dyn Leave>);

impl Guard {
    /// Tells `keeper`.
    pub fn new(keeper: Rc<dyn Leave>) -> Self {
        Guard(keeper)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.0.left();
    }
}

#[derive(Debug)]
struct Promised<T> {
    value: Option<T>,
    waker: Option<Waker>,
    broken: bool,
}

/// The side that will give a value, once.
#[derive(Debug)]
pub struct Promise<T>(Rc<RefCell<Promised<T>>>);

/// The side that waits for it: `None` if the promise was dropped without a value.
#[must_use = "futures do nothing unless awaited"]
#[derive(Debug)]
pub struct Kept<T>(Rc<RefCell<Promised<T>>>);

/// A promise, and the future of its value.
pub fn promise<T>() -> (Promise<T>, Kept<T>) {
    let shared = Rc::new(RefCell::new(Promised { value: None, waker: None, broken: false }));
    (Promise(shared.clone()), Kept(shared))
}

impl<T> Promise<T> {
    /// Whether somebody still waits.
    pub fn is_waited_for(&self) -> bool {
        Rc::strong_count(&self.0) > 1
    }

    /// Gives the value and wakes the waiter; if nobody waits any more, the value is dropped.
    pub fn keep(self, value: T) {
        self.0.borrow_mut().value = Some(value);
    }
}

impl<T> Drop for Promise<T> {
    fn drop(&mut self) {
        let waker = {
            let mut promised = self.0.borrow_mut();
            promised.broken = promised.value.is_none();
            promised.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Kept<T> {
    /// A value that is there already.
    pub fn ready(value: T) -> Self {
        Kept(Rc::new(RefCell::new(Promised { value: Some(value), waker: None, broken: false })))
    }
}

impl<T> Future for Kept<T> {
    type Output = Option<T>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        let mut promised = self.0.borrow_mut();
        if let Some(value) = promised.value.take() {
            return Poll::Ready(Some(value));
        }
        if promised.broken {
            return Poll::Ready(None);
        }
        if !promised.waker.as_ref().is_some_and(|known| known.will_wake(context.waker())) {
            promised.waker = Some(context.waker().clone());
        }
        Poll::Pending
    }
}

/// What came first of two futures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Either<A, B> {
    /// The first argument.
    Left(A),
    /// The second one.
    Right(B),
}

/// Waits for whichever comes first, and for `left` if both have. The other is dropped only if it was
/// given by value: give a pinned reference to an operation of the ring, whose drop would cancel it.
pub async fn either<A: Future, B: Future>(left: A, right: B) -> Either<A::Output, B::Output> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|context| {
        if let Poll::Ready(value) = left.as_mut().poll(context) {
            return Poll::Ready(Either::Left(value));
        }
        right.as_mut().poll(context).map(Either::Right)
    })
    .await
}

#[cfg(test)]
mod tests {

    use super::*;

    fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
        future.poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn a_signal_resolves_the_waits_that_began_before_it() {
        let signal = Signal::new();
        let mut first = pin!(signal.wait());
        assert!(poll(first.as_mut()).is_pending());
        signal.raise();
        let mut second = pin!(signal.wait());
        assert!(poll(first).is_ready());
        assert!(poll(second.as_mut()).is_pending());
        signal.raise();
        assert!(poll(second).is_ready());
    }

    #[test]
    fn a_dropped_wait_gives_its_place_back() {
        let signal = Signal::new();
        for _ in 0..1000 {
            let mut wait = Box::pin(signal.wait());
            assert!(poll(wait.as_mut()).is_pending());
            assert!(poll(wait.as_mut()).is_pending());
        }
        assert_eq!(signal.waiting.borrow().len(), 1);
    }

    #[test]
    fn a_budget_is_shared_and_given_back() {
        let budget = Budget::new(100);
        let shares: Vec<_> = std::iter::from_fn(|| budget.take(30, 10)).collect();
        let amounts: Vec<_> = shares.iter().map(Share::amount).collect();
        assert_eq!(amounts, [30, 30, 20, 10]);
        drop(shares);
        assert_eq!(budget.left.get(), 100);
    }

    #[test]
    fn a_promise_is_kept_or_broken() {
        let (promise_kept, kept) = promise();
        let mut kept = pin!(kept);
        assert!(poll(kept.as_mut()).is_pending());
        promise_kept.keep(7);
        assert_eq!(poll(kept), Poll::Ready(Some(7)));
        let (broken, kept) = promise::<u8>();
        drop(broken);
        assert_eq!(poll(pin!(kept)), Poll::Ready(None));
        assert_eq!(poll(pin!(Kept::ready(1))), Poll::Ready(Some(1)));
    }
}
