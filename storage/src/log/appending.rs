//! What happens when events are appended: limits, what must happen once, conditions, staging.

use std::collections::HashMap;

use super::{Close, Log, Notice, Now, Poison};
use crate::{
    append::{Append, Appended, ExpectedOffset, OffsetScope, TakenBack},
    control::{self, Control, TopicRule},
    error::AppendError,
    event::{EventKind, NewEvent, StagedEvent, archive::PRODUCER_HEADER},
    frame::{self, EVENTS_MAX},
    index::delta,
    io::Disk,
    mutation::{self, Mutation},
    offset::Offset,
    once::{
        IdEntry, NameHash, ProducerEntry, hash_name,
        producers::{FORGOTTEN_MS, Judged, producer_hash},
    },
    staging::Staging,
    topic::TopicNumber,
};

/// Room for so many is kept from one append to the next.
const NOVELTIES_KEPT: usize = 1_024;

/// An event with an id that is not there yet.
pub(super) struct NewId {
    hash: NameHash,
    fingerprint: u64,
}

/// What ids say of one event of an append.
pub(super) enum Novelty {
    /// It has none.
    Unnamed,
    New(NewId),
    /// It is there already.
    At(Offset),
    /// The same append has it already.
    Again,
}

impl<D: Disk> Log<D> {
    /// Stages events: all that are not there yet, with offsets in a row and one time, or nothing. Call
    /// [`Log::next_op`] when all appends at hand are staged, so that they share a frame.
    ///
    /// The answer may leave once [`Log::visible`] has reached [`Appended::wait`]; a refusal, once it has
    /// reached what [`AppendError::rests_on`], if anything.
    pub fn append(&mut self, append: impl Into<Append>, now: Now) -> Result<Appended, AppendError> {
        let Append { mut events, expected, producer } = append.into();
        if let Some(poison) = &self.poison {
            let Poison { first_unsynced, reason } = poison.clone();
            return Err(AppendError::Poisoned { first_unsynced, reason });
        }
        if self.close != Close::Open {
            return Err(AppendError::Closed);
        }
        let (time_ms, notice) = self.clock.event_time(now);
        self.notices.extend(notice.map(Notice::Clock));
        let time_s = delta::seconds(time_ms);
        self.state.ids.lag(self.ids_ahead_ms());

        for event in events.iter_mut().filter(|event| !event.kind.is_data()) {
            if event.kind == EventKind::LogSettings {
                control::add_kept_from(event, self.keep_from);
            }
            self.check_settings(event)?;
        }
        let mut claimed = None;
        if let (Some(claim), Some(first)) = (&producer, events.first_mut()) {
            let hash = producer_hash(claim, &first.topic);
            let silence_s = delta::seconds(time_ms.saturating_sub(self.producers_ahead_ms()));
            if let Judged::Duplicate(known) = self.state.producers.judge(&hash, claim, silence_s)? {
                let last = known.first.plus(u64::from(known.events) - 1);
                return Ok(Appended {
                    first: known.first,
                    last,
                    // Of the events that it counts some may have been known by their ids.
                    wait: last.plus(1).min(self.next),
                    duplicates: events.len() as u64,
                    time_ms,
                    producer: Some(known.place()),
                });
            }
            let unsealed = self.unsealed_start();
            self.state.producers.make_room(&hash, silence_s, unsealed)?;
            let count = u32::try_from(events.len()).unwrap_or(u32::MAX);
            let header = (PRODUCER_HEADER.into(), claim.encode(count).into());
            events[0].headers.push(header);
            claimed = Some((hash, claim.epoch, claim.seq, count));
        }
        let mut novelties = std::mem::take(&mut self.novelties);
        novelties.clear();
        self.find_novelties(&events, time_ms, &mut novelties)?;
        let is_old = |novelty: &Novelty| matches!(novelty, Novelty::At(_));
        if !novelties.is_empty() && novelties.iter().all(is_old) {
            return Ok(Self::all_there(&novelties, time_ms));
        }
        if let Some(expected) = expected {
            self.check_expected(expected, &events)?;
        }
        let bytes = self.check_limits(&events)?;
        // What frees space must be possible without any: there is room for it below the prepared end.
        let is_control = events.iter().all(|event| !event.kind.is_data());
        let has_room =
            || is_control && !events.is_empty() && self.has_control_room((events.len(), bytes));
        if self.jobs.disk_full && !has_room() {
            return Err(AppendError::DiskFull);
        }
        self.staging.check_room(bytes)?;

        let first = self.next;
        if events.is_empty() {
            let (wait, duplicates) = (first, 0);
            return Ok(Appended { first, last: first, wait, duplicates, time_ms, producer: None });
        }
        if let Some((hash, epoch, seq, events)) = claimed {
            self.state.producers.stage(ProducerEntry { hash, epoch, seq, first, events, time_s });
        }
        let mut appended = self.stage(events, &novelties, bytes, time_ms);
        if novelties.capacity() <= NOVELTIES_KEPT {
            self.novelties = novelties;
        }
        appended.producer =
            claimed.map(|(_, epoch, seq, _)| crate::append::ProducerPlace { epoch, seq });
        self.last_append_boot_ms = now.boot_ms;
        Ok(appended)
    }

