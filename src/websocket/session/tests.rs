//! Sessions on a shard without a server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::stream::cursor::GivenCursor;
use crate::stream::subscribers::{SlotId, Subscribers, testing};

/// A client's message.
fn text_frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 126).expect("a short one");
    // Masked with zeroes.
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

fn session_of(log: Rc<LogHandle>) -> WebSocket {
    let life = Life::new(Instant::now(), 15);
    WebSocket { log, numbers: Numbers::default(), business: None, life }
}

fn add(subscribers: &Subscribers, socket: UnixStream, session: WebSocket) -> SlotId {
    let session = Box::new(session);
    let added = subscribers.add_session(socket.into(), session, &[], 15, testing::guard());
    added.expect("it can be watched")
}

/// All that had come in was done in one go, hundreds of subscribes, while pushes waited.
#[test]
fn what_has_come_in_at_once_is_taken_up_in_slices() {
    testing::on_a_shard(|subscribers| {
        let (socket, mut client) = UnixStream::pair().expect("a pair of sockets");
        client.set_nonblocking(true).expect("a socket");
        let id = add(&subscribers, socket, session_of(testing::empty_log()));
        let asked: Vec<u8> = (0..100)
            .flat_map(|id| {
                let subscribe = format!(r#"{{"type":"subscribe","id":{id},"topics":["t/{id}"]}}"#);
                let end = format!(r#"{{"type":"unsubscribe","id":{id},"subscription":1}}"#);
                [text_frame(&subscribe), text_frame(&end)].concat()
            })
            .collect();
        client.write_all(&asked).expect("room");
        let (mut turns, mut answers) = (1, Vec::new());
        let mut take = || {
            let mut some = [0; 1 << 16];
            while let Ok(count) = client.read(&mut some) {
                answers.extend_from_slice(&some[..count]);
            }
        };
        while testing::step_when_a_slice_is_over(&subscribers, id) {
            take();
            turns += 1;
        }
        take();
        assert!(turns >= 200, "a message in each: {turns}");
        let answers = String::from_utf8_lossy(&answers);
        let said = |what: &str| answers.matches(&format!(r#""type":"{what}""#)).count();
        assert_eq!((said("subscribed"), said("unsubscribed")), (100, 100), "{answers}");
        let last = answers.rfind(r#""type":"unsubscribed","id":99"#);
        assert!(last > answers.rfind(r#""type":"subscribed""#), "in order: {answers}");
    });
}

/// Retention passed a cursor between the two looks at where the log begins, and the client was told that it goes on
/// exactly after that, from where the log began now: what lay between was passed over without a word.
#[test]
fn who_is_told_that_it_resumes_begins_behind_its_cursor() {
    testing::on_a_shard(|subscribers| {
        let (log, shared) = testing::empty_log_and_shared();
        let (earliest, visible) = (Offset::new(42), Offset::new(1_000));
        shared.store_kept(&log.segments(), &log.floors(), earliest);
        shared.store_visible(visible, visible);
        let (socket, _client) = UnixStream::pair().expect("a pair of sockets");
        let id = add(&subscribers, socket, session_of(log.clone()));
        let mut session = session_of(log.clone());
        let facts = session.facts();
        let cursor = GivenCursor::of_header(format!("41.{}", log.tag().as_str()).as_bytes());
        let start = start::resolve(cursor, None, &facts);
        assert_eq!((start.state, start.place), (StartState::Resumed, StartPlace::Offset(earliest)));
        shared.store_kept(&log.segments(), &log.floors(), Offset::new(500));
        let wanted = Rc::new(Wanted::new([].into(), [].into()));
        let number = session.numbers.take().expect("a number");
        let starting = Starting { search: 0, number, id: None, wanted, start, is_ended: false };
        testing::with_port(&subscribers, id, |port| {
            session.begin(starting, earliest, &facts, port);
        });
        let answers = session.take_answers();
        let answers = String::from_utf8_lossy(&answers);
        assert!(answers.contains(r#""state":"resumed","from":42,"earliest":42,"#), "{answers}");
    });
}
