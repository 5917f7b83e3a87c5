//! Frames from the client, by tungstenite, fed from memory.
//!
//! ```text
//! push(bytes) -> next_message() -> Text | Ping | Pong | Close | error ... None: needs more bytes
//!
//! chunk  [frame ][frame     ][fra      a scanner knows where frames end; tungstenite is handed one
//!         ------>                      frame, or a piece of one, at a time
//! ```
//! The scanner serves two ends. What a header alone forbids is refused before its payload is waited
//! for (a binary frame of 2 MiB would be held in memory only to be refused). And where the bytes end
//! with a frame that ends a message, tungstenite's state is dropped with its buffers: an idle
//! connection holds none.
//!
//! What tungstenite answers by itself (pongs, closes) is discarded: the session answers, so that
//! control frames stand in order with its own.

use std::io::{self, Read, Write};

use bytes::{Buf, Bytes};
use tungstenite::{
    Message,
    error::{CapacityError, Error},
    protocol::{
        Role, WebSocketConfig, WebSocketContext,
        frame::{
            FrameHeader,
            coding::{Data, OpCode},
        },
    },
};

use crate::problem::CloseCode;

/// The longest message, in fragments or not.
pub const MESSAGE_BYTES_MAX: usize = 2 << 20;
/// What tungstenite reads at once; it clears that much each time.
const READ_BYTES: usize = 4096;
/// The longest header of a frame.
const HEADER_BYTES_MAX: usize = 14;
/// The longest payload of a control frame.
const CONTROL_BYTES_MAX: u64 = 125;

/// What a client sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// A text message, known to be UTF-8.
    Text(Bytes),
    /// A ping, to be answered by a pong with the same payload.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// A close, to be answered with the same code (1002 in place of one that is not allowed). It is
    /// the last: whatever the client sends after it is not looked at.
    Close(Option<u16>),
}

/// Turns received bytes into messages.
#[derive(Debug, Default)]
pub struct Decoder {
    chunk: Bytes,
    scanner: Scanner,
    /// Absent while nothing is unfinished.
    context: Option<Box<WebSocketContext>>,
    ended: bool,
}

impl Decoder {
    /// Takes the next bytes. All messages of those before must have been taken.
    pub fn push(&mut self, chunk: Bytes) {
        assert!(self.chunk.is_empty(), "messages are taken until there is none");
        if !self.ended {
            self.chunk = chunk;
        }
    }

    /// The next message, or `None` if more bytes are needed or the client has closed. After an error
    /// the connection is to be closed with that code; nothing more comes.
    pub fn next_message(&mut self) -> Option<Result<Received, CloseCode>> {
        while !self.chunk.is_empty() {
            let result = match self.step() {
                Ok(None) => continue,
                Ok(Some(received)) => Ok(received),
                Err(code) => Err(code),
            };
            if matches!(result, Err(_) | Ok(Received::Close(_))) {
                *self = Decoder { ended: true, ..Decoder::default() };
            }
            return Some(result);
        }
        None
    }

    /// Whether bytes were pushed that have not been looked at.
    pub fn has_more(&self) -> bool {
        !self.chunk.is_empty()
    }

    /// Whether nothing is unfinished, so that a new decoder would go on as well.
    pub fn is_between_messages(&self) -> bool {
        self.chunk.is_empty()
            && self.context.is_none()
            && self.scanner.is_between_messages()
            && !self.ended
    }

    /// Whether the client has closed, or has broken the protocol.
    pub fn has_ended(&self) -> bool {
        self.ended
    }

    /// Decodes up to the end of the frame that is under way, or of the chunk.
    fn step(&mut self) -> Result<Option<Received>, CloseCode> {
        let piece_bytes = self.scanner.advance(&self.chunk)?;
        let piece = self.chunk.split_to(piece_bytes);
        let context = self.context.get_or_insert_with(|| {
            let config = WebSocketConfig::default()
                .read_buffer_size(READ_BYTES)
                .write_buffer_size(0)
                .max_message_size(Some(MESSAGE_BYTES_MAX))
                .max_frame_size(Some(MESSAGE_BYTES_MAX));
            Box::new(WebSocketContext::new(Role::Server, Some(config)))
        });
        let mut stream = Piece(piece);
        let received = match context.read(&mut stream) {
            Ok(message) => Some(received(message)?),
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => return Err(close_code(&error)),
        };
        assert!(stream.0.is_empty(), "no frame goes on behind its end");
        if self.chunk.is_empty() && self.scanner.is_between_messages() {
            self.context = None;
        }
        Ok(received)
    }
}

