//! What a log must hold, kept the simple way: a list.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
};

use bytes::Bytes;
use strandline_storage::{
    control::{Control, TopicRule},
    event::{DataForm, EventId, EventKey, EventKind, EventType, EventView, NewEvent},
    io::sim::rng::SimRng,
    offset::Offset,
    remains::Forgotten,
    segment::SegmentName,
    settings::TopicRetention,
    topic::{Topic, TopicPattern},
};

use super::{
    Tally,
    beside::RottenFile,
    in_use::{InUse, Moment},
    limits::{EarliestTime, LatestTime},
    once::Taken,
};

/// The topics that events get. Few, so that each has many events, and nested, so that patterns differ.
pub const TOPICS: [&str; 7] =
    ["a", "b", "rooms/1/messages", "rooms/2/messages", "rooms/2/typing", "rooms", "rooms/1"];

/// What reads ask for; the empty list asks for everything.
const PATTERNS: [&[&str]; 9] = [
    &[],
    &["**"],
    &["a"],
    &["rooms/*/messages"],
    &["rooms/**"],
    &["b", "rooms/2/*"],
    &["*"],
    &["nothing/here"],
    &["late/**", "a"],
];

/// One event as it was appended, and the time that it was given.
#[derive(Clone, Debug)]
pub struct Kept {
    pub event: NewEvent,
    pub time_ms: u64,
    /// When that was.
    pub appended: Moment,
    /// So many events were visible by then.
    pub seen: usize,
    /// It was older at some time than its topic's limit at that time let it be; or may have been gone from the log that
    /// this one was made of.
    pub may_be_gone: bool,
}

/// All events that were given an offset, by offset; and which of them nobody may take back.
#[derive(Clone, Debug, Default)]
pub struct Model {
    pub events: Vec<Kept>,
    /// Where batches begin: none may survive in part.
    pub boundaries: Vec<usize>,
    /// Events below it were synced, acknowledged or read after a recovery: no crash takes them.
    pub safe: usize,
    /// Events below it were visible.
    pub seen: usize,
    /// The latest time that the log may take it to be.
    pub latest: LatestTime,
    pub in_use: InUse,
    /// The same for what goes by its age.
    pub latest_limit: LatestTime,
    /// The earliest time that it must be taken to be by that.
    pub earliest_limit: EarliestTime,
    /// How far limits of the log have come at most: events before it may be gone.
    pub reach: usize,
    /// Readers were told that nothing before it is kept, and that may not be taken back.
    pub start: usize,
    pub tag: Option<String>,
    /// Whether the tag may change: the last stop was unclean, in a mode that shows events early.
    pub tag_may_change: bool,
    /// Whether the last run was in such a mode: a start that crashes half-way forgets that the run
    /// before it was closed.
    pub showed_early: bool,
    /// How many topics were made so far beyond the usual ones.
    pub topics_made: u64,
    /// Deletions that the log appended itself, of which nobody knows yet what they say: by offset, how late it may have
    /// been when it did.
    pub unread: BTreeMap<usize, u64>,
    /// Every append of a producer that was taken.
    pub taken: Vec<Taken>,
    /// How much was visible when events that a limit may have reached were read last, by offset.
    pub read_at: RefCell<HashMap<usize, usize>>,
    /// Where the disk does not hold any more what was written to it, and never said so.
    pub rotten: Vec<Rotten>,
    /// The same of files beside the frames.
    pub rotten_files: Vec<RottenFile>,
    /// Those that somebody has removed or replaced: a power cut may bring them back.
    pub rotten_before: Vec<RottenFile>,
    /// What a repair has said that nobody knows any more, of the events of a segment.
    pub forgotten: Vec<(Range<usize>, Forgotten)>,
    /// Topics of which the log that this one was cut from had events behind the cut. Nobody knows of any before that which
    /// are gone: an index says of a topic no more than its last event.
    pub cut_topics: HashSet<String>,
    /// What a repair has taken out.
    pub given_up: Vec<Range<usize>>,
    /// A read may fail that is of nothing rotten.
    pub may_misread: bool,
    /// What it has come by; nothing follows from it.
    pub tally: Tally,
}

