//! One log on one shard, as its subscribers see it.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use super::catch_up::Turns;
use super::gaps::ReportedGaps;
use super::subscribers::Subscribers;
use crate::log_handle::{LogHandle, News};
use crate::shutdown::Drain;

/// A log, those who stream it, and the turns of those who read it.
pub struct LiveLog {
    log: Rc<LogHandle>,
    subscribers: Rc<Subscribers>,
    turns: Turns,
    gaps: Arc<ReportedGaps>,
}

impl LiveLog {
    /// Begins to follow `log`, for as long as the shard runs; subscribers are told of `drain`, and the
    /// server's log of damage that is not among `gaps`.
    pub fn start(
        log: Rc<LogHandle>,
        drain: Drain,
        gaps: Arc<ReportedGaps>,
    ) -> io::Result<Rc<Self>> {
        let turns = Turns::default();
        let subscribers = Subscribers::start(log.clone(), turns.clone(), drain, gaps.clone())?;
        let listener = subscribers.clone();
        log.subscribe(Rc::new(move |news| match news {
            News::Frame(frame) => listener.publish(frame),
            News::Visible(visible) => listener.advance(visible),
            // Readers read on; appends say why they fail.
            News::Ended => (),
        }));
        Ok(Rc::new(LiveLog { log, subscribers, turns, gaps }))
    }

    /// The log itself.
    pub fn log(&self) -> &Rc<LogHandle> {
        &self.log
    }

    /// Who streams it.
    pub fn subscribers(&self) -> &Rc<Subscribers> {
        &self.subscribers
    }

    /// The damage that the server's log knows of.
    pub fn gaps(&self) -> &ReportedGaps {
        &self.gaps
    }

    /// Whose turn it is to read.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }
}
