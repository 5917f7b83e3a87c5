//! What is appended a second time: events by their ids, within a window of time and of number; and appends of
//! producers by their sequence, of the newest epoch that each had, in a topic or in the log, unless they were silent
//! for too long.

use strandline_storage::{
    append::{Append, OffsetScope, ProducerClaim, ProducerId},
    error::AppendError,
    io::sim::rng::SimRng,
    log::Now,
    once::producers::FORGOTTEN_MS,
};

use super::{Process, in_use::Moment, model::Model, to_usize};

/// How many producers there are.
const PRODUCERS: u64 = 2;

/// An append of a producer that was taken.
#[derive(Clone, Debug)]
pub struct Taken {
    producer: String,
    /// `None`: its sequence counts in the log.
    topic: Option<String>,
    epoch: u64,
    seq: u64,
    /// Its first event.
    pub first: usize,
    appended: Moment,
}

impl Process {
    /// Appends an event again whose id is known, or was: it is never there twice within the window.
    pub(super) fn retry(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        let Some((offset, event)) = model.pick_id(rng) else { return };
        let visible = to_usize(self.log.visible());
        let next = self.log.next();
        let window = self.log.config().id_window();
        let newer = || {
            let newer = model.events.iter().enumerate().skip(offset + 1);
            newer.filter(|(_, kept)| kept.event.id.is_some())
        };
        let has_forgotten = |at: usize| model.has_forgotten(at, |forgotten| forgotten.ids);
        let is_among_newest = newer().count() < window.events;
        // Those that are forgotten push no others out.
        let may_be_among_newest =
            newer().filter(|(at, _)| !has_forgotten(*at)).count() < window.events;
        // No time is later than that, and none is before that of an event.
        let (latest_ms, last_ms) = (model.latest.ms(), model.last_ms());
        let then = model.events[offset].appended;
        let is_known = is_among_newest
            && !has_forgotten(offset)
            && model.in_use.is_remembered(then, window.time_ms, latest_ms);
        let may_be_known = |time_ms| {
            may_be_among_newest && model.in_use.may_be_remembered(then, window.time_ms, time_ms)
        };
        match self.log.append(vec![event.clone()], now) {
            Ok(appended) if appended.duplicates == 0 => {
                model.tally.ids_anew += 1;
                assert!(!is_known, "{offset} is there a second time, as {}", appended.first);
                assert_eq!(appended.first, next);
                return model.append(vec![event], appended.time_ms);
            }
            Ok(appended) => {
                assert!(may_be_known(appended.time_ms), "it has left the window");
                assert!(offset < visible, "an answer that rests on what may be lost");
                assert_eq!((to_usize(appended.first), appended.duplicates), (offset, 1));
            }
            Err(AppendError::IdInFlight { .. }) => {
                assert!(offset >= visible && may_be_known(last_ms));
            }
            Err(AppendError::Poisoned { .. } | AppendError::Closed) => {}
            Err(error) => {
                assert!(!is_known, "a retry was refused: {error}");
            }
        }
        assert_eq!(self.log.next(), next, "a duplicate gets no offset");
    }

