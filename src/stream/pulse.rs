//! Time as a subscriber needs it: an alarm that is put off again and again, and chance.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use monoio::time::{Instant, Sleep};

/// Rings when nothing has put it off for its whole time. Putting it off costs a glance at the clock:
/// the timer behind it is only set anew when it runs out.
pub struct Alarm {
    after: Duration,
    since: Instant,
    timer: Option<Pin<Box<Sleep>>>,
}

impl Alarm {
    /// An alarm that rings in `after`.
    pub fn new(after: Duration) -> Self {
        Alarm { after, since: Instant::now(), timer: None }
    }

    /// Puts it off: it rings in its whole time from now.
    pub fn restart(&mut self) {
        self.since = Instant::now();
    }

    /// Ready when it rings; it then begins anew.
    pub fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        loop {
            let at = self.since + self.after;
            let timer = self.timer.get_or_insert_with(|| Box::pin(monoio::time::sleep_until(at)));
            ready!(timer.as_mut().poll(context));
            let now = Instant::now();
            if now >= at {
                self.since = now;
                timer.as_mut().reset(now + self.after);
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}

/// A number in `range`: unpredictable enough to spread clients and to name connections.
pub fn random(range: Range<u64>) -> u64 {
    let bits = RandomState::new().build_hasher().finish();
    range.start + bits % (range.end - range.start)
}

/// A name for a connection, by which logs can tell it from others.
pub fn connection_id() -> String {
    format!("{:016x}", RandomState::new().build_hasher().finish())
}
