//! Sessions on a shard without a server.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::*;
use crate::stream::subscribers::testing;

/// A client's message.
fn text_frame(text: &str) -> Vec<u8> {
    let len = u8::try_from(text.len()).ok().filter(|len| *len < 126).expect("a short one");
    // Masked with zeroes.
    [&[0x81, 0x80 | len, 0, 0, 0, 0], text.as_bytes()].concat()
}

/// All that had come in was done in one go, hundreds of subscribes, while pushes waited.
#[test]
fn what_has_come_in_at_once_is_taken_up_in_slices() {
    testing::on_a_shard(|subscribers| {
        let (socket, mut client) = UnixStream::pair().expect("a pair of sockets");
        client.set_nonblocking(true).expect("a socket");
        let session = WebSocket {
            log: testing::empty_log(),
            numbers: Numbers::default(),
            business: None,
            life: Life::new(Instant::now(), 15),
        };
        let added =
            subscribers.add_session(socket.into(), Box::new(session), &[], 15, testing::guard());
        let id = added.expect("it can be watched");
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
