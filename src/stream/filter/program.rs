//! A filter made ready to run: the places in the data that it looks at, found in one walk, and the
//! comparisons in an order that puts off reading the data.
//!
//! ```text
//! data.a > 1 and data.b.0 == "x" and type == "t"
//!
//! paths   data -+- a: slot 0                tree   all -+- type == "t"     decides without the data
//!               '- b --- 0: slot 1                      |- slot 0 > 1      the first one that needs the
//!                                                       '- slot 1 == "x"   data walks it, for all slots
//! ```
//! Data may hold a name twice (it is kept as its bytes stand). Then the last one counts, as it does for
//! JavaScript's `JSON.parse`, Python and every client that builds an object: what a filter saw is what
//! its subscriber sees. So an object is walked to its end; an array is left behind the last element
//! that counts.

use std::{cell::OnceCell, cmp::Ordering};

use strandline_storage::event::{DataForm, EventView};

use super::{
    condition::{COMPARISONS_MAX, Condition, Literal, Op, Test},
    field::Field,
};
use crate::{
    json::walk::{Inside, Kind, Walk},
    timestamp::Instant,
};

/// A compiled filter.
#[derive(Debug)]
pub struct Program {
    paths: Paths,
    root: Node,
}

#[derive(Debug)]
enum Node {
    Test { source: Source, op: Op, is_meant: bool },
    All(Box<[Node]>),
    Any(Box<[Node]>),
}

/// Where a comparison's left side is.
#[derive(Debug)]
enum Source {
    Topic,
    Type,
    Key,
    Id,
    Time,
    Header(Box<str>),
    /// A value that the walk found.
    Slot(usize),
}

/// A left side.
#[derive(Clone, Copy)]
enum Value<'a> {
    Text(&'a str),
    Time(Instant),
    /// JSON as its bytes stand.
    Json(&'a [u8]),
}

impl Program {
    /// Compiles a canonical condition of at most [`COMPARISONS_MAX`] comparisons.
    pub fn new(condition: &Condition) -> Program {
        let mut paths = Paths::default();
        let root = compile(condition, true, &mut paths);
        paths.root.close();
        Program { paths, root }
    }

    /// Whether the event meets the condition. Its data is read at most once, and not where the rest of
    /// it decides.
    pub fn holds(&self, event: &EventView<'_>) -> bool {
        let subject = Subject { event: *event, paths: &self.paths, found: OnceCell::new() };
        subject.meets(&self.root)
    }
}

fn compile(condition: &Condition, is_meant: bool, paths: &mut Paths) -> Node {
    match condition {
        Condition::Test(Test { field, op }) => {
            let source = match field {
                Field::Topic => Source::Topic,
                Field::Type => Source::Type,
                Field::Key => Source::Key,
                Field::Id => Source::Id,
                Field::Time => Source::Time,
                Field::Header(name) => Source::Header(name.clone()),
                Field::Data(path) => Source::Slot(paths.slot(path)),
            };
            Node::Test { source, op: op.clone(), is_meant }
        }
        Condition::Not(inner) => match **inner {
            Condition::Test(_) => compile(inner, !is_meant, paths),
            _ => unreachable!("canonical: not stands before comparisons"),
        },
        Condition::All(inner) => Node::All(compile_group(inner, paths)),
        Condition::Any(inner) => Node::Any(compile_group(inner, paths)),
    }
}

fn compile_group(inner: &[Condition], paths: &mut Paths) -> Box<[Node]> {
    let mut nodes: Vec<Node> =
        inner.iter().map(|condition| compile(condition, true, paths)).collect();
    nodes.sort_by_key(Node::needs_data);
    nodes.into()
}

impl Node {
    fn needs_data(&self) -> bool {
        match self {
            Node::Test { source, .. } => matches!(source, Source::Slot(_)),
            Node::All(inner) | Node::Any(inner) => inner.iter().any(Node::needs_data),
        }
    }
}

/// One event while it is looked at.
struct Subject<'p, 'e> {
    event: EventView<'e>,
    paths: &'p Paths,
    found: OnceCell<Found<'e>>,
}

impl<'e> Subject<'_, 'e> {
    fn meets(&self, node: &Node) -> bool {
        match node {
            Node::Test { source, op, is_meant } => {
                self.value(source).is_some_and(|value| value.meets(op)) == *is_meant
            }
            Node::All(inner) => inner.iter().all(|node| self.meets(node)),
            Node::Any(inner) => inner.iter().any(|node| self.meets(node)),
        }
    }

    fn value(&self, source: &Source) -> Option<Value<'e>> {
        match source {
            Source::Topic => Some(Value::Text(self.event.topic())),
            Source::Type => Some(Value::Text(self.event.event_type())),
            Source::Key => self.event.key().map(Value::Text),
            Source::Id => self.event.id().map(Value::Text),
            Source::Time => Some(Value::Time(Instant::of_ms(self.event.time_ms()))),
            Source::Header(wanted) => {
                let mut headers = self.event.headers();
                headers.find(|(name, _)| *name == &**wanted).map(|(_, value)| Value::Text(value))
            }
            Source::Slot(slot) => {
                let found = self.found.get_or_init(|| self.paths.find(&self.event));
                found.get(*slot).map(Value::Json)
            }
        }
    }
}

