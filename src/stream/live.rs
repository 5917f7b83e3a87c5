//! One log on one shard, as its subscribers see it.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::catch_up::Turns;
use super::subscribers::Subscribers;
use crate::log_handle::{LogHandle, News};
use crate::shutdown::Drain;

/// A log, those who stream it, and the turns of those who read it.
pub struct LiveLog {
    log: Rc<LogHandle>,
    subscribers: Rc<Subscribers>,
    turns: Turns,
}

impl LiveLog {
    /// Begins to follow `log`, for as long as the shard runs; subscribers are told of `drain`.
    pub fn start(log: Rc<LogHandle>, drain: Drain) -> io::Result<Rc<Self>> {
        let turns = Turns::default();
        let subscribers = Subscribers::start(log.clone(), turns.clone(), drain)?;
        let listener = subscribers.clone();
        let (source, known) = (Rc::downgrade(&log), RefCell::new(log.floors()));
        log.subscribe(Rc::new(move |news| {
            let visible = match news {
                News::Frame(frame) => {
                    listener.publish(frame);
                    frame.end_offset()
                }
                News::Visible(visible) => {
                    listener.advance(visible);
                    visible
                }
                // Readers read on; appends say why they fail.
                News::Ended => return,
            };
            // A deletion that is visible has been told to all shards before.
            let Some(floors) = source.upgrade().map(|log| log.floors()) else { return };
            if !Arc::ptr_eq(&floors, &known.borrow()) {
                *known.borrow_mut() = floors;
                listener.forget_encoded(visible);
            }
        }));
        Ok(Rc::new(LiveLog { log, subscribers, turns }))
    }

    /// The log itself.
    pub fn log(&self) -> &Rc<LogHandle> {
        &self.log
    }

    /// Who streams it.
    pub fn subscribers(&self) -> &Rc<Subscribers> {
        &self.subscribers
    }

    /// Whose turn it is to read.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }
}
