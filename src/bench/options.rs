//! How a run is done, and at which rates.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use super::outcome::grouped;

/// How a run is done, whatever it measures.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long is measured.
    pub seconds: Duration,
    /// How long the load runs before.
    pub warmup: Duration,
    /// The length of a payload.
    pub payload_bytes: usize,
    /// How often progress is shown, and the width of the intervals of a report.
    pub interval: Duration,
    /// Connections that are being made at the same time, at most.
    pub connecting_max: usize,
    /// How long nothing may happen before a run is given up.
    pub patience: Duration,
    /// Whether progress goes to standard error.
    pub progress: bool,
    /// Whether stops of the machine are watched: where that cannot be, there is no run.
    pub watch_stops: bool,
    /// Once it is set the run ends, without an outcome.
    pub stop: Arc<AtomicBool>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            seconds: Duration::from_secs(10),
            warmup: Duration::from_secs(2),
            payload_bytes: 256,
            interval: Duration::from_secs(1),
            connecting_max: 500,
            patience: Duration::from_secs(10),
            progress: false,
            watch_stops: false,
            stop: Arc::default(),
        }
    }
}

impl Options {
    /// What a report says of them.
    pub fn said(&self) -> BTreeMap<&'static str, String> {
        BTreeMap::from([
            ("seconds", self.seconds.as_secs_f64().to_string()),
            ("warmup", self.warmup.as_secs_f64().to_string()),
            ("bytes", self.payload_bytes.to_string()),
        ])
    }
}

/// A load by its rate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Rate {
    /// As fast as acknowledged, with so many events of each publisher in flight.
    Closed {
        /// Requests in flight.
        window: u32,
    },
    /// So many events a second in all.
    Open {
        /// Events a second.
        per_s: f64,
        /// At most so many events of each publisher in flight.
        window: u32,
    },
}

impl Rate {
    /// The rate that was asked for, if one was.
    pub fn per_s(self) -> Option<f64> {
        match self {
            Rate::Open { per_s, .. } => Some(per_s),
            Rate::Closed { .. } => None,
        }
    }

    /// What so many publishers send, in words.
    pub fn label(self, publishers: u32) -> String {
        let who = if publishers == 1 { "publisher" } else { "publishers" };
        match self {
            Rate::Open { per_s, .. } => format!("{publishers} {who}, {}/s", grouped(per_s)),
            Rate::Closed { window: 1 } => format!("{publishers} {who}, one event in flight each"),
            Rate::Closed { window } => {
                format!("{publishers} {who}, {} in flight each", grouped(f64::from(window)))
            }
        }
    }
}
