//! Latencies and counts, by interval and in all.

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart, in µs: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies of one kind of thing, and how many there were.
///
/// In an open loop each is measured from the time at which the event was *due*, whenever it could be
/// sent: a server that stalls delays all that became due meanwhile, and each of them counts. That is what
/// the correction of coordinated omission estimates; here it is measured.
#[derive(Debug)]
pub struct Meter {
    interval: Histogram<u64>,
    total: Histogram<u64>,
    interval_count: u64,
    total_count: u64,
    /// What was due before is counted, its latency is not: the warm-up.
    from_ns: u64,
}

impl Default for Meter {
    fn default() -> Self {
        Meter {
            interval: histogram(),
            total: histogram(),
            interval_count: 0,
            total_count: 0,
            from_ns: 0,
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, DIGITS).expect("the bounds are in order")
}

impl Meter {
    /// Forgets everything, and the latencies of all that is due before `from_ns`.
    pub fn reset(&mut self, from_ns: u64) {
        self.interval.reset();
        self.total.reset();
        (self.interval_count, self.total_count, self.from_ns) = (0, 0, from_ns);
    }

    /// Counts one that was due at `due_ns` and is there at `now_ns`.
    #[inline]
    pub fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.interval_count += 1;
        if due_ns >= self.from_ns {
            self.interval.saturating_record(now_ns.saturating_sub(due_ns) / 1000);
        }
    }

    /// Ends an interval; returns what happened in it.
    pub fn end_interval(&mut self) -> Interval {
        let interval = Interval {
            count: self.interval_count,
            p50_ms: milliseconds(self.interval.value_at_quantile(0.5)),
            p99_ms: milliseconds(self.interval.value_at_quantile(0.99)),
        };
        self.total += &self.interval;
        self.total_count += self.interval_count;
        self.interval.reset();
        self.interval_count = 0;
        interval
    }

    /// How many there were since the last reset.
    pub fn count(&self) -> u64 {
        self.total_count + self.interval_count
    }

    /// The latencies since the last reset, `None` if there are none. Ends the interval.
    pub fn latency(&mut self) -> Option<Latency> {
        self.end_interval();
        (!self.total.is_empty()).then(|| Latency::new(&self.total))
    }
}

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Interval {
    /// How many.
    pub count: u64,
    /// The median of their latencies in ms.
    pub p50_ms: f64,
    /// All but a hundredth took at most this long.
    pub p99_ms: f64,
}

/// A distribution of latencies, in ms.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// How many were measured.
    pub count: u64,
    /// The mean.
    pub mean_ms: f64,
    /// The median.
    pub p50_ms: f64,
    /// 90 in 100 took at most this long.
    pub p90_ms: f64,
    /// 99 in 100.
    pub p99_ms: f64,
    /// 999 in 1000.
    pub p999_ms: f64,
    /// The longest.
    pub max_ms: f64,
    /// (percent, ms) for the plot: denser towards the slowest.
    pub percentiles: Vec<(f64, f64)>,
}

impl Latency {
    fn new(histogram: &Histogram<u64>) -> Latency {
        let at = |quantile: f64| milliseconds(histogram.value_at_quantile(quantile));
        // Eight points each time the rest grows ten times smaller, as far as there are samples.
        let mut percentiles = vec![(0.0, milliseconds(histogram.min()))];
        let mut rest = 1.0;
        while rest * as_f64(histogram.len()) >= 1.0 {
            percentiles.push((100.0 * (1.0 - rest), at(1.0 - rest)));
            rest *= 0.1_f64.powf(1.0 / 8.0);
        }
        // The slowest of so many: a hundredth percentile would be infinitely far away.
        let slowest = 100.0 * (1.0 - 1.0 / as_f64(histogram.len()));
        percentiles.push((slowest, milliseconds(histogram.max())));
        Latency {
            count: histogram.len(),
            mean_ms: histogram.mean() / 1000.0,
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
            percentiles,
        }
    }
}

fn milliseconds(microseconds: u64) -> f64 {
    as_f64(microseconds) / 1000.0
}

/// A count as a number to divide by: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_count_from_the_due_time_and_not_in_the_warm_up() {
        let mut meter = Meter::default();
        meter.reset(1_000_000);
        meter.record(999_999, 50_000_000);
        for _ in 0..99 {
            meter.record(1_000_000, 3_000_000);
        }
        let interval = meter.end_interval();
        assert_eq!((interval.count, meter.count()), (100, 100));
        assert!((interval.p50_ms - 2.0).abs() < 0.01, "{interval:?}");
        meter.record(1_000_000, 101_000_000);
        let latency = meter.latency().unwrap();
        assert_eq!(latency.count, 100);
        assert!((latency.p90_ms - 2.0).abs() < 0.01, "{latency:?}");
        assert!((latency.max_ms - 100.0).abs() < 0.1, "{latency:?}");
        let slowest = latency.percentiles.last().unwrap();
        assert!((slowest.0 - 99.0).abs() < 1e-9 && slowest.1 > 99.0, "{slowest:?}");
    }

    #[test]
    fn nothing_has_no_latency() {
        assert_eq!(Meter::default().latency(), None);
    }
}
