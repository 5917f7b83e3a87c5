use std::collections::HashSet;

use bytes::Bytes;
use proptest::prelude::*;
use strandline_storage::{
    event::{DataForm, EventId, EventKey, EventType, NewEvent},
    frame::Frame,
};

use super::{
    condition::{Literal, Op, Relation, Test},
    decimal::Decimal,
    field::Field,
    *,
};
use crate::{event_json::sample, timestamp::Instant};

fn json_event(data: &str) -> NewEvent {
    NewEvent {
        event_type: EventType::parse("trade").unwrap(),
        key: Some(EventKey::parse("k1").unwrap()),
        id: Some(EventId::parse("i1").unwrap()),
        headers: vec![("trace-id".into(), "abc".into()), ("empty".into(), "".into())],
        ..sample::json("market/acme", Bytes::copy_from_slice(data.as_bytes()))
    }
}

/// 2025-11-21T04:40:00.007Z
const TIME_MS: u64 = 1_763_700_000_007;

fn frame_of(event: NewEvent) -> Frame {
    sample::frame(0, TIME_MS, vec![event])
}

fn filter(conditions: Vec<Condition>) -> Option<Filter> {
    Filter::new(conditions).unwrap()
}

fn matches(text: &str, frame: &Frame) -> bool {
    let condition = parse_text(text).expect(text);
    let event = frame.event(0);
    let is_met = filter(vec![condition.clone()]).is_none_or(|filter| filter.matches(&event));
    assert_eq!(is_met, model::holds(&condition, &event), "the model of {text}");
    is_met
}

fn check(data: &str, expected: &[(&str, bool)]) {
    let frame = frame_of(json_event(data));
    for (text, is_met) in expected {
        assert_eq!(matches(text, &frame), *is_met, "{text} on {data}");
    }
}

/// API §6: "numbers compare as exact decimals", "an absent field or different types make a comparison
/// false", "`exists` is true for null", "`contains` is substring or element".
#[test]
fn comparisons() {
    check(
        r#"{"price":0.10,"huge":1e400,"long":123456789012345678901234567890,"name":"pr\u0069ce €","none":null,
            "yes":true,"tags":["a","b",1.0,null,{"x":1}],"deep":{"list":[{"x":5}]}}"#,
        &[
            ("data.price == 0.1", true),
            ("data.price == 1e-1", true),
            ("data.price > 0.1", false),
            ("data.price >= 0.1", true),
            ("data.price < 0.1000000000000000055511151231257827", true),
            ("data.price != 0.1", false),
            ("data.price != 2", true),
            ("data.huge > 9e399", true),
            ("data.huge == 10e399", true),
            ("data.long < 123456789012345678901234567891", true),
            ("data.long == 123456789012345678901234567891", false),
            ("data.price == \"0.10\"", false),
            ("data.price != \"0.10\"", false),
            ("not data.price == \"0.10\"", true),
            ("data.name == \"price €\"", true),
            ("data.name > \"pric\"", true),
            ("data.name < \"pricf\"", true),
            ("data.name prefix \"pri\"", true),
            ("data.name suffix \"€\"", true),
            ("data.name contains \"ice\"", true),
            ("data.name contains \"u0069\"", false),
            ("data.name contains \"\"", true),
            ("data.name prefix \"rice\"", false),
            ("data.none exists", true),
            ("data.none == null", true),
            ("data.none != null", false),
            ("data.none != 1", false),
            ("data.absent exists", false),
            ("data.absent == null", false),
            ("data.absent != 1", false),
            ("not data.absent == 1", true),
            ("data.yes == true", true),
            ("data.yes != false", true),
            ("data.yes == 1", false),
            ("data.tags contains \"a\"", true),
            ("data.tags contains 1", true),
            ("data.tags contains null", true),
            ("data.tags contains \"c\"", false),
            ("data.tags contains true", false),
            ("data.tags == \"a\"", false),
            ("data.tags prefix \"[\"", false),
            ("data.tags.1 == \"b\"", true),
            ("data.tags.01 == \"b\"", false),
            ("data.tags.5 exists", false),
            ("data.tags.x exists", false),
            ("data.deep.list.0.x == 5", true),
            ("data.deep exists and data.deep.list exists and data.deep.list.0.x > 4", true),
            ("data.price in [\"0.1\", 0.1, 5]", true),
            ("data.price in [\"0.1\", 5]", false),
            ("data.name in [null, 1, \"price €\"]", true),
            ("data.none in [1, null]", true),
            ("data.deep in [1, null]", false),
            ("data.price in []", false),
            ("data exists", true),
            ("data contains \"price\"", false),
            ("data == null", false),
        ],
    );
    check(
        " [1, \"a\"] ",
        &[("data contains 1", true), ("data.1 == \"a\"", true), ("data.0.x exists", false)],
    );
    check(" 5 ", &[("data == 5", true), ("data > 4.9", true), ("data.x exists", false)]);
    check("\"\\\"\"", &[("data == \"\\\"\"", true), ("data contains \"\\\\\"", false)]);
}