fn received(message: Message) -> Result<Received, CloseCode> {
    match message {
        Message::Text(text) => Ok(Received::Text(text.into())),
        Message::Ping(payload) => Ok(Received::Ping(payload)),
        Message::Pong(_) => Ok(Received::Pong),
        Message::Close(close) => Ok(Received::Close(close.map(|close| close.code.into()))),
        Message::Binary(_) => Err(CloseCode::BinaryFrame),
        Message::Frame(_) => unreachable!("reading gives whole messages"),
    }
}

fn close_code(error: &Error) -> CloseCode {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => CloseCode::MessageTooBig,
        Error::Utf8(_) => CloseCode::InvalidText,
        _ => CloseCode::ProtocolError,
    }
}

/// Follows the boundaries of frames, and refuses what their headers forbid.
#[derive(Debug, Default)]
struct Scanner {
    /// The header that is under way.
    header: [u8; HEADER_BYTES_MAX],
    header_bytes: usize,
    /// What is still to come of the payload whose header has been read.
    payload_left: u64,
    /// A message has begun that its next data frame continues.
    fragmented: bool,
}

impl Scanner {
    /// The bytes of `chunk` up to the end of the frame that is under way, or all.
    fn advance(&mut self, chunk: &[u8]) -> Result<usize, CloseCode> {
        let mut at = 0;
        while self.payload_left == 0 {
            let Some(byte) = chunk.get(at) else { return Ok(at) };
            self.header[self.header_bytes] = *byte;
            self.header_bytes += 1;
            at += 1;
            let mut header = io::Cursor::new(&self.header[..self.header_bytes]);
            match FrameHeader::parse(&mut header) {
                Ok(None) => {}
                Ok(Some((header, payload_bytes))) => {
                    // RFC 6455 §5.2: "the minimal number of bytes MUST be used to encode the length".
                    if self.header_bytes != header.len(payload_bytes) {
                        return Err(CloseCode::ProtocolError);
                    }
                    self.check(&header, payload_bytes)?;
                    self.header_bytes = 0;
                    self.payload_left = payload_bytes;
                    if payload_bytes == 0 {
                        return Ok(at);
                    }
                }
                Err(_) => return Err(CloseCode::ProtocolError),
            }
        }
        let rest = u64::try_from(chunk.len() - at).expect("usize has at most 64 bits");
        let taken = self.payload_left.min(rest);
        self.payload_left -= taken;
        Ok(at + usize::try_from(taken).expect("at most the chunk"))
    }

    fn check(&mut self, header: &FrameHeader, payload_bytes: u64) -> Result<(), CloseCode> {
        if header.mask.is_none() || header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(CloseCode::ProtocolError);
        }
        match header.opcode {
            OpCode::Control(_) => {
                if !header.is_final || payload_bytes > CONTROL_BYTES_MAX {
                    return Err(CloseCode::ProtocolError);
                }
                return Ok(());
            }
            OpCode::Data(data) => match (data, self.fragmented) {
                (Data::Continue, true) | (Data::Text, false) => {}
                (Data::Binary, false) => return Err(CloseCode::BinaryFrame),
                _ => return Err(CloseCode::ProtocolError),
            },
        }
        if payload_bytes > u64::try_from(MESSAGE_BYTES_MAX).expect("2 MiB") {
            return Err(CloseCode::MessageTooBig);
        }
        self.fragmented = !header.is_final;
        Ok(())
    }

    fn is_between_messages(&self) -> bool {
        self.header_bytes == 0 && self.payload_left == 0 && !self.fragmented
    }
}

/// A socket that has received this piece and nothing more, and takes every write for nothing.
struct Piece(Bytes);

impl Read for Piece {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let bytes = buffer.len().min(self.0.len());
        self.0.copy_to_slice(&mut buffer[..bytes]);
        Ok(bytes)
    }
}

impl Write for Piece {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A client's frame: the first byte as it is, and a payload that is masked or not.
    fn frame(first: u8, payload: &[u8], masked: bool) -> Vec<u8> {
        let mask_bit = if masked { 0x80 } else { 0 };
        let mut bytes = vec![first];
        match payload.len() {
            len @ 0..=125 => bytes.push(mask_bit | u8::try_from(len).unwrap()),
            len @ 126..=65_535 => {
                bytes.push(mask_bit | 126);
                bytes.extend_from_slice(&u16::try_from(len).unwrap().to_be_bytes());
            }
            len => {
                bytes.push(mask_bit | 127);
                bytes.extend_from_slice(&u64::try_from(len).unwrap().to_be_bytes());
            }
        }
        let mask = if masked { [1, 2, 3, 4] } else { [0; 4] };
        bytes.extend_from_slice(&mask[..if masked { 4 } else { 0 }]);
        bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        bytes
    }

