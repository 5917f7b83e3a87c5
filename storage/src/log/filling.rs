//! What the active file gets ahead of its tail: zeroes, or blocks alone. Pure.
//!
//! Zeroes cost the disk every byte twice; a commit over them changes nothing but data. Blocks alone cost next to nothing
//! ahead, but each commit into them also changes which of the file's blocks count as written, and with it the file
//! system's journal. So which is better depends on how long commits are, and on the disk:
//!
//! | commits | zeroes | blocks |
//! |---|---|---|
//! | NDJSON of 10,000 events a request, a frame of 128 KiB or more | 560,000 events/s | 750,000 events/s |
//! | 70 KB: 64 publishers, 8 requests in flight each | 405,000/s, p99 3.6 ms | 440,000/s, p99 1.5 ms |
//! | 4 to 30 KB: 64 publishers | 137,000/s | 115,000/s |
//!
//! On a disk whose flush is slow, long commits may be better off with zeroes as well. So the log measures for how long it
//! is busy with a byte with either, and goes by that. It is busy while a write is under way, however many are, and while
//! a frame waits for the file to be filled: what a single write takes says little, since fewer are under way where frames
//! have to wait.
//!
//! Once writes were long on average since the last choice, all of them count, the short ones among them too: with blocks
//! they lose what the long ones gain. Else none does, for then there is no choice.
//!
//! ```text
//! commits since the last choice were short on average        ->  zeroes
//! else one of the two is not known yet                       ->  that one, zeroes first
//! else                                                       ->  what takes less time for a byte
//!      but the last PROBE_STEPS of every 8, 16, 32, 32 ..    ->  the other one: disks change (of those that were filled)
//! ```
//!
//! At first it is tried more often: what is known of it rests on few commits, and one that the disk kept waiting for
//! another reason would be held against it for long.
//!
//! A commit waits for zeroes that are written *beside* it, farther ahead. So it is only counted while the step beside it
//! is of the kind that it lies in itself: else a step of zeroes would look cheap among blocks, and make these look
//! expensive. That takes two steps of a kind in a row. What was filled at rest counts for neither, since nothing was
//! written beside it.
//!
//! The file of the next segment is filled beside steps of this one, once a segment, and is none of them: it begins with
//! what is known to be better, and while it is made commits count only where it is of their kind too. But where it is
//! the whole of a segment, there are no other steps.
//!
//! Blocks that lie ahead once commits have become short stay, 48 MiB at most with those of the next file: 12,288 commits
//! of 4 KiB that take 0.06 ms longer each, three quarters of a second in all. Zeroes over them would be in the way of
//! commits as well, and would have to be kept from frames that are begun meanwhile: the prepared end would go back, and
//! that nothing is ever filled below it is what keeps frames safe.

use crate::{active_file::Fill, offset::Position};

/// A kind is known once as many bytes were measured as so many writes have that just count: 4 MiB.
const KNOWN_WRITES: u64 = 64;

/// The other kind is tried once in so many choices, twice as many each time ..
const PROBE_PERIOD_MIN: u64 = 8;
/// .. up to so many ..
const PROBE_PERIOD_MAX: u64 = 32;
/// .. for so many in a row, so that the first of them is written while the second is filled.
const PROBE_STEPS: u64 = 2;

/// Of each kind so much is remembered, the newest weighing most: a step of the usual 16 MiB is a quarter of it.
const COST_BYTES_MAX: u64 = 64 << 20;

/// One write adds no more than that, however long it took, or what it waited for: a machine that slept counts that as
/// well by the boot clock, and what is known of a kind would rest on it alone. It is as long as 16 MiB of zeroes, the
/// longest that is waited for, take on a disk that writes 16 MiB a second.
const WRITE_MS_MAX: u64 = 1_000;

