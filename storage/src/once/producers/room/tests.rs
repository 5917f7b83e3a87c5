use std::collections::{HashMap, VecDeque};

use proptest::prelude::*;

use super::*;
use crate::once::{PRODUCERS_MAX, ProducerEntry, hash_name};

const BEGIN_S: u32 = 1_000;
const LATER_S: u32 = BEGIN_S + FORGOTTEN_S;

fn entry(hash: NameHash, first: u64, time_s: u32) -> ProducerEntry {
    ProducerEntry { hash, epoch: 0, seq: 0, first: Offset::new(first), events: 1, time_s }
}

/// A million that are known by their numbers, the number of each of which is the offset of its append.
fn full() -> Producers {
    let mut producers = Producers::default();
    for number in 0..PRODUCERS_MAX as u64 {
        producers.put(entry(hash_name(&number.to_string()), number, BEGIN_S));
    }
    producers
}

/// Another one, which appends behind all of those; or why not.
fn come(
    producers: &mut Producers,
    name: &str,
    number: u64,
    unsealed: Offset,
) -> Result<(), AppendError> {
    let hash = hash_name(name);
    producers.make_room(&hash, LATER_S, unsealed)?;
    producers.stage(entry(hash, PRODUCERS_MAX as u64 + number, LATER_S));
    Ok(())
}

#[test]
fn a_million_producers_take_58_mb_and_so_they_do_once_others_have_come() {
    let mut producers = full();
    assert!(producers.memory_bytes() < 58_000_000, "{}", producers.memory_bytes());
    let (hash, none) = (hash_name("one more"), Offset::MAX);
    assert!(producers.make_room(&hash, BEGIN_S, none).is_err());
    for number in 0..PRODUCERS_MAX as u64 {
        come(&mut producers, &format!("new {number}"), number, none).expect("all are silent");
        producers.settle(Offset::MAX);
    }
    assert!(producers.iter().all(|known| known.time_s == LATER_S));
    assert!(producers.memory_bytes() < 58_500_000, "{}", producers.memory_bytes());
}

#[test]
fn those_that_are_forgotten_go_some_at_a_time() {
    let mut producers = full();
    for turn in 1..4 {
        let name = format!("new {turn}");
        while producers.len() < PRODUCERS_MAX {
            let number = producers.len() as u64;
            come(&mut producers, &format!("beside {turn} {number}"), number, Offset::MAX)
                .expect("there is room");
        }
        come(&mut producers, &name, 0, Offset::MAX).expect("all are silent");
        assert_eq!(producers.len(), PRODUCERS_MAX + 1 - AT_ONCE as usize, "{name}");
    }
}

#[test]
fn who_may_be_named_in_an_unsealed_segment_keeps_its_number() {
    let mut producers = full();
    let unsealed = Offset::new(400_000);
    let known = hash_name("400000");
    let number = producers.numbers.find(&known);

    // As many as ever are remembered beside them, and not one more.
    for number in 0..PRODUCERS_MAX as u64 {
        come(&mut producers, &format!("new {number}"), number, unsealed).expect("there is room");
    }
    assert_eq!(producers.len(), PRODUCERS_MAX + 600_000);
    let more = hash_name("one more");
    assert!(producers.make_room(&more, LATER_S, unsealed).is_err());
    assert!(number.is_some() && producers.numbers.find(&hash_name("399999")).is_none());
    assert_eq!(producers.numbers.find(&known), number);
    let last = hash_name("new 999999");
    assert_eq!(producers.make_room(&last, LATER_S, unsealed), Ok(()), "it is there");
    // Once it is sealed they go, and do not make room: nobody else can be forgotten.
    while producers.len() > PRODUCERS_MAX {
        let len = producers.len();
        assert!(producers.make_room(&more, LATER_S, Offset::new(1_000_000)).is_err());
        assert!((1..=AT_ONCE as usize).contains(&(len - producers.len())));
    }
    assert!(producers.get(&known).is_none() && producers.get(&last).is_some());
    let found = producers.iter().filter(|entry| entry.time_s == LATER_S).count();
    assert_eq!(found, PRODUCERS_MAX);
}

#[test]
fn who_comes_back_is_one_of_the_million() {
    let mut producers = full();
    let unsealed = Offset::new(999_990);
    for number in 0..5 {
        come(&mut producers, &format!("{}", 999_990 + number), number, unsealed).expect("room");
    }
    for number in 5..1_000_000 {
        come(&mut producers, &format!("new {number}"), number, unsealed).expect("room");
    }
    // Five of those that came had been known by their numbers, and five more still are.
    assert!(come(&mut producers, "one more", 1_000_000, unsealed).is_err());
    assert!(come(&mut producers, "999997", 1_000_000, unsealed).is_err());
    assert_eq!(producers.remembered(), PRODUCERS_MAX);
}

#[test]
fn what_is_taken_back_makes_room_though_others_were_refused_before() {
    let mut producers = full();
    let unsealed = Offset::new(999_999);
    for number in 0..1_000_000 {
        come(&mut producers, &format!("new {number}"), number, unsealed).expect("room");
    }
    assert!(come(&mut producers, "one more", 1_000_000, unsealed).is_err());
    producers.take_back(Offset::new(1_999_999));
    let sealed = Offset::new(1_000_000);
    assert_eq!(come(&mut producers, "one more", 1_000_000, sealed), Ok(()));
}

