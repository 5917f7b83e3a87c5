//! What a run found, as data: for JSON, the table and the page.

use std::collections::BTreeMap;

use serde::Serialize;

use super::{
    number::as_f64,
    record::{Interval, Latency},
    standstill::Standstill,
};

/// One run.
#[derive(Clone, Debug, Serialize)]
pub struct Outcome {
    /// What was measured: `append`, `fanout`, ...
    pub bench: &'static str,
    /// The server, by name.
    pub target: String,
    /// How it was measured: each option that matters, with its value.
    pub options: BTreeMap<&'static str, String>,
    /// What was found: one for each rate of a sweep, else one.
    pub points: Vec<Point>,
    /// How many times a delivery was not what it should have been. The run has failed unless this is 0.
    pub violation_count: u64,
    /// The first of them, in words.
    pub violations: Vec<String>,
}

/// What was found under one load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Point {
    /// The load, in words.
    pub label: String,
    /// Events a second that were due, where that was fixed.
    pub rate_per_s: Option<f64>,
    /// How long it was measured.
    pub seconds: f64,
    /// Events that were acknowledged meanwhile.
    pub appends: u64,
    /// The same for each second.
    pub appends_per_s: f64,
    /// Events that subscribers received meanwhile, each of them counted.
    pub deliveries: u64,
    /// The same for each second.
    pub deliveries_per_s: f64,
    /// Bytes on the wire for each of them, framing and compression included.
    pub wire_bytes_per_delivery: Option<f64>,
    /// CPU time of the load generator, in cores: near one it is the limit, and not the server.
    pub client_cpu_cores: f64,
    /// The share of the time in which the load generator let some publisher of a closed loop wait, as it was behind with
    /// what subscribers had to receive. No latency has it; with much of it the load generator is the limit.
    pub held_share: f64,
    /// How the machine stood still meanwhile; `None` if nobody watched it.
    pub stops: Option<Standstill>,
    /// From when an event was due to its acknowledgement.
    pub ack: Option<Latency>,
    /// From when an event was due to its receipt, for each subscriber.
    pub receipt: Option<Latency>,
    /// What the server used, where its processes are known.
    pub server: Option<ServerUse>,
    /// Numbers that only this bench has, their units in their names.
    pub extra: BTreeMap<&'static str, f64>,
    /// What happened in each interval.
    pub series: Vec<Tick>,
}

/// What the server used.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ServerUse {
    /// CPU time of the measured time, in cores.
    pub cpu_cores: f64,
    /// CPU time in µs for each event that was acknowledged.
    pub cpu_us_per_append: Option<f64>,
    /// CPU time in µs for each delivery.
    pub cpu_us_per_delivery: Option<f64>,
    /// Resident memory before anything was connected.
    pub resident_start_kib: u64,
    /// With everything connected, before the load.
    pub resident_idle_kib: u64,
    /// The most while it was measured.
    pub resident_max_kib: u64,
    /// At the end.
    pub resident_end_kib: u64,
}

/// What happened in one interval.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Tick {
    /// Its end, in seconds from the beginning of the measured time.
    pub at_s: f64,
    /// Its length in seconds.
    pub seconds: f64,
    /// Acknowledgements.
    pub ack: Interval,
    /// Deliveries.
    pub receipt: Interval,
    /// CPU time of the server, in cores.
    pub cpu_cores: f64,
    /// Its resident memory.
    pub resident_kib: u64,
}

/// A line of the table: what, and how much with its unit.
pub type Row = (String, String);

impl Point {
    /// Adds a number that only its bench has.
    pub fn note(&mut self, name: &'static str, value: f64) {
        self.extra.insert(name, value);
    }