/// How the active file is filled, and what that has meant for commits.
#[derive(Debug)]
pub(super) struct Filling {
    /// Shorter commits are always better off with zeroes.
    blocks_from_bytes: u64,
    /// Up to where the active file is filled with what, each from the end of the one before. Two that follow each
    /// other differ.
    ranges: Vec<(Position, Fill)>,
    /// What was last asked for; `None` from when the log rests, or the disk is full, until it asks again.
    beside: Option<Fill>,
    /// What the file of the next segment is being filled with, beside that.
    preparing: Option<Fill>,
    /// Up to when the time is counted that the log was busy.
    counted_boot_ms: u64,
    /// Whether a frame waits for the file to be filled, or has until now.
    is_waiting: bool,
    /// The writes since the last choice.
    write_count: u64,
    write_bytes: u64,
    /// How long writes were, on average, before the last choice that any came before.
    mean_bytes: u64,
    /// What was measured since, which counts if the mean of that is long as well.
    since: Costs,
    known: Costs,
    /// How many steps were filled by choice since the other one was tried, and how many are to be until it has been again.
    choices: u64,
    period: u64,
    /// What is asked for now is one of those once it is filled.
    is_by_choice: bool,
}

/// What writes over either cost.
#[derive(Clone, Copy, Debug, Default)]
struct Costs {
    zeroes: Cost,
    blocks: Cost,
}

/// For how long the log was busy with so many bytes of writes.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    bytes: u64,
    nanos: u64,
}

impl Filling {
    /// Of a file that is filled up to `end`.
    pub(super) fn new(blocks_from_bytes: u64, end: Position, fill: Fill) -> Self {
        Filling {
            blocks_from_bytes,
            ranges: vec![(end, fill)],
            beside: None,
            preparing: None,
            counted_boot_ms: 0,
            is_waiting: false,
            write_count: 0,
            write_bytes: 0,
            mean_bytes: 0,
            since: Costs::default(),
            known: Costs::default(),
            choices: 0,
            period: PROBE_PERIOD_MIN,
            is_by_choice: false,
        }
    }

    /// What the next step is to be filled with.
    pub(super) fn choose(&mut self) -> Fill {
        self.settle();
        let fill = self.choice();
        self.beside = Some(fill);
        fill
    }

    /// What the file of the next segment is to begin with, until [`Filling::end_preparation`].
    pub(super) fn prepare(&mut self) -> Fill {
        let mean_bytes = self.write_bytes.checked_div(self.write_count).unwrap_or(self.mean_bytes);
        let Costs { zeroes, blocks } = &self.known;
        let is_known = zeroes.bytes.min(blocks.bytes) >= self.known_bytes();
        let is_long = mean_bytes >= self.blocks_from_bytes;
        let fill = match is_known && is_long && blocks.is_less_than(zeroes) {
            true => Fill::Blocks,
            false => Fill::Zeroes,
        };
        self.preparing = Some(fill);
        fill
    }

    /// It is there, or is not to be had now.
    pub(super) fn end_preparation(&mut self) {
        self.preparing = None;
    }

    /// So much of a kind has to be measured.
    fn known_bytes(&self) -> u64 {
        KNOWN_WRITES.saturating_mul(self.blocks_from_bytes).min(COST_BYTES_MAX)
    }

    /// What was written since the last choice is looked at whole.
    fn settle(&mut self) {
        let Some(mean_bytes) = self.write_bytes.checked_div(self.write_count) else { return };
        self.mean_bytes = mean_bytes;
        (self.write_count, self.write_bytes) = (0, 0);
        let since = std::mem::take(&mut self.since);
        if mean_bytes >= self.blocks_from_bytes {
            self.known.zeroes.add(since.zeroes);
            self.known.blocks.add(since.blocks);
        }
    }

    fn choice(&mut self) -> Fill {
        self.is_by_choice = false;
        let known_bytes = self.known_bytes();
        let Costs { zeroes, blocks } = &mut self.known;
        if self.mean_bytes < self.blocks_from_bytes || zeroes.bytes < known_bytes {
            return Fill::Zeroes;
        }
        if blocks.bytes < known_bytes {
            return Fill::Blocks;
        }
        let is_probe = self.choices + PROBE_STEPS >= self.period;
        let are_blocks_better = blocks.is_less_than(zeroes);
        if self.choices + PROBE_STEPS == self.period {
            // What is seen now weighs more than all that is known.
            let other = if are_blocks_better { zeroes } else { blocks };
            other.forget(known_bytes);
        }
        self.is_by_choice = true;
        if are_blocks_better == is_probe { Fill::Zeroes } else { Fill::Blocks }
    }

