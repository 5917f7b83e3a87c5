//! `replay`: how fast readers get a long history, from its first event on.

use super::{
    engine::BenchError,
    load::Load,
    net::now_ns,
    number::as_f64,
    options::Options,
    outcome::{Outcome, grouped},
    session::Session,
    target::{From, Target},
};

/// What is read.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Events of the history.
    pub events: u64,
    /// Connections that load it.
    pub publishers: u32,
    /// Events in flight of each of them, a multiple of what the target acknowledges together.
    pub window: u32,
    /// Connections that read it, all at the same time.
    pub readers: u32,
    /// How often each reads it, on a new connection: what the first reading brought into the page cache
    /// the others find there.
    pub readings: u32,
}

/// Runs it.
pub fn run<T: Target>(
    target: &T,
    options: &Options,
    replay: &Replay,
) -> Result<Outcome, BenchError> {
    let Replay { events, publishers, window, readers, readings } = *replay;
    let mut session = Session::new(target, options, readers, publishers)?;
    session.connect_publishers()?;
    session.begin_phase("load");
    let load_ns = now_ns();
    session.engine.set_load(Load::Closed { window })?;
    let loaded = |published: Vec<u32>| published.into_iter().map(u64::from).sum::<u64>() >= events;
    if !session.run_until(|engine| loaded(engine.published()))? {
        return Err(BenchError::Patience("the history is not taken".to_owned()));
    }
    session.drain(0..0)?;
    let load_s = as_f64(now_ns() - load_ns) / 1e9;
    let history: u64 = session.engine.published().into_iter().map(u64::from).sum();
    session.settle()?;

    let mut points = Vec::new();
    for reading in 1..=readings {
        for reader in 0..readers {
            session.engine.close_subscriber(reader);
            session.engine.seen.checker.begin_at(reader, Some(0));
        }
        let measured = session.measure_from_here("replay");
        // How old an event is says nothing about the reading of it.
        session.engine.seen.receipts.reset(u64::MAX);
        session.connect_subscribers(0..readers, |_| From::Earliest, |_| None)?;
        let whole = session.wait_for_all(0..readers)?;
        let number = if readings > 1 { format!(", reading {reading}") } else { String::new() };
        let label = format!(
            "{readers} readers of {} events of {} bytes{number}",
            grouped(as_f64(history)),
            options.payload_bytes
        );
        let mut point = session.count(&measured, label);
        point.note("loaded_events_per_s", as_f64(history) / load_s);
        if whole {
            let bytes = point.deliveries_per_s * as_f64(bytes_of(options.payload_bytes));
            point.note("payload_mib_per_s", bytes / f64::from(1 << 20));
        }
        points.push(point);
        if !whole {
            // The next reading would begin anew, and nobody would miss anything.
            break;
        }
    }
    let mut said = options.said();
    said.insert("events", events.to_string());
    said.insert("readers", readers.to_string());
    said.insert("readings", readings.to_string());
    Ok(session.finish("replay", said, points, 0..readers))
}

fn bytes_of(bytes: usize) -> u64 {
    u64::try_from(bytes).expect("usize has at most 64 bits")
}
