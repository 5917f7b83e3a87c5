//! Beside a server nothing is locked, so a file may be gone between listing and opening: it is listed anew then, but not
//! without end.

use std::io;

use crate::error::OpenError;

/// So often a list of files is found to be out of date before that is told as a failure. On a machine with more to do than it
/// can, where segments are rewritten all the time, that may well be some dozens.
const ATTEMPTS_MAX: u32 = 200;
/// And so often in a row of the same file, which then does not come back.
const ALIKE_MAX: u32 = 10;

/// Attempts that have failed.
#[derive(Debug, Default)]
pub(super) struct Attempts {
    failed: u32,
    last: String,
    alike: u32,
}

impl Attempts {
    /// Counts another one, and says whether what it told of may be gone with another list.
    pub(super) fn may_pass(&mut self, error: &OpenError) -> bool {
        let told = error.to_string();
        self.failed += 1;
        self.alike = if told == self.last { self.alike + 1 } else { 1 };
        self.last = told;
        self.failed < ATTEMPTS_MAX && self.alike < ALIKE_MAX
    }

    /// How many have failed.
    pub(super) fn failed(&self) -> u32 {
        self.failed
    }
}

/// Whether a file was not there any more.
pub(super) fn is_gone(error: &OpenError) -> bool {
    matches!(error, OpenError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_come_back_is_told_in_the_end() {
        let gone = |number: u32| OpenError::Io {
            action: "opening",
            file: number.to_string().into(),
            source: io::ErrorKind::NotFound.into(),
        };
        assert!(is_gone(&gone(1)));
        let attempts_of = |number: fn(u32) -> u32| {
            let mut attempts = Attempts::default();
            while attempts.may_pass(&gone(number(attempts.failed()))) {}
            attempts.failed()
        };
        assert_eq!(attempts_of(|_| 7), ALIKE_MAX);
        assert_eq!(attempts_of(|failed| failed / 9), ATTEMPTS_MAX, "now and then the same one");
    }
}