    /// What was chosen is there. One that a full disk refuses is asked for again, and is still the same choice: else it
    /// would try the other one without a step of it.
    fn count_choice(&mut self) {
        if !std::mem::take(&mut self.is_by_choice) {
            return;
        }
        self.choices += 1;
        if self.choices == self.period {
            self.choices = 0;
            self.period = PROBE_PERIOD_MAX.min(2 * self.period);
        }
    }

    /// The next step is filled while nobody writes.
    pub(super) fn rest(&mut self) {
        self.leave_beside();
    }

    /// The disk has no space for what was asked for.
    pub(super) fn refuse(&mut self) {
        self.leave_beside();
    }

    /// Nothing is filled beside what is written from now on.
    fn leave_beside(&mut self) {
        self.beside = None;
        self.is_by_choice = false;
    }

    /// The active file is filled up to `end`: with what was asked for, or with zeroes after all where the file system
    /// can nothing else. Blocks are never measured then, and so are always asked for; zeroes ask too.
    pub(super) fn note_filled(&mut self, end: Position, fill: Fill) {
        self.count_choice();
        match self.ranges.last_mut() {
            Some((last_end, last)) if *last == fill => *last_end = end,
            _ => self.ranges.push((end, fill)),
        }
    }

    /// Another file is the active one, filled up to `end`.
    pub(super) fn begin_file(&mut self, end: Position, fill: Fill) {
        self.count_choice();
        self.ranges.clear();
        self.end_wait();
        self.ranges.push((end, fill));
    }

    /// A frame waits for the file to be filled, and `is_still`: no write is under way.
    pub(super) fn wait(&mut self, is_still: bool, now_boot_ms: u64) {
        if is_still && !self.is_waiting {
            self.counted_boot_ms = now_boot_ms;
        }
        self.is_waiting = true;
    }

    /// What has waited does not any more.
    pub(super) fn end_wait(&mut self) {
        self.is_waiting = false;
    }

    /// A write begins; none was under way before if `is_still`.
    pub(super) fn begin_write(&mut self, is_still: bool, now_boot_ms: u64) {
        if is_still && !self.is_waiting {
            self.counted_boot_ms = now_boot_ms;
        }
        self.is_waiting = false;
    }

    /// A write of `bytes` to the active file has completed. (A difference of two times in whole milliseconds is right
    /// on average, and there are dozens of writes in a step.)
    pub(super) fn note_write(&mut self, position: Position, bytes: u64, now_boot_ms: u64) {
        let took_ms = now_boot_ms.saturating_sub(self.counted_boot_ms).min(WRITE_MS_MAX);
        self.counted_boot_ms = now_boot_ms;
        self.write_count += 1;
        self.write_bytes += bytes;
        let fill = self.fill_at(position);
        if fill != self.beside || (self.preparing.is_some() && fill != self.preparing) {
            return;
        }
        let cost = match fill {
            Some(Fill::Zeroes) => &mut self.since.zeroes,
            Some(Fill::Blocks) => &mut self.since.blocks,
            None => return,
        };
        cost.bytes += bytes;
        cost.nanos = cost.nanos.saturating_add(took_ms * 1_000_000);
    }

    /// What a position of the active file was filled with, if it was.
    pub(super) fn fill_at(&self, position: Position) -> Option<Fill> {
        let ahead = self.ranges.iter().rev().take_while(|(end, _)| *end > position);
        ahead.last().map(|(_, fill)| *fill)
    }
}

