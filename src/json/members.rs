//! The members of one JSON object, by name, as the bytes they came with.
//!
//! An object that a request carries has a fixed set of members. Reading it fills one slot for each
//! and allocates nothing; the first member that is unknown or comes twice is remembered while the
//! rest is still read, so that an answer can name both the fault and the object's `id`.

use std::{borrow::Cow, fmt};

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::check::{JsonError, syntax_error};
use crate::input::quoted;

/// The members of an object; `N` names are known.
#[derive(Debug)]
pub struct Members<'a, const N: usize> {
    names: &'static [&'static str; N],
    values: [Option<&'a RawValue>; N],
    fault: Option<String>,
}

impl<'a, const N: usize> Members<'a, N> {
    /// Reads `text`, which must be one object and nothing else.
    pub fn parse(
        text: &'a str,
        names: &'static [&'static str; N],
    ) -> Result<Members<'a, N>, JsonError> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let members = MembersSeed { names }.deserialize(&mut parser);
        members
            .and_then(|members| parser.end().map(|()| members))
            .map_err(|error| syntax_error(text, &error))
    }

    /// Reads `text`, which must be an array of objects, and hands each to `each` with its place,
    /// from 0. Stops at the first error of `each` and returns it inside.
    pub fn parse_array<E>(
        text: &'a str,
        names: &'static [&'static str; N],
        each: impl FnMut(usize, Members<'a, N>) -> Result<(), E>,
    ) -> Result<Result<(), E>, JsonError> {
        let mut parser = serde_json::Deserializer::from_str(text);
        let mut stopped = None;
        let array = ArraySeed { names, each, stopped: &mut stopped };
        let end = (&mut parser).deserialize_seq(array).and_then(|()| parser.end());
        match (stopped, end) {
            (Some(error), _) => Ok(Err(error)),
            (None, Ok(())) => Ok(Ok(())),
            (None, Err(error)) => Err(syntax_error(text, &error)),
        }
    }

    /// What is wrong with the first member that is unknown or repeated.
    pub fn fault(&self) -> Option<&str> {
        self.fault.as_deref()
    }

    /// The value of a known member, as its bytes stand.
    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        let slot = self.names.iter().position(|known| *known == name);
        self.values[slot.expect("only known members are asked for")]
    }

    /// The first member that is there and not among `names`.
    pub fn first_outside(&self, names: &[&str]) -> Option<&'static str> {
        let present = self.names.iter().zip(&self.values).filter(|(_, value)| value.is_some());
        present.map(|(name, _)| *name).find(|name| !names.contains(name))
    }
}

/// The characters of a JSON string; `None` if the value is not one, or holds half a surrogate pair.
pub fn string(value: &RawValue) -> Option<Cow<'_, str>> {
    let inner = value.get().strip_prefix('"')?.strip_suffix('"')?;
    if memchr::memchr(b'\\', inner.as_bytes()).is_none() {
        return Some(Cow::Borrowed(inner));
    }
    serde_json::from_str(value.get()).ok().map(Cow::Owned)
}

/// Calls `each` with every member of an object, in order; `None` if the value is no object or a
/// name holds half a surrogate pair, else what `each` returned last.
pub fn for_each_member<'a, E>(
    value: &'a RawValue,
    each: impl FnMut(&str, &'a RawValue) -> Result<(), E>,
) -> Option<Result<(), E>> {
    struct Each<'e, E, F> {
        each: F,
        stopped: &'e mut Option<E>,
    }

    impl<'de, E, F: FnMut(&str, &'de RawValue) -> Result<(), E>> Visitor<'de> for Each<'_, E, F> {
        type Value = ();

        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
            while let Some(name) = map.next_key_seed(NameSeed)? {
                if let Err(error) = (self.each)(&name, map.next_value()?) {
                    *self.stopped = Some(error);
                    return Err(serde::de::Error::custom("stopped"));
                }
            }
            Ok(())
        }
    }

    let mut stopped = None;
    let mut parser = serde_json::Deserializer::from_str(value.get());
    let end = (&mut parser).deserialize_map(Each { each, stopped: &mut stopped });
    match (stopped, end) {
        (Some(error), _) => Some(Err(error)),
        (None, Ok(())) => Some(Ok(())),
        (None, Err(_)) => None,
    }
}

/// The elements of an array, as their bytes stand; `None` if the value is no array.
pub fn elements(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// A member's name, borrowed if it has no escapes.
struct NameSeed;

impl<'de> DeserializeSeed<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for NameSeed {
    type Value = Cow<'de, str>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a member's name")
    }

    fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
        Ok(Cow::Borrowed(name))
    }

    fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
        Ok(Cow::Owned(name.to_owned()))
    }
}

struct MembersSeed<const N: usize> {
    names: &'static [&'static str; N],
}

