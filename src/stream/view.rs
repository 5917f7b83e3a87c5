//! What many subscribers share: which events they want, how these are rendered, and the recent ones
//! already encoded.

use std::collections::VecDeque;
use std::rc::Rc;

use strandline_storage::offset::Offset;

use super::catch_up::Parked;
use super::chunk::{Render, Ring};
use super::compression::Encoding;
use super::pages::Pages;
use super::wanted::Wanted;

/// How the bytes of a view's events look; two that differ are two views.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Rendering {
    /// Server-Sent Events.
    Sse {
        /// Whether data is the whole event object.
        is_object: bool,
        /// Whether each chunk is an HTTP/1.1 chunk too.
        is_chunked: bool,
        /// How each chunk is compressed, if it is.
        encoding: Encoding,
    },
    /// WebSocket text frames, which name the subscription.
    WebSocket {
        /// The number of the subscription on its connection.
        subscription: u16,
    },
}

/// What makes two subscribers of a log share a view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ViewKey {
    /// Which events.
    pub wanted: Rc<Wanted>,
    /// How they look.
    pub rendering: Rendering,
}

/// The number of a view on its shard, for as long as it has members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ViewId(pub(super) u32);

/// A frame that a view has still to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pending {
    /// Where what is new of it begins; its name among those that wait.
    pub(super) from: Offset,
    /// The first of the view's topics among the frame's hits.
    pub(super) hit: u32,
    /// How many of the events it has looked at.
    pub(super) seen: u32,
}

/// A subscription of a connection: what a view knows of who gets its events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// The place of the connection in the slab.
    pub slot: u32,
    /// The number of the subscription on it.
    pub number: u16,
}

/// A view with members.
pub(super) struct View {
    pub(super) key: ViewKey,
    pub(super) render: Rc<dyn Render>,
    pub(super) ring: Ring,
    pub(super) pages: Pages,
    /// A read of the log that stands where the next page begins.
    pub(super) parked: Option<Box<Parked>>,
    pub(super) members: Members,
    /// Frames that it has still to look at.
    pub(super) pending: VecDeque<Pending>,
    /// Whether it is in the queue of views with something new.
    pub(super) is_due: bool,
    /// Up to which of the things that concern all views it is up to date.
    pub(super) era: u64,
}

impl View {
    pub(super) fn new(key: ViewKey, render: Rc<dyn Render>, start: Offset, era: u64) -> Self {
        View {
            key,
            render,
            ring: Ring::new(start),
            pages: Pages::default(),
            parked: None,
            members: Members::default(),
            pending: VecDeque::new(),
            is_due: false,
            era,
        }
    }

    /// Whether anything may have been encoded, or read, from before an offset.
    pub(super) fn holds_below(&self, offset: Offset) -> bool {
        let is_in_ring = !self.ring.is_empty() && self.ring.start() < offset;
        is_in_ring || self.pages.bytes() > 0 || self.parked.is_some()
    }
}

/// A member that took the place of one that left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// The member.
    pub member: Member,
    /// Whether the round may not come to it any more, which had not reached it: it is to be served by itself.
    pub is_owed_news: bool,
}

/// The members of a view, and how far round the last news have gone.
///
/// News make one round: the next member to be served is wherever the last round stood, so that under
/// load nobody is always the last.
#[derive(Debug, Default)]
pub(super) struct Members {
    all: Vec<Member>,
    at: usize,
    left: usize,
}

impl Members {
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Adds a member; returns its position.
    pub(super) fn add(&mut self, member: Member) -> u32 {
        if self.all.is_empty() {
            self.all.reserve_exact(1);
        }
        self.all.push(member);
        // It lies on the way of a round that is under way, which must not end before its last member.
        self.left += usize::from(self.left > 0);
        u32::try_from(self.all.len() - 1).expect("connections are numbered by 32 bits")
    }

    /// Takes the member at `position` out; returns the one that stands there now, if another moved.
    pub(super) fn remove(&mut self, position: u32) -> Option<Moved> {
        let position = position as usize;
        let begin = if self.at < self.all.len() { self.at } else { 0 };
        // The round still goes to places from `begin` on, beyond the last one to the first: one less, if the last was
        // among them. It began anew each time, which cost all members for each that left.
        let is_last_to_go = self.left > 0 && begin + self.left >= self.all.len();
        self.left -= usize::from(is_last_to_go);
        self.all.swap_remove(position);
        let member = self.all.get(position).copied()?;
        Some(Moved { member, is_owed_news: is_last_to_go })
    }

