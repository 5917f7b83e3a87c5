//! The formats of `export` and `import`: event objects, one a line, and batches of CloudEvents 1.0.
//!
//! ```text
//! event object     CloudEvent              note
//! topic            subject
//! id               id                      of an event without one: `<tag>/<offset>`, which no other log has
//! type             type
//! key              partitionkey
//! content_type     datacontenttype
//! data             data
//! data_base64      data_base64
//! time             time                    an import does not keep it: the log gives another
//! headers          eventheaders            their object as a string: attributes have no others
//!                  source                  `/api/v1/logs/<log>`
//! offset           offset                  a string; an import does not keep it
//! ```
//! Attributes of foreign CloudEvents that are none of these become headers of the event, and a foreign source does so
//! as `ce-source`. A CloudEvent is known by source and id together, an event by its id alone: so that of a foreign one
//! is `<id>@<16 hex digits of its source>` here, which an export takes apart again. Ids of our own exports stay as
//! they are.

use std::{
    borrow::Cow,
    collections::BTreeMap,
    fmt,
    io::{self, BufRead, Read},
};

use clap::ValueEnum;
use serde::{
    Deserializer as _,
    de::{self, SeqAccess, Visitor},
};
use serde_json::value::RawValue;
use strandline_storage::event::EventId;

use crate::json::write;

/// How events are written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Event objects as the history gives them, one a line
    Ndjson,
    /// One JSON array of CloudEvents 1.0
    Cloudevents,
}

/// The members of an object, by name; values are kept as their bytes stand.
type Members<'a> = BTreeMap<Cow<'a, str>, &'a RawValue>;

/// What an event object may say, in the order of an export, beside its place in a log.
const EVENT_MEMBERS: [&str; 8] =
    ["topic", "type", "id", "key", "headers", "content_type", "data", "data_base64"];
/// What only tells where an event stood.
const PLACE_MEMBERS: [&str; 2] = ["offset", "time"];

/// What of a CloudEvent is what of an event.
const CLOUD_MEMBERS: [(&str, &str); 7] = [
    ("subject", "topic"),
    ("type", "type"),
    ("id", "id"),
    ("partitionkey", "key"),
    ("datacontenttype", "content_type"),
    ("data", "data"),
    ("data_base64", "data_base64"),
];
/// What of a CloudEvent is none of an event.
const CLOUD_ONLY: [&str; 5] = ["specversion", "source", "time", "offset", "eventheaders"];
/// How the sources of our own CloudEvents begin.
const OWN_SOURCE: &str = "/api/v1/logs/";
/// The header that keeps the source of a foreign one, named as in the HTTP binding of CloudEvents.
const SOURCE_HEADER: &str = "ce-source";

/// Which log an export reads.
#[derive(Clone, Debug, Default)]
pub struct Origin {
    /// Its name.
    pub log: String,
    /// Its tag.
    pub tag: String,
}

/// Appends the CloudEvent of an event object that a server wrote.
pub fn push_cloud_event(out: &mut Vec<u8>, object: &str, origin: &Origin) -> Result<(), String> {
    let members = members(object)?;
    let raw = |name: &str| members.get(name).map(|value| value.get());
    out.extend_from_slice(b"{\"specversion\":\"1.0\",\"id\":");
    let offset = raw("offset").unwrap_or("0");
    let foreign = Foreign::of(raw("id"), raw("headers"));
    match (&foreign, raw("id")) {
        (Some(foreign), _) => write::string(out, &foreign.id),
        (None, Some(id)) => out.extend_from_slice(id.as_bytes()),
        (None, None) => write::string(out, &format!("{}/{offset}", origin.tag)),
    }
    out.extend_from_slice(b",\"source\":");
    match &foreign {
        Some(foreign) => write::string(out, &foreign.source),
        None => write::string(out, &format!("{OWN_SOURCE}{}", origin.log)),
    }
    let mut push = |name: &str, value: &str| {
        write::name(out, name);
        out.extend_from_slice(value.as_bytes());
    };
    for (name, own) in [
        ("type", "type"),
        ("subject", "topic"),
        ("time", "time"),
        ("partitionkey", "key"),
        ("datacontenttype", "content_type"),
    ] {
        if let Some(value) = raw(own) {
            push(name, value);
        }
    }
    push("offset", &format!("\"{offset}\""));
    let headers = match &foreign {
        Some(foreign) => foreign.headers.as_deref(),
        None => raw("headers"),
    };
    if let Some(headers) = headers {
        let mut text = Vec::new();
        write::string(&mut text, headers);
        push("eventheaders", &String::from_utf8(text).expect("JSON is UTF-8"));
    }
    for name in ["data", "data_base64"] {
        if let Some(value) = raw(name) {
            push(name, value);
        }
    }
    out.push(b'}');
    Ok(())
}

