//! A host and perhaps a port, as `Host`, an absolute target and an `Origin` have them.

use std::net::{Ipv4Addr, Ipv6Addr};

/// `name[:port]`; `name` is not empty and has only letters, digits and `-._~`, or is an IPv6 address
/// in brackets.
///
/// Percent-encoded and sub-delimiter characters, which RFC 3986 allows in a registered name, are
/// refused: no resolver knows such names, and what is not in the way cannot be misread.
#[derive(Clone, Copy, Debug)]
pub struct Authority<'a> {
    /// As it was written; with its brackets when it is an IPv6 address.
    pub name: &'a str,
    /// None when it was left out or empty.
    pub port: Option<u16>,
}

impl<'a> Authority<'a> {
    /// Returns None when `text` is no host with an optional port.
    pub fn parse(text: &'a str) -> Option<Self> {
        let name_end = if text.starts_with('[') {
            let end = text.find(']')? + 1;
            text[1..end - 1].parse::<Ipv6Addr>().ok()?;
            end
        } else {
            let end = text.find(':').unwrap_or(text.len());
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
            if end == 0 || !text[..end].bytes().all(is_plain) {
                return None;
            }
            end
        };
        let (name, rest) = text.split_at(name_end);
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            None => return None,
            Some("") => None,
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(digits.parse().ok()?)
            }
            Some(_) => return None,
        };
        Some(Self { name, port })
    }

    /// Whether both name the same host: names without regard to case, IPv6 addresses by value.
    pub fn same_name(&self, other: &str) -> bool {
        self.name.eq_ignore_ascii_case(other)
            || self.ipv6().is_some_and(|address| ipv6(other) == Some(address))
    }

    /// The address, if the name is an IPv6 address.
    pub fn ipv6(&self) -> Option<Ipv6Addr> {
        ipv6(self.name)
    }

    /// The address, if the name is an IPv4 address in its usual form.
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        self.name.parse().ok()
    }
}

fn ipv6(name: &str) -> Option<Ipv6Addr> {
    name.strip_prefix('[')?.strip_suffix(']')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_with_and_without_ports() {
        for (text, name, port) in [
            ("localhost", "localhost", None),
            ("localhost:7400", "localhost", Some(7400)),
            ("a_b-c.example:", "a_b-c.example", None),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]", "[::1]", None),
            ("[::1]:7400", "[::1]", Some(7400)),
        ] {
            let authority = Authority::parse(text).expect(text);
            assert_eq!((authority.name, authority.port), (name, port));
        }
    }

    #[test]
    fn what_is_no_host_is_refused() {
        for text in [
            "",
            ":80",
            "a b",
            "a,b",
            "a/b",
            "user@host",
            "a:b",
            "a:+80",
            "a:65536",
            "a:8 0",
            "a:80:80",
            "[::1",
            "::1",
            "[::1]x",
            "[fe80::1%25eth0]",
            "[]",
            "a%20b",
            "h\u{e9}",
            "a?b",
            "a#b",
            "a\\b",
        ] {
            assert!(Authority::parse(text).is_none(), "{text:?}");
        }
    }

    #[test]
    fn names_are_compared_without_case_and_addresses_by_value() {
        assert!(Authority::parse("LocalHost:1").unwrap().same_name("localhost"));
        assert!(Authority::parse("[0:0:0:0:0:0:0:1]").unwrap().same_name("[::1]"));
        assert!(!Authority::parse("localhost.").unwrap().same_name("localhost"));
    }
}
