//! The one table of everything that can go wrong on the wire: its slug, its status, what it means
//! and what to do about it. Answers, pages at `/problems/{slug}` and the documentation are made
//! from it. A slug is part of the contract: it is never renamed, and never given another meaning.

/// One row of the table.
#[derive(Debug, PartialEq, Eq)]
pub struct ProblemEntry {
    /// The row's kind, which code uses to name it.
    pub kind: ProblemKind,
    /// The last part of the problem's `type`: `/problems/{slug}`.
    pub slug: &'static str,
    /// HTTP status; also the `status` of a WebSocket `error` message.
    pub status: u16,
    /// A short summary that is the same every time.
    pub title: &'static str,
    /// When this happens.
    pub meaning: &'static str,
    /// What the client can do.
    pub advice: &'static str,
}

macro_rules! problems {
    ($($kind:ident $status:literal $slug:literal $title:literal
        means $meaning:literal advice $advice:literal)*) => {
        /// What went wrong: one for each row of [`PROBLEMS`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum ProblemKind {
            $(#[doc = $title] $kind,)*
        }

        /// All rows, ordered by status.
        pub static PROBLEMS: &[ProblemEntry] = &[
            $(ProblemEntry {
                kind: ProblemKind::$kind,
                slug: $slug,
                status: $status,
                title: $title,
                meaning: $meaning,
                advice: $advice,
            },)*
        ];
    };
}