impl Cost {
    /// What was measured last weighs in full.
    fn add(&mut self, last: Cost) {
        self.forget(COST_BYTES_MAX.saturating_sub(last.bytes));
        self.bytes += last.bytes;
        self.nanos = self.nanos.saturating_add(last.nanos);
        self.forget(COST_BYTES_MAX);
    }

    /// Remembers no more than so many bytes.
    fn forget(&mut self, bytes_max: u64) {
        if self.bytes > bytes_max {
            let nanos = product(self.nanos, bytes_max) / u128::from(self.bytes);
            self.nanos = u64::try_from(nanos).expect("less than it was");
            self.bytes = bytes_max;
        }
    }

    /// For a byte.
    fn is_less_than(&self, other: &Cost) -> bool {
        product(self.nanos, other.bytes) < product(other.nanos, self.bytes)
    }
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: u64 = 64 << 10;
    const STEP_BYTES: u64 = 64 * LONG;
    const SHORT: u64 = 4 << 10;

    /// A log that always has a step ahead: while one is written, the next is filled.
    struct Simulated {
        filling: Filling,
        tail: u64,
        prepared: u64,
        boot_ms: u64,
        /// A file for the next segment is made beside each step, in no time.
        prepares: bool,
    }

    impl Simulated {
        fn new() -> Self {
            let filling = Filling::new(LONG, Position::new(STEP_BYTES), Fill::Zeroes);
            Simulated { filling, tail: 0, prepared: STEP_BYTES, boot_ms: 0, prepares: false }
        }

        fn step(&mut self, write_bytes: u64, took_ms: impl Fn(Fill, Fill) -> u64) -> Fill {
            self.step_of(&[write_bytes], |_, below, beside| took_ms(below, beside))
        }

        /// Chooses and fills a step, and writes the one before it, with writes of these lengths in turns; returns the
        /// choice.
        fn step_of(&mut self, writes: &[u64], took_ms: impl Fn(u64, Fill, Fill) -> u64) -> Fill {
            let fill = self.filling.choose();
            let end = self.prepared;
            self.prepared += STEP_BYTES;
            self.filling.note_filled(Position::new(self.prepared), fill);
            if self.prepares {
                self.filling.prepare();
                self.filling.end_preparation();
            }
            let mut writes = writes.iter().cycle();
            while self.tail < end {
                let write_bytes = *writes.next().expect("in turns");
                let position = Position::new(self.tail);
                let below = self.filling.fill_at(position).expect("it is filled");
                self.filling.begin_write(true, self.boot_ms);
                self.boot_ms += took_ms(write_bytes, below, fill);
                self.filling.note_write(position, write_bytes, self.boot_ms);
                self.boot_ms += 10;
                self.tail += write_bytes;
            }
            fill
        }

        fn steps(
            &mut self,
            count: usize,
            write_bytes: u64,
            took_ms: impl Fn(Fill, Fill) -> u64 + Copy,
        ) -> Vec<Fill> {
            (0..count).map(|_| self.step(write_bytes, took_ms)).collect()
        }
    }

    fn count_blocks(steps: &[Fill]) -> usize {
        steps.iter().filter(|fill| **fill == Fill::Blocks).count()
    }

    /// A commit into blocks takes 3 ms, one over zeroes 2, or 4 beside zeroes.
    fn zeroes_are_in_the_way(below: Fill, beside: Fill) -> u64 {
        match (below, beside) {
            (Fill::Blocks, Fill::Blocks) => 3,
            (Fill::Blocks, Fill::Zeroes) => 5,
            (Fill::Zeroes, Fill::Blocks) => 2,
            (Fill::Zeroes, Fill::Zeroes) => 4,
        }
    }

    #[test]
    fn short_commits_have_zeroes() {
        let mut log = Simulated::new();
        assert_eq!(count_blocks(&log.steps(100, LONG / 2, zeroes_are_in_the_way)), 0);
        // And again, once it had been known that long ones are better off with blocks.
        assert!(count_blocks(&log.steps(100, LONG, zeroes_are_in_the_way)) > 80);
        let steps = log.steps(100, LONG / 2, zeroes_are_in_the_way);
        assert_eq!(count_blocks(&steps[1..]), 0, "the first goes by what came before");
    }

