//! `storm`: everybody reconnects at once, or people come and go without end.
//!
//! In a storm, subscribers come back with cursors spread over a history, while a publisher goes on at
//! its rate: how long until each has everything, and what the publisher notices. With `churn`, so many
//! subscribers a second connect, and as many hang up: nothing of them may stay.

use std::{collections::VecDeque, time::Duration};

use super::{
    engine::BenchError,
    load::Load,
    net::{nanoseconds, now_ns},
    number::as_f64,
    options::{Options, Rate},
    outcome::{Outcome, grouped},
    session::Session,
    target::{From, Target},
};

/// Who comes back.
#[derive(Clone, Debug)]
pub struct Storm {
    /// Connections that receive.
    pub subscribers: u32,
    /// Events that their cursors are spread over.
    pub history: u32,
    /// What the publisher goes on with meanwhile, in events a second.
    pub rate_per_s: f64,
}

/// Who comes and goes.
#[derive(Clone, Debug)]
pub struct Churn {
    /// Connections at any time: each lives for `subscribers / connects_per_s` seconds.
    pub subscribers: u32,
    /// Connections a second, and hang-ups.
    pub connects_per_s: f64,
    /// What the publisher goes on with meanwhile, in events a second.
    pub rate_per_s: f64,
}

/// Events of the history in flight: they are not what is measured.
const HISTORY_WINDOW: u32 = 100;
/// At a rate, events without an answer.
const RATE_WINDOW: u32 = 1000;
/// A subscriber that lags by less is live: where all get a hundred events a second, what comes next is there before
/// one send to each of ten thousand is done, and nobody ever has all.
const ROUND: Duration = Duration::from_millis(250);
/// How often it is noted what is there.
const LOOK: Duration = Duration::from_millis(10);
/// After the storm the server has so long to give back what it took.
const CALM: Duration = Duration::from_secs(2);

/// Runs a storm.
pub fn run<T: Target>(target: &T, options: &Options, storm: &Storm) -> Result<Outcome, BenchError> {
    let Storm { subscribers, history, rate_per_s } = *storm;
    // One more, which learns the cursor of each event.
    let scout = subscribers;
    let mut session = Session::new(target, options, subscribers + 1, 1)?;
    session.connect_subscribers(scout..scout + 1, |_| From::Latest, |_| None)?;
    session.connect_publishers()?;
    session.engine.keep_cursors(true);
    session.begin_phase("history");
    session.engine.set_load(Load::Closed { window: HISTORY_WINDOW })?;
    if !session.run_until(|engine| engine.published()[0] >= history)? {
        return Err(BenchError::Patience("the history is not taken".to_owned()));
    }
    session.drain(scout..scout + 1)?;
    let cursors = session.engine.keep_cursors(false);
    let history_len = usize::try_from(history).expect("usize has 32 bits and more");
    let Some(first) = cursors.len().checked_sub(history_len) else {
        let came = cursors.len();
        let missing = format!("missing: of a history of {history} events {came} have come");
        return Err(BenchError::Patience(missing));
    };
    session.settle()?;

    // Subscriber i has seen everything up to this event of the last `history`.
    let seen = |index: u32| {
        let at = u64::from(index) * u64::from(history) / u64::from(subscribers);
        first + usize::try_from(at).expect("less than the history")
    };
    for index in 0..subscribers {
        let next = u32::try_from(seen(index) + 1).expect("less than all events");
        session.engine.seen.checker.begin_at(index, Some(next));
    }
    let measured =
        session.begin_measuring(Rate::Open { per_s: rate_per_s, window: RATE_WINDOW })?;
    let start = |index: u32| From::After(cursors[seen(index)].clone());
    session.connect_subscribers(0..subscribers, start, |_| None)?;
    let connected_s = as_f64(now_ns() - measured.begin_ns) / 1e9;
    // One after the other is live once it has everything that was there `ROUND` before.
    let mut next = 0;
    let mut there = VecDeque::from([(now_ns(), session.engine.acknowledged())]);
    let all_live = session.run_while_moving(|engine| {
        let now = now_ns();
        if now - there[there.len() - 1].0 >= nanoseconds(LOOK) {
            there.push_back((now, engine.acknowledged()));
        }
        while there.len() > 1 && now - there[1].0 >= nanoseconds(ROUND) {
            there.pop_front();
        }
        while next < subscribers
            && (engine.subscriber(next).is_none()
                || engine.seen.checker.has_at_least(next, &there[0].1))
        {
            next += 1;
        }
        // The publisher goes on, so there is news for ever. Who is waited for moves on, or hangs.
        let received = |next| engine.subscriber(next).map(|subscriber| subscriber.received);
        (next < subscribers).then(|| (next, received(next)))
    })?;
    let live_s = as_f64(now_ns() - measured.begin_ns) / 1e9;
    let label = format!(
        "{} subscribers over the last {} events, {}/s go on",
        grouped(f64::from(subscribers)),
        grouped(f64::from(history)),
        grouped(rate_per_s)
    );
    let mut point = session.count(&measured, label);
    session.finish_point(&mut point, 0..subscribers)?;
    point.note("all_connected_in_s", connected_s);
    if all_live {
        point.note("all_live_in_s", live_s);
    }
    let mut said = options.said();
    said.insert("subscribers", subscribers.to_string());
    said.insert("history", history.to_string());
    said.insert("rate", rate_per_s.to_string());
    Ok(session.finish("storm", said, vec![point], 0..subscribers))
}