impl<'de, const N: usize> DeserializeSeed<'de> for MembersSeed<N> {
    type Value = Members<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, parser: D) -> Result<Self::Value, D::Error> {
        parser.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for MembersSeed<N> {
    type Value = Members<'de, N>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Members { names: self.names, values: [None; N], fault: None };
        while let Some(name) = map.next_key_seed(NameSeed)? {
            let value: &'de RawValue = map.next_value()?;
            let fault = match self.names.iter().position(|known| *known == name) {
                Some(slot) => match members.values[slot].replace(value) {
                    None => continue,
                    Some(_) => format!("member {} is given twice", quoted(&name)),
                },
                None => format!("unknown member {}", quoted(&name)),
            };
            members.fault.get_or_insert(fault);
        }
        Ok(members)
    }
}

struct ArraySeed<'s, const N: usize, E, F> {
    names: &'static [&'static str; N],
    each: F,
    stopped: &'s mut Option<E>,
}

impl<'de, const N: usize, E, F> Visitor<'de> for ArraySeed<'_, N, E, F>
where
    F: FnMut(usize, Members<'de, N>) -> Result<(), E>,
{
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array of objects")
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        let mut index = 0;
        while let Some(members) = elements.next_element_seed(MembersSeed { names: self.names })? {
            if let Err(error) = (self.each)(index, members) {
                *self.stopped = Some(error);
                return Err(serde::de::Error::custom("stopped"));
            }
            index += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    static NAMES: [&str; 2] = ["id", "data"];

    fn parse(text: &str) -> Members<'_, 2> {
        Members::parse(text, &NAMES).unwrap()
    }

    #[test]
    fn values_keep_their_bytes() {
        let members = parse("{ \"data\" : {\"b\": 1.50,\n \"a\":[ ]} , \"i\\u0064\":\"x\" }");
        assert_eq!(members.get("data").unwrap().get(), "{\"b\": 1.50,\n \"a\":[ ]}");
        assert_eq!(string(members.get("id").unwrap()).unwrap(), "x");
        assert_eq!(members.fault(), None);
        assert_eq!(members.first_outside(&["id"]), Some("data"));
        assert_eq!(members.first_outside(&["id", "data"]), None);
    }

    #[test]
    fn the_first_fault_is_named_and_the_rest_still_read() {
        let members = parse("{\"dat\":1,\"dat\":2,\"data\":1,\"data\":2,\"id\":7}");
        assert_eq!(members.fault(), Some("unknown member \"dat\""));
        assert_eq!(members.get("id").unwrap().get(), "7");
        let members = parse("{\"data\":1,\"d\\u0061ta\":2}");
        assert_eq!(members.fault(), Some("member \"data\" is given twice"));
    }

    #[test]
    fn what_is_not_an_object_is_refused() {
        for text in ["", "1", "[]", "\"a\"", "null", "{", "{\"id\":1} x", "{\"id\":1}{}", "{1:2}"] {
            assert!(Members::parse(text, &NAMES).is_err(), "{text}");
        }
        let deep = format!("{{\"data\":{}1{}}}", "[".repeat(9999), "]".repeat(9999));
        assert!(Members::parse(&deep, &NAMES).is_ok(), "no stack of ours grows");
    }

    #[test]
    fn arrays_are_handed_over_one_by_one() {
        let mut ids = Vec::new();
        let text = " [{\"id\":1}, {\"id\":2} ,{}] ";
        let end = Members::parse_array(text, &NAMES, |index, members| {
            ids.push((index, members.get("id").map(|id| id.get().to_owned())));
            Ok::<(), ()>(())
        });
        assert_eq!(end, Ok(Ok(())));
        assert_eq!(ids, [(0, Some("1".into())), (1, Some("2".into())), (2, None)]);
        let stop = Members::parse_array(text, &NAMES, |index, _| Err(index));
        assert_eq!(stop, Ok(Err(0)));
        for text in ["[{}", "[{},]", "[1]", "{}", "[{}] 1"] {
            assert!(Members::parse_array(text, &NAMES, |_, _| Ok::<(), ()>(())).is_err(), "{text}");
        }
    }

    #[test]
    fn strings() {
        let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
        assert_eq!(string(&raw("\"a\\n\\u20ac\"")).as_deref(), Some("a\n€"));
        assert_eq!(string(&raw("\"\\ud83d\\ude00\"")).as_deref(), Some("😀"));
        for text in ["1", "null", "{}", "[\"a\"]", "\"\\ud800\""] {
            assert_eq!(string(&raw(text)), None, "{text}");
        }
        assert_eq!(elements(&raw("[1, \"a\"]")).unwrap().len(), 2);
        assert!(elements(&raw("{}")).is_none());
        let mut seen = Vec::new();
        let object = raw("{\"a\":1,\"a\":2}");
        let end = for_each_member(&object, |name, value| {
            seen.push(format!("{name}={value}"));
            Ok::<(), ()>(())
        });
        assert_eq!((end, seen.join(",")), (Some(Ok(())), "a=1,a=2".to_owned()));
        assert_eq!(for_each_member(&raw("[]"), |_, _| Ok::<(), ()>(())), None);
    }
}
