//! Counts as numbers to divide by.

/// A count as a number to divide by: exact below 2^53.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub fn as_f64(count: u64) -> f64 {
    count as f64
}
