//! Memory that a connection needs only while it has its turn: one for all connections of a shard.
//!
//! So a connection that waits holds neither what it reads into nor what it writes from, and those that
//! are served one after the other find that memory in the processor's cache.

use std::{
    cell::{Cell, RefCell, RefMut},
    rc::Rc,
};

use crate::{http::head::Head, unsent::Unsent};

/// One read takes at most so much.
const INPUT_BYTES: usize = 64 * 1024;

/// An output buffer that has grown beyond this, for one large answer, is given back.
const OUTPUT_BYTES_KEPT: usize = 256 * 1024;

/// The common memory of a shard. Nothing of it is borrowed across an `.await`.
pub struct Workspace {
    input: RefCell<Vec<u8>>,
    output: Cell<Vec<u8>>,
    head: RefCell<Head>,
    unsent: Rc<Unsent>,
}

impl Default for Workspace {
    fn default() -> Self {
        Workspace {
            input: RefCell::new(Vec::with_capacity(INPUT_BYTES)),
            output: Cell::default(),
            head: RefCell::default(),
            unsent: Rc::default(),
        }
    }
}

impl Workspace {
    /// An empty buffer with space for a read.
    pub fn input(&self) -> RefMut<'_, Vec<u8>> {
        let mut input = self.input.borrow_mut();
        input.clear();
        input
    }

    /// An empty buffer to write into; give it back with [`Workspace::give_output`].
    pub fn take_output(&self) -> Vec<u8> {
        self.output.take()
    }

    /// Takes a buffer back.
    pub fn give_output(&self, mut output: Vec<u8>) {
        if output.capacity() <= OUTPUT_BYTES_KEPT {
            output.clear();
            self.output.set(output);
        }
    }

    /// How much is held that clients do not take.
    pub fn unsent(&self) -> &Rc<Unsent> {
        &self.unsent
    }

    /// A head to parse into, whatever it holds now.
    pub fn head(&self) -> RefMut<'_, Head> {
        self.head.borrow_mut()
    }
}
