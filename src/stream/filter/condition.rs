//! A filter as a tree, first as it was written and then in the one form of its meaning.
//!
//! The canonical form is what makes filters that mean the same by their writing one filter:
//! ```text
//! not (a and not b)   ->  any(b, not a)      `not` stands before comparisons only
//! all(a, all(b, a))   ->  all(a, b)          groups hold no group of their kind, ascend, repeat nothing
//! all(a)              ->  a
//! {}                  ->  all()              which is always true, as any() never is; both vanish
//!                                            from groups or swallow them
//! a in [2, 1.0, 1]    ->  a in [1, 2]        a in [1]  ->  a == 1         a in []  ->  any()
//! ```
//! What needs arithmetic or thought to be seen as equal (`a > 1 and a > 2`) stays two filters: nothing
//! but a view is shared less.

use super::{decimal::Decimal, field::Field};
use crate::timestamp::Instant;

/// The most comparisons of a filter.
pub const COMPARISONS_MAX: usize = 32;
/// The most groups, or parentheses, inside each other.
pub const DEPTH_MAX: usize = 8;
/// The most bytes of a filter's text, in either spelling.
pub const TEXT_BYTES_MAX: usize = 4096;

/// A condition that an event meets or not.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// A comparison.
    Test(Test),
    /// What this does not meet.
    Not(Box<Condition>),
    /// What meets all of these; everything, if there are none.
    All(Vec<Condition>),
    /// What meets any of these; nothing, if there are none.
    Any(Vec<Condition>),
}

/// A comparison. False where the field is absent, or of another type than the literal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Test {
    /// What is looked at.
    pub field: Field,
    /// What for.
    pub op: Op,
}

/// What a field is looked at for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Op {
    /// It is there, be it null.
    Exists,
    /// It stands so to the literal.
    Is(Relation, Literal),
    /// It equals one of these, which ascend.
    In(Box<[Literal]>),
    /// It is a string that begins so.
    Prefix(Box<str>),
    /// It is a string that ends so.
    Suffix(Box<str>),
    /// It is a string that this is a part of, or an array with such an element.
    Contains(Literal),
}

/// How two values of one type stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Relation {
    /// `==`
    Equal,
    /// `!=`
    Unequal,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
}

impl Relation {
    /// Whether it holds where the left side stands so to the right one.
    pub fn holds(self, order: std::cmp::Ordering) -> bool {
        match self {
            Relation::Equal => order.is_eq(),
            Relation::Unequal => order.is_ne(),
            Relation::Greater => order.is_gt(),
            Relation::GreaterOrEqual => order.is_ge(),
            Relation::Less => order.is_lt(),
            Relation::LessOrEqual => order.is_le(),
        }
    }
}

/// A value in a filter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Literal {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number(Decimal),
    /// A string.
    Text(Box<str>),
    /// A time, for the field `time` alone.
    Time(Instant),
}

impl Test {
    /// `field in [literals]`, the literals in any order.
    pub fn is_in(field: Field, mut literals: Vec<Literal>) -> Test {
        literals.sort_unstable();
        literals.dedup();
        Test { field, op: Op::In(literals.into()) }
    }
}

impl Condition {
    /// What every event meets.
    pub fn always() -> Condition {
        Condition::All(Vec::new())
    }

    /// The canonical form.
    pub fn canonical(self) -> Condition {
        self.directed(true)
    }

    /// How many comparisons it has.
    pub fn comparisons(&self) -> usize {
        match self {
            Condition::Test(_) => 1,
            Condition::Not(inner) => inner.comparisons(),
            Condition::All(inner) | Condition::Any(inner) => {
                inner.iter().map(Condition::comparisons).sum()
            }
        }
    }

    /// The canonical form of this condition (`is_meant`) or of its opposite.
    fn directed(self, is_meant: bool) -> Condition {
        match self {
            Condition::Test(test) => match (test.simplified(), is_meant) {
                (Condition::Test(test), false) => Condition::Not(Box::new(Condition::Test(test))),
                (Condition::Test(test), true) => Condition::Test(test),
                (constant, true) => constant,
                (_, false) => Condition::always(),
            },
            Condition::Not(inner) => inner.directed(!is_meant),
            Condition::All(inner) => group(inner, is_meant, is_meant),
            Condition::Any(inner) => group(inner, !is_meant, is_meant),
        }
    }
}