/// What had been a foreign CloudEvent: its id and source as they were, and what headers remain.
struct Foreign {
    id: String,
    source: String,
    headers: Option<String>,
}

impl Foreign {
    /// `None` of an event that an import has not made of one: its id and headers say so together.
    fn of(id: Option<&str>, headers: Option<&str>) -> Option<Foreign> {
        let headers = headers.filter(|headers| headers.contains(SOURCE_HEADER))?;
        let mut headers: BTreeMap<String, String> = serde_json::from_str(headers).ok()?;
        let source = headers.remove(SOURCE_HEADER)?;
        let id: String = serde_json::from_str(id?).ok()?;
        let id = id.strip_suffix(&source_suffix(&source))?.to_owned();
        let headers = match headers.is_empty() {
            true => None,
            false => Some(serde_json::to_string(&headers).expect("strings are JSON")),
        };
        Some(Foreign { id, source, headers })
    }
}

/// What tells ids of one source from those of another: FNV-1a over 64 bits, which is the same in every version.
fn source_suffix(source: &str) -> String {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    let hash = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(PRIME);
    format!("@{:016x}", source.bytes().fold(BASIS, hash))
}

/// What an import does beside passing events on.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// The topic of events that name none.
    pub topic: Option<String>,
    /// Gives an event that has no id one of this and its offset, or its number among those that are read.
    pub id_prefix: Option<String>,
    /// Gives every event another id: this and the one that it has, or else as above.
    pub new_ids: Option<String>,
}

impl Conversion {
    /// The line of an append for an event object of an export.
    pub fn of_event(&self, object: &str, number: u64) -> Result<Vec<u8>, String> {
        let members = members(object)?;
        if let Some(name) = members.keys().find(|name| {
            !EVENT_MEMBERS.contains(&name.as_ref()) && !PLACE_MEMBERS.contains(&name.as_ref())
        }) {
            return Err(format!("member \"{name}\" is not of an event"));
        }
        let mut line = Line::default();
        for name in EVENT_MEMBERS {
            match members.get(name) {
                Some(id) if name == "id" => self.push_id(&mut line, id.get(), "")?,
                Some(value) => line.raw(name, value.get()),
                None => {}
            }
        }
        Ok(self.finish(line, &members, number))
    }

    /// The line of an append for a CloudEvent.
    pub fn of_cloud_event(&self, object: &str, number: u64) -> Result<Vec<u8>, String> {
        let members = members(object)?;
        let version = members.get("specversion").map(|value| value.get());
        if version != Some("\"1.0\"") {
            return Err("\"specversion\" is not \"1.0\"".to_owned());
        }
        let Some(source) = required(&members, "source")? else {
            return Err("\"source\" is missing".to_owned());
        };
        if required(&members, "id")?.is_none() && self.new_ids.is_none() && self.id_prefix.is_none()
        {
            return Err("\"id\" is missing: mend it, or give it one with --make-ids".to_owned());
        }
        let foreign = Some(source).filter(|source| !source.starts_with(OWN_SOURCE));
        let suffix = foreign.as_deref().map(source_suffix).unwrap_or_default();
        let mut line = Line::default();
        for (name, own) in CLOUD_MEMBERS {
            match members.get(name) {
                Some(id) if own == "id" => self.push_id(&mut line, id.get(), &suffix)?,
                Some(value) => line.raw(own, value.get()),
                None => {}
            }
        }
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        if let Some(text) = members.get("eventheaders") {
            let object: String = serde_json::from_str(text.get())
                .map_err(|_| "\"eventheaders\" is not a string".to_owned())?;
            headers = serde_json::from_str(&object)
                .map_err(|_| "\"eventheaders\" is not an object of strings".to_owned())?;
        }
        for (name, value) in &members {
            let is_known = CLOUD_ONLY.contains(&name.as_ref())
                || CLOUD_MEMBERS.iter().any(|(known, _)| known == name);
            if !is_known {
                let text =
                    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned());
                headers.insert(name.to_string(), text);
            }
        }
        headers.extend(foreign.map(|source| (SOURCE_HEADER.to_owned(), source)));
        if !headers.is_empty() {
            let text = serde_json::to_string(&headers).expect("strings are JSON");
            line.raw("headers", &text);
        }
        Ok(self.finish(line, &members, number))
    }

    /// An id as it stands, unless it is to be another.
    fn push_id(&self, line: &mut Line, id: &str, suffix: &str) -> Result<(), String> {
        if suffix.is_empty() && self.new_ids.is_none() {
            line.raw("id", id);
            return Ok(());
        }
        let id: String =
            serde_json::from_str(id).map_err(|_| "\"id\" is not a string".to_owned())?;
        let prefix = self.new_ids.as_deref().unwrap_or_default();
        let added_bytes = prefix.len() + suffix.len();
        if id.len() + added_bytes > EventId::BYTES_MAX {
            return Err(format!(
                "\"id\" has {} bytes: with the {added_bytes} that tell it from others it would have more than \
                 {}",
                id.len(),
                EventId::BYTES_MAX
            ));
        }
        line.text("id", &format!("{prefix}{id}{suffix}"));
        Ok(())
    }

    fn finish(&self, mut line: Line, members: &Members<'_>, number: u64) -> Vec<u8> {
        if let Some(topic) = self.topic.as_ref().filter(|_| !line.has("topic")) {
            line.text("topic", topic);
        }
        let prefix = self.new_ids.as_ref().or(self.id_prefix.as_ref());
        if let Some(prefix) = prefix.filter(|_| !line.has("id")) {
            let offset = members.get("offset").and_then(|value| value.get().parse().ok());
            line.text("id", &format!("{prefix}{}", offset.unwrap_or(number)));
        }
        line.finish()
    }
}

