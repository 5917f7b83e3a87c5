//! WebSocket as a load generator reads it: the upgrade, unmasked frames, control frames answered.

use super::http::{Head, excerpt};

/// A message is at most this long: twice what a server takes.
const MESSAGE_BYTES_MAX: u64 = 4 << 20;
/// The key of the upgrade: no secret, and there is no cache between us that it could trick.
const KEY: &str = "c3RyYW5kbGluZSBiZW5jaA==";
/// The mask of our frames: required, and no secret either.
const MASK: [u8; 4] = [0x5a, 0xa5, 0x3c, 0xc3];

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;
const FINAL: u8 = 0x80;

/// One connection, from its upgrade on.
#[derive(Debug, Default)]
pub struct WebSocket {
    upgraded: bool,
}

impl WebSocket {
    /// Appends the request for an upgrade.
    pub fn push_upgrade(&self, host: &str, target: &str, out: &mut Vec<u8>) {
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n\r\n"
        );
        out.extend_from_slice(request.as_bytes());
    }

    /// Takes received bytes: calls `on_text` for each text message, with where it ends in them, and answers pings in `out`. Returns
    /// how many bytes it is done with; an error says why the connection is no use.
    #[inline]
    pub fn take(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        mut on_text: impl FnMut(&[u8], usize) -> Result<(), String>,
    ) -> Result<usize, String> {
        let mut at = 0;
        if !self.upgraded {
            let Some(head) = Head::parse(input)? else { return Ok(0) };
            if head.status != 101 {
                return Err(format!("no upgrade: {}", head.refusal(input)));
            }
            self.upgraded = true;
            at = head.bytes;
        }
        while let Some(frame) = Frame::parse(&input[at..])? {
            at += frame.bytes;
            match frame.first {
                first if first == FINAL | TEXT => on_text(frame.payload, at)?,
                first if first == FINAL | PING => push_pong(frame.payload, out),
                first if first == FINAL | PONG => {}
                first if first == FINAL | CLOSE => return Err(close_reason(frame.payload)),
                first => return Err(format!("a frame that begins with {first:#04x}")),
            }
        }
        Ok(at)
    }
}

struct Frame<'a> {
    first: u8,
    payload: &'a [u8],
    bytes: usize,
}

impl<'a> Frame<'a> {
    #[inline]
    fn parse(input: &'a [u8]) -> Result<Option<Frame<'a>>, String> {
        let [first, length, rest @ ..] = input else { return Ok(None) };
        let (length, header_bytes) = match *length {
            length @ 0..=125 => (u64::from(length), 2),
            126 => match rest.first_chunk::<2>() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match rest.first_chunk::<8>() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            _ => return Err("a masked frame from the server".to_owned()),
        };
        if length > MESSAGE_BYTES_MAX {
            return Err(format!("a message of {length} bytes"));
        }
        let bytes = header_bytes + usize::try_from(length).expect("4 MiB at most");
        let payload = input.get(header_bytes..bytes);
        Ok(payload.map(|payload| Frame { first: *first, payload, bytes }))
    }
}

fn push_pong(payload: &[u8], out: &mut Vec<u8>) {
    let payload = &payload[..payload.len().min(125)];
    let length = u8::try_from(payload.len()).expect("at most 125");
    out.extend_from_slice(&[FINAL | PONG, 0x80 | length]);
    out.extend_from_slice(&MASK);
    out.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

fn close_reason(payload: &[u8]) -> String {
    match payload {
        [high, low, reason @ ..] => {
            format!("closed with {}: {}", u16::from_be_bytes([*high, *low]), excerpt(reason))
        }
        _ => "closed without a code".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const UPGRADED: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n";

    fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
        let mut bytes = vec![first];
        match payload.len() {
            length @ 0..=125 => bytes.push(u8::try_from(length).unwrap()),
            length => {
                bytes.push(126);
                bytes.extend_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
            }
        }
        bytes.extend_from_slice(payload);
        bytes
    }

    #[test]
    fn messages_are_read_wherever_they_are_cut_and_pings_answered() {
        let long = "x".repeat(300);
        let all = [
            UPGRADED,
            &frame(FINAL | TEXT, b"one"),
            &frame(FINAL | PING, b"beat"),
            &frame(FINAL | TEXT, long.as_bytes()),
        ]
        .concat();
        for piece in [1, 2, 5, 100, all.len()] {
            let (mut socket, mut texts, mut out) = (WebSocket::default(), Vec::new(), Vec::new());
            let mut pending = Vec::new();
            for piece in all.chunks(piece) {
                pending.extend_from_slice(piece);
                let taken = socket.take(&pending, &mut out, |text, _| {
                    texts.push(String::from_utf8(text.to_vec()).unwrap());
                    Ok(())
                });
                pending.drain(..taken.unwrap());
            }
            assert_eq!(texts, ["one", &long]);
            let beat: Vec<u8> = b"beat".iter().zip(MASK).map(|(byte, mask)| byte ^ mask).collect();
            assert_eq!(out, [&[FINAL | PONG, 0x84][..], &MASK, &beat].concat());
        }
    }

    #[test]
    fn ends_are_said() {
        let taken = |bytes: &[u8]| {
            let all = [UPGRADED, bytes].concat();
            WebSocket::default().take(&all, &mut Vec::new(), |_, _| Ok(())).unwrap_err()
        };
        assert_eq!(taken(&frame(FINAL | CLOSE, b"\x0f\xa0bye")), "closed with 4000: bye");
        assert!(taken(&[FINAL | TEXT, 0x83, 1, 2, 3, 4, 5, 6, 7]).contains("masked"));
        assert!(taken(&frame(FINAL | 2, b"binary")).contains("0x82"));
        let refused =
            WebSocket::default().take(b"HTTP/1.1 503 No\r\n\r\n", &mut Vec::new(), |_, _| Ok(()));
        assert!(refused.unwrap_err().contains("503"));
    }
}
