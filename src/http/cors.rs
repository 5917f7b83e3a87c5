//! The fields by which a browser learns what a page of another origin may do and read.

use std::sync::Arc;

use super::head::{FieldName, Head};

/// Which CORS fields an answer has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Cors {
    /// None.
    #[default]
    Absent,
    /// None now, but another origin might get some: `Vary: Origin` alone.
    Varies,
    /// Any origin may read the answer.
    Any,
    /// This origin may read the answer.
    Listed(Arc<str>),
}

/// The fields of our answers that a page of an allowed origin may read.
const EXPOSED_FIELDS: &str = "Event-Offset, Event-Duplicate, Retry-After, Log-Earliest, \
    Log-Durable, Event-Id-Window, Producer-Epoch, Producer-Seq, Producer-Expected-Seq, \
    Producer-Received-Seq";

/// How long a browser may remember a preflight: the longest that Chromium does.
const PREFLIGHT_AGE_S: u32 = 7200;

/// The request fields that we read and that a page may not send unasked.
const KNOWN_FIELDS: &[&str] = &[
    "accept",
    "authorization",
    "cache-control",
    "content-type",
    "expected-offset",
    "idempotency-key",
    "last-event-id",
    "prefer",
];

/// Beginnings of names of such fields.
const KNOWN_PREFIXES: &[&str] = &["event-", "producer-", "ce-"];

impl Cors {
    /// Appends the fields for an answer.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Self::Absent => return,
            Self::Varies => {}
            Self::Any => out.extend_from_slice(b"Access-Control-Allow-Origin: *\r\n"),
            Self::Listed(origin) => {
                out.extend_from_slice(b"Access-Control-Allow-Origin: ");
                out.extend_from_slice(origin.as_bytes());
                out.extend_from_slice(b"\r\n");
            }
        }
        if matches!(self, Self::Any | Self::Listed(_)) {
            out.extend_from_slice(b"Access-Control-Expose-Headers: ");
            out.extend_from_slice(EXPOSED_FIELDS.as_bytes());
            out.extend_from_slice(b"\r\n");
        }
        // Also where any origin may: our own gets nothing but this.
        out.extend_from_slice(b"Vary: Origin\r\n");
    }

    /// Appends the fields for the answer to a preflight of a path that takes the methods `allow`.
    /// Without an allowed origin there are none, and the browser sends nothing more.
    pub fn write_preflight(&self, head: &Head, allow: &str, out: &mut Vec<u8>) {
        self.write(out);
        if !matches!(self, Self::Any | Self::Listed(_)) {
            return;
        }
        let mut field = |name: &str, value: &str| {
            for part in [name, ": ", value, "\r\n"] {
                out.extend_from_slice(part.as_bytes());
            }
        };
        field("Access-Control-Allow-Methods", allow);
        let asked = asked_fields(head);
        if !asked.is_empty() {
            field("Access-Control-Allow-Headers", &asked.join(", "));
        }
        if head.value(FieldName::AccessControlRequestPrivateNetwork) == Some(b"true") {
            field("Access-Control-Allow-Private-Network", "true");
        }
        field("Access-Control-Max-Age", &PREFLIGHT_AGE_S.to_string());
        field("Vary", "Access-Control-Request-Method, Access-Control-Request-Headers");
    }
}

/// Those of the fields that a preflight asks for which we know.
fn asked_fields(head: &Head) -> Vec<String> {
    head.tokens(FieldName::AccessControlRequestHeaders)
        .filter_map(|token| std::str::from_utf8(token).ok())
        .map(str::to_ascii_lowercase)
        .filter(|name| {
            let is_token = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
            let has_prefix = KNOWN_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
            is_token && (has_prefix || KNOWN_FIELDS.contains(&name.as_str()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    /// API §10: "`Access-Control-Expose-Headers: Event-Offset, Event-Duplicate, Retry-After,
    /// Log-Earliest, Log-Durable`", "`Vary: Origin`".
    #[test]
    fn an_allowed_origin_may_read_our_fields() {
        let mut out = Vec::new();
        Cors::Listed("https://app.example".into()).write(&mut out);
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "Access-Control-Allow-Origin: https://app.example\r\nAccess-Control-Expose-Headers: \
             Event-Offset, Event-Duplicate, Retry-After, Log-Earliest, Log-Durable, Event-Id-Window, \
             Producer-Epoch, Producer-Seq, Producer-Expected-Seq, Producer-Received-Seq\r\n\
             Vary: Origin\r\n"
        );
    }

    /// API §10: "`Vary: Origin`". The answer to our own origin has no other field of these.
    #[test]
    fn answers_vary_where_any_origin_is_allowed() {
        for cors in [Cors::Varies, Cors::Any, Cors::Listed("https://app.example".into())] {
            let mut out = Vec::new();
            cors.write(&mut out);
            let text = String::from_utf8(out).unwrap();
            assert!(text.contains("Vary: Origin\r\n"), "{cors:?}: {text}");
        }
    }

    /// API §10: "preflight 204 that echoes the asked headers we know (`Last-Event-ID`,
    /// `Cache-Control`, `Event-*`, ..), `Max-Age`, `Vary: Origin`".
    #[test]
    fn a_preflight_echoes_what_we_know() {
        let fields = "Host: localhost\r\nOrigin: https://app.example\r\n\
            Access-Control-Request-Method: POST\r\n\
            Access-Control-Request-Headers: content-type,Event-Type, event-header-x, last-event-id,\
            cache-control,x-secret, ev\"il,event-id,Idempotency-Key,expected-offset,\
            Producer-Id,producer-seq\r\n";
        let text = format!("OPTIONS / HTTP/1.1\r\n{fields}\r\n");
        let Parsed::Request { head, .. } = HeadParser::default().parse(text.as_bytes()) else {
            panic!("{text:?} is no request")
        };
        let mut out = Vec::new();
        Cors::Listed("https://app.example".into()).write_preflight(
            &head,
            "POST, OPTIONS",
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("Access-Control-Allow-Origin: https://app.example\r\n"));
        assert!(text.contains("Access-Control-Allow-Methods: POST, OPTIONS\r\n"));
        assert!(text.contains(
            "Access-Control-Allow-Headers: content-type, event-type, event-header-x, \
             last-event-id, cache-control, event-id, idempotency-key, expected-offset, producer-id, \
             producer-seq\r\n"
        ));
        assert!(text.contains("Access-Control-Max-Age: 7200\r\n"));
        assert!(text.contains("Vary: Origin\r\n"));
        let mut out = Vec::new();
        Cors::Absent.write_preflight(&head, "POST, OPTIONS", &mut out);
        assert_eq!(out, b"", "the browser sends nothing more");
    }
}
