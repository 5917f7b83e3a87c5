//! Work on several threads whose results are taken in order.

use std::{
    collections::BTreeMap,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

/// So many results for each thread may wait for one before them: what lies behind a slow file is not
/// gathered in memory without end.
const AHEAD_PER_THREAD: usize = 4;

/// Calls `work` for each index below `count`, on up to `threads` threads, and hands the results to `take`
/// on this one, in order.
pub(super) fn in_order<T: Send>(
    count: usize,
    threads: usize,
    work: impl Fn(usize) -> T + Sync,
    mut take: impl FnMut(usize, T),
) {
    let threads = threads.clamp(1, count.max(1));
    if threads == 1 {
        return (0..count).for_each(|index| take(index, work(index)));
    }
    let next = AtomicUsize::new(0);
    let gate = Gate::new(threads * AHEAD_PER_THREAD);
    let (sender, receiver) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..threads {
            let sender = sender.clone();
            let (next, gate, work) = (&next, &gate, &work);
            scope.spawn(move || {
                let _open = OpenOnPanic(gate);
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        return;
                    }
                    gate.wait_for(index);
                    if sender.send((index, work(index))).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let _open = OpenOnPanic(&gate);
        let mut early = BTreeMap::new();
        let mut taken = 0;
        for (index, result) in receiver {
            early.insert(index, result);
            while let Some(result) = early.remove(&taken) {
                take(taken, result);
                taken += 1;
                gate.open_to(taken);
            }
        }
    });
}

/// Lets work begin that is not too far ahead of what has been taken.
struct Gate {
    taken: Mutex<usize>,
    moved: Condvar,
    ahead_max: usize,
}

impl Gate {
    fn new(ahead_max: usize) -> Self {
        Gate { taken: Mutex::new(0), moved: Condvar::new(), ahead_max }
    }

    fn wait_for(&self, index: usize) {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let is_far = |taken: &mut usize| index >= taken.saturating_add(self.ahead_max);
        drop(self.moved.wait_while(taken, is_far).unwrap_or_else(PoisonError::into_inner));
    }

    fn open_to(&self, taken: usize) {
        let mut known = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        // What a panic has opened stays open.
        *known = taken.max(*known);
        drop(known);
        self.moved.notify_all();
    }
}

/// Where a panic unwinds, as in tests, the others must not wait for a result that will never come.
struct OpenOnPanic<'a>(&'a Gate);

impl Drop for OpenOnPanic<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.open_to(usize::MAX);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicUsize, time::Duration};

    use super::*;

    #[test]
    fn results_come_in_order_and_not_too_far_ahead() {
        for threads in [1, 2, 5, 100] {
            let begun = AtomicUsize::new(0);
            let mut taken = Vec::new();
            in_order(
                60,
                threads,
                |index| {
                    begun.fetch_max(index, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(if index % 7 == 0 { 900 } else { 50 }));
                    index * index
                },
                |index, square| {
                    let ahead = begun.load(Ordering::Relaxed).saturating_sub(index);
                    assert!(ahead <= threads * (AHEAD_PER_THREAD + 1), "{ahead} ahead");
                    taken.push((index, square));
                },
            );
            assert_eq!(taken, (0..60).map(|index| (index, index * index)).collect::<Vec<_>>());
        }
        in_order(0, 3, |_| panic!("there is nothing to do"), |_, ()| ());
    }

    #[test]
    fn a_panic_ends_it() {
        let ended = std::panic::catch_unwind(|| {
            in_order(100, 3, |index| assert!(index != 20, "broken"), |_, ()| ());
        });
        assert!(ended.is_err());
        let ended = std::panic::catch_unwind(|| {
            in_order(100, 3, |index| index, |index, _| assert!(index != 20, "broken"));
        });
        assert!(ended.is_err());
    }
}
