//! How much space the log's disk has: for who asks, and for the server's log before it is full.

use std::{
    io,
    rc::{Rc, Weak},
    time::Duration,
};

use strandline_storage::io::{Disk, Space};

use super::Owner;

/// A warning is logged when so many percent of the disk are used.
const WARN_PERCENT: [u64; 3] = [80, 90, 95];
/// So many percent less, and the next time that it is reached is told again.
const AGAIN_PERCENT: u64 = 2;
/// The disk is looked at so often.
const LOOK_EVERY: Duration = Duration::from_secs(10);

impl Owner {
    /// The space of the log's disk; while it is being looked up, what was known before. However many ask,
    /// at most one question waits for the disk's thread.
    pub(super) async fn space(self: &Rc<Self>) -> Option<Space> {
        if !self.is_looking_up_space.replace(true) {
            let owner = self.clone();
            // A task of its own, which ends also where who asked does not wait.
            monoio::spawn(async move {
                let (dir, disk) = (owner.log.borrow().dir().to_owned(), owner.hands.disk);
                let found = owner.hands.jobs.call(move || disk.space(&dir)).await;
                owner.note_space(found);
                owner.is_looking_up_space.set(false);
            })
            .await;
        }
        self.space.get()
    }

    /// Takes what was found, and says once if nothing was, and once if something is again.
    pub(super) fn note_space(&self, found: io::Result<Space>) {
        let was_unknown = self.is_space_unknown.replace(found.is_err());
        match &found {
            Err(error) if !was_unknown => {
                let dir = self.log.borrow().dir().display().to_string();
                tracing::warn!(
                    %error,
                    dir,
                    "the disk does not say how much space it has: nothing is told before it is full"
                );
            }
            Ok(_) if was_unknown => tracing::info!("the disk says again how much space it has"),
            _ => {}
        }
        self.space.set(found.ok());
    }

    /// A segment that is gone was closed: each shard closes what its ring still has of it.
    pub(super) fn tell_segment_closed(&self) {
        self.shared.store_segment_closed();
        for guest in &self.guests {
            guest.frames.ring();
        }
        if let Some(follower) = self.follower.get().and_then(Weak::upgrade) {
            follower.close_what_is_gone();
        }
    }

    /// Logs a warning whenever the disk has become fuller than one of [`WARN_PERCENT`], until the log closes.
    pub(super) fn warn_of_little_space(self: &Rc<Self>) {
        let weak = Rc::downgrade(self);
        monoio::spawn(async move {
            let mut told = Told::default();
            while let Some(owner) = weak.upgrade() {
                if owner.log.borrow().is_closing() {
                    break;
                }
                if let Some(space) = owner.space().await
                    && let Some(percent) = told.news(&space)
                {
                    let Space { total_bytes, free_bytes } = space;
                    let dir = owner.log.borrow().dir().display().to_string();
                    tracing::warn!(
                        used_percent = percent,
                        free_bytes,
                        total_bytes,
                        dir,
                        "the disk is filling up: appends are refused once it is full"
                    );
                }
                drop(owner);
                monoio::time::sleep(LOOK_EVERY).await;
            }
        });
    }
}

/// Up to which share of a disk was told of.
#[derive(Debug, Default)]
struct Told {
    /// How many of [`WARN_PERCENT`].
    thresholds: usize,
}

impl Told {
    /// How full a disk is, in percent, if it has passed a threshold since it was told last.
    fn news(&mut self, space: &Space) -> Option<u64> {
        let used_bytes = space.total_bytes.saturating_sub(space.free_bytes);
        let percent =
            u64::try_from(u128::from(used_bytes) * 100 / u128::from(space.total_bytes.max(1)))
                .expect("at most 100");
        let passed = WARN_PERCENT.iter().take_while(|threshold| percent >= **threshold).count();
        if passed > self.thresholds {
            self.thresholds = passed;
            return Some(percent);
        }
        let kept = |threshold: &&u64| percent + AGAIN_PERCENT > **threshold;
        self.thresholds = self.thresholds.min(WARN_PERCENT.iter().take_while(kept).count());
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_threshold_is_told_once_until_there_is_clearly_more_space() {
        let mut told = Told::default();
        let news = |used: u64| told.news(&Space { total_bytes: 1_000, free_bytes: 1_000 - used });
        let used = [0, 799, 800, 850, 799, 805, 780, 800, 960, 905, 949, 951, 935, 951, 1_000];
        let some = |percent| Some(percent);
        assert_eq!(
            used.map(news),
            [
                None,
                None,
                some(80),
                None,
                None,
                None,
                None,
                some(80),
                some(96),
                None,
                None,
                some(95),
                None,
                some(95),
                None
            ]
        );
        let mut told = Told::default();
        assert_eq!(told.news(&Space { total_bytes: 0, free_bytes: 0 }), None, "unknown");
    }
}
