//! When an append counts as done: as it is configured, and as each segment's header says.

use std::{fmt, str::FromStr};

/// When an append counts as done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SyncMode {
    /// Once it is on the device. Nobody sees what a crash could take back.
    #[default]
    Commit,
    /// Once the kernel has it; the device follows at most this much later.
    Interval {
        /// Milliseconds between syncs, 1 to 3,600,000.
        interval_ms: u32,
    },
    /// Once the kernel has it; the device follows when the kernel likes.
    Never,
}

/// The longest interval between syncs: an hour.
pub const SYNC_INTERVAL_MS_MAX: u32 = 3_600_000;

/// A text that is no sync mode.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is none of `commit`, `interval:MS` (1 to {SYNC_INTERVAL_MS_MAX} ms) and `never`")]
pub struct SyncModeError {
    /// What was given.
    pub text: String,
}

impl FromStr for SyncMode {
    type Err = SyncModeError;

    fn from_str(text: &str) -> Result<Self, SyncModeError> {
        let interval_ms = match text {
            "commit" => return Ok(SyncMode::Commit),
            "never" => return Ok(SyncMode::Never),
            _ => text
                .strip_prefix("interval:")
                .filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|digits| digits.parse().ok()),
        };
        match interval_ms {
            Some(interval_ms) if (1..=SYNC_INTERVAL_MS_MAX).contains(&interval_ms) => {
                Ok(SyncMode::Interval { interval_ms })
            }
            _ => Err(SyncModeError { text: text.to_owned() }),
        }
    }
}

impl SyncMode {
    /// Its name without its number, as an acknowledgement states which mode held.
    pub fn name(self) -> &'static str {
        match self {
            SyncMode::Commit => "commit",
            SyncMode::Interval { .. } => "interval",
            SyncMode::Never => "never",
        }
    }
}

impl fmt::Display for SyncMode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SyncMode::Commit => formatter.write_str("commit"),
            SyncMode::Interval { interval_ms } => write!(formatter, "interval:{interval_ms}"),
            SyncMode::Never => formatter.write_str("never"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sync_modes_are_read_as_they_are_written() {
        for mode in [
            SyncMode::Commit,
            SyncMode::Never,
            SyncMode::Interval { interval_ms: 1 },
            SyncMode::Interval { interval_ms: SYNC_INTERVAL_MS_MAX },
        ] {
            assert_eq!(mode.to_string().parse(), Ok(mode));
        }
        for text in
            ["", "Commit", "interval", "interval:", "interval:0", "interval:+1", "interval:3600001"]
        {
            assert!(text.parse::<SyncMode>().is_err(), "{text}");
        }
    }
}
