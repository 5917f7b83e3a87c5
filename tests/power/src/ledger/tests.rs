use super::*;

fn batch(publisher: u32, batch: u32, of: u32) -> Vec<EventName> {
    (0..of).map(|at| EventName { publisher, batch, at, of }).collect()
}

fn log() -> Vec<(u64, EventName)> {
    let names = [batch(1, 0, 2), batch(2, 0, 1), batch(1, 1, 3)].concat();
    (0..).zip(names).collect()
}

fn check(read: &[(u64, EventName)]) -> String {
    let ledger = Ledger::default();
    ledger.acknowledged(0, &batch(1, 0, 2));
    ledger.seen(0, batch(1, 0, 2)[0]);
    ledger.promised().expect("nothing is broken");
    ledger.check(0, read, true).err().map_or(String::new(), |broken| broken.0)
}

#[test]
fn a_log_that_keeps_its_promises_passes() {
    assert_eq!(check(&log()), "");
}

#[test]
fn whatever_is_wrong_is_told() {
    let changed = |change: fn(&mut Vec<(u64, EventName)>)| {
        let mut read = log();
        change(&mut read);
        check(&read)
    };
    assert!(changed(|read| _ = read.remove(1)).contains("acknowledged, is gone"));
    assert!(changed(|read| read.truncate(5)).contains("in part"));
    assert!(changed(|read| read[2].1 = batch(1, 0, 1)[0]).contains("doubled"));
    assert!(changed(|read| read[0].1.batch = 9).contains("was acknowledged"));
    assert!(changed(|read| read.swap(3, 4)).contains("out of order"));
}

#[test]
fn a_copy_has_what_was_known_when_it_was_made_and_nothing_else() {
    let ledger = Ledger::default();
    ledger.acknowledged(0, &batch(1, 0, 2));
    ledger.acknowledged(2, &batch(MORTAL, 0, 1));
    ledger.acknowledged(3, &batch(1, 1, 3));
    let names = [batch(1, 0, 2), batch(MORTAL, 0, 1), batch(1, 1, 3)].concat();
    let whole: Vec<_> = (0..).zip(names).collect();
    let check = |read: &[(u64, EventName)], holds| {
        ledger.check_copy(read, holds).err().map_or(String::new(), |broken| broken.0)
    };
    assert_eq!(check(&whole, 6), "");
    assert_eq!(check(&whole[..4], 4), "", "what came later");
    assert!(check(&whole[..4], 5).contains("gone"));
    assert!(check(&[], 6).contains("gone"));
    let mut changed = whole.clone();
    changed.remove(2);
    assert_eq!(check(&changed, 6), "", "a mortal's");
    changed[0].1.batch = 9;
    assert!(check(&changed, 6).contains("became"));
    changed.swap(2, 3);
    assert!(check(&changed, 6).contains("out of order"));
    ledger.limit();
    assert_eq!(check(&whole[1..], 6), "");
}

#[test]
fn what_is_sent_until_it_is_there_leaves_no_gap() {
    let check = |publisher| {
        let ledger = Ledger::default();
        let names = [batch(publisher, 0, 1), batch(publisher, 2, 1)].concat();
        let read: Vec<_> = (0..).zip(names).collect();
        ledger.check(0, &read, true).err().map_or(String::new(), |broken| broken.0)
    };
    assert_eq!(check(0), "", "one that is sent once may have failed");
    assert!(check(1).contains("one that was sent before is not"));
    assert!(check(2).contains("one that was sent before is not"));
    assert_eq!(check(MORTAL + 1), "", "it is gone");
}

#[test]
fn what_a_publisher_sends_comes_behind_what_it_sent() {
    let ledger = Ledger::default();
    ledger.acknowledged(5, &batch(1, 0, 2));
    ledger.acknowledged(4, &batch(2, 0, 1));
    ledger.promised().expect("nothing is broken");
    ledger.acknowledged(3, &batch(1, 1, 1));
    assert!(ledger.promised().expect_err("before").0.contains("sent before at 6"));
}

#[test]
fn a_run_that_asked_nothing_says_so() {
    let ledger = Ledger::default();
    for what in [Asked::WasThere, Asked::WasNotThere, Asked::Again, Asked::Twice] {
        ledger.asked(what);
        ledger.counts().check_all_asked().expect_err("not all");
    }
    ledger.asked(Asked::Wrong);
    ledger.counts().check_all_asked().expect("all");
}

