//! What the commands that talk to a server share: its address, and what its refusals mean.

use std::{
    fmt,
    io::{self, BufRead},
    thread,
    time::Duration,
};

use serde::Deserialize;
use ureq::{Agent, Body, http::Response};

use crate::stderr::tell;

/// A stream is silent for at most this long: three of its heartbeats.
pub const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a connection may take to open.
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// What a server has no room for is sent again so many times,
const NO_ROOM_RETRIES: u32 = 5;
/// after the pause that it asks for, or after this if it asks for none,
const NO_ROOM_PAUSE: Duration = Duration::from_secs(1);
/// and no longer than this.
const NO_ROOM_PAUSE_MAX: Duration = Duration::from_secs(10);

/// Where the server is.
#[derive(Clone, Debug, clap::Args)]
pub struct ServerAddress {
    /// The server's URL
    #[arg(long, env = "STRANDLINE_URL", default_value = "http://127.0.0.1:7400", value_parser = parse_url)]
    pub url: String,
}

/// The URL as it stands, without slashes at its end.
fn parse_url(text: &str) -> Result<String, &'static str> {
    if text.starts_with("https://") {
        return Err("only http:// is spoken here; for TLS give the address behind the proxy");
    }
    let host = text.strip_prefix("http://").map(|rest| rest.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() => Ok(format!("http://{host}")),
        _ => Err("write it as http://HOST:PORT, such as http://127.0.0.1:7400"),
    }
}

/// Why a command ended without having done what it was asked to.
#[derive(Debug)]
pub enum ClientError {
    /// No connection, so that nothing was sent: trying again may help.
    Unreachable(String),
    /// A connection that broke, or an answer that makes no sense: what was sent may have been done.
    Connection(String),
    /// The server said no, and why.
    Refused(Box<Refusal>),
    /// A file or a pipe on our side.
    Local(String),
}

/// What a problem document says (RFC 9457), with the members that appends add.
#[derive(Debug, Default, Deserialize)]
pub struct Refusal {
    /// The status of the answer.
    #[serde(default)]
    pub status: u16,
    /// Which problem it is: `/problems/<slug>`.
    #[serde(default, rename = "type")]
    pub kind: String,
    /// What the problem is in general.
    #[serde(default)]
    pub title: String,
    /// What it is here.
    #[serde(default)]
    pub detail: String,
    /// The failing line of the request's body, from 1.
    pub line: Option<u64>,
    /// How many events of the request stay appended.
    pub appended: Option<u64>,
    /// How many of them the log had before.
    pub duplicates: Option<u64>,
    /// The event that is in the way.
    pub offset: Option<u64>,
    /// Where the log begins, if what was asked for lies before it.
    pub earliest: Option<u64>,
    /// `Retry-After`, if it is one in seconds.
    #[serde(skip)]
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal names the line at which it stopped, or says that it took nothing. One that does neither
    /// may come from a proxy, which cannot know. Where the server's disk has failed the server does not
    /// know either: what stands before the line was acknowledged, the line and what follows it may be kept.
    pub fn leaves_doubt(&self) -> bool {
        let is_told = self.line.is_some() || self.appended.is_some() || self.took_nothing();
        self.is("read-only") || !is_told && self.status >= 500
    }

    /// Whether the server was too busy to begin with this request, or had no place for its connection.
    fn took_nothing(&self) -> bool {
        let stopped_later = self.line.is_some_and(|line| line > 1);
        self.is("overloaded") && !stopped_later && self.appended.unwrap_or(0) == 0
    }

    /// Whether it is the problem of this slug.
    pub fn is(&self, slug: &str) -> bool {
        self.kind.strip_prefix("/problems/") == Some(slug)
    }

    /// What comes before trying again.
    pub fn what_first(&self) -> &'static str {
        if matches!(self.status, 408 | 429 | 500..) { "once that is over," } else { "mend it and" }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({}): {}", self.title, self.status, self.detail)
    }
}

impl fmt::Display for ClientError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unreachable(what) | Self::Connection(what) | Self::Local(what) => {
                formatter.write_str(what)
            }
            Self::Refused(refusal) => refusal.fmt(formatter),
        }
    }
}

/// A way to the server, its connections kept open between requests.
pub struct Client {
    agent: Agent,
    base: String,
}

impl Client {
    /// A client of the server at this address; nothing is sent yet.
    pub fn new(address: &ServerAddress) -> Self {
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_MAX))
            .timeout_per_read(Some(SILENCE_MAX))
            .max_redirects(0)
            .user_agent(concat!("strandline/", env!("CARGO_PKG_VERSION")))
            .build();
        Self { agent: config.into(), base: address.url.clone() }
    }

    /// GET of a path with query; `headers` beside the usual ones.
    pub fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Response<Body>, ClientError> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        self.checked(request.call())
    }

    /// POST of a body to a path, and again where the server has no room for it now and took nothing of it.
    pub fn post(
        &self,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> Result<Response<Body>, ClientError> {
        let mut retries = 0..NO_ROOM_RETRIES;
        loop {
            let request = self.agent.post(format!("{}{path}", self.base));
            match self.checked(request.header("Content-Type", content_type).send(body)) {
                Err(ClientError::Refused(refusal))
                    if refusal.took_nothing() && retries.next().is_some() =>
                {
                    let asked = refusal.retry_after.unwrap_or(NO_ROOM_PAUSE);
                    let pause = asked.min(NO_ROOM_PAUSE_MAX);
                    tell!("note: {refusal}; trying again in {} s", pause.as_secs());
                    thread::sleep(pause);
                }
                answer => return answer,
            }
        }
    }

    fn checked(
        &self,
        answer: Result<Response<Body>, ureq::Error>,
    ) -> Result<Response<Body>, ClientError> {
        let mut answer = answer.map_err(|error| {
            let why = match &error {
                ureq::Error::Io(error) => error.to_string(),
                error => error.to_string(),
            };
            if is_before_sending(&error) {
                ClientError::Unreachable(format!(
                    "cannot connect to {}: {why}; is it running? `strandline serve` starts a server, --url names another",
                    self.base
                ))
            } else {
                ClientError::Connection(format!("no answer from {}: {why}", self.base))
            }
        })?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status().as_u16();
        let retry_after = answer.headers().get("Retry-After");
        let retry_after = retry_after.and_then(|value| value.to_str().ok()?.parse().ok());
        let text = answer.body_mut().read_to_string().unwrap_or_default();
        let mut refusal: Box<Refusal> = serde_json::from_str(&text).unwrap_or_default();
        refusal.status = status;
        refusal.retry_after = retry_after.map(Duration::from_secs);
        if refusal.title.is_empty() {
            refusal.title = "The server refused".to_owned();
            refusal.detail = text.chars().take(200).collect();
        }
        Err(ClientError::Refused(refusal))
    }
}