    /// There is something new for all of them.
    pub(super) fn start_round(&mut self) {
        self.left = self.all.len();
    }

    /// The next one of the round.
    pub(super) fn next(&mut self) -> Option<Member> {
        self.left = self.left.checked_sub(1)?;
        if self.at >= self.all.len() {
            self.at = 0;
        }
        let member = self.all.get(self.at).copied();
        self.at += 1;
        member
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(slot: u32) -> Member {
        Member { slot, number: 0 }
    }

    fn round(members: &mut Members) -> Vec<u32> {
        std::iter::from_fn(|| members.next()).map(|member| member.slot).collect()
    }

    #[test]
    fn news_go_round_once_and_go_on_where_the_last_stood() {
        let mut members = Members::default();
        for slot in 0..4 {
            assert_eq!(members.add(member(slot)), slot);
        }
        assert_eq!(round(&mut members), Vec::<u32>::new());
        members.start_round();
        assert_eq!(members.next(), Some(member(0)));
        assert_eq!(members.next(), Some(member(1)));
        members.start_round();
        assert_eq!(round(&mut members), [2, 3, 0, 1]);
    }

    /// A round that counted its members at its start ended one too early.
    #[test]
    fn a_round_reaches_everybody_also_when_some_join_meanwhile() {
        let mut members = Members::default();
        for slot in 0..3 {
            members.add(member(slot));
        }
        members.start_round();
        assert_eq!((members.next(), members.next()), (Some(member(0)), Some(member(1))));
        members.start_round();
        members.add(member(3));
        let mut rest = round(&mut members);
        rest.sort_unstable();
        assert_eq!(rest, [0, 1, 2, 3]);
    }

    #[test]
    fn a_round_reaches_everybody_also_when_some_leave_meanwhile() {
        let mut members = Members::default();
        for slot in 0..5 {
            members.add(member(slot));
        }
        members.start_round();
        assert_eq!((members.next(), members.next()), (Some(member(0)), Some(member(1))));
        let moved = Moved { member: member(4), is_owed_news: true };
        assert_eq!(members.remove(0), Some(moved), "it takes the place of who was served");
        assert_eq!(members.remove(3), None);
        assert_eq!(round(&mut members), [2]);
        let moved = |slot| Some(Moved { member: member(slot), is_owed_news: false });
        assert_eq!(
            (members.remove(0), members.remove(0), members.remove(0)),
            (moved(2), moved(1), None)
        );
        assert!(members.is_empty());
        members.start_round();
        assert_eq!(members.next(), None);
    }

    /// Of each random life: who is there at the end of a round has been served since the last news or is told to be, and no
    /// round takes more turns than there were members.
    #[test]
    fn no_round_begins_anew_for_those_who_leave() {
        let mut random = 1_u64;
        let mut below = |end: usize| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            usize::try_from((random >> 33) % end.max(1) as u64).expect("small")
        };
        for _ in 0..2_000 {
            let mut members = Members::default();
            let (mut served, mut count) = (std::collections::HashSet::new(), 0);
            for _ in 0..below(9) {
                members.add(member(count));
                count += 1;
            }
            // The round before ended somewhere in the middle.
            members.start_round();
            for _ in 0..below(9) {
                members.next();
            }
            members.start_round();
            let (mut turns_max, mut turns) = (members.len(), 0);
            loop {
                match below(4) {
                    0 if !members.is_empty() => {
                        let at = below(members.len());
                        let moved = members.remove(u32::try_from(at).expect("small"));
                        served.extend(
                            moved.filter(|moved| moved.is_owed_news).map(|moved| moved.member.slot),
                        );
                    }
                    1 if count < 12 => {
                        members.add(member(count));
                        turns_max += 1;
                        // Whoever comes has everything.
                        served.insert(count);
                        count += 1;
                    }
                    _ => match members.next() {
                        Some(one) => {
                            served.insert(one.slot);
                            turns += 1;
                        }
                        None => break,
                    },
                }
            }
            assert!(
                members.all.iter().all(|one| served.contains(&one.slot)),
                "{:?}: {served:?}",
                members.all
            );
            assert!(turns <= turns_max, "{turns} turns");
        }
    }
}