    /// Of eight writes one is long, and half a megabyte: so the mean is long, and the seven pay for it.
    #[test]
    fn short_commits_among_long_ones_count_as_well() {
        for (short_into_blocks_ms, are_blocks_better) in [(2, false), (1, true)] {
            let mut log = Simulated::new();
            let steps: Vec<Fill> = (0..500)
                .map(|_| {
                    log.step_of(&[512 << 10, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT], {
                        |bytes, below, _| match (below, bytes) {
                            (Fill::Blocks, SHORT) => short_into_blocks_ms,
                            (Fill::Zeroes, SHORT) => 1,
                            (Fill::Blocks, _) => 3,
                            (Fill::Zeroes, _) => 5,
                        }
                    })
                })
                .collect();
            let blocks = count_blocks(&steps);
            assert!(blocks > 0 && blocks < 500, "each is tried");
            assert_eq!(blocks > 250, are_blocks_better, "{blocks} of 500 steps are blocks");
        }
    }

    #[test]
    fn each_is_measured_once_and_then_the_faster_one_is_taken() {
        let mut log = Simulated::new();
        let steps = log.steps(500, LONG, zeroes_are_in_the_way);
        assert_eq!(steps[0], Fill::Zeroes, "no commit was long yet");
        assert_eq!(
            steps[1..3],
            [Fill::Blocks; 2],
            "the first of them is written beside the second"
        );
        // 8, 16 and 14 times 32 of them.
        let probes = usize::try_from((2 + (500 - 3 - 8 - 16) / PROBE_PERIOD_MAX) * PROBE_STEPS);
        let probes = probes.expect("few");
        assert_eq!(count_blocks(&steps[3..]), 497 - probes);
        assert_eq!(steps[9..11], [Fill::Zeroes; 2], "the first try");

        let mut log = Simulated::new();
        let steps = log.steps(500, LONG, |below, _| if below == Fill::Blocks { 3 } else { 2 });
        assert_eq!(count_blocks(&steps[3..]), probes);
    }

    #[test]
    fn few_commits_say_nothing() {
        let mut log = Simulated::new();
        log.filling.choose();
        (1..KNOWN_WRITES).for_each(|_| log.filling.note_write(Position::default(), LONG, 1));
        assert_eq!(log.filling.choose(), Fill::Zeroes);
        log.filling.note_write(Position::default(), LONG, 1);
        assert_eq!(log.filling.choose(), Fill::Blocks);
    }

    /// The first steps of blocks met a disk that stood still, as it does now and then.
    #[test]
    fn a_bad_beginning_is_soon_forgotten() {
        let mut log = Simulated::new();
        let stalls = |below, beside| match below {
            Fill::Blocks => 6,
            Fill::Zeroes => zeroes_are_in_the_way(below, beside),
        };
        log.steps(4, LONG, stalls);
        let steps = log.steps(96, LONG, zeroes_are_in_the_way);
        assert!(count_blocks(&steps[..8]) <= 2, "else this shows nothing");
        assert!(count_blocks(&steps) > 40, "{steps:?}");
    }

    #[test]
    fn a_full_disk_takes_no_try_away() {
        let mut log = Simulated::new();
        let steps = log.steps(9, LONG, zeroes_are_in_the_way);
        assert_eq!(count_blocks(&steps), 8);
        for refused in 0..100 {
            assert_eq!(
                log.filling.choose(),
                Fill::Zeroes,
                "the first try, refused {refused} times"
            );
            log.filling.refuse();
        }
        assert_eq!(log.filling.known.zeroes.bytes, 64 * LONG, "so much is left of it");
        let steps = log.steps(4, LONG, zeroes_are_in_the_way);
        let (zeroes, blocks) = (Fill::Zeroes, Fill::Blocks);
        assert_eq!(steps, [zeroes, zeroes, blocks, blocks]);
        assert_eq!(log.filling.known.zeroes.bytes, 2 * STEP_BYTES, "it was measured");
    }