/// Bytes of a sealed segment that are not what was written.
#[derive(Clone, Debug)]
pub struct Rotten {
    pub name: SegmentName,
    /// No event but these may be lost.
    pub offsets: Range<usize>,
}

impl Model {
    /// A batch of events such as never were before.
    pub fn new_batch(&mut self, rng: &mut SimRng, event_bytes_max: usize) -> Vec<NewEvent> {
        let count = *rng.pick(&[1, 1, 1, 2, 3, 8]);
        (0..count).map(|_| self.new_event(rng, event_bytes_max / count)).collect()
    }

    fn new_event(&mut self, rng: &mut SimRng, bytes_max: usize) -> NewEvent {
        let mut topic = (*rng.pick(&TOPICS)).to_owned();
        if rng.chance(5) {
            self.topics_made += 1;
            topic = format!("late/{}", self.topics_made);
        }
        let len = *rng.pick(&[0, 1, 20, 100, 100, 100, 1000, bytes_max / 2, bytes_max]);
        let mut data = rng.bytes(len.min(bytes_max));
        // Half of the longer ones become much shorter where they are compressed.
        if data.first().is_some_and(|byte| byte.is_multiple_of(2)) {
            for at in 16..data.len() {
                data[at] = data[at - 16];
            }
        }
        let mut event = NewEvent::json(Topic::parse(&topic).expect("a topic"), Bytes::from(data));
        if rng.chance(20) {
            event.event_type = EventType::parse("edited").expect("a type");
            event.id = Some(EventId::parse(&rng.next_u64().to_string()).expect("an id"));
            event.key = Some(EventKey::parse("key").expect("a key"));
            event.headers = vec![("name".into(), "value".into())];
            event.content_type = "text/plain".into();
            event.form = DataForm::Binary;
        }
        event
    }

    /// One of the events that have an id, and the last offset that was given for that.
    pub fn pick_id(&self, rng: &mut SimRng) -> Option<(usize, NewEvent)> {
        let start = rng.index(self.events.len().max(1));
        let mut from_there = self.events.iter().enumerate().skip(start);
        let (_, kept) = from_there.find(|(_, kept)| kept.event.id.is_some())?;
        // What is there is the last one that had it.
        let event = kept.event.clone();
        let offset = self.events.iter().rposition(|kept| kept.event.id == event.id)?;
        Some((offset, event))
    }

    /// The time of the last event.
    pub fn last_ms(&self) -> u64 {
        self.events.last().map_or(0, |kept| kept.time_ms)
    }

    pub fn is_rotten(&self, name: SegmentName) -> bool {
        self.rotten.iter().any(|rotten| rotten.name == name)
    }

    /// What may be lost of a log that has these segments.
    pub fn may_be_lost(&self, segments: impl Iterator<Item = SegmentName>) -> Vec<Range<usize>> {
        let names: HashSet<SegmentName> = segments.collect();
        let rotten = self.rotten.iter().filter(|rotten| names.contains(&rotten.name));
        rotten.map(|rotten| rotten.offsets.clone()).chain(self.given_up.iter().cloned()).collect()
    }

    /// Compares what a read said to be lost with what may be.
    pub fn check_lost(&self, lost: &[Range<Offset>], may_be_lost: &[Range<usize>]) {
        let mut said = HashSet::new();
        let offsets = |lost: &Range<Offset>| to_usize(lost.start.get())..to_usize(lost.end.get());
        for offset in lost.iter().flat_map(offsets) {
            let may_be = may_be_lost.iter().any(|rotten| rotten.contains(&offset));
            assert!(may_be, "{offset} is lost ({lost:?}), and only {may_be_lost:?} may be");
            assert!(said.insert(offset), "{offset} is said to be lost twice: {lost:?}");
        }
    }

