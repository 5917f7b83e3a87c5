//! An object of which a member may be given twice: which of the two is meant nobody knows, so that is told.

use std::{
    borrow::Cow,
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    marker::PhantomData,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

/// The members of an object.
pub struct Distinct<'a, V> {
    /// By name.
    pub members: BTreeMap<Cow<'a, str>, V>,
    /// The name of the first that was given twice.
    pub twice: Option<Cow<'a, str>>,
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Distinct<'de, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Object(PhantomData))
    }
}

struct Object<V>(PhantomData<V>);

impl<'de, V: Deserialize<'de>> Visitor<'de> for Object<V> {
    type Value = Distinct<'de, V>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<Self::Value, A::Error> {
        let mut distinct = Distinct { members: BTreeMap::new(), twice: None };
        while let Some((name, value)) = object.next_entry::<Cow<'de, str>, V>()? {
            match distinct.members.entry(name) {
                Entry::Vacant(place) => {
                    place.insert(value);
                }
                Entry::Occupied(first) => {
                    distinct.twice.get_or_insert_with(|| first.key().clone());
                }
            }
        }
        Ok(distinct)
    }
}
