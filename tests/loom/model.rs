//! `src/mesh.rs` under loom: every order of its steps, with every value that a load may return.
//!
//! What is claimed there is tried here: no message is lost or taken twice, no wake-up is missed, and a
//! request that was accepted has a place for its answer.
#![cfg(loom)]

#[path = "../../src/mesh.rs"]
pub mod mesh;

#[cfg(test)]
mod tests {
    use std::{
        future::poll_fn,
        task::{Context, Waker},
    };

    use loom::{
        future::block_on,
        sync::{
            Arc,
            atomic::{AtomicU64, Ordering},
        },
        thread,
    };

    use super::mesh::{CallLimits, Doorbell, MailboxLimits, Receiver, call_pair, mailbox};

    /// Every order with at most two preemptions: with more, a wait for a wake-up takes hours, and no
    /// error of such a protocol is known to need them.
    fn model_waits(steps: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(steps);
    }

    fn limits(messages_max: usize) -> MailboxLimits {
        MailboxLimits { messages_max, bytes_max: usize::MAX }
    }

    /// Takes messages until there were `count`, sleeping while there is none.
    async fn take(receiver: &Receiver<u64>, doorbell: &Doorbell, count: usize) -> Vec<u64> {
        let mut taken = Vec::new();
        while taken.len() < count {
            poll_fn(|context| doorbell.poll_rung(context)).await;
            taken.extend(std::iter::from_fn(|| receiver.try_take()));
        }
        taken
    }

    #[test]
    fn no_message_and_no_wake_up_is_lost() {
        model_waits(|| {
            let doorbell = Arc::new(Doorbell::new());
            let (sender, receiver) = mailbox(limits(2), doorbell.clone());
            let producer = thread::spawn(move || {
                sender.try_send(1, 8).unwrap();
                sender.try_send(2, 8).unwrap();
            });
            assert_eq!(block_on(take(&receiver, &doorbell, 2)), [1, 2]);
            producer.join().unwrap();
        });
    }

    #[test]
    fn one_doorbell_serves_two_mailboxes() {
        model_waits(|| {
            let doorbell = Arc::new(Doorbell::new());
            let (first, from_first) = mailbox(limits(1), doorbell.clone());
            let (second, from_second) = mailbox(limits(1), doorbell.clone());
            let threads = [first, second].map(|sender| {
                thread::spawn(move || {
                    sender.try_send(7_u64, 1).unwrap();
                })
            });
            let taken = block_on(async {
                let mut taken = 0;
                while taken < 2 {
                    poll_fn(|context| doorbell.poll_rung(context)).await;
                    taken += usize::from(from_first.try_take().is_some());
                    taken += usize::from(from_second.try_take().is_some());
                }
                taken
            });
            assert_eq!(taken, 2);
            for thread in threads {
                thread.join().unwrap();
            }
        });
    }

    #[test]
    fn a_slot_is_reused_only_after_it_was_emptied() {
        loom::model(|| {
            let (sender, receiver) = mailbox(limits(1), Arc::new(Doorbell::new()));
            let producer = thread::spawn(move || {
                (0..3_u64).filter(|number| sender.try_send(*number, 1).is_ok()).collect::<Vec<_>>()
            });
            let mut taken = Vec::new();
            for _ in 0..2 {
                taken.extend(receiver.try_take());
            }
            let sent = producer.join().unwrap();
            taken.extend(std::iter::from_fn(|| receiver.try_take()));
            assert_eq!(taken, sent, "what was accepted is taken, once and in order");
        });
    }

    #[test]
    fn the_weight_of_a_mailbox_comes_back_to_nothing() {
        loom::model(|| {
            let limits = MailboxLimits { messages_max: 2, bytes_max: 10 };
            let (sender, receiver) = mailbox(limits, Arc::new(Doorbell::new()));
            sender.try_send(0_u64, 10).unwrap();
            let consumer = thread::spawn(move || {
                let first = receiver.try_take();
                (first, receiver)
            });
            let accepted = sender.try_send(1, 10).is_ok();
            let (first, receiver) = consumer.join().unwrap();
            assert_eq!(first, Some(0));
            assert_eq!(receiver.try_take(), accepted.then_some(1));
            sender.try_send(2, 10).unwrap();
        });
    }

    #[test]
    fn an_accepted_request_has_a_place_for_its_answer() {
        model_waits(|| {
            let (asker, answerer) = (Arc::new(Doorbell::new()), Arc::new(Doorbell::new()));
            let call_limits = CallLimits { requests: limits(2), unanswered_max: 2 };
            let (caller, server) =
                call_pair::<u64, u64>(call_limits, asker.clone(), answerer.clone());
            let owner = thread::spawn(move || {
                block_on(async {
                    let mut answered = 0;
                    while answered < 3 {
                        poll_fn(|context| answerer.poll_rung(context)).await;
                        while let Some(request) = server.try_take_request() {
                            server.answer(request + 100);
                            answered += 1;
                        }
                    }
                })
            });
            let answers = block_on(async {
                let (mut asked, mut answers) = (0, Vec::new());
                while answers.len() < 3 {
                    while asked < 3 && caller.try_call(asked, 1).is_ok() {
                        asked += 1;
                    }
                    poll_fn(|context| asker.poll_rung(context)).await;
                    answers.extend(std::iter::from_fn(|| caller.try_take_answer()));
                }
                answers
            });
            assert_eq!(answers, [100, 101, 102]);
            owner.join().unwrap();
        });
    }

    /// Who gets an acknowledgement finds the event: the visible offset is stored before it leaves.
    #[test]
    fn what_was_stored_before_a_message_is_seen_with_it() {
        loom::model(|| {
            let visible = Arc::new(AtomicU64::new(0));
            let (sender, receiver) = mailbox(limits(1), Arc::new(Doorbell::new()));
            let owner = thread::spawn({
                let visible = visible.clone();
                move || {
                    visible.store(5, Ordering::Release);
                    sender.try_send((), 0).unwrap();
                }
            });
            if receiver.try_take().is_some() {
                assert_eq!(visible.load(Ordering::Acquire), 5);
            }
            owner.join().unwrap();
        });
    }

    /// A ring without a message tells of an atomic.
    #[test]
    fn a_ring_tells_of_what_was_stored_before_it() {
        model_waits(|| {
            let doorbell = Arc::new(Doorbell::new());
            let phase = Arc::new(AtomicU64::new(0));
            let stopper = thread::spawn({
                let (doorbell, phase) = (doorbell.clone(), phase.clone());
                move || {
                    phase.store(1, Ordering::Release);
                    doorbell.ring();
                }
            });
            block_on(async {
                while phase.load(Ordering::Acquire) == 0 {
                    poll_fn(|context| doorbell.poll_rung(context)).await;
                }
            });
            stopper.join().unwrap();
        });
    }

    /// Nobody is woken whose runtime has ended.
    #[test]
    fn a_sleeper_that_was_forgotten_is_not_woken() {
        loom::model(|| {
            let doorbell = Arc::new(Doorbell::new());
            let mut context = Context::from_waker(Waker::noop());
            assert!(doorbell.poll_rung(&mut context).is_pending());
            let ringer = thread::spawn({
                let doorbell = doorbell.clone();
                move || doorbell.ring()
            });
            doorbell.forget_sleeper();
            ringer.join().unwrap();
        });
    }
}
