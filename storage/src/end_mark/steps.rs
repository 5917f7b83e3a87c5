//! The third and fourth block of `end.mark`: when and how far the times of the log's events went ahead of the boot clock,
//! so that time in which a log was not in use, or which a clock was set by, lets nothing be forgotten early
//! (`clock/steps.rs`).
//!
//! Two slots of 4096 bytes, written in turn, each in place; the one with the higher sequence counts. Little-endian.
//! ```text
//! 0        8         12      16         24      28       32
//! +--------+---------+-------+----------+-------+--------+---------+----------+-- .. --+--------+
//! | magic  | version | crc32 | sequence | count | zeroes | time ms | ahead ms |        | zeroes |
//! +--------+---------+-------+----------+-------+--------+---------+----------+-- .. --+--------+
//! ```
//! The checksum covers the slot but for itself. Steps are in the order in which they came. A log can do without them: what
//! is damaged is passed over.

use super::{EndMarkError, SLOT_BYTES, SLOTS};
use crate::{
    clock::{PastStep, STEPS_MAX},
    event::archive::TIME_MS_END,
    fields::{CRC_AT, crc_without_field, u32_at, u64_at},
};

/// The format that is written, and the newest that is read.
pub const STEPS_VERSION: u32 = 1;

const MAGIC: [u8; 8] = *b"STRLNSTP";
const STEPS_AT: usize = 32;
const STEP_BYTES: usize = 16;

const _: () = assert!(STEPS_AT + STEPS_MAX * STEP_BYTES <= SLOT_BYTES);

/// The steps that count, and where they stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LatestSteps {
    /// What they are.
    pub steps: Vec<PastStep>,
    sequence: u64,
    slot: usize,
}

impl LatestSteps {
    /// Of the two slots. What is missing of them is damaged, and so is what could not be read and is zeroes.
    pub fn decode(bytes: &[u8]) -> Result<LatestSteps, EndMarkError> {
        let mut latest: Option<LatestSteps> = None;
        let mut damage = EndMarkError::Damaged { what: "there are none" };
        for (slot, bytes) in bytes.chunks(SLOT_BYTES).take(SLOTS).enumerate() {
            match decode_slot(bytes) {
                Ok((sequence, steps)) => {
                    if latest.as_ref().is_none_or(|latest| latest.sequence < sequence) {
                        latest = Some(LatestSteps { steps, sequence, slot });
                    }
                }
                Err(newer @ EndMarkError::NewerVersion { .. }) => return Err(newer),
                Err(damaged) => damage = damaged,
            }
        }
        latest.ok_or(damage)
    }

    /// Where the next go, and their sequence.
    pub(super) fn next(&self) -> (usize, u64) {
        ((self.slot + 1) % SLOTS, self.sequence.saturating_add(1))
    }
}

/// A slot of at most [`STEPS_MAX`] steps.
pub fn encode(steps: &[PastStep], sequence: u64) -> [u8; SLOT_BYTES] {
    assert!(steps.len() <= STEPS_MAX, "{} steps", steps.len());
    debug_assert!(steps.is_sorted_by_key(|step| step.time_ms), "{steps:?}");
    let mut bytes = [0; SLOT_BYTES];
    let mut put = |at: usize, part: &[u8]| bytes[at..at + part.len()].copy_from_slice(part);
    put(0, &MAGIC);
    put(8, &STEPS_VERSION.to_le_bytes());
    put(16, &sequence.to_le_bytes());
    put(24, &u32::try_from(steps.len()).expect("at most 64").to_le_bytes());
    for (place, step) in steps.iter().enumerate() {
        let at = STEPS_AT + place * STEP_BYTES;
        put(at, &step.time_ms.to_le_bytes());
        put(at + 8, &step.ahead_ms.to_le_bytes());
    }
    let checksum = crc_without_field(&bytes);
    bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum.to_le_bytes());
    bytes
}