#[test]
fn what_is_beside_the_data() {
    check(
        "{}",
        &[
            ("topic == \"market/acme\"", true),
            ("topic prefix \"market/\"", true),
            ("topic suffix \"acme\" and topic contains \"et/a\"", true),
            ("topic == 5", false),
            ("type in [\"quote\", \"trade\"]", true),
            ("key == \"k1\" and id == \"i1\"", true),
            ("key > \"k0\"", true),
            ("headers.Trace-ID == \"abc\"", true),
            ("exists headers.empty", true),
            ("exists headers.absent", false),
            ("topic exists and type exists and time exists", true),
            ("time == \"2025-11-21T04:40:00.007Z\"", true),
            ("time == \"2025-11-21T05:40:00.0070+01:00\"", true),
            ("time > \"2025-11-21T04:40:00.0069Z\"", true),
            ("time < \"2025-11-21T04:40:00.0071Z\"", true),
            ("time == \"2025-11-21T04:40:00.0071Z\"", false),
            ("time != \"2025-11-21T04:40:00.0071Z\"", true),
            ("time >= \"2025-11-21T05:40:00+01:00\" and time < \"2026-01-01T00:00:00Z\"", true),
            ("time in [\"2025-11-21T04:40:00.007Z\", \"1969-01-01T00:00:00Z\"]", true),
        ],
    );
    let bare = frame_of(sample::json("a", Bytes::from_static(b"1")));
    assert!(!matches("exists key", &bare) && !matches("id exists", &bare));
    assert!(matches("type == \"message\"", &bare));
}

/// API §6: "data that is not JSON has no `data`".
#[test]
fn data_that_is_not_json_has_no_data() {
    for form in [DataForm::Text, DataForm::Binary] {
        let event = NewEvent { form, content_type: "text/plain".into(), ..json_event("{\"a\":1}") };
        let frame = frame_of(event);
        assert!(!matches("exists data", &frame) && !matches("data.a == 1", &frame));
        assert!(matches("not data.a == 1 and type == \"trade\"", &frame));
    }
}