    /// The log has taken a batch.
    pub fn append(&mut self, batch: Vec<NewEvent>, time_ms: u64) {
        let latest_ms = self.latest.ms();
        assert!(time_ms <= latest_ms, "an event of {time_ms}, and it is {latest_ms} at most");
        self.boundaries.push(self.events.len());
        let appended = self.in_use.moment(time_ms);
        let seen = self.seen;
        let kept = |event| Kept { event, time_ms, appended, seen, may_be_gone: false };
        self.events.extend(batch.into_iter().map(kept));
    }

    /// The log was opened after a stop and shows `survivors` events: were it allowed to?
    pub fn recovered(&mut self, survivors: usize, tag: &str) {
        let Model { safe, seen, .. } = *self;
        assert!(survivors >= safe, "lost: {safe} events were safe, {survivors} survive");
        let appended = self.events.len();
        assert!(survivors <= appended, "made up: {survivors} survive of {appended}");
        let whole = survivors == appended || self.boundaries.contains(&survivors);
        assert!(whole, "a batch survives in part, up to {survivors}");
        if let Some(known) = &self.tag {
            let taken_back = survivors < seen;
            assert!(!taken_back || known != tag, "{seen} were visible, {survivors} are left");
            assert!(self.tag_may_change || known == tag, "the tag changed without a reason");
        }
        self.truncate(survivors);
        (self.safe, self.seen) = (survivors, survivors);
        self.tag = Some(tag.to_owned());
    }

    /// Nothing is left from an offset on.
    pub fn truncate(&mut self, end: usize) {
        self.events.truncate(end);
        self.boundaries.retain(|start| *start < end);
        self.taken.retain(|taken| taken.first < end);
        self.unread.retain(|offset, _| *offset < end);
        self.read_at.get_mut().values_mut().for_each(|visible| *visible = end.min(*visible));
    }

    /// Whether what was set last for the log, of all that was visible, is below `synced`.
    pub fn is_setting_synced(&self, synced: usize) -> bool {
        let unsynced = self.events.iter().take(self.seen).skip(synced);
        unsynced.into_iter().all(|kept| kept.event.kind != EventKind::LogSettings)
    }

    /// What the next offset of a topic has to be said to be: behind its last event ever, be it gone.
    pub fn next_of(&self, topic: &str) -> u64 {
        let last = self.events.iter().rposition(|kept| kept.event.topic.as_str() == topic);
        last.map_or(0, |last| last as u64 + 1)
    }

    /// What has become of the first `end` events.
    pub fn fates(&self, end: usize) -> Fates {
        let mut fates = Fates { all: vec![Fate::Stays; end], is_any_dead: false };
        let mut of_topics: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
        let mut limits: BTreeMap<String, TopicRetention> = BTreeMap::new();
        let mut newest: HashMap<(&str, &str), usize> = HashMap::new();
        for (offset, Kept { event, .. }) in self.events[..end].iter().enumerate() {
            let topic = event.topic.as_str();
            match Control::decode(event.kind, &event.data) {
                None => {
                    let before = of_topics.entry(topic).or_default();
                    let older =
                        event.key.as_deref().and_then(|key| newest.insert((topic, key), offset));
                    before.push(offset);
                    let Some(limit) = limits.iter().find(|(pattern, _)| covers(pattern, topic))
                    else {
                        continue;
                    };
                    if limit.1.latest_per_key {
                        older.into_iter().for_each(|older| fates.may_go(older));
                    }
                    let beyond = limit
                        .1
                        .count
                        .and_then(|count| before.len().checked_sub(to_usize(count) + 1));
                    beyond.into_iter().for_each(|place| fates.may_go(before[place]));
                }
                Some(Control::Deleted(deleted)) => {
                    for topic in &deleted.topics {
                        of_topics
                            .get(topic.as_str())
                            .into_iter()
                            .flatten()
                            .for_each(|at| fates.goes(*at));
                    }
                }
                Some(Control::Trimmed(trimmed)) => {
                    let all = of_topics.get(trimmed.topic.as_str()).into_iter().flatten();
                    all.filter(|at| **at < to_usize(trimmed.before)).for_each(|at| fates.goes(*at));
                }
                Some(Control::Topic(TopicRule { pattern, settings: None })) => {
                    limits.remove(&pattern);
                    let none = TopicRetention::default();
                    self.keep_what_was_read(
                        offset, &pattern, none, &of_topics, &newest, &mut fates,
                    );
                }
                Some(Control::Topic(TopicRule { pattern, settings: Some(settings) })) => {
                    let limit = settings.retain;
                    for (topic, all) in
                        of_topics.iter().filter(|(topic, _)| covers(&pattern, topic))
                    {
                        let kept = limit.count.map_or(all.len(), to_usize).min(all.len());
                        all[..all.len() - kept].iter().for_each(|at| fates.may_go(*at));
                        let is_newest = |key: &str, at| newest.get(&(*topic, key)) == Some(&at);
                        let older = all.iter().filter(|at| {
                            let key = self.events[**at].event.key.as_deref();
                            key.is_some_and(|key| !is_newest(key, **at))
                        });
                        older.filter(|_| limit.latest_per_key).for_each(|at| fates.may_go(*at));
                    }
                    self.keep_what_was_read(
                        offset, &pattern, limit, &of_topics, &newest, &mut fates,
                    );
                    limits.insert(pattern, limit);
                }
                Some(Control::Log(_)) => {}
            }
        }
        // Looser limits bring back none of these.
        for (offset, kept) in self.events[..end].iter().enumerate() {
            if kept.may_be_gone {
                fates.may_go(offset);
            }
        }
        // A control event goes with its segment, once all of that is dead.
        if fates.is_any_dead {
            for (offset, kept) in self.events[..end].iter().enumerate() {
                if !kept.event.kind.is_data() {
                    fates.may_go(offset);
                }
            }
        }
        fates
    }

