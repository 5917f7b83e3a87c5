//! How many connections a shard has, and room for how many.

use std::{cell::Cell, rc::Rc};

use crate::local::Signal;

/// How many connections a shard has, and room for how many.
#[derive(Debug)]
pub struct Connections {
    open: Cell<usize>,
    max: usize,
    changed: Signal,
}

impl Connections {
    pub(crate) fn new(max: usize) -> Self {
        Connections { open: Cell::new(0), max, changed: Signal::new() }
    }

    /// How many are open.
    pub fn open(&self) -> usize {
        self.open.get()
    }

    /// A place for one more, as soon as there is one; until then clients wait in the kernel's queue.
    pub async fn admit(self: &Rc<Self>) -> Place {
        while self.open.get() >= self.max {
            self.changed.wait().await;
        }
        self.open.set(self.open.get() + 1);
        Place(self.clone())
    }

    /// Resolves once none is open.
    pub(crate) async fn none_left(&self) {
        while self.open.get() > 0 {
            self.changed.wait().await;
        }
    }
}

/// A connection's place, for as long as it is open.
#[derive(Debug)]
pub struct Place(Rc<Connections>);

impl Drop for Place {
    fn drop(&mut self) {
        let open = self.0.open.get();
        self.0.open.set(open - 1);
        // Only these two states have waiters.
        if open == 1 || open == self.0.max {
            self.0.changed.raise();
        }
    }
}
