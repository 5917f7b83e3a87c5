//! Which hosts and origins may do what, so that no web page writes to a server on somebody's own
//! machine.
//!
//! A browser lets any page send a `text/plain` POST, and open a WebSocket, to any address: without
//! a preflight, with an `Origin` field as the only trace (both measured). And a page can make its own
//! name resolve to 127.0.0.1, after which it *is* the same origin; then only `Host` tells. Hence:
//!
//! | request | own origin, or none | allowed origin | other origin, `null` |
//! |---|---|---|---|
//! | append, WebSocket | served | served, with CORS fields | 403 |
//! | anything else | served | served, with CORS fields | served, without: the page cannot read it |
//!
//! and on a loopback listener a `Host` that is not one of our names is 421.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::authority::Authority;
use super::cors::Cors;
use super::head::{FieldName, Head};
use crate::input::quoted;
use crate::problem::{Problem, ProblemKind};

/// The names of any server that only this machine can reach.
const OUR_NAMES: [&str; 3] = ["localhost", "127.0.0.1", "[::1]"];

/// The origins that may do what our own may.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Allowed {
    Listed(Vec<Arc<str>>),
    Any,
}

/// The rules of one listener. Cheap to share: nothing in it changes.
#[derive(Clone, Debug)]
pub struct OriginRules {
    /// The address, when only this machine can reach it.
    loopback: Option<IpAddr>,
    /// The name by which the address was given, if it was given by name.
    listen_name: Option<Box<str>>,
    allowed: Allowed,
}

/// A `--cors-origin` that is not `*` and not `scheme://host[:port]`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{origin:?} is not an origin: write it as https://app.example, without a path, or *")]
pub struct OriginError {
    origin: String,
}

impl OriginRules {
    /// Rules for a listener at `address`, which was perhaps asked for by name, and the values of
    /// `--cors-origin`.
    pub fn new(
        address: SocketAddr,
        listen_name: Option<&str>,
        cors_origins: &[String],
    ) -> Result<Self, OriginError> {
        let mut listed = Vec::new();
        for text in cors_origins.iter().filter(|text| *text != "*") {
            let origin = Origin::parse(text).ok_or_else(|| OriginError { origin: text.clone() })?;
            listed.push(Arc::from(origin.canonical()));
        }
        let any = cors_origins.iter().any(|text| text == "*");
        Ok(Self {
            loopback: Some(address.ip()).filter(IpAddr::is_loopback),
            listen_name: listen_name.map(Box::from),
            allowed: if any { Allowed::Any } else { Allowed::Listed(listed) },
        })
    }

    /// Checks which host the request means.
    ///
    /// Fails with `misdirected-request` on a loopback listener when it is not one of ours, and with
    /// `invalid-host` when there is none, as HTTP/1.0 allows.
    pub fn check_host(&self, head: &Head) -> Result<(), Problem> {
        let Some(listen_ip) = self.loopback else { return Ok(()) };
        let Some(host) = head.host() else {
            let detail = "the Host field is missing";
            return Err(Problem::new(ProblemKind::InvalidHost, detail).closing());
        };
        let is_listen_ip = || match listen_ip {
            IpAddr::V4(address) => host.ipv4() == Some(address),
            IpAddr::V6(address) => host.ipv6() == Some(address),
        };
        let is_ours = OUR_NAMES.iter().any(|name| host.same_name(name))
            || is_listen_ip()
            || self.listen_name.as_deref().is_some_and(|name| host.same_name(name));
        if is_ours {
            return Ok(());
        }
        let detail = format!(
            "the server listens on this machine alone and does not answer to the host {}, but to {}: send \
             one of these (a proxy can set it), or start the server with that name or another address as \
             --listen",
            quoted(host.name),
            self.our_names(listen_ip).join(", ")
        );
        Err(Problem::new(ProblemKind::MisdirectedRequest, detail))
    }

