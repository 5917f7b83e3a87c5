//! `fanout`: how soon every subscriber of a topic has an event, and what that costs.
//!
//! With `stalled` subscribers, these stop reading in the middle: the others must not notice, neither that nor
//! when they read again at the end, under the same load, and get everything.

use super::{
    engine::{BenchError, Engine},
    net::now_ns,
    number::as_f64,
    options::{Options, Rate},
    outcome::{Outcome, Point},
    record::Latency,
    session::Session,
    target::{From, Target},
};

/// Who publishes and who receives.
#[derive(Clone, Debug)]
pub struct FanOut {
    /// Connections that receive.
    pub subscribers: u32,
    /// Connections that append.
    pub publishers: u32,
    /// One after the other.
    pub rates: Vec<Rate>,
    /// How many subscribers stop reading at half time.
    pub stalled: u32,
    /// What the kernel may keep for each of them, so that they soon are full.
    pub stalled_buffer_bytes: usize,
}

/// Runs it.
pub fn run<T: Target>(
    target: &T,
    options: &Options,
    fan_out: &FanOut,
) -> Result<Outcome, BenchError> {
    let FanOut { subscribers, publishers, stalled, .. } = *fan_out;
    let reading = subscribers - stalled;
    let mut session = Session::new(target, options, subscribers, publishers)?;
    let buffer_bytes = fan_out.stalled_buffer_bytes;
    session.connect_subscribers(
        0..subscribers,
        |_| From::Latest,
        |index| (index >= reading).then_some(buffer_bytes),
    )?;
    session.connect_publishers()?;
    session.settle()?;
    let mut points = Vec::new();
    for rate in &fan_out.rates {
        let label = format!("{subscribers} subscribers, {}", rate.label(publishers));
        let measured = session.begin_measuring(*rate)?;
        let mut point = if stalled == 0 {
            session.run(options.seconds, |_| false)?;
            let mut point = session.count(&measured, label);
            session.finish_point(&mut point, 0..subscribers)?;
            point
        } else {
            with_stalled(&mut session, fan_out, *rate, label)?
        };
        point.rate_per_s = rate.per_s();
        points.push(point);
    }
    let mut said = options.said();
    said.insert("publishers", publishers.to_string());
    said.insert("subscribers", subscribers.to_string());
    said.insert("stalled", stalled.to_string());
    Ok(session.finish("fanout", said, points, 0..subscribers))
}

/// Half of the time with all reading, half without the stalled; then these get what they missed, while the
/// load goes on: for as long as that takes, but not for longer than another half.
fn with_stalled<T: Target>(
    session: &mut Session<'_, T>,
    fan_out: &FanOut,
    rate: Rate,
    label: String,
) -> Result<Point, BenchError> {
    let FanOut { subscribers, stalled, .. } = *fan_out;
    let reading = subscribers - stalled;
    let half = session.options.seconds / 2;
    session.run(half, |_| false)?;
    let before = session.engine.seen.receipts.latency();
    let resident_before_kib = session.look().resident_kib;
    for index in reading..subscribers {
        session.engine.pause(index)?;
    }
    let measured = session.measure_from_here("stalled");
    session.run(half, |_| false)?;
    let mut point = session.count(&measured, format!("{label}, {stalled} of them stalled"));
    session.finish_point(&mut point, 0..reading)?;
    let resident_stalled_kib = session.look().resident_kib;

    // What the stalled get now is late by design: it is no latency of this point.
    session.engine.seen.late_from = reading;
    let missed = session.engine.published();
    let received = |session: &Session<'_, T>| -> u64 {
        let late = (reading..subscribers).filter_map(|index| session.engine.subscriber(index));
        late.map(|subscriber| subscriber.received).sum()
    };
    let received_before = received(session);
    session.measure_from_here("catch-up");
    session.engine.set_load(session.load(rate))?;
    let begin_ns = now_ns();
    for index in reading..subscribers {
        session.engine.resume(index)?;
    }
    let mut next = reading;
    let caught_up = |engine: &mut Engine<'_, T>| {
        while next < subscribers
            && (engine.subscriber(next).is_none()
                || engine.seen.checker.has_at_least(next, &missed))
        {
            next += 1;
        }
        next == subscribers
    };
    let in_time = session.run(half, caught_up)?;
    let mut end_ns = now_ns();
    session.drain(0..subscribers)?;
    if !in_time {
        end_ns = now_ns();
    }
    let meanwhile = session.engine.seen.receipts.latency();
    let p99 = |latency: &Option<Latency>| latency.as_ref().map_or(0.0, |latency| latency.p99_ms);
    let p50 = |latency: &Option<Latency>| latency.as_ref().map_or(0.0, |latency| latency.p50_ms);
    let growth_kib = as_f64(resident_stalled_kib) - as_f64(resident_before_kib);
    let (after_p50, after_p99) = (p50(&point.receipt), p99(&point.receipt));
    point.note("others_p50_before_ms", p50(&before));
    point.note("others_p99_before_ms", p99(&before));
    point.note("others_p50_after_ms", after_p50);
    point.note("others_p99_after_ms", after_p99);
    point.note("others_p50_catch_up_ms", p50(&meanwhile));
    point.note("others_p99_catch_up_ms", p99(&meanwhile));
    point.note("memory_growth_mib", growth_kib / 1024.0);
    point.note("caught_up_in_s", as_f64(end_ns - begin_ns) / 1e9);
    point.note("caught_up_deliveries", as_f64(received(session) - received_before));
    Ok(point)
}
