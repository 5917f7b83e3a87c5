//! What the server counts of itself, for `/metrics`.
//!
//! A counter has one thread that adds to it and any number that read it: adding is a load and a store,
//! without a lock of the bus. What several shards count, each counts for itself, and it is summed when it
//! is read.

pub mod text;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// A number that only goes up.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Adds; by one thread only, else some of it may be lost.
    pub fn add(&self, more: u64) {
        self.0.store(self.0.load(Ordering::Relaxed).wrapping_add(more), Ordering::Relaxed);
    }

    /// What it has come to.
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The upper bound of the first bucket of a [`Histogram`]; each further one is twice as wide.
pub const BUCKET_US_MIN: u64 = 32;

/// Buckets with an upper bound: the last one's is 1.05 s.
pub const BUCKETS: usize = 16;

/// How long something took, each time.
#[derive(Debug, Default)]
pub struct Histogram {
    /// By upper bound; the last has none.
    buckets: [Counter; BUCKETS + 1],
    sum_us: Counter,
}

impl Histogram {
    /// Adds one time that it took.
    pub fn add(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.buckets[bucket_of(us)].add(1);
        self.sum_us.add(us);
    }

    /// How often it took at most so many microseconds, for each bound; and in all.
    pub fn cumulative(&self) -> ([(u64, u64); BUCKETS], u64) {
        let mut bounds = [(0, 0); BUCKETS];
        let mut count = 0;
        for (index, bound) in bounds.iter_mut().enumerate() {
            count += self.buckets[index].get();
            *bound = (BUCKET_US_MIN << index, count);
        }
        (bounds, count + self.buckets[BUCKETS].get())
    }

    /// The sum of all times, in microseconds.
    pub fn sum_us(&self) -> u64 {
        self.sum_us.get()
    }
}

/// The bucket of a time: the first whose bound is not below it.
fn bucket_of(us: u64) -> usize {
    let widths = us.saturating_sub(1) / BUCKET_US_MIN;
    let index = widths.checked_ilog2().map_or(0, |log| log + 1);
    usize::try_from(index).unwrap_or(BUCKETS).min(BUCKETS)
}

/// What the owner of a log counts.
#[derive(Debug, Default)]
pub struct LogMetrics {
    /// Appends that were acknowledged; settings, deletions and trims are such too, of one event each.
    pub appends: Counter,
    /// Their events.
    pub events: Counter,
    /// Those of them that were there already.
    pub duplicates: Counter,
    /// Appends that were refused.
    pub refused: Counter,
    /// From an append to its acknowledgement.
    pub append_time: Histogram,
    /// Writes of frames.
    pub write_time: Histogram,
    /// Their bytes.
    pub written_bytes: Counter,
    /// Syncs; where frames are written through to the device there are hardly any.
    pub sync_time: Histogram,
    /// Segments that could not be indexed, prepared, rewritten or removed; each is tried again.
    pub failed_jobs: Counter,
}

/// What a shard counts, on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// Requests whose head was understood.
    pub requests: Counter,
    /// WebSockets and event streams that were begun.
    pub streams: Counter,
}

/// What all shards count.
#[derive(Debug)]
pub struct ServerMetrics(Box<[ShardMetrics]>);

impl ServerMetrics {
    /// Nothing counted yet.
    pub fn new(shards: usize) -> Self {
        ServerMetrics((0..shards).map(|_| ShardMetrics::default()).collect())
    }

    /// The sum of one counter over all shards.
    pub fn sum(&self, counter: impl Fn(&ShardMetrics) -> &Counter) -> u64 {
        self.0.iter().map(|shard| counter(shard).get()).sum()
    }
}

/// What all shards count, as one of them has it.
#[derive(Clone, Debug)]
pub struct ShardCounts {
    index: usize,
    all: Arc<ServerMetrics>,
}

impl ShardCounts {
    /// For the shard of this number.
    pub fn new(index: usize, all: Arc<ServerMetrics>) -> Self {
        ShardCounts { index, all }
    }

    /// The shard's number.
    pub fn index(&self) -> usize {
        self.index
    }

    /// What it adds to.
    pub fn own(&self) -> &ShardMetrics {
        &self.all.0[self.index]
    }

    /// What all have counted.
    pub fn all(&self) -> &ServerMetrics {
        &self.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_counted_under_the_first_bound_that_is_not_below_it() {
        for (us, bucket) in [
            (0, 0),
            (32, 0),
            (33, 1),
            (64, 1),
            (65, 2),
            (1 << 20, 15),
            ((1 << 20) + 1, 16),
            (u64::MAX, 16),
        ] {
            assert_eq!(bucket_of(us), bucket, "{us} us");
        }
        assert_eq!(BUCKET_US_MIN << (BUCKETS - 1), 1 << 20);
    }

    #[test]
    fn a_histogram_is_read_cumulatively() {
        let histogram = Histogram::default();
        for us in [1, 40, 50, 2_000_000] {
            histogram.add(Duration::from_micros(us));
        }
        let (bounds, count) = histogram.cumulative();
        assert_eq!((bounds[0], bounds[1], bounds[15]), ((32, 1), (64, 3), (1 << 20, 3)));
        assert_eq!((count, histogram.sum_us()), (4, 2_000_091));
    }

    #[test]
    fn shards_are_summed() {
        let metrics = Arc::new(ServerMetrics::new(2));
        ShardCounts::new(0, metrics.clone()).own().requests.add(3);
        let last = ShardCounts::new(1, metrics);
        last.own().requests.add(4);
        assert_eq!(last.all().sum(|shard| &shard.requests), 7);
    }
}