    /// The hosts that a loopback listener at this address answers to.
    fn our_names(&self, listen_ip: IpAddr) -> Vec<String> {
        let mut names = OUR_NAMES.map(str::to_owned).to_vec();
        let listen_ip = match listen_ip {
            IpAddr::V4(address) => address.to_string(),
            IpAddr::V6(address) => format!("[{address}]"),
        };
        for name in [Some(&*listen_ip), self.listen_name.as_deref()].into_iter().flatten() {
            if !names.iter().any(|known| known.eq_ignore_ascii_case(name)) {
                names.push(name.to_owned());
            }
        }
        names
    }

    /// Decides which CORS fields the answer has; `writes` says that the request is an append or
    /// opens a WebSocket.
    ///
    /// Fails with `origin-not-allowed` when it writes and comes from a page that may not.
    pub fn check_origin(&self, head: &Head, writes: bool) -> Result<Cors, Problem> {
        let otherwise = self.without_origin();
        let Some(value) = head.value(FieldName::Origin) else { return Ok(otherwise) };
        let repeated = head.values(FieldName::Origin).nth(1).is_some();
        let text = std::str::from_utf8(value).ok().filter(|_| !repeated);
        let origin = text.and_then(Origin::parse);
        if origin.as_ref().is_some_and(|origin| origin.is_at(head.host())) {
            return Ok(otherwise);
        }
        if let Some(cors) = self.find_allowed(origin.as_ref()) {
            return Ok(cors);
        }
        if writes {
            let shown = quoted(&String::from_utf8_lossy(value));
            let detail = format!("pages of the origin {shown} may not write to this server");
            return Err(Problem::new(ProblemKind::OriginNotAllowed, detail));
        }
        Ok(otherwise)
    }

    /// Which CORS fields an answer has that is not for a page of an allowed origin.
    pub fn without_origin(&self) -> Cors {
        match &self.allowed {
            Allowed::Listed(listed) if listed.is_empty() => Cors::Absent,
            _ => Cors::Varies,
        }
    }

    fn find_allowed(&self, origin: Option<&Origin<'_>>) -> Option<Cors> {
        match &self.allowed {
            Allowed::Any => Some(Cors::Any),
            Allowed::Listed(listed) => {
                let canonical = origin?.canonical();
                listed.iter().find(|allowed| ***allowed == *canonical).cloned().map(Cors::Listed)
            }
        }
    }
}