    #[test]
    fn a_disk_that_changes_is_noticed() {
        let mut log = Simulated::new();
        log.steps(100, LONG, zeroes_are_in_the_way);
        // From now on the journal is slow.
        let slow = |below, _| if below == Fill::Blocks { 9 } else { 4 };
        assert!(count_blocks(&log.steps(60, LONG, slow)) < 20);
        assert!(count_blocks(&log.steps(64, LONG, slow)) <= 4);
        // And then it is fast.
        let fast = |below, _| if below == Fill::Blocks { 1 } else { 4 };
        log.steps(300, LONG, fast);
        assert!(count_blocks(&log.steps(64, LONG, fast)) >= 60);
    }

    #[test]
    fn what_was_filled_at_rest_is_not_measured() {
        let mut filling = Filling::new(LONG, Position::new(STEP_BYTES), Fill::Zeroes);
        filling.note_write(Position::default(), LONG, 1);
        assert_eq!(filling.choose(), Fill::Zeroes);
        assert_eq!(filling.known.zeroes.bytes, 0, "nothing was asked for yet");
        filling.note_write(Position::default(), LONG, 1);
        assert_eq!(filling.choose(), Fill::Zeroes);
        assert_eq!(filling.known.zeroes.bytes, LONG);
        filling.rest();
        filling.note_filled(Position::new(3 * STEP_BYTES), Fill::Zeroes);
        filling.note_write(Position::new(STEP_BYTES), LONG, 1);
        assert_eq!(filling.choose(), Fill::Zeroes);
        assert_eq!(filling.known.zeroes.bytes, LONG);
        filling.note_write(Position::new(2 * STEP_BYTES), LONG, 1);
        assert_eq!(filling.choose(), Fill::Zeroes);
        assert_eq!(filling.known.zeroes.bytes, 2 * LONG, "there is a step beside it again");
    }

    #[test]
    fn the_next_segments_file_changes_no_step_and_is_beside_commits_as_well() {
        let (mut log, mut alone) = (Simulated::new(), Simulated::new());
        log.prepares = true;
        let steps = log.steps(200, LONG, zeroes_are_in_the_way);
        assert_eq!(steps, alone.steps(200, LONG, zeroes_are_in_the_way));
        let measured =
            |Costs { zeroes, blocks }| [zeroes.bytes, zeroes.nanos, blocks.bytes, blocks.nanos];
        assert_eq!(measured(log.filling.known), measured(alone.filling.known));
        assert_eq!(log.filling.prepare(), Fill::Blocks, "it is known to be better");
        log.filling.end_preparation();
        log.filling.note_write(Position::new(log.tail), LONG / 2, log.boot_ms);
        log.filling.choose();
        assert_eq!(log.filling.prepare(), Fill::Zeroes, "commits are short now");
        log.filling.end_preparation();

        let mut filling = Filling::new(LONG, Position::new(STEP_BYTES), Fill::Zeroes);
        assert_eq!((filling.choose(), filling.prepare()), (Fill::Zeroes, Fill::Zeroes));
        filling.note_write(Position::default(), LONG, 1);
        assert_eq!(filling.since.zeroes.bytes, LONG, "both beside it are zeroes");
        filling.preparing = Some(Fill::Blocks);
        filling.note_write(Position::default(), LONG, 1);
        assert_eq!(filling.since.zeroes.bytes, LONG, "not beside blocks");
        filling.end_preparation();
        filling.note_write(Position::default(), LONG, 1);
        assert_eq!(filling.since.zeroes.bytes, 2 * LONG);
    }

