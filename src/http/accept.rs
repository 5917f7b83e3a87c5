//! Which form of an answer a request accepts (RFC 9110 §12.5.1).

use super::head::{FieldName, Head};

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
