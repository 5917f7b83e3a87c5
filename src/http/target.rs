//! The request target in its forms, and the host that is meant.
//!
//! ```text
//! /path?query                  origin form
//! http://host:port/path?query  absolute form, as proxies are sent it; its host wins over Host
//! *                            with OPTIONS alone
//! ```

use super::authority::Authority;
use super::head::{FieldName, Head, Method, Span, Version, invalid};
use crate::problem::{Problem, ProblemKind};

/// Reads the target into path and query; returns the authority of one in absolute form.
pub(super) fn read_target<'a>(
    head: &mut Head,
    target: &'a str,
    span: &impl Fn(&[u8]) -> Span,
) -> Result<Option<&'a [u8]>, Problem> {
    if target.contains('#') {
        return Err(invalid("the request target has a fragment"));
    }
    let (authority, rest) = if target.starts_with('/') {
        (None, target)
    } else if target == "*" {
        if head.method != Method::Options {
            return Err(invalid("the target `*` is for OPTIONS"));
        }
        (None, target)
    } else if let Some(after) = strip_scheme(target) {
        let end = after.find(['/', '?']).unwrap_or(after.len());
        (Some(&after[..end]), &after[end..])
    } else {
        return Err(invalid("the request target is neither a path nor an http URL"));
    };
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    head.query = query.map(|query| span(query.as_bytes()));
    // An absolute target may have no path at all: it then means `/`, which stands in every such
    // target, in `http://`.
    head.path = match (path, authority) {
        ("", Some(_)) => {
            let scheme_end = target.len() - strip_scheme(target).map_or(0, str::len);
            span(&target.as_bytes()[scheme_end - 1..scheme_end])
        }
        _ => span(path.as_bytes()),
    };
    Ok(authority.map(str::as_bytes))
}

fn strip_scheme(target: &str) -> Option<&str> {
    ["http://", "https://"].into_iter().find_map(|scheme| {
        let (start, rest) = target.split_at_checked(scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then_some(rest)
    })
}

/// Checks the Host field, and settles which host is meant: that of an absolute target wins over the
/// field (RFC 9112, 3.2.2).
pub(super) fn read_host(head: &mut Head, authority: Option<Span>) -> Result<(), Problem> {
    let invalid_host = |detail| Err(Problem::new(ProblemKind::InvalidHost, detail));
    match head.values(FieldName::Host).count() {
        0 if head.version == Version::Http11 => return invalid_host("the Host field is missing"),
        0 | 1 => {}
        _ => return invalid_host("the Host field stands more than once"),
    }
    let field = head.span(FieldName::Host);
    for span in [authority, field].into_iter().flatten() {
        let text = std::str::from_utf8(head.bytes_at(span)).unwrap_or_default();
        if Authority::parse(text).is_none() {
            return invalid_host("the Host field, or the target's host, is not a host");
        }
    }
    head.host = authority.or(field);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    fn parse(text: &str) -> Result<Head, Problem> {
        match HeadParser::default().parse(text.as_bytes()) {
            Parsed::Request { head, .. } => Ok(head),
            Parsed::Refused(problem) => Err(problem),
            Parsed::Incomplete => panic!("{text:?} is not whole"),
        }
    }

    fn target(method: &str, target: &str) -> Result<Head, Problem> {
        parse(&format!("{method} {target} HTTP/1.1\r\nHost: field.example\r\n\r\n"))
    }

    #[test]
    fn targets_in_all_forms() {
        for (method, text, path, query, host) in [
            ("GET", "/", "/", None, "field.example"),
            ("GET", "/a?b=c?d", "/a", Some("b=c?d"), "field.example"),
            ("GET", "/a?", "/a", Some(""), "field.example"),
            ("GET", "//a//b", "//a//b", None, "field.example"),
            ("GET", "/caf\u{e9}|{x}", "/caf\u{e9}|{x}", None, "field.example"),
            ("OPTIONS", "*", "*", None, "field.example"),
            ("GET", "http://b.example/a?c", "/a", Some("c"), "b.example"),
            ("GET", "HTTPS://b.example:8/a", "/a", None, "b.example"),
            ("GET", "http://b.example", "/", None, "b.example"),
            ("GET", "http://b.example?c", "/", Some("c"), "b.example"),
        ] {
            let head = target(method, text).unwrap();
            assert_eq!((head.path(), head.query()), (path, query), "{text}");
            assert_eq!(head.host().unwrap().name, host, "{text}");
        }
    }

    #[test]
    fn targets_that_are_refused() {
        for (method, text) in [
            ("GET", "*"),
            ("GET", "a"),
            ("GET", "/a#b"),
            ("GET", "/?a#b"),
            ("GET", "ftp://b/a"),
            ("GET", "http:/b/a"),
            ("CONNECT", "b.example:443"),
            ("GET", "b.example:80"),
        ] {
            let problem = target(method, text).unwrap_err();
            assert_eq!((problem.status(), problem.slug()), (400, "invalid-head"), "{text}");
            assert!(problem.closes());
        }
        for text in ["http:///a", "http://user@b/a", "http://b:x/a", "http://?a", "http://a%20b/"] {
            let problem = target("GET", text).unwrap_err();
            assert_eq!((problem.status(), problem.slug()), (400, "invalid-host"), "{text}");
            assert!(problem.closes());
        }
    }

    #[test]
    fn a_target_is_utf8() {
        let text = b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n";
        let Parsed::Refused(problem) = HeadParser::default().parse(text) else {
            panic!("it was accepted")
        };
        assert_eq!((problem.status(), problem.slug()), (400, "invalid-head"));
    }

    /// API §10: "none is 400".
    #[test]
    fn http_1_1_has_exactly_one_valid_host() {
        for fields in [
            "",
            "Host:\r\n",
            "Host: a\r\nHost: a\r\n",
            "Host: a\r\nHost: b\r\n",
            "Host: a, b\r\n",
            "Host: a/b\r\n",
            "Host: u@a\r\n",
            "Host: a:b\r\n",
            "Host: a:99999\r\n",
            "Host: a b\r\n",
            "Host: \u{e9}\r\n",
        ] {
            let problem = parse(&format!("GET / HTTP/1.1\r\n{fields}\r\n")).unwrap_err();
            assert_eq!((problem.status(), problem.slug()), (400, "invalid-host"), "{fields:?}");
            assert!(problem.closes());
        }
        assert!(parse("GET / HTTP/1.0\r\n\r\n").unwrap().host().is_none());
        assert!(parse("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n").is_err());
        let absolute = "GET http://b/ HTTP/1.1\r\n\r\n";
        assert_eq!(parse(absolute).unwrap_err().slug(), "invalid-host");
    }
}