problems! {
    InvalidHead 400 "invalid-head" "The request head is not valid HTTP/1.1"
        means "The request line or a header field breaks the grammar of RFC 9112: a bare CR or LF, a folded line, a space before a colon, a control character, an invalid target."
        advice "Send the head as RFC 9112 has it. If a proxy stands between, look at what it forwards. The connection was closed, since nobody can tell where the next request would begin."
    AmbiguousLength 400 "ambiguous-length" "It is not certain where the request's body ends"
        means "The request states its body's length twice, or as both Content-Length and Transfer-Encoding, or not as a plain number, or in a transfer coding that does not end with chunked."
        advice "Send exactly one of `Content-Length: <digits>` and `Transfer-Encoding: chunked`. Servers that guess here can be made to take one request for two, so the connection was closed."
    InvalidHost 400 "invalid-host" "The Host field is missing, repeated or not a host"
        means "HTTP/1.1 requires exactly one Host field with a name or address and perhaps a port."
        advice "Send one valid Host field. Every HTTP library does so by itself."
    InvalidBody 400 "invalid-body" "The request's body is broken"
        means "The body's chunked coding is invalid, or the connection ended before the body did."
        advice "Send the body whole. Of a body that was cut short nothing is appended, but for the lines of an NDJSON stream that had been appended before."
    InvalidHeader 400 "invalid-header" "A header field has a value that cannot be used"
        means "A header field that the operation reads is repeated, is not percent-encoded UTF-8, or does not fit the operation."
        advice "Correct the field that `detail` names."
    UnknownParameter 400 "unknown-parameter" "Unknown query parameter"
        means "The query holds a parameter that this operation does not have. It is refused rather than ignored, since a misspelt filter that is ignored would return the wrong events."
        advice "Correct or remove the parameter that `detail` names. `_` alone is ignored everywhere."
    InvalidParameter 400 "invalid-parameter" "A query parameter has a value that cannot be used"
        means "The parameter's value is malformed, out of range, or given twice."
        advice "Correct the parameter that `detail` names."
    InvalidCursor 400 "invalid-cursor" "Not a cursor"
        means "A cursor is `<offset>.<tag>`, such as `64000.k3f9q`, or a plain offset."
        advice "Send back a cursor exactly as you got it, from an SSE `id:`, a `cursor` member or an append's answer."
    InvalidTopic 400 "invalid-topic" "Not a topic"
        means "A topic is 1 to 16 levels of 1 to 128 bytes, separated by `/`, at most 512 bytes of UTF-8 in all. A level is not `.` or `..`, does not begin with `$`, and holds no `*`, `/` or control character."
        advice "Choose another name. In a URL, encode it by `encodeURIComponent` or its like."
    InvalidPattern 400 "invalid-pattern" "Not a topic pattern"
        means "A pattern is a topic in which a whole level may be `*` (any one level) and the last may be `**` (any number of levels)."
        advice "Use `*` and `**` only as whole levels, and `**` only at the end."
    InvalidName 400 "invalid-name" "Not a type, key, id, header name or log name"
        means "Types and keys have at most 128 bytes, ids 256; they have no control characters and no spaces at their ends. Header names are tokens of RFC 9110. A log's name is `[a-z0-9][a-z0-9_-]{0,63}`."
        advice "Correct the name that `detail` gives."
    InvalidJson 400 "invalid-json" "Not valid JSON"
        means "The body, or a line of it, is not valid JSON, or is nested more than 64 deep."
        advice "`detail` names the place. Data of another kind is welcome under its own Content-Type, such as text/plain."
    InvalidEvent 400 "invalid-event" "Not an event object"
        means "An event object has an unknown or repeated member, lacks its topic, has both `data` and `data_base64`, or a member is of the wrong kind."
        advice "Correct the member that `detail` names."
    EmptyAppend 400 "empty-append" "Nothing to append"
        means "The array of events is empty."
        advice "Send at least one event."
    InvalidFilter 400 "invalid-filter" "Not a filter"
        means "The filter is malformed or larger than a filter may be."
        advice "`detail` names the place in the filter."
    InvalidSettings 400 "invalid-settings" "Not settings"
        means "The settings of a log or topic have an unknown or repeated member, or one that is out of its range; or an operation that takes no body got one."
        advice "Correct the member that `detail` names. A limit that is left away is none."
    EpochStart 400 "epoch-start" "A producer's epoch begins with sequence 0"
        means "The producer states an epoch that is new, and a Producer-Seq other than 0."
        advice "Count the appends of a new epoch from 0, by one an append."
    InvalidMessage 400 "invalid-message" "Invalid message format"
        means "A WebSocket message is not a JSON object of a known `type` with the members that the type has."
        advice "Correct the message. The connection stays, and its subscriptions with it."
    Unauthenticated 401 "unauthenticated" "Credentials are missing or not valid"
        means "This server asks for credentials, and the request carries none that it knows."
        advice "Send valid credentials."
    OriginNotAllowed 403 "origin-not-allowed" "This web page may not write here"
        means "A page of another origin tried to append or to open a WebSocket. Any page that you visit could otherwise write to a server on your own machine."
        advice "If the page is yours, start the server with `--cors-origin` and its origin, such as `--cors-origin https://app.example`."
    Forbidden 403 "forbidden" "These credentials do not allow it"
        means "The credentials are valid, but not for this operation on this topic or log."
        advice "Ask whoever gave you the credentials for wider ones."
    StaleEpoch 403 "stale-epoch" "Another life of this producer has taken over"
        means "An append of a later Producer-Epoch was accepted, which fences the earlier ones off. The one that holds is in `epoch` and in the field Producer-Epoch."
        advice "Stop: another process is this producer now. A producer that starts again goes on with a higher epoch, from sequence 0."
    NotFound 404 "not-found" "There is nothing at this path"
        means "No operation has this path."
        advice "Everything is below `/api/v1`; `/` shows how to begin. To append to a topic, POST to `/api/v1/topics/{topic}/events`."
    TopicNotFound 404 "topic-not-found" "There is no event of this topic"
        means "No event of this topic has been appended to this log, or all of them are gone."
        advice "Topics are made by their first event. Streams and history of an unused topic are empty, never 404."
    LogNotFound 404 "log-not-found" "There is no log of this name"
        means "The log that `log=` names does not exist. Only `main` exists by itself."
        advice "Leave `log=` away: this version has the one log."
    SettingsNotFound 404 "settings-not-found" "Nothing is set for this pattern"
        means "Settings are kept for exactly the topic or pattern of their PUT, and there was none for this one, or it was taken back."
        advice "PUT settings to it. What holds for a topic, from whichever pattern, is at `/api/v1/topics/{topic}`."
    SubscriptionNotFound 404 "subscription-not-found" "There is no subscription of this number"
        means "The message names a subscription that this connection does not have."
        advice "Use a number that a `subscribed` message gave, before it is unsubscribed."
    MethodNotAllowed 405 "method-not-allowed" "This path does not take this method"
        means "The path exists, and the methods that it takes are in the Allow field."
        advice "Use one of them."
    NotAcceptable 406 "not-acceptable" "Not available in any form that the request accepts"
        means "The Accept field rules out everything that this path can answer with."
        advice "Accept `text/event-stream` for a stream, `application/json` or `application/x-ndjson` for history, or leave Accept away."
    RequestTimeout 408 "request-timeout" "The request took too long to arrive"
        means "The head was not complete in time, or the body stopped coming."
        advice "Send it again, at once and whole."
    AppendInFlight 409 "append-in-flight" "An event of this id is being appended right now"
        means "Another request with the same event id, or another part of this body, has not been answered yet."
        advice "Wait for that answer, or send this again after a moment."
    ProducerGap 409 "producer-gap" "Appends of this producer are missing before this one"
        means "The Producer-Seq is larger than the one that comes next, which is in `expected_seq` and in the field Producer-Expected-Seq."
        advice "Send the missing appends first, in order. Without them at hand, go on in a new epoch, from sequence 0."
    OperationPath 409 "operation-path" "This path names an operation, not a topic"
        means "A PUT or DELETE of a path that ends in `/events` or `/trim`, of which no topic exists."
        advice "Leave the ending away to address the topic. Topics that do end so can be addressed once they exist."
    TooManySettings 409 "too-many-settings" "Settings are kept of no more topics or patterns"
        means "A log keeps settings of at most 10,000 topics and 1,000 patterns."
        advice "Set one pattern for many topics, and take back with DELETE what is not needed any more."
    Expired 410 "expired" "These events are gone"
        means "The offset lies below the log's earliest: retention has removed those events."
        advice "Start from `earliest`."
    LengthRequired 411 "length-required" "The request states no length"
        means "The request has neither Content-Length nor Transfer-Encoding."
        advice "Send one of them; `Content-Length: 0` if the body is empty."
    OffsetMismatch 412 "offset-mismatch" "Another offset comes next"
        means "The next offset of the topic, or with `scope=log` of the log, is not the one that Expected-Offset states."
        advice "Read what has come since, decide again, and retry with the `expected_offset` of this answer."
    EventTooLarge 413 "event-too-large" "The event is too large"
        means "The data of an event exceeds the limit of 1 MiB."
        advice "Split it, or store it elsewhere and append a reference."
    BodyTooLarge 413 "body-too-large" "The body is too large"
        means "A JSON array is appended whole or not at all, so its size has a limit (4 MiB); so has a body that the operation does not use."
        advice "Send several arrays, or stream the events as `application/x-ndjson`, which may be of any length."
    TooManyEvents 413 "too-many-events" "Too many events in one array"
        means "An array is appended whole or not at all, and has at most 10,000 events."
        advice "Send several arrays, or stream the events as `application/x-ndjson`."
    TargetTooLong 414 "target-too-long" "The request target is too long"
        means "The request line alone exceeds the 16 KiB that a head may have."
        advice "Use patterns instead of many topics, or subscribe over a WebSocket."
    UnsupportedEncoding 415 "unsupported-encoding" "Compressed bodies are not taken"
        means "The request has a Content-Encoding."
        advice "Send the body as it is."
    UnsupportedMediaType 415 "unsupported-media-type" "This operation does not take this Content-Type"
        means "`/api/v1/events` takes `application/json` and `application/x-ndjson`; raw bodies of any type go to `/api/v1/topics/{topic}/events`."
        advice "Send one of these, or append to a topic's own path."
    ExpectationFailed 417 "expectation-failed" "Unknown expectation"
        means "The Expect field holds something other than `100-continue`."
        advice "Leave it away."
    MisdirectedRequest 421 "misdirected-request" "This server does not answer to that name"
        means "The server listens on this machine alone, and the Host field is not one of its names. A web page could otherwise reach it under a name of its own choice."
        advice "Use `localhost`, `127.0.0.1`, `[::1]` or the address that the server listens on. Behind a proxy, let it send such a Host, or listen on another address."
    IdConflict 422 "id-conflict" "Another event has this id"
        means "An event with this id was appended before, and it is not the same event."
        advice "Give a new id to a new event. A retry must repeat the event as it was."
    ReservedType 422 "reserved-type" "This event type is reserved"
        means "`error`, `open`, `ping` and types that begin with `connection.` have a meaning of their own in an event stream: an event named `error` would fire a page's `onerror`. So nobody can publish one, or ask for one as a type."
        advice "Choose another type. Events of a connection come unasked; heartbeats as events are had by `ping=true`."
    UpgradeRequired 426 "upgrade-required" "This path speaks WebSocket"
        means "The request is no WebSocket handshake, or a proxy removed its Upgrade field."
        advice "Use a WebSocket client. A proxy has to pass on `Upgrade` and `Connection`. `/sse` serves the same events without."
    RateLimited 429 "rate-limited" "Too many requests"
        means "A limit on the rate of requests or events was reached."
        advice "Wait as long as Retry-After says."
    TooManyProducers 429 "too-many-producers" "The log knows no more producers"
        means "A log remembers a million producers. One that has been silent for a week is forgotten, and none has."
        advice "Use fewer producer ids: one for each process that appends, not one for each append."
    HeadTooLarge 431 "head-too-large" "The request head is too large"
        means "A request head has at most 16 KiB and 64 fields."
        advice "Send fewer or shorter fields. Many events go into a body, not into headers."
    ReadFailed 500 "read-failed" "A part of the log cannot be read"
        means "The disk failed to return what it holds, or what it returned does not match its checksum. Nothing wrong is served in its place."
        advice "The operator runs `strandline verify` on the stopped server's data directory. Other parts of the log can still be read."
    NotYet 501 "not-yet" "Not available yet"
        means "This is part of the interface, but this version does not have it."
        advice "Look into CHANGELOG.md for the version that brings it."
    UnknownMethod 501 "unknown-method" "Unknown method"
        means "The server knows GET, HEAD, POST, PUT, DELETE, PATCH and OPTIONS."
        advice "Use one of these."
    UnsupportedTransferCoding 501 "unsupported-transfer-coding" "Unknown transfer coding"
        means "Of transfer codings the server knows `chunked`, alone."
        advice "Send the body chunked or with a Content-Length."
    Overloaded 503 "overloaded" "The server is busy"
        means "More waits to be written, or to be read, than the server takes on, or all its places for connections are taken. Nothing was appended by this request; whether an earlier one had appended the same is not known."
        advice "Send it again after Retry-After."
    Draining 503 "draining" "The server is stopping"
        means "The server was told to stop, finishes what it began and takes nothing new."
        advice "Connect again after Retry-After."
    ReadOnly 503 "read-only" "The log takes no writes"
        means "The disk failed: a write, a sync, or what prepares the log for them, as `detail` says. Nobody can know what of it was kept, so the log is read-only until a restart has looked. Reads go on."
        advice "The operator looks at the disk and restarts the server. An append that got this answer, or none, may or may not have been kept."
    UnsupportedVersion 505 "unsupported-version" "Unknown version of HTTP"
        means "The server speaks HTTP/1.1 and HTTP/1.0."
        advice "Use HTTP/1.1. For HTTP/2 or HTTP/3, put a proxy in front."
    DiskFull 507 "disk-full" "The disk is full"
        means "There is no room for another event. Reads go on."
        advice "The operator makes room, by retention or by a larger disk. What was refused has not been appended; what had been before is answered as ever when it is sent again."
}