impl Test {
    fn simplified(mut self) -> Condition {
        if let Op::In(literals) = &mut self.op {
            match &mut **literals {
                [] => return Condition::Any(Vec::new()),
                [only] => {
                    self.op = Op::Is(Relation::Equal, std::mem::replace(only, Literal::Null));
                }
                _ => {}
            }
        }
        Condition::Test(self)
    }
}

/// The canonical form of a group: `all` of `inner`, or any of them, each meant or not.
fn group(inner: Vec<Condition>, is_all: bool, is_meant: bool) -> Condition {
    let mut members = Vec::with_capacity(inner.len());
    for condition in inner {
        match condition.directed(is_meant) {
            Condition::All(nested) if is_all => members.extend(nested),
            Condition::Any(nested) if !is_all => members.extend(nested),
            // The opposite group of none decides: `all` of something false, `any` of something true.
            Condition::All(nested) | Condition::Any(nested) if nested.is_empty() => {
                return if is_all { Condition::Any(nested) } else { Condition::All(nested) };
            }
            other => members.push(other),
        }
    }
    members.sort_unstable();
    members.dedup();
    match (members.len(), is_all) {
        (1, _) => members.swap_remove(0),
        (_, true) => Condition::All(members),
        (_, false) => Condition::Any(members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exists(name: &str) -> Condition {
        let field = Field::parse(&format!("data.{name}")).unwrap();
        Condition::Test(Test { field, op: Op::Exists })
    }

    fn not(condition: Condition) -> Condition {
        Condition::Not(Box::new(condition))
    }

    fn all(conditions: impl Into<Vec<Condition>>) -> Condition {
        Condition::All(conditions.into())
    }

    fn any(conditions: impl Into<Vec<Condition>>) -> Condition {
        Condition::Any(conditions.into())
    }

    #[test]
    fn what_means_the_same_by_its_writing_has_one_form() {
        let (a, b, c) = (exists("a"), exists("b"), exists("c"));
        let ab = all([a.clone(), b.clone()]);
        for same in [
            all([b.clone(), a.clone()]),
            all([a.clone(), all([b.clone(), a.clone()])]),
            all([all([]), b.clone(), not(not(a.clone()))]),
            not(any([not(a.clone()), not(b.clone())])),
            any([ab.clone(), any([])]),
            not(not(not(not(ab.clone())))),
        ] {
            assert_eq!(same.clone().canonical(), ab, "{same:?}");
        }
        assert_eq!(
            not(all([a.clone(), not(b.clone())])).canonical(),
            any([b.clone(), not(a.clone())])
        );
        assert_eq!(all([a.clone()]).canonical(), a);
        assert_eq!(any([a.clone(), a.clone()]).canonical(), a);
        let mixed = all([any([c.clone(), b.clone()]), a.clone()]);
        assert_eq!(mixed.canonical(), all([a.clone(), any([b.clone(), c.clone()])]));
        assert_ne!(all([a.clone(), b.clone()]).canonical(), any([a, b]).canonical());
        assert_ne!(c.clone().canonical(), not(c).canonical());
    }

    #[test]
    fn what_is_always_or_never_true_swallows_or_vanishes() {
        let a = exists("a");
        let (always, never) = (all([]), any([]));
        assert_eq!(all([a.clone(), never.clone()]).canonical(), never);
        assert_eq!(any([a.clone(), always.clone()]).canonical(), always);
        assert_eq!(any([a.clone(), never.clone()]).canonical(), a);
        assert_eq!(all([a.clone(), not(never.clone())]).canonical(), a);
        assert_eq!(not(always.clone()).canonical(), never);
        assert_eq!(all([any([]), any([a.clone()])]).canonical(), never);
        assert_eq!(
            any([all([a.clone(), not(always.clone())]), always.clone()]).canonical(),
            always
        );
        let none = Condition::Test(Test::is_in(Field::Key, vec![]));
        assert_eq!(none.clone().canonical(), never);
        assert_eq!(not(none).canonical(), always);
    }

    #[test]
    fn lists_are_sets() {
        let number = |text: &str| Literal::Number(Decimal::parse(text).unwrap());
        let list = |literals: &[&str]| {
            let literals = literals.iter().map(|text| number(text)).collect();
            Condition::Test(Test::is_in(Field::Key, literals)).canonical()
        };
        assert_eq!(list(&["2", "1.0", "1", "10e-1"]), list(&["1", "2.00"]));
        let one = Test { field: Field::Key, op: Op::Is(Relation::Equal, number("1")) };
        assert_eq!(list(&["1e0"]), Condition::Test(one));
    }
}
