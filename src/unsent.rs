//! Answers that are there and that their clients do not take: how many bytes a shard holds for them.
//!
//! A page of history or topics comes whole, so that a client that asks for one and does not read it has up to
//! 8 MiB kept for it, for as long as a send may stall. A hundred of them are no harm, ten thousand are the end of
//! the process. So the more is held, the shorter new pages are: each may have an eighth of what is left of
//! `BYTES_MAX`, but `PAGE_BYTES_MIN`, with which it goes on. A page may end early anyway.

use std::{cell::Cell, rc::Rc};

/// A page ends with the event or topic that reaches this length, while nothing else is held.
const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// With so much held, pages are as short as they get.
const BYTES_MAX: usize = 8 * PAGE_BYTES_MAX;

/// And with the one that reaches this, however much is: less would cost more than it saves, as a connection
/// takes as much in the kernel.
const PAGE_BYTES_MIN: usize = 64 * 1024;

/// The answers of one shard.
#[derive(Debug, Default)]
pub struct Unsent {
    bytes: Cell<usize>,
}

impl Unsent {
    /// Holds `bytes` more, until that is dropped.
    pub fn hold(self: &Rc<Self>, bytes: usize) -> Held {
        self.bytes.set(self.bytes.get() + bytes);
        Held { unsent: self.clone(), bytes }
    }

    /// How long an answer that goes on may become beside all that is held.
    pub fn page_bytes_max(&self) -> usize {
        page_bytes_max(self.bytes.get())
    }
}

/// A part of what is held.
#[derive(Debug)]
pub struct Held {
    unsent: Rc<Unsent>,
    bytes: usize,
}

impl Held {
    /// It is so long by now.
    pub fn resize(&mut self, bytes: usize) {
        self.unsent.bytes.set(self.unsent.bytes.get() - self.bytes + bytes);
        self.bytes = bytes;
    }

    /// How long this, if it is a page, may become beside all the others.
    pub fn page_bytes_max(&self) -> usize {
        page_bytes_max(self.unsent.bytes.get() - self.bytes)
    }
}

fn page_bytes_max(others: usize) -> usize {
    (BYTES_MAX.saturating_sub(others) / (BYTES_MAX / PAGE_BYTES_MAX)).max(PAGE_BYTES_MIN)
}

impl Drop for Held {
    fn drop(&mut self) {
        self.resize(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_get_shorter_the_more_is_held_and_long_again_once_it_has_left() {
        let unsent = Rc::new(Unsent::default());
        let mut page = unsent.hold(0);
        assert_eq!(page.page_bytes_max(), PAGE_BYTES_MAX);
        page.resize(PAGE_BYTES_MAX);
        assert_eq!(page.page_bytes_max(), PAGE_BYTES_MAX, "not by its own length");
        let mut held = vec![page];
        for _ in 0..10_000 {
            let mut page = unsent.hold(0);
            page.resize(page.page_bytes_max());
            held.push(page);
        }
        assert_eq!(held[10_000].page_bytes_max(), PAGE_BYTES_MIN);
        let bytes = unsent.bytes.get();
        assert!(bytes < BYTES_MAX + 10_000 * PAGE_BYTES_MIN, "{bytes}");
        drop(held);
        assert_eq!(unsent.bytes.get(), 0);
        assert_eq!(unsent.hold(0).page_bytes_max(), PAGE_BYTES_MAX);
    }
}
