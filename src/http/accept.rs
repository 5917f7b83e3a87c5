//! Which form of an answer a request accepts (RFC 9110 §12.5.1), and in which coding (§12.5.3).

use super::head::{FieldName, Head};
use crate::stream::compression::Encoding;

/// Returns which of `offered` (media types in lower case, the best first) the request's `Accept` likes
/// most, the first of equals; `None` if it accepts none of them. Without `Accept` it is the first. What
/// cannot be understood is passed over, as long as something is left.
pub fn choose(head: &Head, offered: &[&str]) -> Option<usize> {
    let ranges: Vec<Range> = head.tokens(FieldName::Accept).filter_map(Range::parse).collect();
    if ranges.is_empty() {
        return Some(0);
    }
    let liking = |offer: &str| {
        // The most specific range that fits decides.
        let fits = ranges.iter().filter_map(|range| Some((range.fit(offer)?, range.weight)));
        fits.max_by_key(|(specificity, _)| *specificity).map_or(0, |(_, weight)| weight)
    };
    let best = offered.iter().map(|offer| liking(offer)).max()?;
    let place = offered.iter().position(|offer| liking(offer) == best);
    place.filter(|_| best > 0)
}

/// Returns the coding of an event stream for this request: of those that its `Accept-Encoding` likes
/// most the best one, zstd, then gzip, then none; none if it has no such field. `*` stands for gzip,
/// which everyone knows, not for zstd. None is also what a request gets that excludes all there is.
pub fn choose_encoding(head: &Head) -> Encoding {
    // Weights in thousandths. What is not named is not liked; no coding always is, a little.
    let (mut zstd, mut gzip, mut identity, mut any) = (None, None, None, None);
    for token in head.tokens(FieldName::AcceptEncoding) {
        let Some((name, weight)) = coding(token) else { continue };
        let known = match name.to_ascii_lowercase().as_str() {
            "zstd" => &mut zstd,
            "gzip" | "x-gzip" => &mut gzip,
            "identity" => &mut identity,
            "*" => &mut any,
            _ => continue,
        };
        // Named twice, it is as good as the better one says.
        *known = (*known).max(Some(weight));
    }
    let (zstd, gzip) = (zstd.unwrap_or(0), gzip.or(any).unwrap_or(0));
    let best = zstd.max(gzip);
    if best == 0 || identity.is_some_and(|weight| weight > best) {
        Encoding::Identity
    } else if zstd == best {
        Encoding::Zstd
    } else {
        Encoding::Gzip
    }
}

/// The name of a coding and its weight in thousandths.
fn coding(token: &[u8]) -> Option<(&str, u16)> {
    let text = std::str::from_utf8(token).ok()?;
    let Some((name, parameter)) = text.split_once(';') else { return Some((text, 1000)) };
    let (key, value) = parameter.split_once('=')?;
    if !key.trim().eq_ignore_ascii_case("q") {
        return None;
    }
    Some((name.trim(), thousandths(value.trim())?))
}

/// One media range and its weight in thousandths.
struct Range {
    kind: String,
    subtype: String,
    weight: u16,
}

impl Range {
    fn parse(token: &[u8]) -> Option<Range> {
        let text = std::str::from_utf8(token).ok()?.to_ascii_lowercase();
        let mut parts = text.split(';').map(str::trim);
        let (kind, subtype) = parts.next()?.split_once('/')?;
        let mut weight = 1000;
        for parameter in parts {
            if let Some(value) = parameter.strip_prefix("q=") {
                weight = thousandths(value)?;
            }
        }
        Some(Range { kind: kind.into(), subtype: subtype.into(), weight })
    }

    /// How closely it fits an offer, if it does.
    fn fit(&self, offer: &str) -> Option<u8> {
        let (kind, subtype) = offer.split_once('/')?;
        match (self.kind.as_str(), self.subtype.as_str()) {
            ("*", "*") => Some(0),
            (own, "*") if own == kind => Some(1),
            (own, rest) if own == kind && rest == subtype => Some(2),
            _ => None,
        }
    }
}

/// A weight of at most three digits behind the point.
fn thousandths(text: &str) -> Option<u16> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let is_number = fraction.len() <= 3 && fraction.bytes().all(|byte| byte.is_ascii_digit());
    let whole: u16 = match whole {
        "0" => 0,
        "1" => 1000,
        _ => return None,
    };
    let fraction: u16 = format!("{fraction:0<3}").parse().ok()?;
    (is_number && whole + fraction <= 1000).then_some(whole + fraction)
}

