//! Frames from the server: final, not masked, without extensions. So the same bytes serve every
//! connection, and a run of messages is one vector.

use bytes::Bytes;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest header of a server's frame.
const HEADER_BYTES_MAX: usize = 10;
/// The header of a frame of 126 to 65,535 bytes: the usual one, so its room is left at first.
const HEADER_BYTES_USUAL: usize = 4;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: usize = 125;

/// Appends a text frame whose payload is what `render` appends.
pub fn push_text_frame(out: &mut Vec<u8>, render: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEADER_BYTES_USUAL]);
    render(out);
    let payload = start + HEADER_BYTES_USUAL;
    let (header, header_bytes) = header(OpCode::Data(Data::Text), out.len() - payload);
    out.splice(start..payload, header[..header_bytes].iter().copied());
}

/// The text frame with this payload.
pub fn encode_text_frame(payload: &[u8]) -> Bytes {
    let (header, header_bytes) = header(OpCode::Data(Data::Text), payload.len());
    [&header[..header_bytes], payload].concat().into()
}

/// Appends a ping with an empty payload.
pub fn push_ping(out: &mut Vec<u8>) {
    push_control(out, Control::Ping, &[]);
}

/// Appends the pong that answers a ping of this payload.
pub fn push_pong(out: &mut Vec<u8>, payload: &[u8]) {
    push_control(out, Control::Pong, payload);
}

/// Appends a close frame. A reason that does not fit is cut.
pub fn push_close(out: &mut Vec<u8>, code: u16, reason: &str) {
    let end = reason.floor_char_boundary(CONTROL_BYTES_MAX - 2);
    let payload = [&code.to_be_bytes(), &reason.as_bytes()[..end]].concat();
    push_control(out, Control::Close, &payload);
}

/// Appends the close frame that answers the client's, with its code if it gave one.
pub fn push_close_reply(out: &mut Vec<u8>, code: Option<u16>) {
    match code {
        Some(code) => push_close(out, code, ""),
        None => push_control(out, Control::Close, &[]),
    }
}

fn push_control(out: &mut Vec<u8>, control: Control, payload: &[u8]) {
    assert!(payload.len() <= CONTROL_BYTES_MAX, "control frames are short");
    let (header, header_bytes) = header(OpCode::Control(control), payload.len());
    out.extend_from_slice(&header[..header_bytes]);
    out.extend_from_slice(payload);
}

fn header(opcode: OpCode, payload_bytes: usize) -> ([u8; HEADER_BYTES_MAX], usize) {
    let mut bytes = [0; HEADER_BYTES_MAX];
    let mut room = &mut bytes[..];
    let header = FrameHeader { is_final: true, opcode, ..FrameHeader::default() };
    let payload_bytes = u64::try_from(payload_bytes).expect("usize has at most 64 bits");
    header.format(payload_bytes, &mut room).expect("there is room for the longest header");
    let header_bytes = HEADER_BYTES_MAX - room.len();
    (bytes, header_bytes)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use tungstenite::{Message, WebSocket, protocol::Role};

    use super::*;

    /// All messages that a client reads from these bytes.
    fn client(bytes: Vec<u8>) -> Vec<Message> {
        let mut socket = WebSocket::from_raw_socket(Cursor::new(bytes), Role::Client, None);
        std::iter::from_fn(|| socket.read().ok()).collect()
    }

    #[test]
    fn text_frames_of_every_length_class() {
        let mut out = Vec::new();
        let texts: Vec<String> =
            [0, 1, 125, 126, 65_535, 65_536, 70_000].map(|bytes| "x".repeat(bytes)).to_vec();
        for text in &texts {
            let start = out.len();
            push_text_frame(&mut out, |out| out.extend_from_slice(text.as_bytes()));
            assert_eq!(out[start..], encode_text_frame(text.as_bytes()));
        }
        let read: Vec<_> = client(out);
        let wanted: Vec<_> = texts.into_iter().map(|text| Message::Text(text.into())).collect();
        assert!(read == wanted, "each is read as it was written");
        assert_eq!(encode_text_frame(b"Hello")[..], *b"\x81\x05Hello", "RFC 6455 §5.7");
    }

    #[test]
    fn control_frames() {
        let mut out = Vec::new();
        push_ping(&mut out);
        push_pong(&mut out, b"beat");
        push_close(&mut out, 4000, &"é".repeat(100));
        let read = client(out);
        assert_eq!(read[..2], [Message::Ping(Bytes::new()), Message::Pong("beat".into())]);
        let Message::Close(Some(close)) = &read[2] else { panic!("{read:?}") };
        assert_eq!((u16::from(close.code), close.reason.as_str()), (4000, &*"é".repeat(61)));

        let mut out = Vec::new();
        push_close_reply(&mut out, Some(1000));
        push_close_reply(&mut out, None);
        assert_eq!(out, b"\x88\x02\x03\xe8\x88\x00");
    }
}