/// Whether there was no connection on which anything could have been sent.
fn is_before_sending(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::Io(error) => {
            let before = [
                io::ErrorKind::ConnectionRefused,
                io::ErrorKind::HostUnreachable,
                io::ErrorKind::NetworkUnreachable,
            ];
            // A name that is not found has no kind of its own.
            before.contains(&error.kind()) || error.to_string().contains("lookup address")
        }
        ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed => true,
        _ => false,
    }
}

/// One event of a Server-Sent Events stream, as it stood on the wire.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct WireEvent {
    /// The last `id:` seen, also of earlier events.
    pub id: String,
    /// `event:`, empty for the default.
    pub event: String,
    /// The `data:` lines, joined by LF.
    pub data: String,
}

/// What stands until the stream says another.
#[derive(Debug, Default)]
pub struct LastSaid {
    /// The last `id:`.
    pub id: String,
    /// The last `retry:`.
    pub retry: Option<Duration>,
}

/// Reads the next event; `None` at the end of the stream. An event that its end cut off is dropped,
/// as the specification of Server-Sent Events asks.
pub fn next_event(
    stream: &mut impl BufRead,
    said: &mut LastSaid,
) -> std::io::Result<Option<WireEvent>> {
    let (mut line, mut event) = (String::new(), WireEvent::default());
    let mut has_data = false;
    loop {
        line.clear();
        if stream.read_line(&mut line)? == 0 || !line.ends_with('\n') {
            return Ok(None);
        }
        let text = line.trim_end_matches(['\n', '\r']);
        if text.is_empty() {
            if has_data {
                event.id.clone_from(&said.id);
                return Ok(Some(event));
            }
            event = WireEvent::default();
            continue;
        }
        let (name, value) = text.split_once(':').unwrap_or((text, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match name {
            "id" => value.clone_into(&mut said.id),
            "retry" if value.bytes().all(|byte| byte.is_ascii_digit()) => {
                said.retry = value.parse().ok().map(Duration::from_millis).or(said.retry);
            }
            "event" => value.clone_into(&mut event.event),
            "data" => {
                if has_data {
                    event.data.push('\n');
                }
                event.data.push_str(value);
                has_data = true;
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_that_took_nothing_leaves_no_doubt() {
        let refusal = |json: &str| Refusal {
            status: 503,
            ..serde_json::from_str(json).expect("a problem document")
        };
        let overloaded = r#""type":"/problems/overloaded""#;
        let full = refusal(&format!("{{{overloaded}}}"));
        assert!(full.took_nothing() && !full.leaves_doubt());
        let began = refusal(&format!(r#"{{{overloaded},"line":1,"appended":0}}"#));
        assert!(began.took_nothing() && !began.leaves_doubt());
        for later in [r#""line":3,"appended":2"#, r#""appended":2"#, r#""line":3"#] {
            let later = refusal(&format!("{{{overloaded},{later}}}"));
            assert!(!later.took_nothing() && !later.leaves_doubt());
        }
        let of_a_proxy = refusal("{}");
        assert!(!of_a_proxy.took_nothing() && of_a_proxy.leaves_doubt());
        for told in ["", r#","line":3,"appended":2"#, r#","line":1,"appended":0"#] {
            assert!(refusal(&format!(r#"{{"type":"/problems/read-only"{told}}}"#)).leaves_doubt());
        }
    }

    #[test]
    fn events_are_read_as_the_specification_says() {
        let text = "retry: 1000\nid: 4.a\nevent: connection.established\ndata: {}\n\n:\n\
                    id: 5.a\ndata: one\ndata:two\n\nretry: soon\nretry:\n\nevent: cut\ndata: off";
        let (mut stream, mut said) = (text.as_bytes(), LastSaid::default());
        let first = next_event(&mut stream, &mut said).unwrap().unwrap();
        assert_eq!(said.retry, Some(Duration::from_secs(1)));
        assert_eq!((first.id.as_str(), first.event.as_str()), ("4.a", "connection.established"));
        let second = next_event(&mut stream, &mut said).unwrap().unwrap();
        assert_eq!((second.id.as_str(), second.data.as_str()), ("5.a", "one\ntwo"));
        assert_eq!(next_event(&mut stream, &mut said).unwrap(), None);
        assert_eq!(said.retry, Some(Duration::from_secs(1)), "what is no number is passed over");
    }
}