#[cfg(test)]
mod tests {
    use super::super::request::{HeadParser, Parsed};
    use super::*;

    fn chosen(accept: &str, offered: &[&str]) -> Option<usize> {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{accept}\r\n");
        let Parsed::Request { head, .. } = HeadParser::default().parse(request.as_bytes()) else {
            panic!("a request")
        };
        choose(&head, offered)
    }

    /// API §4: "`Accept`: `*/*` or none is SSE; something else only is 406".
    #[test]
    fn an_event_stream_or_nothing() {
        let sse = &["text/event-stream"];
        for accept in [
            "",
            "Accept: */*\r\n",
            "Accept:\r\n",
            "Accept: text/event-stream\r\n",
            "Accept: TEXT/Event-Stream;q=0.5, text/html\r\n",
            "Accept: text/*\r\n",
            "Accept: text/html\r\nAccept: */*;q=0.1\r\n",
            "Accept: nonsense\r\n",
        ] {
            assert_eq!(chosen(accept, sse), Some(0), "{accept}");
        }
        for accept in [
            "Accept: application/json\r\n",
            "Accept: text/html, application/*\r\n",
            "Accept: text/event-stream;q=0\r\n",
            "Accept: */*, text/event-stream; q=0.000\r\n",
        ] {
            assert_eq!(chosen(accept, sse), None, "{accept}");
        }
    }

    fn encoding(fields: &str) -> Encoding {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let Parsed::Request { head, .. } = HeadParser::default().parse(request.as_bytes()) else {
            panic!("a request")
        };
        choose_encoding(&head)
    }

    /// API §4: "what `Accept-Encoding` allows of zstd and gzip (whoever offers br offers gzip)";
    /// zstd, then gzip, else none.
    #[test]
    fn an_encoding_is_what_the_client_likes_and_we_have() {
        for (value, wanted) in [
            ("gzip, deflate, br, zstd", Encoding::Zstd), // Chromium, Firefox
            ("gzip, deflate, br", Encoding::Gzip),       // Safari, curl, httpx
            ("gzip, deflate", Encoding::Gzip),           // requests
            ("GZip", Encoding::Gzip),
            ("x-gzip", Encoding::Gzip),
            ("Zstd;q=0.001", Encoding::Zstd),
            ("gzip;q=1.0, zstd;q=0.5", Encoding::Gzip),
            ("gzip;q=0.5, zstd; q=0.5", Encoding::Zstd),
            ("zstd;q=0, gzip", Encoding::Gzip),
            ("*", Encoding::Gzip),
            ("*;q=0.5, zstd;q=0.1", Encoding::Gzip),
            ("gzip;q=0, *", Encoding::Identity),
            ("identity", Encoding::Identity),
            ("identity;q=0.5, gzip;q=0.1", Encoding::Identity),
            ("identity, gzip", Encoding::Gzip),
            ("identity;q=0, gzip;q=0.1", Encoding::Gzip),
            ("identity;q=0", Encoding::Identity),
            ("*;q=0", Encoding::Identity),
            ("gzip;q=0", Encoding::Identity),
            ("gzip;q=0.000, zstd;q=0.0", Encoding::Identity),
            ("br, deflate, compress", Encoding::Identity),
            ("", Encoding::Identity),
            ("gzip;q=2, zstd;q=x, zstd;level=3, gz\u{e9}p", Encoding::Identity),
        ] {
            assert_eq!(encoding(&format!("Accept-Encoding: {value}\r\n")), wanted, "{value}");
        }
        assert_eq!(encoding(""), Encoding::Identity, "who says nothing may know nothing");
        let two = "Accept-Encoding: gzip\r\nAccept: */*\r\nAccept-Encoding: zstd\r\n";
        assert_eq!(encoding(two), Encoding::Zstd);
    }

    #[test]
    fn the_weights_decide() {
        let both = &["application/json", "application/x-ndjson"];
        assert_eq!(chosen("Accept: application/x-ndjson\r\n", both), Some(1));
        assert_eq!(chosen("Accept: application/*\r\n", both), Some(0));
        assert_eq!(chosen("Accept: application/x-ndjson, */*\r\n", both), Some(0));
        assert_eq!(chosen("Accept: application/x-ndjson, */*;q=0.9\r\n", both), Some(1));
        assert_eq!(chosen("Accept: */*;q=2\r\n", both), Some(0));
    }
}
