//! Latencies and counts, by interval and in all.

use std::sync::Arc;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{number::as_f64, standstill::Stops};

/// The longest latency that is told apart, in µs: an hour.
const LATENCY_US_MAX: u64 = 3_600_000_000;
/// Significant digits of a latency.
const DIGITS: u8 = 3;

/// Latencies of one kind of thing, and how many there were.
///
/// In an open loop each is measured from the time at which the event was *due*, whenever it could be
/// sent: a server that stalls delays all that became due meanwhile, and each of them counts. That is what
/// the correction of coordinated omission estimates; here it is measured.
///
/// Those that were under way while the machine stood still are kept a second time: the distribution without
/// them is all less these. So the many that were not cost a comparison.
#[derive(Debug)]
pub struct Meter {
    interval: Histogram<u64>,
    total: Histogram<u64>,
    /// Those of interval and total that a stop of the machine overlaps.
    stopped: Histogram<u64>,
    /// `None` if nobody watches the machine.
    stops: Option<Arc<Stops>>,
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
            stopped: histogram(),
            stops: None,
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
    /// Tells apart from now on what these stops overlap.
    pub fn tell_apart(&mut self, stops: Arc<Stops>) {
        self.stops = Some(stops);
    }

    /// Forgets everything, and the latencies of all that is due before `from_ns`.
    pub fn reset(&mut self, from_ns: u64) {
        self.interval.reset();
        self.total.reset();
        self.stopped.reset();
        (self.interval_count, self.total_count, self.from_ns) = (0, 0, from_ns);
    }

    /// Counts one that was due at `due_ns` and is there at `now_ns`.
    #[inline]
    pub fn record(&mut self, due_ns: u64, now_ns: u64) {
        self.interval_count += 1;
        if due_ns >= self.from_ns {
            let latency_us = now_ns.saturating_sub(due_ns) / 1000;
            self.interval.saturating_record(latency_us);
            if self.stops.as_ref().is_some_and(|stops| stops.overlap(due_ns, now_ns)) {
                self.stopped.saturating_record(latency_us);
            }
        }
    }

    /// Counts one whose latency says nothing.
    #[inline]
    pub fn count_one(&mut self) {
        self.interval_count += 1;
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
        if self.total.is_empty() {
            return None;
        }
        let mut latency = Latency::new(&self.total);
        if self.stops.is_some() {
            let mut rest = self.total.clone();
            rest.subtract(&self.stopped).expect("these are among all");
            latency.apart_from_stops = ApartFromStops::new(&rest, self.total.len());
        }
        Some(latency)
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
    /// The same of those that were not under way while the machine stood still; `None` if nobody watched it, or if
    /// fewer than half are left: what takes longer than the time between two stops is always under way in one.
    pub apart_from_stops: Option<ApartFromStops>,
}

/// A distribution of the latencies that no stop of the machine overlaps, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct ApartFromStops {
    /// How many there are.
    pub count: u64,
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
}

impl ApartFromStops {
    /// Of these that are left of so many.
    fn new(histogram: &Histogram<u64>, of: u64) -> Option<ApartFromStops> {
        let at = |quantile: f64| milliseconds(histogram.value_at_quantile(quantile));
        (histogram.len() >= of.div_ceil(2)).then(|| ApartFromStops {
            count: histogram.len(),
            p50_ms: at(0.5),
            p90_ms: at(0.9),
            p99_ms: at(0.99),
            p999_ms: at(0.999),
            max_ms: milliseconds(histogram.max()),
        })
    }
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
            apart_from_stops: None,
        }
    }
}

fn milliseconds(microseconds: u64) -> f64 {
    as_f64(microseconds) / 1000.0
}

#[cfg(test)]
mod tests {
    use super::super::standstill::Stop;
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
    fn what_was_under_way_in_a_stop_is_told_apart_and_stays_in_all() {
        let (ms, stops) = (1_000_000, Arc::<Stops>::default());
        let mut meter = Meter::default();
        meter.record(0, ms);
        assert_eq!(meter.latency().unwrap().apart_from_stops, None, "nobody watches");
        meter.tell_apart(stops.clone());
        meter.reset(ms);
        stops.note(Stop { begin_ns: 10 * ms, end_ns: 30 * ms });
        for at in 0..98 {
            meter.record(30 * ms + at, 32 * ms + at);
        }
        meter.end_interval();
        // In the warm-up, before the stop, across it, at its end, and slow for a reason of its own.
        meter.record(0, 31 * ms);
        meter.record(8 * ms, 9 * ms);
        meter.record(9 * ms, 31 * ms);
        meter.record(29 * ms, 33 * ms);
        meter.record(31 * ms, 39 * ms);
        let latency = meter.latency().unwrap();
        let apart = latency.apart_from_stops.unwrap();
        assert_eq!((latency.count, apart.count), (102, 100));
        assert!((latency.max_ms - 22.0).abs() < 0.1, "{latency:?}");
        assert!((apart.max_ms - 8.0).abs() < 0.1 && (apart.p99_ms - 2.0).abs() < 0.1, "{apart:?}");
        assert_eq!(meter.latency().unwrap().apart_from_stops, Some(apart), "it may be asked again");
        let json = serde_json::to_value(&latency).unwrap();
        assert_eq!(json["apart_from_stops"]["count"], 100, "{json}");

        meter.reset(0);
        meter.record(20 * ms, 40 * ms);
        meter.record(31 * ms, 32 * ms);
        assert_eq!(meter.latency().unwrap().apart_from_stops.map(|apart| apart.count), Some(1));
        meter.record(21 * ms, 40 * ms);
        assert_eq!(meter.latency().unwrap().apart_from_stops, None, "a third says nothing of all");
    }

    #[test]
    fn nothing_has_no_latency() {
        assert_eq!(Meter::default().latency(), None);
    }
}
