//! A run as one self-contained page: nothing is loaded, nothing has to run, light and dark.

mod chart;

use std::fmt::Write;

use chart::{Axis, Chart, Line, Scale};

use super::{
    number::as_f64,
    outcome::{Outcome, Point, Tick},
    record::{Interval, Latency},
};

const STYLE: &str = include_str!("page/style.css");

/// The page.
pub fn render(outcome: &Outcome) -> String {
    let title = format!("{} {}", escape(&outcome.target), escape(outcome.bench));
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>{title}</h1>\n"
    );
    push_verdict(&mut page, outcome);
    page.push_str("<dl class=\"options\">\n");
    for (name, value) in &outcome.options {
        push(&mut page, format_args!("<dt>{}<dd>{}\n", escape(name), escape(value)));
    }
    page.push_str("</dl>\n");
    if outcome.points.iter().filter(|point| point.rate_per_s.is_some()).count() > 1 {
        push_sweep(&mut page, &outcome.points);
    }
    for point in &outcome.points {
        push_point(&mut page, point);
    }
    page.push_str("</main>\n</html>\n");
    page
}

fn push(page: &mut String, text: std::fmt::Arguments<'_>) {
    page.write_fmt(text).expect("a string takes everything");
}

fn push_verdict(page: &mut String, outcome: &Outcome) {
    let Some(verdict) = outcome.verdict() else { return };
    if outcome.is_clean() {
        return push(page, format_args!("<p class=\"good\">{verdict}</p>\n"));
    }
    push(page, format_args!("<div class=\"bad\"><p>{verdict}, the first of them:</p><ul>\n"));
    for violation in &outcome.violations {
        push(page, format_args!("<li>{}\n", escape(violation)));
    }
    page.push_str("</ul></div>\n");
}

/// Latency against rate: one line a percentile.
fn push_sweep(page: &mut String, points: &[Point]) {
    page.push_str("<h2>Latency against rate</h2>\n<div class=\"charts\">\n");
    type Of = fn(&Point) -> Option<&Latency>;
    let kinds: [(&str, Of); 2] = [
        ("Publish to receipt", |point| point.receipt.as_ref()),
        ("Acknowledgement", |point| point.ack.as_ref()),
    ];
    for (title, of) in kinds {
        let line = |name: &str, value: fn(&Latency) -> f64| Line {
            name: name.to_owned(),
            points: points
                .iter()
                .filter_map(|point| Some((point.rate_per_s?, value(of(point)?))))
                .collect(),
        };
        let lines = vec![
            line("p50", |latency| latency.p50_ms),
            line("p99", |latency| latency.p99_ms),
            line("p99.9", |latency| latency.p999_ms),
        ];
        let x = Axis { label: "events/s that were due", scale: Scale::Linear };
        push_chart(page, title, x, Axis { label: "ms", scale: Scale::Log }, lines);
    }
    page.push_str("</div>\n");
}

