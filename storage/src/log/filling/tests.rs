//! Steps of a simulated log, and what it chooses.

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
    assert_eq!(steps[1..3], [Fill::Blocks; 2], "the first of them is written beside the second");
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
        assert_eq!(log.filling.choose(), Fill::Zeroes, "the first try, refused {refused} times");
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