    /// The lines of this point's table.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        let mut push = |name: &str, value: String| rows.push((name.to_owned(), value));
        if self.appends > 0 {
            let (count, rate) = (grouped(as_f64(self.appends)), grouped(self.appends_per_s));
            push("appends", format!("{rate}/s ({count} in {:.1} s)", self.seconds));
        }
        if self.deliveries > 0 {
            let (count, rate) = (grouped(as_f64(self.deliveries)), grouped(self.deliveries_per_s));
            let bytes = self
                .wire_bytes_per_delivery
                .map_or(String::new(), |bytes| format!(", {bytes:.0} bytes each on the wire"));
            push("deliveries", format!("{rate}/s ({count} in {:.1} s){bytes}", self.seconds));
        }
        if let Some(receipt) = &self.receipt {
            push("publish to receipt", latency(receipt));
        }
        if let Some(ack) = &self.ack {
            push("acknowledgement", latency(ack));
        }
        if let Some(server) = &self.server {
            let mut cpu = format!("{:.2} cores", server.cpu_cores);
            if let Some(each) = server.cpu_us_per_append
                && self.deliveries == 0
            {
                cpu.push_str(&format!(", {each:.2} us an append"));
            }
            if let Some(each) = server.cpu_us_per_delivery {
                cpu.push_str(&format!(", {each:.3} us a delivery"));
            }
            push("server CPU", cpu);
            let mib = |kib: u64| format!("{:.1}", as_f64(kib) / 1024.0);
            let memory = format!(
                "{} MiB at start, {} connected, {} at most, {} at the end",
                mib(server.resident_start_kib),
                mib(server.resident_idle_kib),
                mib(server.resident_max_kib),
                mib(server.resident_end_kib)
            );
            push("server memory", memory);
        }
        let held = match self.held_share {
            0.0 => String::new(),
            share => format!(", some publisher held back {} % of the time", short(100.0 * share)),
        };
        push("load generator CPU", format!("{:.2} cores{held}", self.client_cpu_cores));
        for (name, value) in &self.extra {
            push(&name.replace('_', " "), short(*value));
        }
        if let Some(text) = self.standstill() {
            push("the machine stood still", text);
        }
        rows
    }

    /// How the machine stood still, and what there is apart from that; nothing if it did not, or nobody watched.
    fn standstill(&self) -> Option<String> {
        let stops = self.stops?;
        let times = match stops.count {
            // A stop from before may have gone on.
            0 if stops.total_ms == 0.0 => return None,
            0 | 1 => "once".to_owned(),
            count => format!("{} times", grouped(as_f64(count))),
        };
        let mut text = format!("{times}, {} ms in all", short(stops.total_ms));
        let kinds = [("publish to receipt", &self.receipt), ("acknowledgement", &self.ack)];
        let rest: Vec<_> = kinds
            .into_iter()
            .filter_map(|(name, all)| Some((name, all.as_ref()?.apart_from_stops?)))
            .map(|(name, apart)| (name, short(apart.p99_ms), short(apart.p999_ms)))
            .collect();
        match &rest[..] {
            [] => {}
            [(_, p99, p999)] => text.push_str(&format!(
                "; without what was under way then: p99 {p99}  p99.9 {p999} ms"
            )),
            all => {
                let each = all
                    .iter()
                    .map(|(name, p99, p999)| format!("{name} p99 {p99}  p99.9 {p999} ms"));
                let each = each.collect::<Vec<_>>().join(", ");
                text.push_str(&format!("; without what was under way then: {each}"));
            }
        }
        Some(text)
    }
}

impl Outcome {
    /// Whether every delivery was what it should have been.
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
    }

    /// What came of looking at each delivery, if there was one: who only appends, or waits, has got nothing that could be
    /// checked.
    pub fn verdict(&self) -> Option<String> {
        let is_delivered = self.points.iter().any(|point| point.deliveries > 0);
        match self.violation_count {
            0 => is_delivered
                .then(|| "every delivery checked: no gap, no repeat, in order".to_owned()),
            count => Some(format!("{} violations", grouped(as_f64(count)))),
        }
    }

    /// The table for people.
    pub fn table(&self) -> String {
        let mut text = String::new();
        for point in &self.points {
            text.push_str(&format!("\n{} {}: {}\n", self.target, self.bench, point.label));
            for (name, value) in point.rows() {
                text.push_str(&format!("  {name:<28}{value}\n"));
            }
        }
        if let Some(verdict) = self.verdict() {
            text.push_str(&format!("  {verdict}\n"));
        }
        for violation in &self.violations {
            text.push_str(&format!("    {violation}\n"));
        }
        text
    }
}

fn latency(latency: &Latency) -> String {
    format!(
        "p50 {}  p90 {}  p99 {}  p99.9 {}  max {} ms",
        short(latency.p50_ms),
        short(latency.p90_ms),
        short(latency.p99_ms),
        short(latency.p999_ms),
        short(latency.max_ms)
    )
}

