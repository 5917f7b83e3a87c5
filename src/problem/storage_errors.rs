//! What the log refuses or cannot do, as answers. Paths of files stay with the operator: they are in
//! the server's own log, never in an answer.

use strandline_storage::error::{AppendError, ReadError};
use strandline_storage::event::NameError;

use super::{Problem, ProblemKind, RESTART_RETRY_AFTER_S, RETRY_AFTER_S};
use crate::input::quoted;

/// How long to wait for a producer to be forgotten: that takes days, and an hour finds out.
const PRODUCERS_RETRY_AFTER_S: u32 = 3600;

impl From<&NameError> for ProblemKind {
    fn from(error: &NameError) -> Self {
        match error {
            NameError::Reserved => ProblemKind::ReservedType,
            _ => ProblemKind::InvalidName,
        }
    }
}

impl From<&AppendError> for Problem {
    fn from(error: &AppendError) -> Self {
        match error {
            AppendError::EventTooLarge { .. } => {
                Self::new(ProblemKind::EventTooLarge, error.to_string())
            }
            AppendError::BatchTooLarge { events, events_max, .. } if events > events_max => {
                Self::new(ProblemKind::TooManyEvents, error.to_string())
            }
            AppendError::BatchTooLarge { .. } => {
                Self::new(ProblemKind::BodyTooLarge, error.to_string())
            }
            AppendError::Overloaded { .. } | AppendError::AfterRefused => {
                Self::new(ProblemKind::Overloaded, error.to_string())
            }
            AppendError::Poisoned { first_unsynced, reason } => {
                // The same as at `/readyz`.
                let detail = format!(
                    "the disk failed ({reason}); offsets from {first_unsynced} on are in doubt"
                );
                Self::new(ProblemKind::ReadOnly, detail).retry_after(RESTART_RETRY_AFTER_S)
            }
            AppendError::DiskFull => {
                let detail = "the disk of the server has no room for another event";
                Self::new(ProblemKind::DiskFull, detail)
            }
            AppendError::Closed => Self::new(ProblemKind::Draining, error.to_string())
                .retry_after(RESTART_RETRY_AFTER_S),
            AppendError::IdConflict { id, offset } => {
                let detail =
                    format!("event id {} is that of another event, at offset {offset}", quoted(id));
                Self::new(ProblemKind::IdConflict, detail).with("offset", offset.get())
            }
            AppendError::IdTwice { id } => {
                let detail =
                    format!("two events of the append have the id {}, and differ", quoted(id));
                Self::new(ProblemKind::IdConflict, detail)
            }
            AppendError::IdInFlight { id } => {
                let detail = format!("an event of id {} is being appended right now", quoted(id));
                Self::new(ProblemKind::AppendInFlight, detail).retry_after(RETRY_AFTER_S)
            }
            AppendError::Unexpected { expected_offset, .. } => {
                Self::new(ProblemKind::OffsetMismatch, error.to_string())
                    .with("expected_offset", *expected_offset)
            }
            AppendError::StaleEpoch { epoch, .. } => {
                Self::new(ProblemKind::StaleEpoch, error.to_string())
                    .with("epoch", *epoch)
                    .with_field("Producer-Epoch", epoch)
            }
            AppendError::ProducerGap { expected_seq, given_seq } => {
                Self::new(ProblemKind::ProducerGap, error.to_string())
                    .with("expected_seq", *expected_seq)
                    .with("received_seq", *given_seq)
                    .with_field("Producer-Expected-Seq", expected_seq)
                    .with_field("Producer-Received-Seq", given_seq)
            }
            AppendError::EpochStart { .. } => Self::new(ProblemKind::EpochStart, error.to_string()),
            AppendError::TooManySettings { .. } => {
                Self::new(ProblemKind::TooManySettings, error.to_string())
            }
            AppendError::TooManyProducers { .. } => {
                Self::new(ProblemKind::TooManyProducers, error.to_string())
                    .retry_after(PRODUCERS_RETRY_AFTER_S)
            }
        }
    }
}