    /// What the limit that holds from an event at `offset` on does not reach, and was read after that, stays: what
    /// was planned by a stricter one before lets nothing go any more.
    fn keep_what_was_read(
        &self,
        offset: usize,
        pattern: &str,
        limit: TopicRetention,
        of_topics: &BTreeMap<&str, Vec<usize>>,
        newest: &HashMap<(&str, &str), usize>,
        fates: &mut Fates,
    ) {
        let read_at = self.read_at.borrow();
        for (topic, all) in of_topics.iter().filter(|(topic, _)| covers(pattern, topic)) {
            let kept = limit.count.map_or(all.len(), to_usize).min(all.len());
            for at in &all[all.len() - kept..] {
                let key = self.events[*at].event.key.as_deref();
                let is_newest = key.is_none_or(|key| newest.get(&(*topic, key)) == Some(at));
                let was_read = read_at.get(at).is_some_and(|visible| *visible > offset);
                if was_read && (is_newest || !limit.latest_per_key) {
                    fates.stays(*at);
                }
            }
        }
    }

    /// Compares an event that was read with the one that was appended at that offset.
    pub fn check_event(&self, read: &EventView<'_>) {
        let offset = usize::try_from(read.offset().get()).expect("small");
        let kept = self.events.get(offset).unwrap_or_else(|| panic!("nobody appended {offset}"));
        let Kept { event, time_ms, .. } = kept;
        // The log adds to its settings what those before had let go.
        if event.kind != EventKind::LogSettings && !self.unread.contains_key(&offset) {
            assert_eq!(read.data(), &event.data[..], "data of {offset}");
        }
        assert_eq!(read.topic(), event.topic.as_str(), "topic of {offset}");
        let is_known = !self.unread.contains_key(&offset);
        assert!(read.time_ms() == *time_ms || !is_known, "time of {offset}");
        assert_eq!(read.event_type(), event.event_type.as_str(), "type of {offset}");
        assert_eq!(read.id(), event.id.as_deref(), "id of {offset}");
        assert_eq!(read.key(), event.key.as_deref(), "key of {offset}");
        assert_eq!(read.form(), event.form, "form of {offset}");
        assert_eq!(read.kind(), event.kind, "kind of {offset}");
        let content_type = match &*event.content_type {
            "" => NewEvent::JSON,
            other => other,
        };
        assert_eq!(read.content_type(), content_type, "content type of {offset}");
        let headers = event.headers.iter().map(|(name, value)| (&**name, &**value));
        assert!(read.headers().eq(headers), "headers of {offset}");
    }

