//! What the log has to say, in the server's log and metrics.

use strandline_storage::log::Notice;

use super::Owner;

impl Owner {
    pub(super) fn report_notices(&self) {
        let notices = self.log.borrow_mut().take_notices();
        for notice in notices {
            if matches!(
                notice,
                Notice::SealFailed { .. }
                    | Notice::PrepareFailed { .. }
                    | Notice::ReserveFailed { .. }
                    | Notice::CompactFailed { .. }
                    | Notice::RetireFailed { .. }
                    | Notice::SnapshotFailed { .. }
                    | Notice::MarkFailed { .. }
            ) {
                self.shared.metrics().failed_jobs.add(1);
            }
            match notice {
                Notice::Poisoned(poison) => tracing::error!(
                    first_unsynced = poison.first_unsynced.get(),
                    reason = poison.reason,
                    "the log is read-only until a restart has looked at what the disk kept"
                ),
                Notice::DiskFull => {
                    self.shared.store_disk_full(true);
                    tracing::error!("the disk is full: appends are refused until there is space");
                    let taken = self.log.borrow_mut().refuse_staged();
                    self.refuse_taken_back(&taken);
                }
                Notice::DiskSpaceBack => {
                    self.shared.store_disk_full(false);
                    tracing::info!("the disk has space again");
                }
                Notice::SealFailed { reason } => {
                    tracing::warn!(reason, "a full segment could not be indexed; tried again");
                }
                Notice::Compacted { name, dropped: None, bytes_before, .. } => {
                    tracing::info!(%name, bytes_before, "a segment has gone, and all of its events");
                }
                Notice::Compacted { name, dropped: Some(dropped), bytes_before, bytes_after } => {
                    tracing::info!(%name, dropped, bytes_before, bytes_after, "a segment was rewritten");
                }
                Notice::CompactFailed { reason } => {
                    tracing::warn!(reason, "a segment could not be rewritten; tried again");
                }
                Notice::Damaged { name, reason } => {
                    tracing::error!(%name, reason, "a segment is damaged: it is kept as it is");
                }
                Notice::SoundAgain { name } => {
                    tracing::info!(%name, "a segment that was damaged has been read again, and is sound");
                }
                Notice::SnapshotDamaged(damage) => tracing::error!(
                    file = %damage.file.display(),
                    reason = damage.what,
                    "a snapshot is damaged: the log opens without it, and the next takes its place"
                ),
                Notice::SnapshotsUnread { reason } => tracing::error!(
                    reason,
                    "snapshots could not be read again: whether they are sound is not known (said once)"
                ),
                Notice::Scrubbed { bytes, damaged: 0 } => {
                    tracing::info!(bytes, "all sealed segments were read again: they are sound");
                }
                Notice::Scrubbed { bytes, damaged } => tracing::error!(
                    bytes,
                    damaged,
                    "sealed segments are damaged: `strandline verify` says where, a backup may help"
                ),
                Notice::RetireFailed { reason } => {
                    tracing::warn!(
                        reason,
                        "a segment that is gone could not be removed; tried again"
                    );
                }
                Notice::ExpiryRefused { topic, reason } => tracing::warn!(
                    topic,
                    reason,
                    "a topic is over and stays: no event may be so long as to delete it (said once)"
                ),
                Notice::SnapshotFailed { reason } => {
                    tracing::warn!(reason, "a snapshot could not be made; tried again");
                }
                Notice::EndMarkDamaged(damage) => tracing::error!(
                    file = %damage.file.display(),
                    reason = damage.what,
                    "the end mark was damaged: whether the log had gone on further cannot be told; it is written anew"
                ),
                Notice::StepsDamaged(damage) => tracing::warn!(
                    file = %damage.file.display(),
                    reason = damage.what,
                    "steps of the clock are not known any more: ids and producers of before may be forgotten early"
                ),
                Notice::MarkFailed { reason } => {
                    tracing::warn!(reason, "the end mark could not be written; tried again");
                }
                Notice::PrepareFailed { reason } => {
                    tracing::warn!(reason, "the next segment could not be prepared; tried again");
                }
                Notice::ReserveFailed { reason } => tracing::warn!(
                    reason,
                    "space could not be set aside for the day when the disk is full; tried again (said once)"
                ),
                Notice::Clock(notice) => tracing::warn!(?notice, "the wall clock leapt"),
            }
        }
    }
}
