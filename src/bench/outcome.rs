//! What a run found, as data: for JSON, the table and the page.

use std::collections::BTreeMap;

use serde::Serialize;

use super::record::{Interval, Latency, as_f64};

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
        push("load generator CPU", format!("{:.2} cores", self.client_cpu_cores));
        for (name, value) in &self.extra {
            push(&name.replace('_', " "), short(*value));
        }
        rows
    }
}

impl Outcome {
    /// Whether every delivery was what it should have been.
    pub fn is_clean(&self) -> bool {
        self.violation_count == 0
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
        let what = match self.violation_count {
            0 => "  every delivery checked: no gap, no repeat, in order\n".to_owned(),
            count => format!("  {} VIOLATIONS\n", grouped(as_f64(count))),
        };
        text.push_str(&what);
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
    fn the_table_says_what_went_wrong() {
        let mut outcome = Outcome {
            bench: "fanout",
            target: "strandline".to_owned(),
            options: BTreeMap::new(),
            points: vec![Point { label: "100/s".to_owned(), appends: 5, ..Point::default() }],
            violation_count: 0,
            violations: Vec::new(),
        };
        assert!(outcome.table().contains("no gap"));
        outcome.violation_count = 1;
        outcome.violations.push("gap: ...".to_owned());
        assert!(outcome.table().contains("1 VIOLATIONS\n    gap"), "{}", outcome.table());
    }
}