    /// Appends as a producer: the next of its events, or the last one again, or one too far, in this epoch, one
    /// before or one after.
    pub(super) fn produce(&mut self, rng: &mut SimRng, model: &mut Model, now: Now) {
        let id = format!("p{}", rng.below(PRODUCERS));
        let events = model.new_batch(rng, 100);
        let topic = rng.chance(50).then(|| events[0].topic.as_str().to_owned());
        let last = model.taken.iter().rev();
        let last = last.clone().find(|taken| taken.producer == id && taken.topic == topic).cloned();
        let known_epoch = last.as_ref().map_or(0, |last| last.epoch);
        let epoch =
            *rng.pick(&[known_epoch, known_epoch, known_epoch + 1, known_epoch.saturating_sub(1)]);
        let next = last.as_ref().filter(|last| last.epoch == epoch).map_or(0, |last| last.seq + 1);
        let seq = *rng.pick(&[next, next, next.saturating_sub(1), next + 1]);
        let scope = if topic.is_some() { OffsetScope::Topic } else { OffsetScope::Log };
        let producer =
            Some(ProducerClaim { id: ProducerId::parse(&id).expect("a name"), epoch, seq, scope });
        let append = Append { events: events.clone(), expected: None, producer };
        let (latest_ms, last_ms) = (model.latest.ms(), model.last_ms());
        let in_use = model.in_use.clone();
        // It goes by whole seconds.
        let span_ms = FORGOTTEN_MS - 1_000;
        let may_be_remembered =
            |last: &&Taken, time_ms| in_use.may_be_remembered(last.appended, FORGOTTEN_MS, time_ms);
        let may_be_known = last.as_ref().filter(|last| may_be_remembered(last, last_ms));
        let may_be_forgotten = last
            .as_ref()
            .is_none_or(|last| !in_use.is_remembered(last.appended, span_ms, latest_ms));
        let known = |told: &str| may_be_known.unwrap_or_else(|| panic!("{told}, of nobody known"));
        let is_forgotten = last
            .as_ref()
            .is_some_and(|last| model.has_forgotten(last.first, |forgotten| forgotten.producers));
        match self.log.append(append, now) {
            // What it did before that may be known, or nothing.
            Ok(appended) if is_forgotten && appended.duplicates == 0 => {
                assert_eq!(to_usize(appended.first), model.events.len());
                let first = model.events.len();
                model.append(events, appended.time_ms);
                let appended = model.events[first].appended;
                model.taken.push(Taken { producer: id, topic, epoch, seq, first, appended });
            }
            _ if is_forgotten => {}
            Ok(appended) if appended.duplicates > 0 => {
                let last = known("a duplicate");
                assert!(
                    may_be_remembered(&last, appended.time_ms),
                    "it had been silent for too long"
                );
                assert!(last.epoch == epoch && seq <= last.seq, "{seq} in {epoch} is no duplicate");
                if seq == last.seq {
                    assert_eq!(to_usize(appended.first), last.first);
                }
            }
            Ok(appended) => {
                let is_next = last.as_ref().is_some_and(|last| match epoch == last.epoch {
                    true => seq == last.seq + 1,
                    false => epoch > last.epoch && seq == 0,
                });
                let begins_anew = may_be_forgotten && seq == 0;
                assert!(is_next || begins_anew, "{seq} in {epoch} follows {last:?}");
                let is_later = is_next && last.as_ref().is_some_and(|last| last.epoch < epoch);
                model.tally.epochs += u64::from(is_later);
                model.tally.forgotten += u64::from(!is_next && last.is_some());
                assert_eq!(to_usize(appended.first), model.events.len());
                let first = model.events.len();
                model.append(events, appended.time_ms);
                let appended = model.events[first].appended;
                model.taken.push(Taken { producer: id, topic, epoch, seq, first, appended });
            }
            Err(AppendError::ProducerGap { expected_seq: 0, given_seq }) if may_be_forgotten => {
                assert!(given_seq == seq && seq > 0);
            }
            Err(AppendError::ProducerGap { expected_seq, given_seq }) => {
                let last = known("a gap");
                assert_eq!((expected_seq, given_seq), (last.seq + 1, seq));
                assert!(epoch == last.epoch && seq > last.seq + 1);
            }
            Err(AppendError::StaleEpoch { epoch: newer, given_epoch }) => {
                model.tally.fenced += 1;
                assert_eq!((newer, given_epoch), (known("an epoch before").epoch, epoch));
                assert!(epoch < newer);
            }
            Err(AppendError::EpochStart { given_seq }) => {
                assert!(epoch > known("a later epoch").epoch && given_seq == seq && seq > 0);
            }
            Err(_) => {}
        }
    }
}