/// Runs churn.
pub fn run_churn<T: Target>(
    target: &T,
    options: &Options,
    churn: &Churn,
) -> Result<Outcome, BenchError> {
    let Churn { subscribers, connects_per_s, rate_per_s } = *churn;
    let mut session = Session::new(target, options, subscribers, 1)?;
    session.connect_publishers()?;
    for index in 0..subscribers {
        session.engine.seen.checker.begin_at(index, None);
    }
    session.connect_subscribers(0..subscribers, |_| From::Latest, |_| None)?;
    session.settle()?;
    let measured =
        session.begin_measuring(Rate::Open { per_s: rate_per_s, window: RATE_WINDOW })?;
    let resident_before_kib = session.look().resident_kib;
    let end_ns = measured.begin_ns + nanoseconds(options.seconds);
    let period = Duration::from_secs_f64(1.0 / connects_per_s);
    let (mut count, mut too_slow) = (0_u32, 0_u32);
    loop {
        let due_ns = measured.begin_ns + nanoseconds(period * count);
        if due_ns >= end_ns {
            break;
        }
        let now = now_ns();
        if due_ns > now {
            session.run(Duration::from_nanos(due_ns - now), |_| false)?;
        }
        let index = count % subscribers;
        // Where the server takes connections more slowly than they come, some never were subscribed.
        too_slow += u32::from(!session.engine.is_ready(index));
        session.engine.close_subscriber(index);
        session.engine.seen.checker.begin_at(index, None);
        session.engine.add_subscriber(index, &From::Latest, None)?;
        count += 1;
        // The loop gets its turn even where everything is late.
        if count.is_multiple_of(16) {
            session.engine.turn(now_ns())?;
        }
    }
    let label = format!("{} connects and hang-ups a second", grouped(connects_per_s));
    let mut point = session.count(&measured, label);
    session.finish_point(&mut point, 0..0)?;
    session.run_until(|engine| engine.connecting() == 0)?;
    session.begin_phase("calm");
    session.run(CALM, |_| false)?;
    let after_kib = session.look().resident_kib;
    point.note("connects", f64::from(count));
    let measured_s = point.seconds;
    point.note("connects_per_s", f64::from(count) / measured_s);
    point.note("too_slow_to_be_subscribed", f64::from(too_slow));
    if !session.processes().is_empty() {
        point.note("resident_before_mib", as_f64(resident_before_kib) / 1024.0);
        point.note("resident_after_mib", as_f64(after_kib) / 1024.0);
    }
    // Each of those who are there now gets what comes now: a gap is noticed by who gets anything behind it alone.
    let before = session.engine.published()[0];
    session.engine.set_load(Load::Closed { window: 1 })?;
    if !session.run_until(|engine| engine.published()[0] > before)? {
        return Err(BenchError::Patience("the event behind the churn is not taken".to_owned()));
    }
    session.drain(0..subscribers)?;
    let mut said = options.said();
    said.insert("subscribers", subscribers.to_string());
    said.insert("churn", connects_per_s.to_string());
    said.insert("rate", rate_per_s.to_string());
    Ok(session.finish("storm", said, vec![point], 0..subscribers))
}