/// An origin with a host: `scheme://host[:port]`. `null` is none.
struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Origin<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
        if scheme.is_empty() || !scheme.bytes().all(is_scheme) {
            return None;
        }
        Some(Self { scheme, authority: Authority::parse(rest)? })
    }

    fn default_port(&self) -> Option<u16> {
        match self.scheme.to_ascii_lowercase().as_str() {
            "http" | "ws" => Some(80),
            "https" | "wss" => Some(443),
            _ => None,
        }
    }

    /// Whether the origin is the host that the request was sent to. The scheme is left out: behind a
    /// proxy that ends TLS we cannot know it, so a port that `host` leaves out is the origin's default.
    fn is_at(&self, host: Option<Authority<'_>>) -> bool {
        let default = self.default_port();
        host.is_some_and(|host| {
            host.same_name(self.authority.name)
                && host.port.or(default) == self.authority.port.or(default)
        })
    }

    /// The origin as a browser writes it: in lower case, without a default port.
    fn canonical(&self) -> String {
        let (scheme, name) = (self.scheme, self.authority.name);
        let mut text = match self.authority.ipv6() {
            Some(address) => format!("{scheme}://[{address}]"),
            None => format!("{scheme}://{name}"),
        };
        text.make_ascii_lowercase();
        match self.authority.port {
            Some(port) if self.default_port() != Some(port) => format!("{text}:{port}"),
            _ => text,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::request::{HeadParser, Parsed};

    fn head(fields: &str) -> Head {
        let text = format!("POST / HTTP/1.1\r\n{fields}\r\n");
        let Parsed::Request { head, .. } = HeadParser::default().parse(text.as_bytes()) else {
            panic!("{text:?} is no request")
        };
        head
    }

    fn rules(address: &str, cors_origins: &[&str]) -> OriginRules {
        let cors_origins: Vec<String> = cors_origins.iter().map(|text| text.to_string()).collect();
        OriginRules::new(address.parse().unwrap(), None, &cors_origins).unwrap()
    }

    /// API §10: "on a loopback listener a `Host` that is not `localhost`, `127.0.0.1`, `[::1]` or the
    /// listen address (by name alone, any port) is 421; none is 400".
    #[test]
    fn a_loopback_listener_answers_to_its_names_alone() {
        let check = |address: &str, host: &str| {
            let head = head(&format!("Host: {host}\r\n"));
            rules(address, &[]).check_host(&head).map_err(|problem| problem.status())
        };
        for host in [
            "localhost",
            "localhost:7400",
            "LOCALHOST:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "[::1]",
            "[::1]:7400",
            "[0:0:0:0:0:0:0:1]",
        ] {
            assert_eq!(check("127.0.0.1:7400", host), Ok(()), "{host}");
            assert_eq!(check("[::1]:7400", host), Ok(()), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:7400",
            "localhost.evil.example",
            "localhost.",
            "127.0.0.1.evil.example",
            "127.0.0.2",
            "127.1",
            "[::2]",
            "0.0.0.0",
        ] {
            assert_eq!(check("127.0.0.1:7400", host), Err(421), "{host}");
        }
        assert_eq!(check("127.0.0.2:7400", "127.0.0.2:7400"), Ok(()));
        assert_eq!(check("0.0.0.0:7400", "any.example"), Ok(()), "not a loopback listener");
        assert_eq!(check("192.168.1.4:7400", "any.example"), Ok(()), "not a loopback listener");

        let address = "127.0.0.1:7400".parse().unwrap();
        let named = OriginRules::new(address, Some("box.internal"), &[]).unwrap();
        assert_eq!(named.check_host(&head("Host: box.internal:7400\r\n")), Ok(()));
    }

    #[test]
    fn who_means_another_host_is_told_ours() {
        for (address, name, names) in [
            ("127.0.0.1:7400", None, "localhost, 127.0.0.1, [::1]:"),
            ("[::1]:7400", Some("LOCALHOST"), "localhost, 127.0.0.1, [::1]:"),
            ("127.0.0.2:7400", Some("box"), "localhost, 127.0.0.1, [::1], 127.0.0.2, box:"),
        ] {
            let rules = OriginRules::new(address.parse().unwrap(), name, &[]).unwrap();
            let problem = rules.check_host(&head("Host: evil.example:80\r\n")).unwrap_err();
            let detail = problem.detail();
            assert!(detail.contains("\"evil.example\"") && detail.contains(names), "{detail}");
        }
        let long = format!("Host: {}\r\nOrigin: http://{0}\r\n", "a".repeat(4000));
        let rules = rules("127.0.0.1:7400", &[]);
        assert!(rules.check_host(&head(&long)).unwrap_err().detail().len() < 400);
        let long = long.replacen("Host: ", "Host: b", 1);
        assert!(rules.check_origin(&head(&long), true).unwrap_err().detail().len() < 400);
    }

    #[test]
    fn a_loopback_listener_wants_a_host_even_of_http_1_0() {
        let Parsed::Request { head, .. } = HeadParser::default().parse(b"GET / HTTP/1.0\r\n\r\n")
        else {
            panic!("it is a request")
        };
        let problem = rules("127.0.0.1:7400", &[]).check_host(&head).unwrap_err();
        assert_eq!((problem.status(), problem.slug()), (400, "invalid-host"));
        assert_eq!(rules("0.0.0.0:7400", &[]).check_host(&head), Ok(()));
    }

    fn judge(cors_origins: &[&str], fields: &str, writes: bool) -> Result<Cors, u16> {
        let rules = rules("127.0.0.1:7400", cors_origins);
        rules.check_origin(&head(fields), writes).map_err(|problem| problem.status())
    }

    /// API §10: "appends and WebSocket with an `Origin` that is neither our own host nor allowed ..
    /// are 403".
    #[test]
    fn writes_from_other_origins_are_403() {
        for origin in [
            "https://evil.example",
            "http://localhost",
            "http://localhost:8080",
            "http://127.0.0.1:7400",
            "http://localhost.evil.example:7400",
            "null",
            "",
            "localhost:7400",
            "http://localhost:7400/path",
            "http://user@localhost:7400",
            "http://localhost:7400 http://localhost:7400",
            "file://",
        ] {
            let fields = format!("Host: localhost:7400\r\nOrigin: {origin}\r\n");
            assert_eq!(judge(&[], &fields, true), Err(403), "{origin}");
            assert_eq!(judge(&["https://app.example"], &fields, true), Err(403), "{origin}");
        }
        let twice = "Host: localhost:7400\r\nOrigin: http://localhost:7400\r\n\
                     Origin: http://localhost:7400\r\n";
        assert_eq!(judge(&[], twice, true), Err(403));
    }

    /// API §10: "reads get no CORS headers".
    #[test]
    fn reads_from_other_origins_are_served_without_cors_fields() {
        let fields = "Host: localhost:7400\r\nOrigin: https://evil.example\r\n";
        assert_eq!(judge(&[], fields, false), Ok(Cors::Absent));
        let cors = judge(&["https://app.example"], fields, false).unwrap();
        let mut out = Vec::new();
        cors.write(&mut out);
        assert_eq!(out, b"Vary: Origin\r\n");
    }

    /// API §10: "Our own `Origin` equals `Host`, port included."
    #[test]
    fn our_own_origin_may_do_everything() {
        for (host, origin) in [
            ("localhost:7400", "http://localhost:7400"),
            ("LOCALHOST:7400", "http://localhost:7400"),
            ("[::1]:7400", "http://[::1]:7400"),
            ("[0:0::1]:7400", "http://[::1]:7400"),
            ("127.0.0.1", "http://127.0.0.1"),
            ("127.0.0.1:80", "http://127.0.0.1"),
            ("127.0.0.1", "http://127.0.0.1:80"),
            ("log.example", "https://log.example"),
            ("log.example:443", "https://log.example"),
        ] {
            let fields = format!("Host: {host}\r\nOrigin: {origin}\r\n");
            assert_eq!(judge(&[], &fields, true), Ok(Cors::Absent), "{host} {origin}");
        }
        assert_eq!(judge(&[], "Host: localhost:7400\r\n", true), Ok(Cors::Absent), "no browser");
        let fields = "Host: log.example:80\r\nOrigin: https://log.example\r\n";
        assert_eq!(judge(&[], fields, true), Err(403), "another port");
    }

    /// API §10: "nor allowed (`--cors-origin`, repeatable, `*` ..)".
    #[test]
    fn allowed_origins_may_write_and_read() {
        let allowed = ["https://App.Example:443", "http://other.example:8080"];
        for (origin, canonical) in [
            ("https://app.example", "https://app.example"),
            ("https://APP.example:443", "https://app.example"),
            ("http://other.example:8080", "http://other.example:8080"),
        ] {
            let fields = format!("Host: localhost:7400\r\nOrigin: {origin}\r\n");
            for writes in [true, false] {
                let cors = judge(&allowed, &fields, writes).unwrap();
                assert_eq!(cors, Cors::Listed(canonical.into()), "{origin}");
            }
        }
        for origin in ["http://app.example", "https://app.example:8443", "null"] {
            let fields = format!("Host: localhost:7400\r\nOrigin: {origin}\r\n");
            assert_eq!(judge(&allowed, &fields, true), Err(403), "{origin}");
        }
        for origin in ["https://any.example", "null"] {
            let fields = format!("Host: localhost:7400\r\nOrigin: {origin}\r\n");
            assert_eq!(judge(&["*"], &fields, true), Ok(Cors::Any), "{origin}");
        }
    }

    #[test]
    fn what_is_no_origin_is_refused_at_start() {
        for text in ["app.example", "https://app.example/", "null", "https://", "", "https://*.a"] {
            let address = "127.0.0.1:7400".parse().unwrap();
            let error = OriginRules::new(address, None, &[text.to_string()]).unwrap_err();
            assert!(error.to_string().contains("https://app.example"), "it shows the right form");
        }
    }
}