impl Value<'_> {
    fn meets(self, op: &Op) -> bool {
        match op {
            Op::Exists => true,
            Op::Is(relation, literal) => {
                self.order_of(literal).is_some_and(|order| relation.holds(order))
            }
            Op::In(literals) => self.is_in(literals),
            Op::Prefix(part) => self.is_text(|text| text.starts_with(part.as_bytes())),
            Op::Suffix(part) => self.is_text(|text| text.ends_with(part.as_bytes())),
            Op::Contains(literal) => self.contains(literal),
        }
    }

    /// How the value stands to a literal of its type; `None` if it is of another.
    fn order_of(self, literal: &Literal) -> Option<Ordering> {
        match (self, literal) {
            (Value::Text(text), Literal::Text(literal)) => Some(text.cmp(literal)),
            (Value::Time(time), Literal::Time(literal)) => Some(time.cmp(literal)),
            (Value::Json(json), literal) => order_of_json(json, literal),
            _ => None,
        }
    }

    fn is_in(self, literals: &[Literal]) -> bool {
        // The literals ascend by type and then by value, and so does what stands on the left.
        let place = |literal: &Literal| match self.order_of(literal) {
            Some(order) => order.reverse(),
            None => type_rank(literal).cmp(&self.type_rank()),
        };
        literals.binary_search_by(place).is_ok()
    }

    /// The rank of the value's type in the order of [`Literal`].
    fn type_rank(self) -> u8 {
        match self {
            Value::Text(_) => TEXT_RANK,
            Value::Time(_) => TIME_RANK,
            Value::Json(json) => match json.first().copied().and_then(Kind::of) {
                Some(Kind::Null) => NULL_RANK,
                Some(Kind::Bool) => BOOL_RANK,
                Some(Kind::Number) => NUMBER_RANK,
                Some(Kind::Text) => TEXT_RANK,
                Some(Kind::Array | Kind::Object) | None => OTHER_RANK,
            },
        }
    }

    fn is_text(self, is_wanted: impl FnOnce(&[u8]) -> bool) -> bool {
        match self {
            Value::Text(text) => is_wanted(text.as_bytes()),
            Value::Json(json) => Inside::of(json).is_some_and(|text| is_wanted(&text.characters())),
            Value::Time(_) => false,
        }
    }

    fn contains(self, literal: &Literal) -> bool {
        if let Value::Json(json @ [b'[', ..]) = self {
            return has_element(json, literal);
        }
        match literal {
            Literal::Text(part) => {
                self.is_text(|text| memchr::memmem::find(text, part.as_bytes()).is_some())
            }
            _ => false,
        }
    }
}

const NULL_RANK: u8 = 0;
const BOOL_RANK: u8 = 1;
const NUMBER_RANK: u8 = 2;
const TEXT_RANK: u8 = 3;
const TIME_RANK: u8 = 4;
const OTHER_RANK: u8 = 5;

fn type_rank(literal: &Literal) -> u8 {
    match literal {
        Literal::Null => NULL_RANK,
        Literal::Bool(_) => BOOL_RANK,
        Literal::Number(_) => NUMBER_RANK,
        Literal::Text(_) => TEXT_RANK,
        Literal::Time(_) => TIME_RANK,
    }
}

fn order_of_json(json: &[u8], literal: &Literal) -> Option<Ordering> {
    match (Kind::of(*json.first()?)?, literal) {
        (Kind::Null, Literal::Null) => Some(Ordering::Equal),
        (Kind::Bool, Literal::Bool(literal)) => Some((json == b"true").cmp(literal)),
        (Kind::Number, Literal::Number(literal)) => Some(literal.order_of(json)),
        // Order of UTF-8 is order of characters.
        (Kind::Text, Literal::Text(literal)) => {
            Some((*Inside::of(json)?.characters()).cmp(literal.as_bytes()))
        }
        _ => None,
    }
}

