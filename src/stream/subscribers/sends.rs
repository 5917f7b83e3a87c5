//! How long a slice of pushes lasts: longer where sends are.
//!
//! Publishers have their turn between two slices. The longer a send is, the less its system call matters, and the longer
//! all others wait for theirs. So where publishers are ahead of the pushes, which shows in long sends, pushes have more of
//! the shard: deliveries are fewer, and sooner. At 16 and 64 unthrottled publishers, for 1,000 subscribers, the
//! slowest hundredth came after 11 and 24 ms instead of 23 and 159, of 7.6 and 12.3 million a second instead of 10.7 and 15.3.
//!
//! Large events make long sends too; an append beside those waits for two slices, of [`LONG_SLICES_MAX`] at most.

use std::time::Duration;

use crate::runtime::{SLICE_US, Slice};

/// From a mean send of so many bytes on slices are longer, in proportion. With 8 KiB 8.1 million deliveries a second
/// (16 publishers), and the slowest hundredth after 14.3 ms; with 4 KiB 6.5, and 11.7 ms.
const LONG_BYTES: u64 = 6 * 1024;

/// So many times a slice at most: 3 ms.
const LONG_SLICES_MAX: u64 = 6;

/// What was sent since a slice began.
#[derive(Default)]
pub(super) struct Sends {
    count: u64,
    bytes: u64,
}

impl Sends {
    /// A socket took so many bytes; none, if it was full.
    pub(super) fn note(&mut self, bytes: u64) {
        self.count += u64::from(bytes > 0);
        self.bytes += bytes;
    }

    /// Begins the next slice.
    pub(super) fn begin_slice(&mut self) -> Slice {
        Slice::of(std::mem::take(self).next_slice())
    }

    /// How long the next slice lasts.
    pub(super) fn next_slice(&self) -> Duration {
        let mean = self.bytes.checked_div(self.count).unwrap_or(0);
        let us = (SLICE_US * mean / LONG_BYTES).clamp(SLICE_US, LONG_SLICES_MAX * SLICE_US);
        Duration::from_micros(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_longer_where_sends_are_and_not_for_ever() {
        let next_us = |sends: &[u64]| {
            let mut noted = Sends::default();
            sends.iter().for_each(|bytes| noted.note(*bytes));
            noted.next_slice().as_micros()
        };
        assert_eq!(next_us(&[]), 500, "nothing was sent");
        assert_eq!(next_us(&[300, 700]), 500);
        assert_eq!(next_us(&[6 << 10, 18 << 10]), 1_000, "12 KiB");
        assert_eq!(next_us(&[12 << 10, 0, 0]), 1_000, "full sockets took nothing");
        assert_eq!(next_us(&[1 << 20, 1 << 20]), 3_000);
    }

    #[test]
    fn a_slice_is_as_long_as_the_sends_of_the_one_before_want() {
        let mut sends = Sends::default();
        sends.note(1 << 20);
        sends.begin_slice();
        assert_eq!(sends.next_slice().as_micros(), 500, "and what was before is forgotten");
    }
}
