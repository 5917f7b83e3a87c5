//! What all benches do: connect, load for a while, look at the server, wait until all is there.

use std::{collections::BTreeMap, ops::Range, sync::atomic::Ordering, time::Duration};

use super::{
    engine::{BenchError, Engine},
    load::{Load, Schedule},
    net::{nanoseconds, now_ns},
    number::as_f64,
    options::{Options, Rate},
    outcome::{Outcome, Point, ServerUse, Tick},
    process::{Usage, usage},
    progress::Progress,
    standstill::{Mark, Watch},
    target::{From, Target},
};

/// After connecting, the server has so long to come to rest before its memory is read.
const SETTLE: Duration = Duration::from_millis(500);

/// So many connections are begun before the loop has its turn: 4,000 at once take 60 ms, in which nobody publishes
/// what is due, or takes note of an acknowledgement.
const CONNECTS_A_TURN: u32 = 64;

/// One run under way.
pub struct Session<'t, T: Target> {
    /// Its connections.
    pub engine: Engine<'t, T>,
    /// How it is done.
    pub options: &'t Options,
    target: &'t T,
    progress: Progress,
    /// `None` where it is not wanted or not permitted.
    watch: Option<Watch>,
    processes: Vec<u32>,
    publishers: u32,
    /// Before anything was connected.
    start: Usage,
    /// With everything connected.
    idle: Usage,
    phase: &'static str,
    phase_begin_ns: u64,
    last_tick: (u64, Usage),
    next_tick_ns: u64,
    resident_kib_max: u64,
    series: Vec<Tick>,
}