fn decode_slot(bytes: &[u8]) -> Result<(u64, Vec<PastStep>), EndMarkError> {
    let damaged = |what| Err(EndMarkError::Damaged { what });
    if bytes.len() != SLOT_BYTES {
        return damaged("it ends too early");
    }
    if bytes[..8] != MAGIC {
        return damaged("it does not begin as steps do");
    }
    if u32_at(bytes, CRC_AT) != crc_without_field(bytes) {
        return damaged("its checksum is wrong");
    }
    let version = u32_at(bytes, 8);
    if version > STEPS_VERSION {
        return Err(EndMarkError::NewerVersion { version });
    }
    let count = u32_at(bytes, 24) as usize;
    if version == 0 || count > STEPS_MAX || u32_at(bytes, 28) != 0 {
        return damaged("its fields are out of range");
    }
    let (steps, rest) = bytes[STEPS_AT..].split_at(count * STEP_BYTES);
    let steps: Vec<_> = steps
        .chunks_exact(STEP_BYTES)
        .map(|step| PastStep { time_ms: u64_at(step, 0), ahead_ms: u64_at(step, 8) })
        .collect();
    let is_in_order = steps.is_sorted_by_key(|step| step.time_ms);
    let is_in_range = steps.iter().all(|step| step.time_ms < TIME_MS_END);
    if !is_in_order || !is_in_range || rest.iter().any(|byte| *byte != 0) {
        return damaged("its fields are out of range");
    }
    Ok((u64_at(bytes, 16), steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn steps(count: u64) -> Vec<PastStep> {
        (0..count).map(|number| PastStep { time_ms: 1_000 + number, ahead_ms: number }).collect()
    }

    #[test]
    fn the_higher_sequence_counts_and_a_torn_slot_leaves_the_other() {
        let full = STEPS_MAX as u64;
        let slots = [encode(&steps(full), 8), encode(&steps(2), 9)].concat();
        let latest = LatestSteps::decode(&slots).expect("sound");
        assert_eq!((&latest.steps, latest.next()), (&steps(2), (0, 10)));
        for at in 0..slots.len() {
            let mut torn = slots.clone();
            torn[at] ^= 4;
            let expected = if at < SLOT_BYTES { steps(2) } else { steps(full) };
            assert_eq!(LatestSteps::decode(&torn).map(|latest| latest.steps), Ok(expected), "{at}");
        }
        let first = LatestSteps::decode(&slots[..SLOT_BYTES + 1]).expect("the first is whole");
        assert_eq!(first.steps, steps(full));
        for bytes in [0, 1, SLOT_BYTES - 1] {
            assert!(LatestSteps::decode(&slots[..bytes]).is_err(), "{bytes}");
        }
    }

    #[test]
    fn what_a_newer_version_wrote_is_refused_by_name_and_other_fields_by_what_they_say() {
        let with = |at: usize, part: &[u8]| {
            let mut slot = encode(&steps(2), 1);
            slot[at..at + part.len()].copy_from_slice(part);
            let checksum = crc_without_field(&slot).to_le_bytes();
            slot[CRC_AT..CRC_AT + 4].copy_from_slice(&checksum);
            LatestSteps::decode(&slot).map(|latest| latest.steps)
        };
        assert_eq!(with(8, &1u32.to_le_bytes()), Ok(steps(2)));
        assert_eq!(with(8, &2u32.to_le_bytes()), Err(EndMarkError::NewerVersion { version: 2 }));
        let what = "its fields are out of range";
        let time_end = TIME_MS_END.to_le_bytes();
        for (at, part) in [
            (8, &[0; 4][..]),
            (24, &[1]),
            (24, &[65]),
            (28, &[1]),
            (32, &2_000u64.to_le_bytes()),
            (48, &time_end),
            (64, &[1]),
            (SLOT_BYTES - 1, &[1]),
        ] {
            assert_eq!(with(at, part), Err(EndMarkError::Damaged { what }), "at {at}");
        }
    }
}
