//! One log on one shard, as its subscribers see it.

use std::io;
use std::rc::Rc;

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
        log.subscribe(Rc::new(move |news| match news {
            News::Frame(frame) => listener.publish(frame),
            News::Visible(visible) => listener.advance(visible),
            // Readers read on; appends say why they fail.
            News::Ended => (),
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
