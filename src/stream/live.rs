//! One log on one shard, as its subscribers see it.

use std::rc::Rc;

use super::catch_up::Turns;
use super::follow::Follow;
use crate::log_handle::{LogHandle, News};

/// A log, the views of it, and the turns of those who read it.
pub struct LiveLog {
    log: Rc<LogHandle>,
    follow: Rc<Follow>,
    turns: Turns,
}

impl LiveLog {
    /// Begins to follow `log`, for as long as the shard runs.
    pub fn start(log: Rc<LogHandle>) -> Rc<Self> {
        let follow = Follow::new(log.visible());
        let listener = follow.clone();
        log.subscribe(Rc::new(move |news| match news {
            News::Frame(frame) => listener.publish(frame),
            News::Visible(visible) => listener.advance(visible),
            // Readers read on; appends say why they fail.
            News::Ended => (),
        }));
        monoio::spawn(Follow::wake_in_slices(Rc::downgrade(&follow)));
        Rc::new(LiveLog { log, follow, turns: Turns::default() })
    }

    /// The log itself.
    pub fn log(&self) -> &Rc<LogHandle> {
        &self.log
    }

    /// Its views.
    pub fn follow(&self) -> &Rc<Follow> {
        &self.follow
    }

    /// Whose turn it is to read.
    pub fn turns(&self) -> &Turns {
        &self.turns
    }
}
