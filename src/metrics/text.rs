//! Metrics as Prometheus' text, version 0.0.4. Pure.
//!
//! ```text
//! # HELP strandline_appends_total Appends that were acknowledged.
//! # TYPE strandline_appends_total counter
//! strandline_appends_total 42
//! ```

use std::fmt::{Display, Write};

use super::Histogram;

/// The media type.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What is being written. Names and labels are ours, and hold nothing that would have to be escaped.
#[derive(Debug, Default)]
pub struct MetricsText(String);

impl MetricsText {
    /// A number that only goes up.
    pub fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "counter");
        self.line(format_args!("{name} {value}"));
    }

    /// A number that goes up and down.
    pub fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, help, "gauge");
        self.line(format_args!("{name} {value}"));
    }

    /// A fact that is not a number: a gauge of 1, with labels.
    pub fn info(&mut self, name: &str, help: &str, labels: &[(&str, &str)]) {
        self.head(name, help, "gauge");
        let labels: Vec<_> =
            labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        self.line(format_args!("{name}{{{}}} 1", labels.join(",")));
    }

    /// How long something took, in seconds.
    pub fn histogram(&mut self, name: &str, help: &str, histogram: &Histogram) {
        self.head(name, help, "histogram");
        let (bounds, count) = histogram.cumulative();
        for (us, count) in bounds {
            self.line(format_args!("{name}_bucket{{le=\"{}\"}} {count}", Seconds(us)));
        }
        self.line(format_args!("{name}_bucket{{le=\"+Inf\"}} {count}"));
        self.line(format_args!("{name}_sum {}", Seconds(histogram.sum_us())));
        self.line(format_args!("{name}_count {count}"));
    }

    /// The text.
    pub fn finish(self) -> String {
        self.0
    }

    fn head(&mut self, name: &str, help: &str, kind: &str) {
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn line(&mut self, line: impl Display) {
        writeln!(self.0, "{line}").expect("a string takes every text");
    }
}

/// Microseconds as seconds, exactly.
struct Seconds(u64);

impl Display for Seconds {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (whole, rest) = (self.0 / 1_000_000, self.0 % 1_000_000);
        if rest == 0 {
            return write!(formatter, "{whole}");
        }
        write!(formatter, "{whole}.{}", format!("{rest:06}").trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counters_and_gauges() {
        let mut text = MetricsText::default();
        text.counter("a_total", "How many a.", 7);
        text.gauge("b", "How much b.", 0);
        text.info("c", "What c is.", &[("tag", "x"), ("sync", "commit")]);
        assert_eq!(
            text.finish(),
            "# HELP a_total How many a.\n# TYPE a_total counter\na_total 7\n\
             # HELP b How much b.\n# TYPE b gauge\nb 0\n\
             # HELP c What c is.\n# TYPE c gauge\nc{tag=\"x\",sync=\"commit\"} 1\n"
        );
    }

    #[test]
    fn histograms() {
        let histogram = Histogram::default();
        histogram.add(Duration::from_micros(50));
        histogram.add(Duration::from_millis(1_500));
        let mut text = MetricsText::default();
        text.histogram("a_seconds", "How long a takes.", &histogram);
        let text = text.finish();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 2 + 16 + 3);
        assert_eq!(lines[2], "a_seconds_bucket{le=\"0.000032\"} 0");
        assert_eq!(lines[3], "a_seconds_bucket{le=\"0.000064\"} 1");
        assert_eq!(lines[17], "a_seconds_bucket{le=\"1.048576\"} 1");
        assert_eq!(
            lines[18..],
            ["a_seconds_bucket{le=\"+Inf\"} 2", "a_seconds_sum 1.50005", "a_seconds_count 2"]
        );
    }
}