/// What every CloudEvent has to have: a string that is not empty.
fn required(members: &Members<'_>, name: &str) -> Result<Option<String>, String> {
    let Some(value) = members.get(name) else { return Ok(None) };
    match serde_json::from_str::<String>(value.get()) {
        Ok(text) if text.is_empty() => Err(format!("\"{name}\" is empty")),
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(format!("\"{name}\" is not a string")),
    }
}

/// An object that is written member by member.
#[derive(Default)]
struct Line {
    bytes: Vec<u8>,
    names: Vec<&'static str>,
}

impl Line {
    fn has(&self, name: &str) -> bool {
        self.names.contains(&name)
    }

    fn name(&mut self, name: &'static str) {
        self.bytes.push(if self.bytes.is_empty() { b'{' } else { b',' });
        write::string(&mut self.bytes, name);
        self.bytes.push(b':');
        self.names.push(name);
    }

    fn raw(&mut self, name: &'static str, value: &str) {
        self.name(name);
        write::on_one_line(&mut self.bytes, value.as_bytes());
    }

    fn text(&mut self, name: &'static str, text: &str) {
        self.name(name);
        write::string(&mut self.bytes, text);
    }

    fn finish(mut self) -> Vec<u8> {
        if self.bytes.is_empty() {
            self.bytes.push(b'{');
        }
        self.bytes.extend_from_slice(b"}\n");
        self.bytes
    }
}

fn members(object: &str) -> Result<Members<'_>, String> {
    serde_json::from_str(object).map_err(|error| format!("not a JSON object: {error}"))
}

/// Hands over each record of an input, with its number from 1, until `take` refuses one: lines, or the
/// elements of a JSON array, which is read as it comes.
pub fn for_each(
    input: impl BufRead,
    format: Format,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    match format {
        Format::Ndjson => for_each_line(input, take),
        Format::Cloudevents => for_each_element(input, take),
    }
}

/// Why an input was not read to its end.
#[derive(Debug)]
pub enum ReadError {
    /// It could not be read, or is not what it was said to be.
    Input(String),
    /// A record was refused, with its number.
    Record(u64, String),
}

fn for_each_line(
    mut input: impl BufRead,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut line = String::new();
    for number in 1.. {
        line.clear();
        match input.read_line(&mut line) {
            Ok(0) => break,
            Ok(_) => {
                take(number, line.trim_ascii()).map_err(|what| ReadError::Record(number, what))?
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(ReadError::Record(number, "not UTF-8".to_owned()));
            }
            Err(error) => return Err(ReadError::Input(error.to_string())),
        }
    }
    Ok(())
}

fn for_each_element(
    input: impl Read,
    take: &mut dyn FnMut(u64, &str) -> Result<(), String>,
) -> Result<(), ReadError> {
    let mut refused = None;
    let elements = Elements { take, refused: &mut refused };
    let mut reader = serde_json::Deserializer::from_reader(input);
    let end = reader.deserialize_seq(elements).and_then(|()| reader.end());
    match (refused, end) {
        (Some((number, what)), _) => Err(ReadError::Record(number, what)),
        (None, Err(error)) => {
            Err(ReadError::Input(format!("not an array of CloudEvents: {error}")))
        }
        (None, Ok(())) => Ok(()),
    }
}

