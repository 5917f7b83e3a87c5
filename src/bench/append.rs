//! `append`: how fast, and how soon, events are acknowledged as durable.

use super::{
    engine::BenchError,
    options::{Options, Rate},
    outcome::{Outcome, grouped},
    session::Session,
    target::Target,
};

/// What is appended.
#[derive(Clone, Debug)]
pub struct Append {
    /// Connections that append.
    pub publishers: u32,
    /// Topics that events are spread over, as the target does it.
    pub topics: u32,
    /// One after the other.
    pub rates: Vec<Rate>,
}

/// Runs it.
pub fn run<T: Target>(
    target: &T,
    options: &Options,
    append: &Append,
) -> Result<Outcome, BenchError> {
    let mut session = Session::new(target, options, 0, append.publishers)?;
    session.connect_publishers()?;
    session.settle()?;
    let mut points = Vec::new();
    for rate in &append.rates {
        let measured = session.begin_measuring(*rate)?;
        session.run(options.seconds, |_| false)?;
        let mut label = rate.label(append.publishers);
        if append.topics > 1 {
            label.push_str(&format!(", to {} topics", grouped(f64::from(append.topics))));
        }
        let mut point = session.count(&measured, label);
        point.rate_per_s = rate.per_s();
        session.finish_point(&mut point, 0..0)?;
        points.push(point);
    }
    let mut said = options.said();
    said.insert("publishers", append.publishers.to_string());
    said.insert("topics", append.topics.to_string());
    Ok(session.finish("append", said, points, 0..0))
}