#[test]
fn who_is_silent_again_because_an_append_was_taken_back_gives_its_number_back() {
    let mut producers = Producers { producers_max: 2, ..Producers::default() };
    for (name, first) in [("sealed", 0), ("named", 5)] {
        producers.put(entry(hash_name(name), first, BEGIN_S));
    }
    let unsealed = Offset::new(5);
    let append = |producers: &mut Producers, name: &str, first| {
        let hash = hash_name(name);
        producers.make_room(&hash, LATER_S, unsealed)?;
        producers.stage(entry(hash, first, LATER_S));
        Ok::<_, AppendError>(producers.len())
    };
    assert_eq!(append(&mut producers, "sealed", 6), Ok(2), "it has its number already");
    assert_eq!(append(&mut producers, "new", 7), Ok(3), "nobody can give a number back");
    assert!(append(&mut producers, "newer", 8).is_err());
    producers.take_back(Offset::new(6));
    assert_eq!(append(&mut producers, "newer", 6), Ok(2), "it has the number of one that can");
}

/// What happens to producers.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// One of the names appends.
    Append(u64),
    /// Time passes, in halves of what is forgotten and seconds beside.
    Wait(u32, u32),
    /// So many of the staged appends are durable.
    Settle(usize),
    /// So many are taken back.
    TakeBack(usize),
    /// What is durable is sealed.
    Seal,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..12).prop_map(Step::Append),
        2 => (0_u32..3, 0_u32..3).prop_map(|(halves, seconds)| Step::Wait(halves, seconds)),
        2 => (0_usize..4).prop_map(Step::Settle),
        1 => (0_usize..4).prop_map(Step::TakeBack),
        1 => Just(Step::Seal),
    ]
}

/// The last append of a name: its offset and its time.
type LastOf = HashMap<u64, (u64, u32)>;

/// An interpreter takes hours for so many.
const CASES: u32 = if cfg!(miri) { 4 } else { 1_000 };

proptest! {
    #![proptest_config(ProptestConfig::with_cases(CASES))]

    /// As many as may be are remembered, whoever comes back and whatever is taken back, and numbers stay as long as they
    /// may be named.
    #[test]
    fn newcomers_are_refused_where_as_many_are_remembered(
        steps in prop::collection::vec(step(), 0..200),
    ) {
        const MAX: usize = 4;
        let mut producers = Producers { producers_max: MAX, ..Producers::default() };
        let (mut lasts, mut numbers) = (LastOf::new(), HashMap::new());
        let mut staged: VecDeque<(u64, Option<(u64, u32)>)> = VecDeque::new();
        let (mut next, mut now_s, mut unsealed) = (0, BEGIN_S, 0);
        for step in steps {
            match step {
                Step::Append(name) => {
                    let hash = hash_name(&name.to_string());
                    let others = lasts.iter().filter(|(other, (_, time_s))| {
                        **other != name && now_s < time_s + FORGOTTEN_S
                    });
                    let has_room = others.count() < MAX;
                    let is_known = producers.numbers.find(&hash).is_some();
                    let room = producers.make_room(&hash, now_s, Offset::new(unsealed));
                    prop_assert_eq!(room.is_ok(), has_room, "{} at {}: {:?}", name, now_s, &lasts);
                    if !has_room {
                        continue;
                    }
                    producers.stage(entry(hash, next, now_s));
                    numbers.insert(name, producers.numbers.find(&hash));
                    staged.push_back((name, lasts.insert(name, (next, now_s))));
                    next += 1;
                    let named = lasts.values().filter(|(first, _)| *first >= unsealed).count();
                    prop_assert!(is_known || producers.len() <= MAX + named, "{} known", producers.len());
                }
                Step::Wait(halves, seconds) => now_s += halves * FORGOTTEN_S / 2 + seconds,
                Step::Settle(count) => {
                    drop(staged.drain(..count.min(staged.len())));
                    producers.settle(Offset::new(next - staged.len() as u64));
                }
                Step::TakeBack(count) => {
                    for _ in 0..count.min(staged.len()) {
                        next -= 1;
                        match staged.pop_back().expect("counted") {
                            (name, Some(before)) => drop(lasts.insert(name, before)),
                            (name, None) => drop(lasts.remove(&name)),
                        }
                    }
                    producers.take_back(Offset::new(next));
                }
                Step::Seal => unsealed = next - staged.len() as u64,
            }
            let silent = producers.lasts.iter().filter(|last| producers.silent.has(last)).count();
            prop_assert_eq!(silent, producers.silent.count);
            for (name, (first, time_s)) in &lasts {
                let hash = hash_name(&name.to_string());
                if *first >= unsealed {
                    prop_assert_eq!(producers.numbers.find(&hash), numbers[name], "{}", name);
                }
                if now_s < time_s + FORGOTTEN_S {
                    let known = producers.get(&hash).map(|known| known.first.get());
                    prop_assert_eq!(known, Some(*first), "{}", name);
                }
            }
        }
    }
}