    /// So many milliseconds by the times of events do not count in the window of ids.
    pub(super) fn ids_ahead_ms(&self) -> u64 {
        self.clock.ahead_ms(self.config.id_window().time_ms)
    }

    /// The same for the silence of producers.
    pub(super) fn producers_ahead_ms(&self) -> u64 {
        self.clock.ahead_ms(FORGOTTEN_MS)
    }

    /// Stages a control event.
    pub fn append_control(&mut self, control: &Control, now: Now) -> Result<Appended, AppendError> {
        let appended = self.append(vec![control.event()], now)?;
        if mutation::is_planted(Mutation::StateFromLiveMemory) {
            self.state.rules.apply(control, appended.first);
        }
        Ok(appended)
    }

    /// Gives offsets to the events that are not there yet.
    fn stage(
        &mut self,
        events: Vec<NewEvent>,
        novelties: &[Novelty],
        bytes: usize,
        time_ms: u64,
    ) -> Appended {
        let base = self.next;
        let next = &mut self.next;
        let ids = &mut self.state.ids;
        let (mut first, mut last) = (Offset::MAX, Offset::ZERO);
        let mut duplicates = 0;
        let mut see = |offset: Offset| {
            first = first.min(offset);
            last = last.max(offset);
        };
        let batch = events.into_iter().enumerate().filter_map(|(index, event)| {
            match novelties.get(index) {
                Some(Novelty::At(offset)) => {
                    see(*offset);
                    duplicates += 1;
                    return None;
                }
                Some(Novelty::Again) => {
                    duplicates += 1;
                    return None;
                }
                Some(Novelty::New(NewId { hash, fingerprint })) => ids.push(IdEntry {
                    hash: *hash,
                    fingerprint: *fingerprint,
                    offset: *next,
                    time_ms,
                }),
                Some(Novelty::Unnamed) | None => {}
            }
            let offset = *next;
            *next = offset.plus(1);
            see(offset);
            // Topics get their numbers when the frame is begun, many at once.
            let topic_number = TopicNumber::default();
            Some(StagedEvent { offset, time_ms, topic_number, event })
        });
        self.staging.push(batch, bytes);
        assert!(self.next > base, "what is all there is not staged");
        Appended { first, last, wait: self.next, duplicates, time_ms, producer: None }
    }

    /// Which of the events are there already, by their ids; nothing if none has one.
    fn find_novelties(
        &mut self,
        events: &[NewEvent],
        time_ms: u64,
        novelties: &mut Vec<Novelty>,
    ) -> Result<(), AppendError> {
        if events.iter().all(|event| event.id.is_none()) {
            return Ok(());
        }
        let mut here: HashMap<NameHash, u64> = HashMap::new();
        let visible = self.commit.visible_end();
        for event in events {
            let Some(id) = &event.id else {
                novelties.push(Novelty::Unnamed);
                continue;
            };
            let hash = hash_name(id);
            // Its place is no cache's: it comes while the fingerprint is made.
            self.state.ids.prefetch(&hash);
            let fingerprint = self.fingerprints.of_new(event);
            let conflict = |offset| AppendError::IdConflict { id: id.to_string(), offset };
            if let Some(known) = self.state.ids.get(&hash, time_ms) {
                if known.fingerprint != fingerprint {
                    return Err(conflict(known.offset));
                }
                if known.offset >= visible {
                    return Err(AppendError::IdInFlight { id: id.to_string() });
                }
                novelties.push(Novelty::At(known.offset));
                continue;
            }
            if events.len() > 1 {
                match here.get(&hash) {
                    Some(known) if *known != fingerprint => {
                        return Err(AppendError::IdTwice { id: id.to_string() });
                    }
                    Some(_) => {
                        novelties.push(Novelty::Again);
                        continue;
                    }
                    None => drop(here.insert(hash, fingerprint)),
                }
            }
            novelties.push(Novelty::New(NewId { hash, fingerprint }));
        }
        Ok(())
    }

