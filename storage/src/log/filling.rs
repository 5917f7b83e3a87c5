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
//! what is known to be better, and while it is made commits count only where it is of their kind too. But where steps
//! are as long as a segment, it is the only one.
//!
//! Blocks that lie ahead once commits have become short stay, 48 MiB at most with those of the next file: 12,288 commits
//! of 4 KiB that take 0.06 ms longer each, three quarters of a second in all. Zeroes over them would be in the way of
//! commits as well, and would have to be kept from frames that are begun meanwhile: the prepared end would go back, and
//! that nothing is ever filled below it is what keeps frames safe.

use self::cost::{COST_BYTES_MAX, Cost};
use crate::{active_file::Fill, offset::Position};

mod cost;
#[cfg(test)]
mod tests;

/// A kind is known once as many bytes were measured as so many writes have that just count: 4 MiB.
const KNOWN_WRITES: u64 = 64;

/// The other kind is tried once in so many choices, twice as many each time ..
const PROBE_PERIOD_MIN: u64 = 8;
/// .. up to so many ..
const PROBE_PERIOD_MAX: u64 = 32;
/// .. for so many in a row, so that the first of them is written while the second is filled.
const PROBE_STEPS: u64 = 2;

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