    #[test]
    fn time_counts_while_something_is_under_way_or_waits_for_zeroes() {
        let mut filling = Filling::new(LONG, Position::new(STEP_BYTES), Fill::Zeroes);
        filling.choose();
        let mut position = Position::default();
        let mut write_done = |filling: &mut Filling, boot_ms: u64| {
            filling.note_write(position, LONG, boot_ms);
            position = position.plus(LONG);
            filling.since.zeroes.nanos / 1_000_000
        };
        filling.begin_write(true, 100);
        filling.begin_write(false, 101);
        assert_eq!(write_done(&mut filling, 103), 3);
        assert_eq!(write_done(&mut filling, 104), 4, "the second was under way meanwhile");
        filling.begin_write(true, 110);
        filling.wait(false, 111);
        assert_eq!(write_done(&mut filling, 112), 6, "nothing was to be done before");
        filling.wait(true, 113);
        filling.begin_write(true, 120);
        assert_eq!(write_done(&mut filling, 121), 15, "a frame has waited since before 112");
        filling.wait(true, 130);
        filling.wait(true, 131);
        filling.begin_write(true, 132);
        assert_eq!(write_done(&mut filling, 133), 18, "it waited since 130");
        filling.wait(true, 140);
        filling.end_wait();
        filling.begin_write(true, 150);
        assert_eq!(write_done(&mut filling, 151), 19, "what had waited was given up");
    }

    #[test]
    fn a_machine_that_sleeps_says_nothing_of_its_disk() {
        let slept_ms = |log: &mut Simulated| {
            let position = Position::new(log.tail);
            log.filling.begin_write(true, log.boot_ms);
            log.boot_ms += 8 * 3_600_000;
            log.filling.note_write(position, LONG, log.boot_ms);
        };
        let mut log = Simulated::new();
        log.steps(20, LONG, zeroes_are_in_the_way);
        let before = log.filling.since.blocks.nanos;
        slept_ms(&mut log);
        assert_eq!(log.filling.since.blocks.nanos, before + WRITE_MS_MAX * 1_000_000);
        // One try, a quarter of what is remembered, and it is as if nothing had been.
        log.steps(48, LONG, zeroes_are_in_the_way);
        assert!(count_blocks(&log.steps(32, LONG, zeroes_are_in_the_way)) >= 28);
    }

    #[test]
    fn ranges_are_of_one_file() {
        let at = |filling: &Filling, block: u64| filling.fill_at(Position::new(block * 4096));
        let mut filling = Filling::new(LONG, Position::new(4096), Fill::Zeroes);
        filling.note_filled(Position::new(2 * 4096), Fill::Zeroes);
        filling.note_filled(Position::new(4 * 4096), Fill::Blocks);
        filling.note_filled(Position::new(5 * 4096), Fill::Zeroes);
        assert_eq!(filling.ranges.len(), 3);
        let fills: Vec<_> = (0..6).map(|block| at(&filling, block)).collect();
        let (zeroes, blocks) = (Some(Fill::Zeroes), Some(Fill::Blocks));
        assert_eq!(fills, [zeroes, zeroes, blocks, blocks, zeroes, None]);
        filling.begin_file(Position::new(4096), Fill::Blocks);
        assert_eq!((at(&filling, 0), at(&filling, 1)), (blocks, None));
    }

    #[test]
    fn a_cost_remembers_the_newest_most() {
        let (mut old, mut new) = (Cost::default(), Cost::default());
        let took = |bytes: u64, nanos: u64| Cost { bytes, nanos };
        for _ in 0..10_000 {
            old.add(took(1 << 20, 10_000_000));
            new.add(took(1 << 20, 10_000_000));
        }
        assert_eq!((old.bytes, old.is_less_than(&new)), (COST_BYTES_MAX, false));
        let nanos = old.nanos;
        assert!((639_000_000..=640_000_000).contains(&nanos), "rounded down a little: {nanos}");
        (0..16).for_each(|_| new.add(took(1 << 20, 9_000_000)));
        assert!(new.is_less_than(&old));
        assert!(new.nanos > nanos * 97 / 100 && new.nanos < nanos * 98 / 100, "about a quarter");
        new.add(took(u64::from(u32::MAX), u64::MAX));
        assert!(old.is_less_than(&new) && !new.is_less_than(&old));
    }
}
