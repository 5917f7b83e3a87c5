//! A line that says how it goes: renewed in place on a terminal, one a tick elsewhere.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressStyle};

use super::number::as_f64;
use super::outcome::{Tick, grouped, short};
use super::record::Interval;
use crate::stderr::tell;

/// Where progress goes.
#[derive(Debug)]
pub enum Progress {
    /// Nowhere.
    Silent,
    /// Lines on standard error.
    Lines,
    /// One line of the terminal.
    Terminal(ProgressBar),
}

impl Progress {
    /// Standard error, as what it is.
    pub fn to_stderr() -> Progress {
        if !io::stderr().is_terminal() {
            return Progress::Lines;
        }
        let style = ProgressStyle::with_template("{spinner} {msg}").expect("it is well-formed");
        Progress::Terminal(ProgressBar::new_spinner().with_style(style))
    }

    /// Says one thing.
    pub fn say(&self, text: &str) {
        match self {
            Progress::Silent => {}
            Progress::Lines => tell!("{text}"),
            Progress::Terminal(bar) => {
                bar.set_message(text.to_owned());
                bar.tick();
            }
        }
    }

    /// Says what happened in an interval.
    pub fn tick(&self, phase: &str, tick: &Tick) {
        let mut text = format!("{phase:<9}{:>6.1} s", tick.at_s);
        for (name, interval) in [("appends", &tick.ack), ("deliveries", &tick.receipt)] {
            if interval.count > 0 {
                text.push_str(&rate(name, interval, tick.seconds));
            }
        }
        if tick.resident_kib > 0 {
            let (cores, mib) = (tick.cpu_cores, as_f64(tick.resident_kib) / 1024.0);
            text.push_str(&format!("  server {cores:.2} cores, {mib:.1} MiB"));
        }
        self.say(&text);
    }

    /// Takes the line away.
    pub fn finish(&self) {
        if let Progress::Terminal(bar) = self {
            bar.finish_and_clear();
        }
    }
}

fn rate(name: &str, interval: &Interval, seconds: f64) -> String {
    let rate = grouped(as_f64(interval.count) / seconds.max(1e-9));
    let (p50, p99) = (short(interval.p50_ms), short(interval.p99_ms));
    format!("  {rate} {name}/s, p50 {p50} p99 {p99} ms")
}
