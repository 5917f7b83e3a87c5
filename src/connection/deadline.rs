//! A deadline that moves with every request, though its timer hardly ever does.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use monoio::time::{Instant, Sleep, sleep_until};

/// The timer of one connection. It is set anew only when it rings too early, or would ring too late.
#[derive(Default)]
pub(super) struct Deadline {
    timer: Option<Pin<Box<Sleep>>>,
}

impl Deadline {
    /// Whether the timer has rung since [`Deadline::poll`] last looked at it, too early or not.
    pub(super) fn has_rung(&self) -> bool {
        self.timer.as_ref().is_some_and(|timer| timer.is_elapsed())
    }

    /// Ready once `at` has passed. Each call may name another time.
    pub(super) fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
        if at < timer.deadline() {
            timer.as_mut().reset(at);
        }
        loop {
            ready!(timer.as_mut().poll(context));
            if Instant::now() >= at {
                return Poll::Ready(());
            }
            timer.as_mut().reset(at);
        }
    }
}
