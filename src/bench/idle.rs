//! `idle`: what a subscriber costs that gets nothing, and how soon one that hangs up is noticed.

use std::{fs, time::Duration};

use super::{
    engine::BenchError,
    net::now_ns,
    number::as_f64,
    options::Options,
    outcome::{Outcome, grouped},
    session::Session,
    target::{From, Target},
};

/// Who is idle.
#[derive(Clone, Debug)]
pub struct Idle {
    /// Connections that receive nothing.
    pub subscribers: u32,
    /// How many of them hang up at the end.
    pub hang_ups: u32,
}

/// Runs it.
pub fn run<T: Target>(target: &T, options: &Options, idle: &Idle) -> Result<Outcome, BenchError> {
    let Idle { subscribers, hang_ups } = *idle;
    let mut session = Session::new(target, options, subscribers, 0)?;
    let begin_ns = now_ns();
    session.connect_subscribers(0..subscribers, |_| From::Latest, |_| None)?;
    let connect_s = as_f64(now_ns() - begin_ns) / 1e9;
    session.begin_phase("settle");
    session.run(options.warmup, |_| false)?;
    session.settle()?;
    let measured = session.measure_from_here("idle");
    let connected_kib = measured.begin.resident_kib;
    session.run(options.seconds, |_| false)?;
    let label = format!("{} idle subscribers", grouped(f64::from(subscribers)));
    let mut point = session.count(&measured, label);
    let start_kib = session.start_usage().resident_kib;
    let held_kib = session.look().resident_kib;
    let each = |kib: u64| (as_f64(kib) - as_f64(start_kib)) / f64::from(subscribers);
    if !session.processes().is_empty() {
        point.note("connected_kib_each", each(connected_kib));
        point.note("held_kib_each", each(held_kib));
    }
    point.note("connects_per_s", f64::from(subscribers) / connect_s);
    let hung_up_on = session.engine.hang_ups;
    point.note("hung_up_on_by_server", as_f64(hung_up_on));

    if hang_ups > 0
        && let Some(before) = open_files(session.processes())
    {
        session.begin_phase("hang-up");
        let begin_ns = now_ns();
        for index in 0..hang_ups {
            session.engine.close_subscriber(index);
        }
        let goal = before.saturating_sub(u64::from(hang_ups));
        let processes = session.processes().to_vec();
        while open_files(&processes).is_some_and(|files| files > goal) {
            if as_f64(now_ns() - begin_ns) / 1e9 > options.patience.as_secs_f64() {
                return Err(BenchError::Patience(format!(
                    "{hang_ups} subscribers hung up, and the server has not noticed"
                )));
            }
            session.run(Duration::from_millis(5), |_| false)?;
        }
        let noticed_ms = as_f64(now_ns() - begin_ns) / 1e6;
        point.note("hang_ups_noticed_in_ms", noticed_ms);
    }
    let mut said = options.said();
    said.insert("subscribers", subscribers.to_string());
    Ok(session.finish("idle", said, vec![point], 0..0))
}

/// How many files the processes hold open; `None` if that is not ours to see.
fn open_files(processes: &[u32]) -> Option<u64> {
    let mut files = 0;
    for process in processes {
        let directory = format!("/proc/{process}/fd");
        // Since Linux 6.2 the size of the directory is their number.
        files += match fs::metadata(&directory).ok()?.len() {
            0 => u64::try_from(fs::read_dir(&directory).ok()?.count()).expect("few files"),
            size => size,
        };
    }
    (!processes.is_empty()).then_some(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_files_are_counted() {
        let ours = [std::process::id()];
        let held: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let with = open_files(&ours).unwrap();
        assert!(with >= 100, "{with} files where {} are held", held.len());
        assert_eq!(open_files(&[]), None);
    }
}