/// Like JavaScript's `JSON.parse` and every client that builds an object.
#[test]
fn the_last_of_a_repeated_name_counts() {
    check(r#"{"a":1,"a":2}"#, &[("data.a == 2", true), ("data.a == 1", false)]);
    check(r#"{"a":1,"\u0061":2,"b":3}"#, &[("data.a == 2 and data.b == 3", true)]);
    check(
        r#"{"a":{"x":1,"y":1},"a":{"y":2}}"#,
        &[("data.a.x exists", false), ("data.a.y == 2", true)],
    );
    check(r#"{"a":{"x":1},"a":5}"#, &[("data.a.x exists", false), ("data.a == 5", true)]);
    check(r#"{"a":5,"a":{"x":1}}"#, &[("data.a.x == 1", true), ("data.a == 5", false)]);
}

#[test]
fn half_a_surrogate_pair_is_a_string_that_equals_nothing() {
    check(
        r#"{"a":"x\ud800y","\ud800":1,"b":"\ud83d\ude00"}"#,
        &[
            ("data.a != \"xy\"", true),
            ("data.a prefix \"x\"", true),
            ("data.a > \"x\u{d7ff}\" and data.a < \"x\u{e000}\"", true),
            ("data.b == \"😀\"", true),
        ],
    );
}

/// Only a mistake of ours or a forged file could hold such an event; it must do no harm.
#[test]
fn json_that_is_none_has_no_data() {
    for data in ["", "{", "{\"a\":1", "{\"a\":1]", "nope", "{\"a\"}", "\"", "\u{1}"] {
        let frame = frame_of(json_event(data));
        let event = frame.event(0);
        let condition = parse_text("data.a == 1 or data.b exists").unwrap();
        assert!(!filter(vec![condition]).unwrap().matches(&event), "{data}");
    }
}

#[test]
fn spelling_does_not_make_another_filter() {
    let same = [
        r#"{"all":[{"field":"data.price","op":"gt","value":100},{"field":"type","op":"eq","value":"trade"}]}"#,
        r#"{"all":[{"op":"eq","field":["type"],"value":"tr\u0061de"},{"field":"data.price","op":"gt","value":1e2}]}"#,
        r#"{"not":{"any":[{"not":{"field":"data.price","op":"gt","value":100.0}},{"not":{"field":"type","op":"in","value":["trade","trade"]}},{"any":[]}]}}"#,
    ];
    let text = "type == \"trade\" and (data.price > 100 and data.price > 10e1)";
    let mut all: HashSet<Filter> = HashSet::new();
    for json in same {
        all.insert(filter(vec![parse_json(json).unwrap()]).unwrap());
    }
    all.insert(filter(vec![parse_text(text).unwrap()]).unwrap());
    let (price, trade) =
        ("data.price > 100", "{\"field\":\"type\",\"op\":\"eq\",\"value\":\"trade\"}");
    let both = vec![parse_text(price).unwrap(), parse_json(trade).unwrap()];
    all.insert(filter(both).unwrap());
    assert_eq!(all.len(), 1, "{all:?}");
    all.insert(filter(vec![parse_text(price).unwrap()]).unwrap());
    assert_eq!(all.len(), 2);
}

#[test]
fn what_matches_all_is_no_filter() {
    for json in ["{}", r#"{"all":[]}"#, r#"{"all":[{},{"all":[{}]}]}"#, r#"{"not":{"any":[]}}"#] {
        assert_eq!(filter(vec![parse_json(json).unwrap()]), None, "{json}");
    }
    assert_eq!(filter(vec![]), None);
    assert!(filter(vec![parse_json(r#"{"any":[]}"#).unwrap()]).is_some(), "nothing matches");
}

#[test]
fn equal_filters_share_memory_and_are_forgotten_with_their_last_owner() {
    let make = |text: &str| filter(vec![parse_text(text).unwrap()]).unwrap();
    let known = || KNOWN.with(|known| known.filters.borrow().len());
    assert_eq!(known(), 0);
    let (one, two) = (make("data.a == 1"), make("data.a in [1.0]"));
    assert!(Rc::ptr_eq(&one.0, &two.0));
    let other = make("data.a == 2");
    assert_eq!(known(), 2);
    drop(one);
    assert_eq!(known(), 2);
    drop((two, other));
    assert_eq!(known(), 0);
}

#[test]
fn filter_and_where_share_the_limit() {
    let many = |from: usize| {
        let tests = (from..from + 20).map(|index| format!("data.a == {index}"));
        parse_text(&tests.collect::<Vec<_>>().join(" or ")).unwrap()
    };
    let error = Filter::new(vec![many(0), many(20)]).unwrap_err();
    assert_eq!(error.to_string(), "have 40 comparisons together, more than 32");
    assert!(Filter::new(vec![many(0), many(0)]).is_ok(), "the same twice is the same");
}

const NAMES: [&str; 5] = ["a", "b", "0", "1", "a.b"];
const NUMBERS: [&str; 8] = ["0", "1", "1.0", "10e-1", "-1", "1e400", "0.1", "2"];
const TEXTS: [&str; 6] = ["", "a", "ab", "b", "é\"\\\n", "k1"];

fn any_name() -> impl Strategy<Value = Box<str>> {
    prop::sample::select(&NAMES[..]).prop_map(Box::from)
}

fn any_literal() -> impl Strategy<Value = Literal> {
    prop_oneof![
        Just(Literal::Null),
        any::<bool>().prop_map(Literal::Bool),
        prop::sample::select(&NUMBERS[..])
            .prop_map(|number| Literal::Number(Decimal::parse(number).unwrap())),
        any_text().prop_map(Literal::Text),
    ]
}

fn any_text() -> impl Strategy<Value = Box<str>> {
    prop::sample::select(&TEXTS[..]).prop_map(Box::from)
}

fn any_op() -> impl Strategy<Value = Op> {
    let equality = prop::sample::select(vec![Relation::Equal, Relation::Unequal]);
    let order = prop::sample::select(vec![
        Relation::Greater,
        Relation::GreaterOrEqual,
        Relation::Less,
        Relation::LessOrEqual,
    ]);
    let ordered = any_literal()
        .prop_filter("has order", |literal| !matches!(literal, Literal::Null | Literal::Bool(_)));
    prop_oneof![
        Just(Op::Exists),
        (equality, any_literal()).prop_map(|(relation, literal)| Op::Is(relation, literal)),
        (order, ordered).prop_map(|(relation, literal)| Op::Is(relation, literal)),
        prop::collection::vec(any_literal(), 0..4).prop_map(|literals| Test::is_in(
            Field::Key,
            literals
        )
        .op),
        any_text().prop_map(Op::Prefix),
        any_text().prop_map(Op::Suffix),
        any_literal().prop_map(Op::Contains),
    ]
}

fn any_test() -> impl Strategy<Value = Condition> {
    let data = prop::collection::vec(any_name(), 0..3)
        .prop_map(|path| Field::Data(path.into_boxed_slice()));
    let field = prop_oneof![
        8 => data,
        1 => prop::sample::select(vec![Field::Topic, Field::Type, Field::Key, Field::Id]),
        1 => Just(Field::Header("empty".into())),
    ];
    prop_oneof![
        9 => (field, any_op()).prop_map(|(field, op)| Condition::Test(Test { field, op })),
        1 => (-2i64..3, any::<bool>()).prop_map(|(shift_ms, is_later)| {
            let ms = i64::try_from(TIME_MS).unwrap() + shift_ms;
            let literal = Literal::Time(Instant { ms, is_later });
            let op = Op::Is(Relation::LessOrEqual, literal);
            Condition::Test(Test { field: Field::Time, op })
        }),
    ]
}

/// Groups of at least `least` members; two have a spelling as text.
fn any_condition(least: usize) -> impl Strategy<Value = Condition> {
    any_test().prop_recursive(3, 16, 3, move |inner| {
        let group = prop::collection::vec(inner.clone(), least..4);
        prop_oneof![
            group.clone().prop_map(Condition::All),
            group.prop_map(Condition::Any),
            inner.prop_map(|inner| Condition::Not(Box::new(inner))),
        ]
    })
}

fn any_data() -> impl Strategy<Value = String> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        prop::sample::select(&NUMBERS[..]).prop_map(str::to_owned),
        Just("123456789012345678901234567890".to_owned()),
        any_text().prop_map(|text| serde_json::to_string(&text).unwrap()),
        Just("\"\\u0061b\"".to_owned()),
        Just("\"\\ud800\"".to_owned()),
    ];
    scalar.prop_recursive(3, 20, 4, |inner| {
        let name = prop_oneof![any_name().prop_map(String::from), Just("\\u0061".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4)
                .prop_map(|elements| format!("[{}]", elements.join(" , "))),
            prop::collection::vec((name, inner), 0..5).prop_map(|members| {
                let members: Vec<String> =
                    members.iter().map(|(name, value)| format!("\"{name}\": {value}")).collect();
                format!("{{ {} }}", members.join(","))
            }),
        ]
    })
}

/// Writes the same condition another way.
fn scramble(condition: Condition, random: &mut impl FnMut(usize) -> usize) -> Condition {
    let same = match condition {
        Condition::Test(_) => condition,
        Condition::Not(inner) => Condition::Not(Box::new(scramble(*inner, random))),
        Condition::All(inner) => Condition::All(scramble_group(inner, random)),
        Condition::Any(inner) => Condition::Any(scramble_group(inner, random)),
    };
    match random(4) {
        0 => Condition::Not(Box::new(Condition::Not(Box::new(same)))),
        1 => Condition::All(vec![same, Condition::always()]),
        2 => Condition::Any(vec![same.clone(), same]),
        _ => same,
    }
}

fn scramble_group(
    inner: Vec<Condition>,
    random: &mut impl FnMut(usize) -> usize,
) -> Vec<Condition> {
    let mut inner: Vec<_> =
        inner.into_iter().map(|condition| scramble(condition, random)).collect();
    for last in (1..inner.len()).rev() {
        inner.swap(last, random(last + 1));
    }
    inner
}

proptest! {
    /// Both spellings of a random filter are that filter, and it evaluates as the model does.
    #[test]
    fn spellings_agree_with_each_other_and_with_the_model(
        condition in any_condition(2),
        data in prop::collection::vec(any_data(), 1..6),
    ) {
        prop_assert_eq!(parse_json(&model::to_json(&condition)), Ok(condition.clone()));
        prop_assert_eq!(parse_text(&model::to_text(&condition)), Ok(condition.clone()));
        let made = filter(vec![condition.clone()]);
        for data in data {
            let frame = frame_of(json_event(&data));
            let event = frame.event(0);
            let expected = model::holds(&condition, &event);
            let is_met = made.as_ref().is_none_or(|filter| filter.matches(&event));
            prop_assert_eq!(is_met, expected, "{:?} on {}", condition, data);
        }
    }

    /// The canonical form means the same, is its own canonical form, and is that of every other way to
    /// write it.
    #[test]
    fn canonical_forms(
        condition in any_condition(0),
        data in any_data(),
        choices in prop::collection::vec(any::<usize>(), 1..50),
    ) {
        let frame = frame_of(json_event(&data));
        let canonical = condition.clone().canonical();
        let event = frame.event(0);
        prop_assert_eq!(model::holds(&condition, &event), model::holds(&canonical, &event));
        prop_assert_eq!(&canonical.clone().canonical(), &canonical);
        let mut choices = choices.into_iter().cycle();
        let mut random = |end: usize| choices.next().unwrap() % end;
        let scrambled = scramble(condition, &mut random);
        prop_assert_eq!(scrambled.canonical(), canonical);
    }

    #[test]
    fn any_text_is_a_filter_or_refused(text in "[\\[\\](){}\",.=<>!adtnorie01 ]{0,40}") {
        let _ = (parse_text(&text), parse_json(&text));
    }
}