struct Elements<'a> {
    take: &'a mut dyn FnMut(u64, &str) -> Result<(), String>,
    refused: &'a mut Option<(u64, String)>,
}

impl<'de> Visitor<'de> for Elements<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<(), A::Error> {
        for number in 1.. {
            let Some(element) = elements.next_element::<Box<RawValue>>()? else { break };
            if let Err(what) = (self.take)(number, element.get()) {
                *self.refused = Some((number, what));
                return Err(de::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENT: &str = r#"{"offset":42,"time":"2025-11-21T04:40:00.007Z","topic":"a/b","type":"t","id":"i","key":"k","headers":{"trace-id":"1"},"content_type":"text/plain","data":"x\n"}"#;

    fn origin() -> Origin {
        Origin { log: "main".into(), tag: "k3f9q".into() }
    }

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
    }

    #[test]
    fn an_event_is_appended_without_its_place() {
        let line = Conversion::default().of_event(EVENT, 1).unwrap();
        assert_eq!(
            text(line),
            "{\"topic\":\"a/b\",\"type\":\"t\",\"id\":\"i\",\"key\":\"k\",\"headers\":{\"trace-id\":\"1\"},\
             \"content_type\":\"text/plain\",\"data\":\"x\\n\"}\n"
        );
        let conversion = Conversion {
            topic: Some("c".into()),
            id_prefix: Some("old-".into()),
            ..Conversion::default()
        };
        let line = conversion.of_event("{\"data\":{\"x\":\r\n 1.50},\"offset\":7}", 3).unwrap();
        assert_eq!(text(line), "{\"data\":{\"x\":   1.50},\"topic\":\"c\",\"id\":\"old-7\"}\n");
        let line = conversion.of_event("{}", 3).unwrap();
        assert_eq!(text(line), "{\"topic\":\"c\",\"id\":\"old-3\"}\n");
        for bad in ["[]", "1", "{", "{\"subject\":\"a\"}"] {
            assert!(Conversion::default().of_event(bad, 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cloud_event_says_all_that_the_event_says() {
        let mut cloud = Vec::new();
        push_cloud_event(&mut cloud, EVENT, &origin()).unwrap();
        let cloud = text(cloud);
        assert_eq!(
            cloud,
            r#"{"specversion":"1.0","id":"i","source":"/api/v1/logs/main","type":"t","subject":"a/b","time":"2025-11-21T04:40:00.007Z","partitionkey":"k","datacontenttype":"text/plain","offset":"42","eventheaders":"{\"trace-id\":\"1\"}","data":"x\n"}"#
        );
        let value = |line: Vec<u8>| serde_json::from_slice::<serde_json::Value>(&line).unwrap();
        let conversion = Conversion::default();
        let back = value(conversion.of_cloud_event(&cloud, 1).unwrap());
        assert_eq!(back, value(conversion.of_event(EVENT, 1).unwrap()));
        // One without an id has to have one.
        let mut cloud = Vec::new();
        let event = r#"{"offset":7,"topic":"a","data_base64":"/w=="}"#;
        push_cloud_event(&mut cloud, event, &origin()).unwrap();
        let line = text(conversion.of_cloud_event(&text(cloud), 1).unwrap());
        assert_eq!(line, "{\"topic\":\"a\",\"id\":\"k3f9q/7\",\"data_base64\":\"/w==\"}\n");
    }

    #[test]
    fn foreign_cloud_events_keep_their_attributes_as_headers() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"com.x","traceparent":"00-1","n":5,"data":[1]}"#;
        let conversion = Conversion { topic: Some("in".into()), ..Conversion::default() };
        let line = text(conversion.of_cloud_event(event, 1).unwrap());
        assert_eq!(
            line,
            "{\"type\":\"com.x\",\"id\":\"1@07d65507b49cba97\",\"data\":[1],\"headers\":{\"ce-source\":\"/s\",\
             \"n\":\"5\",\"traceparent\":\"00-1\"},\"topic\":\"in\"}\n"
        );
        assert!(conversion.of_cloud_event("{\"specversion\":\"0.3\"}", 1).is_err());
        assert!(conversion.of_cloud_event("{}", 1).is_err());
    }

    /// A CloudEvent is known by source and id: those of several sources may have the same id.
    #[test]
    fn foreign_cloud_events_are_told_apart_and_exported_as_they_came() {
        let conversion = Conversion::default();
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for source in ["/one", "/two", "urn:three"] {
            for more in ["", r#","n":"5""#] {
                let event = format!(
                    r#"{{"specversion":"1.0","id":"a@b","source":"{source}","subject":"t"{more}}}"#
                );
                let line = text(conversion.of_cloud_event(&event, 1).unwrap());
                ids.insert(value(&line)["id"].to_string());
                let mut cloud = Vec::new();
                push_cloud_event(&mut cloud, line.trim(), &origin()).unwrap();
                let cloud = text(cloud);
                assert_eq!(value(&cloud)["id"], "a@b");
                assert_eq!(value(&cloud)["source"], source);
                let again = text(conversion.of_cloud_event(&cloud, 1).unwrap());
                assert_eq!(value(&again), value(&line));
            }
        }
        assert_eq!(ids.len(), 3);
        // An event of our own that happens to have such a header goes out and comes back as it is.
        let own = r#"{"topic":"t","id":"x","headers":{"ce-source":"/one"}}"#;
        let mut cloud = Vec::new();
        push_cloud_event(&mut cloud, own, &origin()).unwrap();
        let cloud = text(cloud);
        assert_eq!(value(&cloud)["source"], "/api/v1/logs/main");
        let back = text(conversion.of_cloud_event(&cloud, 1).unwrap());
        assert_eq!(value(&back), value(own));
        let long = format!(r#""source":"/s","id":"{:x>240}""#, "");
        for bad in [
            r#""source":5,"id":"1""#,
            r#""source":"/s","id":1"#,
            r#""source":"/s","id":"""#,
            r#""source":"","id":"1""#,
            r#""source":"/api/v1/logs/main","id":"""#,
            r#""source":"/s""#,
            r#""id":"1""#,
            &long,
        ] {
            let event = format!(r#"{{"specversion":"1.0",{bad}}}"#);
            assert!(conversion.of_cloud_event(&event, 1).is_err(), "{bad}");
        }
    }

    #[test]
    fn every_event_gets_another_id_where_that_is_wanted() {
        let conversion = Conversion { new_ids: Some("again-".into()), ..Conversion::default() };
        for (event, id) in [
            (r#"{"offset":7,"id":"a"}"#, "again-a"),
            (r#"{"offset":7}"#, "again-7"),
            ("{}", "again-3"),
        ] {
            let line = conversion.of_event(event, 3).unwrap();
            assert_eq!(serde_json::from_slice::<serde_json::Value>(&line).unwrap()["id"], id);
        }
        assert!(conversion.of_event(r#"{"id":5}"#, 1).is_err());
        let with_id_of = |bytes: usize| {
            let line = conversion.of_event(&format!(r#"{{"id":"{}"}}"#, "a".repeat(bytes)), 1);
            line.map(|line| line.len())
        };
        let bytes_max = EventId::BYTES_MAX - "again-".len();
        assert!(with_id_of(bytes_max).is_ok());
        let refused = with_id_of(bytes_max + 1).expect_err("it would be too long");
        assert!(refused.contains("the 6 that tell it from others"), "{refused}");
    }

    #[test]
    fn lines_and_arrays_are_read_record_by_record() {
        let read = |format, input: &str| {
            let mut records = Vec::new();
            let end = for_each(input.as_bytes(), format, &mut |number, record| {
                records.push((number, record.to_owned()));
                if record.contains("bad") { Err("it is bad".to_owned()) } else { Ok(()) }
            });
            (records.iter().map(|(number, _)| *number).collect::<Vec<_>>(), end)
        };
        assert!(
            matches!(read(Format::Ndjson, "{}\n\n{}"), (numbers, Ok(())) if numbers == [1, 2, 3])
        );
        assert!(matches!(read(Format::Cloudevents, " [ {} , 1\n]\n"), (n, Ok(())) if n == [1, 2]));
        assert!(matches!(read(Format::Cloudevents, "[]"), (numbers, Ok(())) if numbers.is_empty()));
        let (_, end) = read(Format::Ndjson, "1\nbad\n3");
        assert!(matches!(end, Err(ReadError::Record(2, _))), "{end:?}");
        let (numbers, end) = read(Format::Cloudevents, "[1,\"bad\",3]");
        assert!(matches!(end, Err(ReadError::Record(2, _))) && numbers == [1, 2], "{end:?}");
        for broken in ["[1", "{}", "[1] 2", ""] {
            let (_, end) = read(Format::Cloudevents, broken);
            assert!(matches!(end, Err(ReadError::Input(_))), "{broken}: {end:?}");
        }
    }
}