#[test]
fn mortal_events_may_be_gone_and_others_may_not() {
    let ledger = Ledger::default();
    ledger.acknowledged(0, &batch(MORTAL, 0, 2));
    ledger.acknowledged(2, &batch(1, 0, 1));
    ledger.check(0, &[(1, batch(MORTAL, 0, 2)[1]), (2, batch(1, 0, 1)[0])], true).expect("fine");
    ledger.check(0, &[(2, batch(1, 0, 1)[0])], true).expect("fine");
    ledger.acknowledged(3, &batch(1, 1, 1));
    ledger.acknowledged(4, &batch(1, 2, 1));
    let gone = ledger.check(3, &[(4, batch(1, 2, 1)[0])], false).expect_err("gone");
    assert!(gone.0.contains("acknowledged, is gone"), "{gone}");
}

#[test]
fn what_was_let_go_of_a_room_stays_gone_and_the_rest_is_there() {
    let ledger = Ledger::default();
    let (first, second) = (batch(ROOMS, 0, 1)[0], batch(ROOMS, 1, 1)[0]);
    ledger.acknowledged(0, &[first]);
    ledger.acknowledged(1, &[second]);
    let gone = |from, read: &[_]| ledger.check(from, read, true).is_err();
    assert!(gone(0, &[(1, second)]), "nobody has let it go");
    ledger.let_go_asked(ROOMS, 1);
    let before = ledger.gone();
    ledger.check_gone(&before, &[(0, first)]).expect("it may be there");
    assert!(!gone(0, &[(0, first), (1, second)]) && !gone(0, &[(1, second)]));
    // Somebody has found it gone by now.
    ledger.check_gone(&before, &[(0, first)]).expect("who began to read before");
    let back = ledger.check_gone(&ledger.gone(), &[(0, first)]).expect_err("it is back");
    assert!(back.0.contains("deleted or trimmed, is there"), "{back}");
    ledger.acknowledged(2, &batch(1, 0, 1));
    assert!(gone(0, &[(2, batch(1, 0, 1)[0])]), "what is not below is not let go");
    ledger.let_go_asked(ROOMS, 2);
    ledger.let_go(ROOMS, Done::Deleted);
    assert!(!gone(0, &[(2, batch(1, 0, 1)[0])]));
    ledger.check_gone(&ledger.gone(), &[(1, second)]).expect_err("it is back");
}

#[test]
fn what_was_let_go_before_a_subscriber_came_to_it_need_not_be_sent() {
    let ledger = Ledger::default();
    let (first, second) = (batch(ROOMS, 0, 1)[0], batch(ROOMS, 1, 1)[0]);
    ledger.let_go_asked(ROOMS, 1);
    ledger.seen(2, batch(1, 0, 1)[0]);
    let read = [(0, first), (1, second), (2, batch(1, 0, 1)[0])];
    let missed = ledger.check(0, &read, false).expect_err("the second stays");
    assert!(missed.0.starts_with("offset 1: "), "{missed}");
    ledger.let_go_asked(ROOMS, 2);
    ledger.check(0, &read, false).expect("both may have been gone by then");
}

#[test]
fn a_limited_log_begins_later_and_later_and_says_so() {
    let ledger = Ledger::default();
    let names = [batch(1, 0, 2), batch(1, 1, 1)].concat();
    ledger.acknowledged(0, &names[..2]);
    ledger.acknowledged(2, &names[2..]);
    ledger.limit();
    ledger.check_limited().expect_err("nothing has gone");
    ledger.begins_at(1, 0);
    ledger.check_limited().expect("an event has gone");
    ledger.passed_over(2);
    ledger.check(1, &[(1, names[1]), (2, names[2])], true).expect("fine");
    ledger.promised().expect("fine");
    ledger.begins_at(0, 0);
    assert!(ledger.promised().expect_err("back").0.contains("began at 1"));
}

#[test]
fn nobody_is_told_that_more_has_gone_than_has() {
    let ledger = Ledger::default();
    ledger.limit();
    ledger.passed_over(9);
    ledger.begins_at(9, ledger.passed_to());
    ledger.promised().expect("fine");
    ledger.passed_over(12);
    ledger.begins_at(10, ledger.passed_to());
    assert!(ledger.promised().expect_err("two are there").0.contains("begins at 10"));
}

#[test]
fn nothing_is_passed_over_in_a_log_without_a_limit() {
    let ledger = Ledger::default();
    ledger.passed_over(2);
    assert!(ledger.promised().expect_err("gone").0.contains("all before 2 has gone"));
}

#[test]
fn a_subscriber_misses_nothing_and_sees_nothing_twice() {
    let ledger = Ledger::default();
    ledger.seen(0, batch(1, 0, 1)[0]);
    ledger.seen(0, batch(1, 0, 1)[0]);
    assert!(ledger.promised().expect_err("twice").0.contains("expected 1"));
}

#[test]
fn what_was_there_stays() {
    let ledger = Ledger::default();
    ledger.check(0, &log(), true).expect("fine");
    let mut changed = log();
    changed[2].1.publisher = 3;
    assert!(ledger.check(0, &changed, true).expect_err("changed").0.contains("was there before"));
}