    const FIN: u8 = 0x80;

    /// The same with a longer length than it needs, of so many bytes.
    fn long_frame(first: u8, payload: &[u8], length_bytes: usize) -> Vec<u8> {
        let length = u64::try_from(payload.len()).unwrap().to_be_bytes();
        let masked = &frame(first, payload, true)[2..];
        let code = if length_bytes == 2 { 126 } else { 127 };
        [&[first, 0x80 | code], &length[8 - length_bytes..], masked].concat()
    }

    fn text(payload: &str) -> Vec<u8> {
        frame(FIN | 1, payload.as_bytes(), true)
    }

    fn decode<'a>(
        chunks: impl IntoIterator<Item = &'a [u8]>,
    ) -> (Vec<Result<Received, CloseCode>>, Decoder) {
        let mut decoder = Decoder::default();
        let mut all = Vec::new();
        for chunk in chunks {
            decoder.push(Bytes::copy_from_slice(chunk));
            while let Some(result) = decoder.next_message() {
                all.push(result);
            }
        }
        (all, decoder)
    }

    fn decoded(bytes: &[u8]) -> Vec<Result<Received, CloseCode>> {
        decode([bytes]).0
    }

    fn is_text(payload: &str) -> Result<Received, CloseCode> {
        Ok(Received::Text(Bytes::copy_from_slice(payload.as_bytes())))
    }

    #[test]
    fn messages_and_fragments_with_control_frames_between() {
        let bytes = [
            text("one"),
            frame(1, b"tw", true),
            frame(FIN | 9, b"beat", true),
            frame(0, b"", true),
            frame(FIN | 10, b"", true),
            frame(FIN, b"o", true),
            text(""),
        ]
        .concat();
        let ping = Ok(Received::Ping(Bytes::from_static(b"beat")));
        let wanted = [is_text("one"), ping, Ok(Received::Pong), is_text("two"), is_text("")];
        assert_eq!(decoded(&bytes), wanted);
        assert_eq!(decode(bytes.chunks(1)).0, wanted, "one byte at a time");
        assert_eq!(decoded(&text(&"é".repeat(50_000))), [is_text(&"é".repeat(50_000))]);
    }

    /// API §5: "a broken protocol closes it with the RFC 6455 code (binary frames 1003, more than
    /// 2 MiB 1009)": unmasked, fragmented, oversized and interleaved frames, reserved bits.
    #[test]
    fn a_broken_protocol_has_its_code() {
        let big = vec![b'x'; MESSAGE_BYTES_MAX + 1];
        let half = vec![b'x'; MESSAGE_BYTES_MAX / 2];
        for (what, bytes, code) in [
            ("binary", frame(FIN | 2, b"x", true), 1003),
            ("unmasked", frame(FIN | 1, b"{}", false), 1002),
            ("reserved bit 1", frame(FIN | 0x40 | 1, b"{}", true), 1002),
            ("reserved bit 2", frame(FIN | 0x20 | 1, b"{}", true), 1002),
            ("reserved bit 3", frame(FIN | 0x10 | 1, b"{}", true), 1002),
            ("a length of 2 bytes", long_frame(FIN | 1, b"{}", 2), 1002),
            ("a length of 8 bytes", long_frame(FIN | 1, b"{}", 8), 1002),
            ("a ping's length of 2 bytes", long_frame(FIN | 9, b"x", 2), 1002),
            ("reserved data opcode", frame(FIN | 3, b"", true), 1002),
            ("reserved control opcode", frame(FIN | 11, b"", true), 1002),
            ("long ping", frame(FIN | 9, &[b'x'; 126], true), 1002),
            ("fragmented ping", frame(9, b"x", true), 1002),
            ("nothing to continue", frame(FIN, b"x", true), 1002),
            ("text in text", [frame(1, b"a", true), text("b")].concat(), 1002),
            ("binary in text", [frame(1, b"a", true), frame(FIN | 2, b"b", true)].concat(), 1002),
            ("bad UTF-8", frame(FIN | 1, b"\xff\xfe", true), 1007),
            ("surrogate", frame(FIN | 1, b"\xed\xa0\x80", true), 1007),
            ("cut UTF-8", [frame(1, b"a\xe2\x82", true), frame(FIN, b"", true)].concat(), 1007),
            ("oversized", frame(FIN | 1, &big, true), 1009),
            (
                "oversized in fragments",
                [frame(1, &half, true), frame(0, &half, true), frame(FIN, b"x", true)].concat(),
                1009,
            ),
            ("close of one byte", frame(FIN | 8, b"\x03", true), 1002),
            ("close with bad UTF-8", frame(FIN | 8, b"\x03\xe8\xff", true), 1007),
        ] {
            let all = decoded(&[text("before"), bytes, text("after")].concat());
            let codes: Vec<_> =
                all.iter().map(|result| result.as_ref().map_err(|e| e.code())).collect();
            let before = Received::Text(Bytes::from_static(b"before"));
            assert_eq!(codes, [Ok(&before), Err(code)], "{what}");
        }
        let exact = "x".repeat(MESSAGE_BYTES_MAX);
        assert!(decoded(&text(&exact)) == [is_text(&exact)], "2 MiB is not too much");
    }

    #[test]
    fn a_header_that_is_forbidden_is_refused_before_its_payload() {
        let (all, decoder) = decode([&frame(FIN | 2, &[0; 1000], true)[..8]]);
        assert_eq!(all, [Err(CloseCode::BinaryFrame)]);
        assert!(decoder.has_ended());
        let length = [FIN | 1, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4];
        assert_eq!(decoded(&length), [Err(CloseCode::MessageTooBig)]);
    }

    #[test]
    fn closes() {
        let close = |payload: &[u8]| decoded(&[frame(FIN | 8, payload, true), text("x")].concat());
        assert_eq!(close(b""), [Ok(Received::Close(None))], "the last");
        assert_eq!(close(b"\x03\xe8bye"), [Ok(Received::Close(Some(1000)))]);
        assert_eq!(close(b"\x0f\xa0"), [Ok(Received::Close(Some(4000)))]);
        assert_eq!(
            close(b"\x03\xed"),
            [Ok(Received::Close(Some(1002)))],
            "1005 is not for the wire"
        );
    }

    /// "An idle subscriber costs no buffer".
    #[test]
    fn an_idle_decoder_holds_no_buffer() {
        let large = text(&"x".repeat(MESSAGE_BYTES_MAX));
        let (_, decoder) = decode(large.chunks(10_000));
        assert!(decoder.context.is_none() && decoder.chunk.is_empty());
        let fragment = frame(1, b"a", true);
        assert!(decode([&fragment[..]]).1.context.is_some());
        let half = text("ab");
        assert!(decode([&half[..5]]).1.context.is_some());
    }

    fn any_frame() -> impl Strategy<Value = Vec<u8>> {
        let first = prop_oneof![
            4 => prop::sample::select(vec![FIN | 1, 1, 0, FIN, FIN | 9, FIN | 10]),
            1 => any::<u8>(),
        ];
        let payload = prop_oneof![
            8 => "[aé€]{0,50}".prop_map(String::into_bytes),
            1 => prop::collection::vec(any::<u8>(), 0..130),
        ];
        (first, payload, prop::bool::weighted(0.97))
            .prop_map(|(first, payload, masked)| frame(first, &payload, masked))
    }

    /// What tungstenite alone makes of all bytes at once.
    fn by_tungstenite_alone(bytes: &[u8]) -> Vec<Result<Received, CloseCode>> {
        let mut context = WebSocketContext::new(Role::Server, None);
        let mut stream = Piece(Bytes::copy_from_slice(bytes));
        let mut all = Vec::new();
        loop {
            let result = match context.read(&mut stream) {
                Err(Error::Io(_)) => return all,
                Ok(message) => received(message),
                Err(error) => Err(close_code(&error)),
            };
            let last = matches!(result, Err(_) | Ok(Received::Close(_)));
            all.push(result);
            if last {
                return all;
            }
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_decoded_or_refused(
            bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 1usize..50,
        ) {
            prop_assert_eq!(decoded(&bytes), decode(bytes.chunks(cut)).0);
        }

        /// The scanner changes nothing but how early a frame is refused, and how chunks are cut.
        #[test]
        fn agrees_with_tungstenite_alone(
            frames in prop::collection::vec(any_frame(), 0..8), cut in 1usize..50,
        ) {
            let bytes = frames.concat();
            let ours = decode(bytes.chunks(cut)).0;
            prop_assert_eq!(&decoded(&bytes), &ours);
            let theirs = by_tungstenite_alone(&bytes);
            // Binary in fragments: refused at its first frame here, at its last there.
            let early = ours.last() == Some(&Err(CloseCode::BinaryFrame));
            prop_assert!(ours == theirs || early, "{:?} {:?}", ours, theirs);
        }
    }
}
