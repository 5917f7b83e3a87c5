//! Which events a reader wants, by what is in them.
//!
//! ```text
//! {"all":[{"field":"data.price","op":"gt","value":100},     data.price > 100 and type == "trade"
//!         {"field":"type","op":"eq","value":"trade"}]}
//!        | from_json                                               | from_text
//!        '----------> Condition, as it was written <---------------'
//!                        | canonical: one form of one meaning
//!                     Filter: equal and hashed by that form, compiled once while anybody has it
//!                        | Program: one walk over the data, no tree, no allocation
//!                     matches(event)
//! ```

mod condition;
mod decimal;
mod field;
mod from_json;
mod from_text;
#[cfg(any(test, fuzzing))]
pub mod model;
mod program;
mod spelling;
#[cfg(test)]
mod tests;

use std::{
    cell::RefCell,
    collections::HashMap,
    fmt,
    hash::{BuildHasher, Hash, Hasher, RandomState},
    rc::{Rc, Weak},
};

use strandline_storage::event::EventView;

pub use condition::{COMPARISONS_MAX, Condition, DEPTH_MAX, TEXT_BYTES_MAX};
pub use from_json::parse as parse_json;
pub use from_text::parse as parse_text;
pub use spelling::FilterError;

use program::Program;

/// What an event must meet to be wanted. Two that are equal share their memory: filters are as many as
/// there are subscribers, and most of these ask for the same.
#[derive(Clone)]
pub struct Filter(Rc<Compiled>);

struct Compiled {
    condition: Condition,
    program: Program,
    hash: u64,
}

thread_local! {
    /// The filters that anybody on this thread has, by their hashes.
    static KNOWN: Known = Known::default();
}

#[derive(Default)]
struct Known {
    filters: RefCell<HashMap<u64, Vec<Weak<Compiled>>>>,
    hasher: RandomState,
}

impl Filter {
    /// The filter that wants what meets all of `conditions`; `None` if that is everything.
    pub fn new(conditions: Vec<Condition>) -> Result<Option<Filter>, FilterError> {
        let condition = Condition::All(conditions).canonical();
        if condition == Condition::always() {
            return Ok(None);
        }
        let comparisons = condition.comparisons();
        if comparisons > COMPARISONS_MAX {
            // Each of filter and where keeps the limit, both together do not.
            let what =
                format!("have {comparisons} comparisons together, more than {COMPARISONS_MAX}");
            return Err(FilterError::new("", what));
        }
        Ok(Some(KNOWN.with(|known| known.filter(condition))))
    }

    /// Whether the event is wanted.
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        self.0.program.holds(event)
    }
}

impl Known {
    fn filter(&self, condition: Condition) -> Filter {
        let hash = self.hasher.hash_one(&condition);
        let mut filters = self.filters.borrow_mut();
        let known = filters.entry(hash).or_default();
        let same =
            known.iter().filter_map(Weak::upgrade).find(|other| other.condition == condition);
        Filter(same.unwrap_or_else(|| {
            let program = Program::new(&condition);
            let compiled = Rc::new(Compiled { condition, program, hash });
            known.push(Rc::downgrade(&compiled));
            compiled
        }))
    }

    fn forget(&self, hash: u64) {
        let mut filters = self.filters.borrow_mut();
        if let Some(known) = filters.get_mut(&hash) {
            known.retain(|filter| filter.strong_count() > 0);
            if known.is_empty() {
                filters.remove(&hash);
            }
        }
    }
}

impl Drop for Compiled {
    fn drop(&mut self) {
        // At a thread's end the table may be gone first.
        let _ = KNOWN.try_with(|known| known.forget(self.hash));
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Filter) -> bool {
        Rc::ptr_eq(&self.0, &other.0) || self.0.condition == other.0.condition
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.0.hash);
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.condition.fmt(formatter)
    }
}