fn has_element(array: &[u8], literal: &Literal) -> bool {
    let mut has_it = false;
    let end = Walk::new(array).array(|walk, _| {
        has_it = order_of_json(walk.value()?, literal) == Some(Ordering::Equal);
        Some(!has_it)
    });
    end.is_some() && has_it
}

/// What a walk found: for each slot the bytes of a value, if it is there.
struct Found<'e> {
    is_there: u32,
    values: [&'e [u8]; COMPARISONS_MAX],
}

const _: () = assert!(COMPARISONS_MAX <= u32::BITS as usize);

impl<'e> Found<'e> {
    const NOTHING: Self = Found { is_there: 0, values: [&[]; COMPARISONS_MAX] };

    fn get(&self, slot: usize) -> Option<&'e [u8]> {
        (self.is_there & 1 << slot != 0).then(|| self.values[slot])
    }
}

/// The paths of a filter's data fields, as one tree.
#[derive(Debug, Default)]
struct Paths {
    root: PathNode,
    slots: usize,
}

#[derive(Debug, Default)]
struct PathNode {
    /// Where the value goes that stands here, if it is asked for.
    slot: Option<usize>,
    /// The slots of this node and all below it, as bits.
    slots_below: u32,
    children: Vec<PathStep>,
}

#[derive(Debug)]
struct PathStep {
    name: Box<str>,
    /// The name as the index of an element, if it is one.
    index: Option<usize>,
    node: PathNode,
}

impl Paths {
    /// The slot of this path.
    fn slot(&mut self, path: &[Box<str>]) -> usize {
        let mut node = &mut self.root;
        for name in path {
            let known = node.children.iter().position(|step| step.name == *name);
            let place = known.unwrap_or_else(|| {
                let (index, name) = (index_of(name), name.clone());
                node.children.push(PathStep { name, index, node: PathNode::default() });
                node.children.len() - 1
            });
            node = &mut node.children[place].node;
        }
        *node.slot.get_or_insert_with(|| {
            self.slots += 1;
            self.slots - 1
        })
    }

    /// Reads the event's data.
    fn find<'e>(&self, event: &EventView<'e>) -> Found<'e> {
        let mut found = Found::NOTHING;
        if event.form() == DataForm::Json {
            let end = self.root.find(&mut Walk::new(event.data()), &mut found);
            if end.is_none() {
                // Not JSON after all.
                found.is_there = 0;
            }
        }
        found
    }
}

impl PathNode {
    /// Computes what hangs on all paths being there.
    fn close(&mut self) -> u32 {
        let own = self.slot.map_or(0, |slot| 1 << slot);
        self.slots_below =
            self.children.iter_mut().fold(own, |slots, step| slots | step.node.close());
        self.slots_below
    }

    /// Walks over the next value and notes what is asked for in it.
    fn find<'e>(&self, walk: &mut Walk<'e>, found: &mut Found<'e>) -> Option<()> {
        let kind = walk.kind()?;
        let start = walk.place();
        match kind {
            Kind::Object if !self.children.is_empty() => walk.object(|walk, name| {
                match self.child_named(name) {
                    Some(child) => {
                        // A name that comes again takes back what was found under it.
                        found.is_there &= !child.slots_below;
                        child.find(walk, found)
                    }
                    None => walk.value().map(|_| ()),
                }
            })?,
            Kind::Array if !self.children.is_empty() => self.find_elements(walk, found)?,
            _ => {
                walk.value()?;
            }
        }
        if let Some(slot) = self.slot {
            found.values[slot] = walk.since(start);
            found.is_there |= 1 << slot;
        }
        Some(())
    }

    fn find_elements<'e>(&self, walk: &mut Walk<'e>, found: &mut Found<'e>) -> Option<()> {
        let last = self.children.iter().filter_map(|step| step.index).max();
        let Some(last) = last else {
            return walk.value().map(|_| ());
        };
        walk.array(|walk, index| {
            let child = self.children.iter().find(|step| step.index == Some(index));
            match child {
                Some(step) => step.node.find(walk, found)?,
                None => {
                    walk.value()?;
                }
            }
            Some(index < last)
        })
    }

    fn child_named(&self, name: Inside<'_>) -> Option<&PathNode> {
        let step = self.children.iter().find(|step| name.is(&step.name));
        step.map(|step| &step.node)
    }
}

/// The index that a name is: digits alone, the first of them no idle zero.
fn index_of(name: &str) -> Option<usize> {
    let is_index =
        name.bytes().all(|byte| byte.is_ascii_digit()) && (name == "0" || !name.starts_with('0'));
    if is_index { name.parse().ok() } else { None }
}