    /// The offsets in `range` whose topics a query wants.
    pub fn wanted(&self, patterns: &[TopicPattern], range: Range<usize>) -> Vec<u64> {
        let wanted = |topic: &Topic| {
            patterns.is_empty() || patterns.iter().any(|pattern| pattern.matches(topic))
        };
        let offsets = range.filter(|offset| wanted(&self.events[*offset].event.topic));
        offsets.map(|offset| offset as u64).collect()
    }

    /// The offsets in `range` of the events of a topic.
    pub fn offsets_of(&self, topic: &str, range: Range<usize>) -> Vec<u64> {
        let of_topic = range.filter(|offset| self.events[*offset].event.topic.as_str() == topic);
        of_topic.map(|offset| offset as u64).collect()
    }

    /// The offsets below `end` of which a log may say that the first event from a time on has it.
    pub fn offsets_at_time(&self, time_ms: u64, end: usize, fates: &Fates) -> Vec<Option<Offset>> {
        let index = self.events[..end].partition_point(|kept| kept.time_ms < time_ms);
        let dead = (index..end).take_while(|offset| fates.of(*offset) != Fate::Stays).count();
        let offset = |index: usize| (index < end).then(|| Offset::new(index as u64));
        let mut offsets: Vec<_> = (index..=index + dead).map(offset).collect();
        if dead > 0 && index + dead == end {
            // Behind what is gone at the end of a segment, where a reader goes on all the same.
            offsets.push(Some(Offset::new(end as u64)));
        }
        offsets
    }

    /// The topics of the first `end` events, with count, first offset, last offset and last time.
    pub fn topics(&self, end: usize) -> Vec<(String, u64, u64, u64, u64)> {
        let mut topics = std::collections::BTreeMap::new();
        for (offset, kept) in (0_u64..).zip(&self.events[..end]) {
            let topic = kept.event.topic.as_str().to_owned();
            let entry = topics.entry(topic).or_insert((0, offset, offset, 0));
            (entry.0, entry.2, entry.3) = (entry.0 + 1, offset, kept.time_ms);
        }
        let flat = |(topic, (count, first, last, time))| (topic, count, first, last, time);
        topics.into_iter().map(flat).collect()
    }
}

/// What has become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It must be there.
    Stays,
    /// A limit of its topic reached it at some time: it may be there still, or be gone for ever. One that was read
    /// when a looser limit held stays as long as that reaches it not.
    MayGo,
    /// It was deleted or trimmed: nobody reads it again.
    Goes,
}

/// What has become of the first events.
#[derive(Debug)]
pub struct Fates {
    all: Vec<Fate>,
    is_any_dead: bool,
}

impl Fates {
    pub fn of(&self, offset: usize) -> Fate {
        self.all[offset]
    }

    fn goes(&mut self, offset: usize) {
        (self.all[offset], self.is_any_dead) = (Fate::Goes, true);
    }

    fn stays(&mut self, offset: usize) {
        if self.all[offset] == Fate::MayGo {
            self.all[offset] = Fate::Stays;
        }
    }

    fn may_go(&mut self, offset: usize) {
        self.is_any_dead = true;
        if self.all[offset] == Fate::Stays {
            self.all[offset] = Fate::MayGo;
        }
    }
}

fn covers(pattern: &str, topic: &str) -> bool {
    let topic = Topic::parse(topic).expect("a topic");
    TopicPattern::parse(pattern).expect("a pattern").matches(&topic)
}

pub fn to_usize(number: u64) -> usize {
    usize::try_from(number).expect("small")
}

/// A random thing to ask for.
pub fn patterns(rng: &mut SimRng) -> Vec<TopicPattern> {
    let texts = *rng.pick(&PATTERNS);
    texts.iter().map(|text| TopicPattern::parse(text).expect("a pattern")).collect()
}
