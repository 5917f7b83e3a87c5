//! The numbers of topics, which hold over all segments and snapshots of a log.

use std::{collections::HashMap, sync::Arc};

use crate::topic::TopicNumber;

/// The names of topics by number, and back.
#[derive(Debug, Default)]
pub(crate) struct TopicNames {
    names: HashMap<TopicNumber, Arc<str>>,
    numbers: HashMap<Arc<str>, TopicNumber>,
}

impl TopicNames {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Takes in a topic; says what is wrong if its number is another's, or its name has another.
    pub fn check(&mut self, number: TopicNumber, name: &str) -> Option<String> {
        let named = self.names.get(&number).map(|known| **known == *name);
        if named == Some(true) {
            return None;
        }
        if named == Some(false) || self.numbers.contains_key(name) {
            return Some(format!("topic {number} is `{name}` here, and another elsewhere"));
        }
        let name: Arc<str> = name.into();
        self.names.insert(number, name.clone());
        self.numbers.insert(name, number);
        None
    }
}