impl ProblemKind {
    /// This kind's row.
    pub fn entry(self) -> &'static ProblemEntry {
        &PROBLEMS[self as usize]
    }
}

/// Returns the row that `/problems/{slug}` shows.
pub fn find(slug: &str) -> Option<&'static ProblemEntry> {
    PROBLEMS.iter().find(|entry| entry.slug == slug)
}

/// One row of the WebSocket close codes that this server sends.
#[derive(Debug, PartialEq, Eq)]
pub struct CloseEntry {
    /// The code of RFC 6455, or ours from 4000 on.
    pub code: u16,
    /// The reason that goes with it in the close frame when there is nothing to add; short, since
    /// a close frame holds at most 123 bytes of reason.
    pub reason: &'static str,
    /// What the client can do.
    pub advice: &'static str,
}

macro_rules! close_codes {
    ($($kind:ident $code:literal $reason:literal advice $advice:literal)*) => {
        /// Why a WebSocket is closed: one for each row of [`CLOSE_CODES`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum CloseCode {
            $(#[doc = $reason] $kind,)*
        }

        /// All rows, ordered by code.
        pub static CLOSE_CODES: &[CloseEntry] = &[
            $(CloseEntry { code: $code, reason: $reason, advice: $advice },)*
        ];
    };
}

