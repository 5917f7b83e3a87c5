//! The bytes of a snapshot.

use super::*;
use crate::once::ProducerEntry;

/// `STRANDLINE_BLESS=1` writes it anew: a difference is a new version of the format, or a mistake.
#[test]
fn the_bytes_of_a_snapshot_are_what_they_were() {
    let topic = |number, name, count, first, last| TopicAt {
        number: TopicNumber::new(number),
        name,
        count,
        first: Offset::new(first),
        last: Offset::new(last),
        first_time_ms: if count > 0 { 1_763_700_000_000 } else { 0 },
        last_time_ms: 1_763_700_001_000,
        is_lessened: number == 7,
    };
    let topics = [
        topic(0, "rooms/42/messages", 3, 4_711_000, 4_711_900),
        topic(1, "käse", 0, 17, 17),
        topic(7, "$log", 1, 4_711_500, 4_711_500),
    ];
    let mut encoded = Vec::new();
    for (topic, next) in topics.iter().zip([0, 1, 2]) {
        topics::encode(&mut encoded, topic, next);
    }
    let segment = |base, end, generation| LiveSegment {
        base: Offset::new(base),
        end: Offset::new(end),
        generation,
        incarnation: Incarnation::new([u8::try_from(generation).expect("small"); 16]),
    };
    let live = [segment(4_000_000, 4_500_000, 3), segment(4_600_000, 4_712_000, 1)];
    let (offset, time_ms) = (Offset::new(4_711_000), 1_763_700_000_000);
    let id = IdEntry { hash: [1, 2], fingerprint: 3, offset, time_ms };
    let producer =
        ProducerEntry { hash: [4, 5], epoch: 6, seq: 7, first: offset, events: 8, time_s: 9 };
    let mut rules = crate::rules::Rules::default();
    let retain = LogRetention { age_s: Some(3_600), bytes: None, count: Some(1_000_000) };
    let settings = TopicSettings::default();
    let rule = TopicRule { pattern: "rooms/**".into(), settings: Some(settings) };
    rules.apply(&Control::Log(LogSettings { retain }), offset);
    rules.apply(&Control::Topic(rule), offset);
    rules.apply(&Control::Deleted(TopicsDeleted::of(vec!["käse".into()])), offset);
    let kept_from = Offset::new(4_000_000);
    let stored = rules::StoredRules::of(&rules, kept_from);
    let (controls, floors) = stored.encode();
    let snapshot = Assembled {
        offset: Offset::new(4_712_000),
        kept_from,
        last_time_ms: 1_763_700_001_000,
        incarnation: Incarnation::new([7; 16]),
        topic_count: 3,
        sections: [
            segments::encode(&live).into(),
            encoded.into(),
            delta::encode_ids([id].iter(), Offset::ZERO).into(),
            delta::encode_producers([producer].into_iter()).into(),
            controls.into(),
            floors.into(),
        ],
    };
    let bytes = snapshot.assemble().to_vec();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/snapshot.bin");
    if std::env::var_os("STRANDLINE_BLESS").is_some() {
        std::fs::write(&path, &bytes).expect("the golden file is written");
    }
    let golden = std::fs::read(&path).expect("the golden file is there");
    assert!(golden == bytes, "{} bytes, golden {}", bytes.len(), golden.len());

    let mut snapshot = Snapshot::decode(&golden).expect("a snapshot");
    assert_eq!((snapshot.segments(), snapshot.header().kept_from), (&live[..], kept_from));
    let mut known = Vec::new();
    let walked = snapshot.for_each_topic(|topic| {
        known.push(format!("{topic:?}"));
        Ok::<(), SnapshotError>(())
    });
    assert_eq!((walked, known), (Ok(()), topics.map(|topic| format!("{topic:?}")).to_vec()));
    let window = crate::once::IdWindow { events: 10, time_ms: 1_000 };
    let mut state = LogState::new(window);
    snapshot.give_to(&mut state);
    assert_eq!(state.ids.iter().collect::<Vec<_>>(), [&id]);
    assert_eq!(state.producers.iter().collect::<Vec<_>>(), [producer]);
    assert_eq!((state.rules.log().retain, state.rules.floors().of("käse")), (retain, offset));
    assert_eq!(state.rules.floors().said_at("käse"), offset);
    assert_eq!(state.rules.set_for("rooms/**"), Some(&settings));
}