/// A number with about three significant digits.
pub fn short(number: f64) -> String {
    match number.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.1 => format!("{number:.3}"),
        size if size < 10.0 => format!("{number:.2}"),
        size if size < 100.0 => format!("{number:.1}"),
        _ => grouped(number),
    }
}

/// A whole number with its thousands apart.
pub fn grouped(number: f64) -> String {
    let digits = format!("{:.0}", number.abs());
    let mut text = String::new();
    if number <= -0.5 {
        text.push('-');
    }
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::{
        record::Meter,
        standstill::{Stop, Stops},
    };
    use super::*;

    #[test]
    fn numbers_are_for_people() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(-1234.0), "-1,234");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(
            [0.0, 0.0123, 1.234, 12.34, 1234.5].map(short),
            ["0", "0.012", "1.23", "12.3", "1,234"]
        );
    }

    #[test]
    fn what_was_not_delivered_was_not_checked() {
        let of = |deliveries| outcome(Point { deliveries, ..Point::default() }).table();
        assert!(of(1).contains("every delivery checked"));
        assert!(!of(0).contains("checked"));
    }

    fn outcome(point: Point) -> Outcome {
        Outcome {
            bench: "fanout",
            target: "strandline".to_owned(),
            options: BTreeMap::new(),
            points: vec![Point { label: "100/s".to_owned(), appends: 5, ..point }],
            violation_count: 0,
            violations: Vec::new(),
        }
    }

    /// A hundred latencies, of which the slowest was under way in a stop.
    fn with_a_stop() -> Option<Latency> {
        let (ms, stops) = (1_000_000, Arc::<Stops>::default());
        let mut meter = Meter::default();
        meter.tell_apart(stops.clone());
        stops.note(Stop { begin_ns: 100 * ms, end_ns: 120 * ms });
        for us in 1..100 {
            meter.record(0, us * 10_000);
        }
        meter.record(99 * ms, 121 * ms);
        meter.latency()
    }

    #[test]
    fn the_table_says_that_the_machine_stood_still() {
        let line = |point: Point| {
            let table = outcome(point).table();
            let said =
                table.lines().find_map(|line| line.strip_prefix("  the machine stood still"));
            said.map(|said| said.trim().to_owned())
        };
        let stops = |count, total_ms| Some(Standstill { count, total_ms });
        let point = |stops| Point { stops, ack: with_a_stop(), ..Point::default() };
        assert_eq!(line(point(stops(0, 0.0))), None);
        assert_eq!(
            line(point(stops(12, 290.2))).unwrap(),
            "12 times, 290 ms in all; without what was under way then: p99 0.99  p99.9 0.99 ms"
        );
        let both = Point { receipt: with_a_stop(), ..point(stops(1, 22.0)) };
        assert_eq!(
            line(both).unwrap(),
            "once, 22.0 ms in all; without what was under way then: publish to receipt p99 0.99  \
             p99.9 0.99 ms, acknowledgement p99 0.99  p99.9 0.99 ms"
        );
        let bare = Point { stops: stops(2, 9.0), ..Point::default() };
        assert_eq!(line(bare).unwrap(), "2 times, 9.00 ms in all");
        assert_eq!(line(Point::default()), None, "nobody watched");
        // All are shown as ever.
        let table = outcome(point(stops(1, 22.0))).table();
        assert!(table.contains("max 22.0 ms"), "{table}");
    }

    #[test]
    fn json_has_the_stops_or_null() {
        let stops = Some(Standstill { count: 3, total_ms: 20.5 });
        let outcome = outcome(Point { stops, ack: with_a_stop(), ..Point::default() });
        let json = serde_json::to_value(&outcome.points[0]).unwrap();
        assert_eq!(json["stops"], serde_json::json!({"count": 3, "total_ms": 20.5}));
        assert_eq!(json["ack"]["count"], 100);
        assert_eq!(json["ack"]["apart_from_stops"]["count"], 99);
        let json = serde_json::to_value(Point::default()).unwrap();
        assert!(json["stops"].is_null(), "{json}");
    }

    #[test]
    fn the_table_says_what_went_wrong() {
        let mut outcome = outcome(Point { deliveries: 1, ..Point::default() });
        assert!(outcome.table().contains("no gap"));
        outcome.violation_count = 1;
        outcome.violations.push("gap: ...".to_owned());
        assert!(outcome.table().contains("1 violations\n    gap"), "{}", outcome.table());
    }
}