impl<'t, T: Target> Session<'t, T> {
    /// Prepares the target; nothing is connected yet.
    pub fn new(
        target: &'t T,
        options: &'t Options,
        subscribers: u32,
        publishers: u32,
    ) -> Result<Session<'t, T>, BenchError> {
        target.prepare()?;
        let count = |number: u32| usize::try_from(number).expect("usize has at least 32 bits");
        let mut engine =
            Engine::new(target, options.payload_bytes, count(subscribers), count(publishers))?;
        let processes = target.processes();
        let watch = options.watch_stops.then(|| Watch::start(&processes)).transpose()?;
        if let Some(watch) = &watch {
            engine.acks.tell_apart(watch.stops().clone());
            engine.seen.receipts.tell_apart(watch.stops().clone());
        }
        let start = usage(&processes).unwrap_or_default();
        let now = now_ns();
        Ok(Session {
            engine,
            options,
            target,
            progress: if options.progress { Progress::to_stderr() } else { Progress::Silent },
            watch,
            processes,
            publishers,
            start,
            idle: start,
            phase: "connect",
            phase_begin_ns: now,
            last_tick: (now, start),
            next_tick_ns: now + nanoseconds(options.interval),
            resident_kib_max: 0,
            series: Vec::new(),
        })
    }

    /// Runs until `done` or for `duration`; returns whether it is done.
    pub fn run(
        &mut self,
        duration: Duration,
        mut done: impl FnMut(&mut Engine<'t, T>) -> bool,
    ) -> Result<bool, BenchError> {
        let until_ns = now_ns() + nanoseconds(duration);
        loop {
            if self.options.stop.load(Ordering::Relaxed) {
                self.progress.finish();
                return Err(BenchError::Stopped);
            }
            if done(&mut self.engine) {
                return Ok(true);
            }
            let now = now_ns();
            if now >= until_ns {
                return Ok(false);
            }
            if now >= self.next_tick_ns {
                self.tick(now);
            }
            self.engine.turn(until_ns.min(self.next_tick_ns))?;
        }
    }

    /// Runs until `done`, or until nothing has happened for as long as patience lasts.
    pub fn run_until(
        &mut self,
        mut done: impl FnMut(&mut Engine<'t, T>) -> bool,
    ) -> Result<bool, BenchError> {
        self.run_while_moving(|engine| (!done(engine)).then_some(engine.last_news_ns))
    }

    /// Runs until `place` says none, or the same for as long as patience lasts: while a load goes on there always is
    /// news of something, which need not be what is waited for.
    pub fn run_while_moving<P: PartialEq>(
        &mut self,
        mut place: impl FnMut(&mut Engine<'t, T>) -> Option<P>,
    ) -> Result<bool, BenchError> {
        let (mut last, mut moved_ns) = (None, now_ns());
        loop {
            let patience_ns = nanoseconds(self.options.patience);
            let left_ns = (moved_ns + patience_ns).saturating_sub(now_ns());
            if left_ns == 0 {
                return Ok(false);
            }
            let is_done = self.run(Duration::from_nanos(left_ns), |engine| {
                let now = place(engine);
                let is_done = now.is_none();
                if now != last {
                    (last, moved_ns) = (now, now_ns());
                }
                is_done
            })?;
            if is_done {
                return Ok(true);
            }
        }
    }

    /// From now on ticks are those of this phase.
    pub fn begin_phase(&mut self, phase: &'static str) {
        let now = now_ns();
        self.engine.acks.end_interval();
        self.engine.seen.receipts.end_interval();
        self.phase = phase;
        self.phase_begin_ns = now;
        self.last_tick = (now, usage(&self.processes).unwrap_or_default());
        self.next_tick_ns = now + nanoseconds(self.options.interval);
        self.series.clear();
    }

    fn tick(&mut self, now: u64) {
        let used = self.look();
        let (before_ns, before) = self.last_tick;
        let seconds = as_f64(now - before_ns) / 1e9;
        let tick = Tick {
            at_s: as_f64(now - self.phase_begin_ns) / 1e9,
            seconds,
            ack: self.engine.acks.end_interval(),
            receipt: self.engine.seen.receipts.end_interval(),
            cpu_cores: (used.cpu_s - before.cpu_s) / seconds.max(1e-9),
            resident_kib: used.resident_kib,
        };
        self.progress.tick(self.phase, &tick);
        self.series.push(tick);
        self.last_tick = (now, used);
        self.next_tick_ns = now + nanoseconds(self.options.interval);
    }

    /// What the server uses; takes note of its memory.
    pub fn look(&mut self) -> Usage {
        let used = usage(&self.processes).unwrap_or_default();
        self.resident_kib_max = self.resident_kib_max.max(used.resident_kib);
        used
    }

    /// The server's processes.
    pub fn processes(&self) -> &[u32] {
        &self.processes
    }

    /// What the server used before anything was connected.
    pub fn start_usage(&self) -> Usage {
        self.start
    }

    /// Connects all publishers.
    pub fn connect_publishers(&mut self) -> Result<(), BenchError> {
        for _ in 0..self.publishers {
            self.engine.add_publisher()?;
        }
        match self.run_until(|engine| engine.publishers_ready())? {
            true => Ok(()),
            false => {
                Err(BenchError::Patience("the publishers' connections are not made".to_owned()))
            }
        }
    }

    /// Connects subscribers, a few at a time, and waits until each subscription holds. `start` and
    /// `receive_buffer_bytes` are those of each.
    pub fn connect_subscribers(
        &mut self,
        subscribers: Range<u32>,
        start: impl Fn(u32) -> From,
        receive_buffer_bytes: impl Fn(u32) -> Option<usize>,
    ) -> Result<(), BenchError> {
        let connecting_max = self.options.connecting_max;
        let mut next = subscribers.start;
        let mut failed = None;
        let hang_ups = self.engine.hang_ups;
        let done = self.run_while_moving(|engine| {
            let turn_end = next.saturating_add(CONNECTS_A_TURN).min(subscribers.end);
            while next < turn_end && engine.connecting() < connecting_max {
                if let Err(error) =
                    engine.add_subscriber(next, &start(next), receive_buffer_bytes(next))
                {
                    failed = Some(error);
                    return None;
                }
                next += 1;
            }
            let left = (subscribers.end - next, engine.connecting());
            (left != (0, 0)).then_some(left)
        })?;
        if let Some(error) = failed {
            return Err(error.into());
        }
        let refused = self.engine.hang_ups - hang_ups;
        if refused > 0 {
            let violations = self.engine.seen.checker.violations();
            let first = violations.last().map_or("", String::as_str);
            return Err(BenchError::Patience(format!(
                "{refused} of {} subscribers were not taken: {first}",
                subscribers.len()
            )));
        }
        if !done {
            return Err(BenchError::Patience(format!(
                "{} of {} subscribers are still not subscribed",
                self.engine.connecting(),
                subscribers.len()
            )));
        }
        Ok(())
    }

    /// Everything is connected: reads what that costs the server.
    pub fn settle(&mut self) -> Result<(), BenchError> {
        self.run(SETTLE, |_| false)?;
        self.idle = self.look();
        Ok(())
    }

    /// The load that a rate means from now on.
    pub fn load(&self, rate: Rate) -> Load {
        match rate {
            Rate::Closed { window } => Load::Closed { window },
            Rate::Open { per_s, window } => {
                // A little ahead, so that the first event is not late.
                let begin_ns = now_ns() + 1_000_000;
                Load::Open(Schedule::new(per_s, self.publishers, window, begin_ns))
            }
        }
    }

    /// Sends at `rate`, first to warm up, then to be measured; what is measured begins there.
    pub fn begin_measuring(&mut self, rate: Rate) -> Result<Measured, BenchError> {
        let load = self.load(rate);
        self.begin_phase("warm-up");
        self.engine.set_load(load)?;
        self.run(self.options.warmup, |_| false)?;
        Ok(self.measure_from_here("measure"))
    }

    /// Forgets what was counted so far.
    pub fn measure_from_here(&mut self, phase: &'static str) -> Measured {
        self.begin_phase(phase);
        let now = now_ns();
        self.engine.acks.reset(now);
        self.engine.seen.receipts.reset(now);
        self.resident_kib_max = 0;
        let begin = self.look();
        let received_bytes = self.engine.received_bytes;
        let stops = self.watch.as_ref().map(|watch| watch.stops().mark()).unwrap_or_default();
        let held_ns = self.engine.held_ns();
        Measured {
            begin_ns: now,
            begin,
            received_bytes,
            client_cpu_s: client_cpu_s(),
            held_ns,
            stops,
        }
    }

    /// Counts what happened since `measured`. Latencies are still missing: what was sent is to arrive
    /// first ([`finish_point`](Self::finish_point)).
    pub fn count(&mut self, measured: &Measured, label: String) -> Point {
        let now = now_ns();
        if now > self.last_tick.0 + nanoseconds(self.options.interval) / 2 {
            self.tick(now);
        }
        let used = self.look();
        if used.resident_kib_max > measured.begin.resident_kib_max {
            self.resident_kib_max = used.resident_kib_max;
        }
        let seconds = as_f64(now - measured.begin_ns) / 1e9;
        let (appends, deliveries) = (self.engine.acks.count(), self.engine.seen.receipts.count());
        let cpu_s = used.cpu_s - measured.begin.cpu_s;
        let each = |count: u64| (count > 0).then(|| cpu_s * 1e6 / as_f64(count));
        Point {
            label,
            seconds,
            appends,
            appends_per_s: as_f64(appends) / seconds,
            deliveries,
            deliveries_per_s: as_f64(deliveries) / seconds,
            wire_bytes_per_delivery: (deliveries > 0).then(|| {
                as_f64(self.engine.received_bytes - measured.received_bytes) / as_f64(deliveries)
            }),
            stops: self.watch.as_ref().map(|watch| watch.stops().since(measured.stops)),
            client_cpu_cores: (client_cpu_s() - measured.client_cpu_s) / seconds,
            held_share: as_f64(self.engine.held_ns() - measured.held_ns) / 1e9 / seconds,
            server: (!self.processes.is_empty()).then(|| ServerUse {
                cpu_cores: cpu_s / seconds,
                cpu_us_per_append: each(appends),
                cpu_us_per_delivery: each(deliveries),
                resident_start_kib: self.start.resident_kib,
                resident_idle_kib: self.idle.resident_kib,
                resident_max_kib: self.resident_kib_max,
                resident_end_kib: used.resident_kib,
            }),
            series: std::mem::take(&mut self.series),
            ..Point::default()
        }
    }

    /// Stops the load and waits until every event is acknowledged and each of `subscribers` that is
    /// connected has got it; the latencies go to `point`. Returns whether all came.
    pub fn finish_point(
        &mut self,
        point: &mut Point,
        subscribers: Range<u32>,
    ) -> Result<bool, BenchError> {
        let all = self.drain(subscribers)?;
        point.ack = self.engine.acks.latency();
        point.receipt = self.engine.seen.receipts.latency();
        if let Some(server) = &mut point.server {
            server.resident_end_kib = self.look().resident_kib;
        }
        Ok(all)
    }

    /// Stops the load and waits until all that was sent has come. What was due and not sent, as the server was late
    /// with what came before, is sent first: it is as late as it is, and left out the worst would be missing.
    pub fn drain(&mut self, subscribers: Range<u32>) -> Result<bool, BenchError> {
        // What the ticks of this phase take off the meters stays in their totals.
        self.begin_phase("drain");
        self.engine.end_schedule();
        // Heartbeats are news, too, and no answers.
        let unanswered = |engine: &mut Engine<'t, T>, is_over: bool| {
            (!is_over).then(|| (engine.published(), engine.acknowledged()))
        };
        let is_sent = self.run_while_moving(|engine| {
            let is_over = engine.schedule_is_over();
            unanswered(engine, is_over)
        })?;
        self.engine.set_load(Load::Still)?;
        let is_answered = is_sent
            && self.run_while_moving(|engine| {
                let is_over = engine.publishers_done();
                unanswered(engine, is_over)
            })?;
        if !is_answered {
            return Err(BenchError::Patience(format!(
                "appends got no answer for {} s",
                self.options.patience.as_secs()
            )));
        }
        self.wait_for_all(subscribers)
    }

    /// Waits until each of `subscribers` that is connected has got all that was sent.
    pub fn wait_for_all(&mut self, subscribers: Range<u32>) -> Result<bool, BenchError> {
        let published = self.engine.published();
        let mut next = subscribers.start;
        self.run_while_moving(|engine| {
            while next < subscribers.end
                && (engine.subscriber(next).is_none()
                    || engine.seen.checker.has_all(next, &published))
            {
                next += 1;
            }
            let received = |next| engine.subscriber(next).map(|subscriber| subscriber.received);
            (next < subscribers.end).then(|| (next, received(next)))
        })
    }

    /// Says one thing to whoever watches.
    pub fn say(&self, text: &str) {
        self.progress.say(text);
    }

    /// Ends the run: checks that each of `complete` has got everything.
    pub fn finish(
        mut self,
        bench: &'static str,
        options: BTreeMap<&'static str, String>,
        points: Vec<Point>,
        complete: Range<u32>,
    ) -> Outcome {
        self.progress.finish();
        let published = self.engine.published();
        self.engine.seen.checker.finish(complete, &published);
        Outcome {
            bench,
            target: self.target.name().to_owned(),
            options,
            points,
            violation_count: self.engine.seen.checker.violation_count(),
            violations: self.engine.seen.checker.violations(),
        }
    }
}

/// Where measuring began.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// When.
    pub begin_ns: u64,
    /// What the server had used by then.
    pub begin: Usage,
    /// What subscribers had received.
    received_bytes: u64,
    /// What we had used.
    client_cpu_s: f64,
    /// How long publishers had been held back.
    held_ns: u64,
    /// How the machine had stood still.
    stops: Mark,
}

/// CPU time of this process.
fn client_cpu_s() -> f64 {
    usage(&[std::process::id()]).map_or(0.0, |usage| usage.cpu_s)
}
