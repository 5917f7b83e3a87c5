//! WebSocket input from any bytes: what is decoded does not depend on how the bytes come, nothing
//! follows an error or a close, and every message is followed or refused.
//!
//! The first byte says in how large pieces the rest comes; its highest bit puts the rest, masked,
//! into one text frame, so that messages are reached soon.
#![no_main]

use bytes::Bytes;
use libfuzzer_sys::fuzz_target;
use strandline::problem::CloseCode;
use strandline::websocket::frames::{Decoder, MESSAGE_BYTES_MAX, Received, push_pong};
use strandline::websocket::message::{self, MessageId, push_error};

fn decode(input: &[u8], piece_bytes: usize) -> Vec<Result<Received, CloseCode>> {
    let (mut decoder, mut all) = (Decoder::default(), Vec::new());
    for piece in input.chunks(piece_bytes) {
        decoder.push(Bytes::copy_from_slice(piece));
        while let Some(result) = decoder.next_message() {
            let last = matches!(result, Err(_) | Ok(Received::Close(_)));
            assert_eq!(decoder.has_ended(), last);
            all.push(result);
        }
    }
    all
}

fn follow(text: &Bytes) {
    assert!(text.len() <= MESSAGE_BYTES_MAX);
    let mut out = Vec::new();
    if let Err(error) = message::parse(text) {
        assert!((400..600).contains(&error.problem.status()));
        push_error(&mut out, error.id.as_ref(), &error.problem);
        assert!(out.iter().all(|byte| *byte >= b' '), "one line of JSON");
        let id_bytes = error.id.map_or(0, |id| id.as_json().len());
        assert!(id_bytes <= MessageId::BYTES_MAX);
    }
}

fuzz_target!(|input: &[u8]| {
    let Some((first, rest)) = input.split_first() else { return };
    let mut framed = Vec::new();
    let input = match (first & 0x80, u16::try_from(rest.len())) {
        (0x80, Ok(length)) => {
            framed.extend_from_slice(&[0x81, 0x80 | 126]);
            framed.extend_from_slice(&length.to_be_bytes());
            framed.extend_from_slice(&[0; 4]);
            framed.extend_from_slice(rest);
            &framed[..]
        }
        _ => rest,
    };
    let all = decode(input, usize::from(first & 0x7f) + 1);
    assert_eq!(all, decode(input, usize::MAX));
    for received in all.into_iter().flatten() {
        match received {
            Received::Text(text) => follow(&text),
            Received::Ping(payload) => push_pong(&mut Vec::new(), &payload),
            Received::Pong | Received::Close(_) => {}
        }
    }
});