close_codes! {
    Normal 1000 "closed as asked"
        advice "Nothing: the client closed."
    GoingAway 1001 "the server is stopping"
        advice "Connect again with your cursor."
    ProtocolError 1002 "protocol error"
        advice "The client breaks RFC 6455: use another library."
    BinaryFrame 1003 "binary messages are not taken"
        advice "Send JSON in text messages."
    InvalidText 1007 "text that is not UTF-8"
        advice "Send JSON in UTF-8."
    MessageTooBig 1009 "message of more than 2 MiB"
        advice "Send smaller messages, or append large events by POST."
    CannotRead 1011 "the log cannot be read now"
        advice "Connect again with your cursor, after a pause. The server's own log says what is wrong."
    Overloaded 1013 "all places for connections are taken"
        advice "Connect again with your cursor, after the pause that `retry:` states."
    Drained 4000 "the server is stopping: reconnect with your cursor"
        advice "Connect again with your cursor, after a random pause."
    CredentialsEnded 4001 "credentials ended"
        advice "Connect again with fresh credentials."
    AskedTooMuch 4008 "too much asked"
        advice "The reason says what of; ask for less of it."
}

impl CloseCode {
    /// This code's row.
    pub fn entry(self) -> &'static CloseEntry {
        &CLOSE_CODES[self as usize]
    }

    /// The number in the close frame.
    pub fn code(self) -> u16 {
        self.entry().code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_finds_its_own_row_and_slugs_are_unique() {
        for entry in PROBLEMS {
            assert_eq!(entry.kind.entry(), entry);
            assert_eq!(find(entry.slug), Some(entry), "{} stands twice", entry.slug);
            assert!(entry.slug.bytes().all(|byte| byte == b'-' || byte.is_ascii_lowercase()));
        }
        assert!(PROBLEMS.is_sorted_by_key(|entry| entry.status));
    }

    /// API §9: "400 syntax, limits of names, `$` levels, 401, 403, 404, 405, 406, 408, 409, 410, 411
    /// (neither length nor chunked), 412, 413, 414, 415, 417, 421, 422 (id conflict, reserved types),
    /// 426, 429 and 503 with `Retry-After`, 431, 501, 507 disk full."
    #[test]
    fn every_status_of_the_contract_has_a_row() {
        let statuses = [
            400, 401, 403, 404, 405, 406, 408, 409, 410, 411, 412, 413, 414, 415, 417, 421, 422,
            426, 429, 431, 501, 503, 507,
        ];
        for status in statuses {
            assert!(PROBLEMS.iter().any(|entry| entry.status == status), "{status}");
        }
    }

    /// API §5: "Close codes: 1001 and 4000 drained (reconnect with your cursor), 4001 credentials
    /// ended, 4008 too much asked (say what)", "binary frames 1003, more than 2 MiB 1009"; 1011 and
    /// 1013 are in docs/WIRE_PROTOCOL.md.
    #[test]
    fn close_codes_are_those_of_the_contract() {
        let codes: Vec<u16> = CLOSE_CODES.iter().map(|entry| entry.code).collect();
        assert_eq!(codes, [1000, 1001, 1002, 1003, 1007, 1009, 1011, 1013, 4000, 4001, 4008]);
        assert_eq!(CloseCode::Drained.code(), 4000);
        assert!(CLOSE_CODES.iter().all(|entry| entry.reason.len() <= 123));
    }
}
