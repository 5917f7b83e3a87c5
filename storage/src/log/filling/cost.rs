//! What commits cost, as far as it is remembered. Pure.

/// Of each kind so much is remembered, the newest weighing most: a step of the usual 16 MiB is a quarter of it.
pub(super) const COST_BYTES_MAX: u64 = 64 << 20;

/// For how long the log was busy with so many bytes of writes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Cost {
    pub(super) bytes: u64,
    pub(super) nanos: u64,
}

impl Cost {
    /// What was measured last weighs in full.
    pub(super) fn add(&mut self, last: Cost) {
        self.forget(COST_BYTES_MAX.saturating_sub(last.bytes));
        self.bytes += last.bytes;
        self.nanos = self.nanos.saturating_add(last.nanos);
        self.forget(COST_BYTES_MAX);
    }

    /// Remembers no more than so many bytes.
    pub(super) fn forget(&mut self, bytes_max: u64) {
        if self.bytes > bytes_max {
            let nanos = product(self.nanos, bytes_max) / u128::from(self.bytes);
            self.nanos = u64::try_from(nanos).expect("less than it was");
            self.bytes = bytes_max;
        }
    }

    /// For a byte.
    pub(super) fn is_less_than(&self, other: &Cost) -> bool {
        product(self.nanos, other.bytes) < product(other.nanos, self.bytes)
    }
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
}

#[cfg(test)]
mod tests {
    use super::*;

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