    /// The answer to an append of which nothing is new.
    fn all_there(novelties: &[Novelty], time_ms: u64) -> Appended {
        let offsets = novelties.iter().filter_map(|novelty| match novelty {
            Novelty::At(offset) => Some(*offset),
            _ => None,
        });
        let last = offsets.clone().max().expect("an append has events");
        Appended {
            first: offsets.min().expect("an append has events"),
            last,
            wait: last.plus(1),
            duplicates: novelties.len() as u64,
            time_ms,
            producer: None,
        }
    }

    /// Refuses settings beyond those that are kept. (Some that are on their way at the same time may be
    /// too many together: they are events of the log, and their number is bounded as that of all is.)
    fn check_settings(&self, event: &NewEvent) -> Result<(), AppendError> {
        let Some(Control::Topic(TopicRule { pattern, settings: Some(_) })) =
            Control::decode(event.kind, &event.data)
        else {
            return Ok(());
        };
        let what = if pattern.contains('*') { "patterns" } else { "topics" };
        match self.state.rules.is_full_for(&pattern) {
            Some(count) => Err(AppendError::TooManySettings { count: count as u64, what }),
            None => Ok(()),
        }
    }

    fn check_expected(
        &self,
        expected: ExpectedOffset,
        events: &[NewEvent],
    ) -> Result<(), AppendError> {
        let expected_offset = match (expected.scope, events.first()) {
            (OffsetScope::Topic, Some(event)) => {
                self.last_of(&event.topic).map_or(0, |last| last.get() + 1)
            }
            _ => self.next.get(),
        };
        if expected.offset == expected_offset {
            return Ok(());
        }
        Err(AppendError::Unexpected { expected_offset, given_offset: expected.offset })
    }

    /// The offset of the last event ever of a topic, staged ones included.
    pub fn last_of(&self, topic: &str) -> Option<Offset> {
        let staged = self.staging.last_of(topic);
        let in_flight = || {
            self.commit.pending().rev().flat_map(|write| write.frames.iter().rev()).find_map(
                |(frame, _)| {
                    let (number, _) = frame.topics().find(|(_, name)| *name == topic)?;
                    let event =
                        frame.events().rev().find(|event| event.topic_number() == number)?;
                    Some(event.offset())
                },
            )
        };
        staged.or_else(in_flight).or_else(|| self.topics.last_ever(topic))
    }

    /// An upper bound of what `events` add to a frame, or why they never fit into one.
    fn check_limits(&self, events: &[NewEvent]) -> Result<usize, AppendError> {
        let mut bytes = 0;
        for event in events {
            if event.data.len() > self.config.event_bytes_max {
                return Err(AppendError::EventTooLarge {
                    event_bytes: event.data.len() as u64,
                    event_bytes_max: self.config.event_bytes_max as u64,
                });
            }
            bytes += frame::encoded_bytes_max(event);
        }
        let batch_bytes = frame::frame_bytes_max(bytes);
        if events.len() > EVENTS_MAX || batch_bytes > self.config.frame_bytes_max {
            return Err(AppendError::BatchTooLarge {
                events: events.len() as u64,
                events_max: EVENTS_MAX as u64,
                batch_bytes: batch_bytes as u64,
                batch_bytes_max: self.config.frame_bytes_max as u64,
            });
        }
        Ok(bytes)
    }

    /// Takes back what is staged and in no frame yet, but for control events that have room: for a driver that
    /// answers the others with a refusal, because the disk is full and nobody knows when it will have space.
    /// What is kept is to be started ([`Log::next_op`]).
    pub fn refuse_staged(&mut self) -> TakenBack {
        self.filling.end_wait();
        let empty = Staging::new(self.config.staged_bytes_max);
        let staged = std::mem::replace(&mut self.staging, empty);
        let from = self.commit.submitted_end();
        self.next = from;
        self.state.take_back(from);
        let mut kept = Vec::new();
        for (mut batch, bytes) in staged.into_batches() {
            let is_control = batch.iter().all(|staged| !staged.event.kind.is_data());
            if !is_control || !self.has_control_room((batch.len(), bytes)) {
                continue;
            }
            kept.push((batch[0].offset, self.next));
            for staged in &mut batch {
                staged.offset = self.next;
                self.next = self.next.plus(1);
            }
            self.staging.push(batch, bytes);
        }
        TakenBack { from, kept }
    }
}
