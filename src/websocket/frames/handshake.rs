//! The opening handshake: what a client must say, and what is answered.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use tungstenite::handshake::derive_accept_key;

use crate::{
    http::head::{BodyLength, FieldName, Head},
    problem::{Problem, ProblemKind},
};

/// The subprotocol that is chosen if it is offered.
pub const SUBPROTOCOL: &str = "strandline.v1";

/// What the 101 says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accepted {
    /// `Sec-WebSocket-Accept`.
    pub accept: String,
    /// `Sec-WebSocket-Protocol`, if one is chosen.
    pub protocol: Option<&'static str>,
}

/// Checks a handshake. What lacks `Upgrade`, or speaks another version, is 426 (whose answer states
/// the version that is spoken); a broken key is 400, and so is a body, whose bytes would be taken for
/// frames.
pub fn accept(head: &Head) -> Result<Accepted, Problem> {
    if !head.asks_for_websocket() {
        let detail =
            "a WebSocket begins with GET, HTTP/1.1, `Connection: Upgrade` and `Upgrade: websocket`";
        return Err(Problem::new(ProblemKind::UpgradeRequired, detail));
    }
    if head.text(FieldName::SecWebsocketVersion)? != Some("13") {
        let detail = "Sec-WebSocket-Version is not 13";
        return Err(Problem::new(ProblemKind::UpgradeRequired, detail));
    }
    if !matches!(head.body_length(), BodyLength::Unstated | BodyLength::Sized(0)) {
        let detail = "a WebSocket handshake has no body: frames follow its head";
        return Err(Problem::new(ProblemKind::InvalidHeader, detail));
    }
    let key = head.text(FieldName::SecWebsocketKey)?.unwrap_or_default();
    if !STANDARD.decode(key).is_ok_and(|nonce| nonce.len() == 16) {
        let detail = "the header field sec-websocket-key is not 16 bytes as base64";
        return Err(Problem::new(ProblemKind::InvalidHeader, detail));
    }
    let offered = head.tokens(FieldName::SecWebsocketProtocol);
    let protocol = offered.into_iter().any(|token| token == SUBPROTOCOL.as_bytes());
    Ok(Accepted {
        accept: derive_accept_key(key.as_bytes()),
        protocol: protocol.then_some(SUBPROTOCOL),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    const KEY: &str = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    const VERSION: &str = "Sec-WebSocket-Version: 13\r\n";
    const UPGRADE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n";

    fn head(fields: &[&str]) -> Head {
        let text = format!("GET /ws HTTP/1.1\r\nHost: localhost\r\n{}\r\n", fields.concat());
        match HeadParser::default().parse(text.as_bytes()) {
            Parsed::Request { head, .. } => head,
            other => panic!("{other:?}"),
        }
    }

    fn status(fields: &[&str]) -> u16 {
        accept(&head(fields)).unwrap_err().status()
    }

    /// RFC 6455 §1.3, its example; API §5: "`strandline.v1` is chosen if offered as subprotocol".
    #[test]
    fn a_handshake() {
        let accepted = accept(&head(&[KEY, VERSION, UPGRADE])).unwrap();
        assert_eq!(accepted.accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(accepted.protocol, None);
        let offers = "Sec-WebSocket-Protocol: chat, strandline.v1\r\n";
        let accepted = accept(&head(&[KEY, VERSION, UPGRADE, offers])).unwrap();
        assert_eq!(accepted.protocol, Some("strandline.v1"));
        let other = "Sec-WebSocket-Protocol: strandline.v2\r\n";
        assert_eq!(accept(&head(&[KEY, VERSION, UPGRADE, other])).unwrap().protocol, None);
    }

    /// API §4: "a `Sec-WebSocket-Key` that lost its `Upgrade` in a proxy: `426`".
    #[test]
    fn handshakes_that_are_refused() {
        assert_eq!(status(&[KEY, VERSION]), 426);
        assert_eq!(status(&[KEY, VERSION, "Connection: Upgrade\r\nUpgrade: h2c\r\n"]), 426);
        assert_eq!(status(&[KEY, VERSION, "Upgrade: websocket\r\n"]), 426);
        assert_eq!(status(&[KEY, UPGRADE]), 426);
        assert_eq!(status(&[KEY, UPGRADE, "Sec-WebSocket-Version: 8\r\n"]), 426);
        assert_eq!(status(&[KEY, UPGRADE, VERSION, VERSION]), 400);
        assert_eq!(status(&[KEY, UPGRADE, VERSION, "Content-Length: 3\r\n"]), 400);
        assert_eq!(status(&[KEY, UPGRADE, VERSION, "Transfer-Encoding: chunked\r\n"]), 400);
        assert_eq!(status(&[VERSION, UPGRADE]), 400);
        assert_eq!(status(&[VERSION, UPGRADE, KEY, KEY]), 400);
        for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZSE=", "!!!!"] {
            let key = format!("Sec-WebSocket-Key: {key}\r\n");
            assert_eq!(status(&[VERSION, UPGRADE, &key]), 400, "{key}");
        }
    }
}