impl From<&ReadError> for Problem {
    fn from(error: &ReadError) -> Self {
        match error {
            ReadError::Gap { from, to, .. } => {
                let detail = format!("the events from {from} to {to} are damaged on the disk");
                let gap = serde_json::json!({"from": from.get(), "to": to.get()});
                Self::new(ProblemKind::ReadFailed, detail).with("gap", gap)
            }
            ReadError::Expired { earliest } => {
                Self::new(ProblemKind::Expired, error.to_string()).with("earliest", earliest.get())
            }
            ReadError::Io { .. } => {
                Self::new(ProblemKind::ReadFailed, "the disk failed to return a part of the log")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use strandline_storage::error::Corruption;
    use strandline_storage::offset::{Offset, Position};

    use super::*;

    /// API §9: "event of 1048577 bytes exceeds the limit of 1048576 bytes".
    #[test]
    fn an_event_that_is_too_large_is_413_with_both_numbers() {
        let error =
            AppendError::EventTooLarge { event_bytes: 1_048_577, event_bytes_max: 1_048_576 };
        let problem = Problem::from(&error);
        assert_eq!((problem.status(), problem.slug()), (413, "event-too-large"));
        assert_eq!(problem.detail(), "event of 1048577 bytes exceeds the limit of 1048576 bytes");
    }

    /// API §9: "507 disk full".
    #[test]
    fn a_full_disk_is_507() {
        let problem = Problem::from(&AppendError::DiskFull);
        assert_eq!((problem.status(), problem.slug()), (507, "disk-full"));
    }

    /// What failed need not be a write.
    #[test]
    fn a_log_that_takes_no_writes_says_why() {
        let reason = "sync: Input/output error (os error 5)".to_owned();
        let problem =
            Problem::from(&AppendError::Poisoned { first_unsynced: Offset::new(7), reason });
        assert_eq!((problem.status(), problem.slug()), (503, "read-only"));
        assert_eq!(
            problem.detail(),
            "the disk failed (sync: Input/output error (os error 5)); offsets from 7 on are in doubt"
        );
        assert!(problem.retry_after_s().is_some());
    }

    #[test]
    fn answers_never_name_files() {
        let file = PathBuf::from("/secret/place");
        let corruption =
            Corruption { file: file.clone(), position: Position::new(0), what: "rot".into() };
        let gap = ReadError::Gap { from: Offset::new(3), to: Offset::new(5), corruption };
        let io = ReadError::Io { file, source: std::io::Error::other("broken") };
        for error in [&gap, &io] {
            let mut out = Vec::new();
            Problem::from(error).write_json(&mut out);
            assert!(!String::from_utf8(out).unwrap().contains("secret"));
        }
        assert_eq!(Problem::from(&gap).members()[0].1, serde_json::json!({"from": 3, "to": 5}));
    }

    #[test]
    fn what_may_pass_says_when_to_try_again() {
        let overloaded = Problem::from(&AppendError::Overloaded { staged_bytes: 7 });
        assert_eq!((overloaded.status(), overloaded.retry_after_s()), (503, Some(1)));
        let closed = Problem::from(&AppendError::Closed);
        assert_eq!((closed.status(), closed.slug()), (503, "draining"));
        assert!(closed.retry_after_s().is_some());
    }

    /// API §2: "different is `422`; first still in flight: `409`", "else `412` with `expected_offset`".
    #[test]
    fn what_concerns_ids_and_conditions() {
        let of = |error: AppendError| {
            let problem = Problem::from(&error);
            let members: Vec<_> =
                problem.members().iter().map(|(name, value)| format!("{name}={value}")).collect();
            (problem.status(), problem.slug(), members.join(" "), problem.retry_after_s())
        };
        let (id, offset) = ("a\"b".to_owned(), Offset::new(7));
        assert_eq!(
            of(AppendError::IdConflict { id: id.clone(), offset }),
            (422, "id-conflict", "offset=7".into(), None)
        );
        assert_eq!(
            of(AppendError::IdTwice { id: id.clone() }),
            (422, "id-conflict", String::new(), None)
        );
        assert_eq!(
            of(AppendError::IdInFlight { id }),
            (409, "append-in-flight", String::new(), Some(1))
        );
        assert_eq!(
            of(AppendError::Unexpected { expected_offset: 9, given_offset: 8 }),
            (412, "offset-mismatch", "expected_offset=9".into(), None)
        );
    }

    /// As Durable Streams has it: 403 with the epoch, 409 with both sequences, 400.
    #[test]
    fn what_concerns_producers() {
        let stale = Problem::from(&AppendError::StaleEpoch { epoch: 4, given_epoch: 3 });
        assert_eq!((stale.status(), stale.fields()), (403, &[("Producer-Epoch", "4".into())][..]));
        let gap = Problem::from(&AppendError::ProducerGap { expected_seq: 2, given_seq: 5 });
        let fields = [("Producer-Expected-Seq", "2".into()), ("Producer-Received-Seq", "5".into())];
        assert_eq!((gap.status(), gap.fields()), (409, &fields[..]));
        assert_eq!(gap.members()[0], ("expected_seq", 2.into()));
        assert_eq!(Problem::from(&AppendError::EpochStart { given_seq: 1 }).status(), 400);
        let many = Problem::from(&AppendError::TooManyProducers { producers_max: 1 });
        assert_eq!((many.status(), many.retry_after_s()), (429, Some(3600)));
    }
}