fn push_point(page: &mut String, point: &Point) {
    push(page, format_args!("<h2>{}</h2>\n<table>\n", escape(&point.label)));
    for (name, value) in point.rows() {
        push(page, format_args!("<tr><th>{}<td>{}\n", escape(&name), escape(&value)));
    }
    page.push_str("</table>\n<div class=\"charts\">\n");
    let latency = |name: &str, latency: &Option<Latency>| {
        let points = latency.as_ref().map(|latency| latency.percentiles.clone());
        Line { name: name.to_owned(), points: points.unwrap_or_default() }
    };
    let lines =
        vec![latency("publish to receipt", &point.receipt), latency("acknowledgement", &point.ack)];
    let x = Axis { label: "percentile", scale: Scale::Percentile };
    push_chart(page, "Latency distribution", x, Axis { label: "ms", scale: Scale::Log }, lines);

    type Of = fn(&Tick) -> &Interval;
    let kinds: [(&str, Of); 2] =
        [("deliveries", |tick| &tick.receipt), ("appends", |tick| &tick.ack)];
    let over_time = || Axis { label: "s", scale: Scale::Linear };
    for (name, of) in kinds {
        let rate = |tick: &Tick| (tick.at_s, as_f64(of(tick).count) / tick.seconds.max(1e-9));
        let line = Line { name: name.to_owned(), points: point.series.iter().map(rate).collect() };
        if line.points.iter().any(|(_, rate)| *rate > 0.0) {
            let title = format!("{}{} a second", name[..1].to_uppercase(), &name[1..]);
            let y = Axis { label: "", scale: Scale::Linear };
            push_chart(page, &title, over_time(), y, vec![line]);
        }
    }
    let p99 = |name: &str, of: Of| Line {
        name: name.to_owned(),
        points: point
            .series
            .iter()
            .filter(|tick| of(tick).count > 0)
            .map(|tick| (tick.at_s, of(tick).p99_ms))
            .collect(),
    };
    let lines = vec![p99("publish to receipt", kinds[0].1), p99("acknowledgement", kinds[1].1)];
    let y = Axis { label: "ms", scale: Scale::Linear };
    push_chart(page, "p99 of each interval", over_time(), y, lines);
    if point.server.is_some() {
        let line = |name: &str, value: fn(&Tick) -> f64| Line {
            name: name.to_owned(),
            points: point.series.iter().map(|tick| (tick.at_s, value(tick))).collect(),
        };
        let y = Axis { label: "MiB", scale: Scale::Linear };
        let memory = line("resident", |tick| as_f64(tick.resident_kib) / 1024.0);
        push_chart(page, "Memory of the server", over_time(), y, vec![memory]);
        let y = Axis { label: "cores", scale: Scale::Linear };
        let cpu = line("used", |tick| tick.cpu_cores);
        push_chart(page, "CPU of the server", over_time(), y, vec![cpu]);
    }
    page.push_str("</div>\n");
}

/// A chart, if there is something to show.
fn push_chart(page: &mut String, title: &str, x: Axis, y: Axis, lines: Vec<Line>) {
    let lines: Vec<Line> = lines.into_iter().filter(|line| line.points.len() > 1).collect();
    if !lines.is_empty() {
        page.push_str(&Chart { title, x, y, lines }.svg());
    }
}

/// Text between tags, or in an attribute.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            _ => out.push(character),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::bench::record::Meter;

    fn point(rate: f64) -> Point {
        let mut meter = Meter::default();
        for us in 1..=1000 {
            meter.record(0, us * 1000);
        }
        let tick = |at_s: f64| Tick {
            at_s,
            seconds: 1.0,
            receipt: Interval { count: 100, p50_ms: 1.0, p99_ms: 2.0 },
            ..Tick::default()
        };
        Point {
            label: format!("{rate} a second"),
            rate_per_s: Some(rate),
            receipt: meter.latency(),
            series: vec![tick(1.0), tick(2.0)],
            ..Point::default()
        }
    }

    fn outcome() -> Outcome {
        Outcome {
            bench: "fanout",
            target: "<peer> & co".to_owned(),
            options: BTreeMap::from([("subscribers", "1000".to_owned())]),
            points: vec![point(50.0), point(100.0)],
            violation_count: 0,
            violations: Vec::new(),
        }
    }

    #[test]
    fn the_page_needs_nothing_else() {
        let page = render(&outcome());
        for outside in ["http:", "https:", "src=", "url(", "<script", "<link", "@import"] {
            let elsewhere = page.replace("http://www.w3.org/2000/svg", "");
            assert!(!elsewhere.contains(outside), "{outside}");
        }
        assert!(page.contains("prefers-color-scheme: dark"));
        assert!(page.contains("&lt;peer&gt; &amp; co"), "names are escaped");
    }

    #[test]
    fn everything_is_plotted() {
        let page = render(&outcome());
        for title in ["Latency against rate", "Latency distribution", "Deliveries a second"] {
            assert!(page.contains(title), "{title}");
        }
        // One for the sweep; three for each point: distribution, deliveries, p99.
        assert_eq!(page.matches("<svg").count(), 1 + 2 * 3);
        assert!(!page.contains("NaN") && !page.contains("inf"));
    }

    #[test]
    fn violations_are_shown() {
        let mut outcome = outcome();
        outcome.violation_count = 12;
        outcome.violations.push("gap: <here>".to_owned());
        let page = render(&outcome);
        assert!(page.contains("12 violations") && page.contains("gap: &lt;here&gt;"));
        assert!(!page.contains("Every delivery was checked"));
    }
}
