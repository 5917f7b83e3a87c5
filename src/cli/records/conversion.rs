//! What an import makes of a record: a line of an append.

use std::collections::BTreeMap;

use serde_json::value::RawValue;
use strandline_storage::{event::EventId, topic::Topic};

use super::{Distinct, Members, OWN_SOURCE, SOURCE_HEADER, SUBJECT_HEADER, members, source_suffix};
use crate::event_json::{MediaClass, MediaType};
use crate::input::quoted;
use crate::json::write;

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

/// A text longer than this, quoted, is appended as its bytes: each of its characters may take six, and a line has a limit.
const QUOTED_BYTES_MAX: usize = 2 << 20;

/// What an import does beside passing events on.
#[derive(Clone, Debug, Default)]
pub struct Conversion {
    /// The topic of events that name none.
    pub topic: Option<Topic>,
    /// The subject of a CloudEvent is no topic, but a header.
    pub subject_as_header: bool,
    /// Gives an event that has no id one of this and its offset, or else a `#` and its number among those that are read.
    pub id_prefix: Option<String>,
    /// Gives every event another id: this and the one that it has, or else a `@` and its offset, or as above.
    pub new_ids: Option<String>,
}

impl Conversion {
    /// The line of an append for an event object of an export.
    pub fn of_event(&self, object: &str, number: u64) -> Result<Vec<u8>, String> {
        if object.starts_with('[') {
            let what = "an array, and not one event object on each line";
            return Err(format!(
                "{what}: an array of CloudEvents is read with --format cloudevents"
            ));
        }
        let members = members(object)?;
        if let Some(name) = members.keys().find(|name| {
            !EVENT_MEMBERS.contains(&name.as_ref()) && !PLACE_MEMBERS.contains(&name.as_ref())
        }) {
            return Err(format!("member \"{name}\" is not of an event"));
        }
        let mut line = Line::default();
        for name in EVENT_MEMBERS {
            match members.get(name) {
                Some(id) if name == "id" => self.push_id(&mut line, id, "")?,
                Some(data) if name == "data" => {
                    let is_long = data.get().len() > QUOTED_BYTES_MAX;
                    let is_text =
                        is_long && class_of(members.get("content_type")) == MediaClass::Text;
                    line.data(data.get(), is_text);
                }
                Some(value) => line.raw(name, value.get()),
                None => {}
            }
        }
        Ok(self.finish(line, members.get("offset").copied(), number))
    }

    /// The line of an append for a CloudEvent: an attribute that is `null` is one that is not there, and a string is the
    /// data itself where that is not JSON (the JSON Event Format of CloudEvents 1.0, sections 2.2 and 3.1).
    pub fn of_cloud_event(&self, object: &str, number: u64) -> Result<Vec<u8>, String> {
        let mut members = members(object)?;
        members.retain(|name, value| name == "data" || value.get() != "null");
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
                Some(id) if own == "id" => self.push_id(&mut line, id, &suffix)?,
                Some(_) if own == "topic" && self.subject_as_header => {}
                Some(subject) if own == "topic" => line.text("topic", &topic_of(subject)?),
                None if own == "topic" && self.topic.is_none() => {
                    let what = "it becomes the topic, or give one with --topic";
                    return Err(format!("\"subject\" is missing: {what}"));
                }
                Some(data) if own == "data" => {
                    let is_bytes = match class_of(members.get("datacontenttype")) {
                        MediaClass::Json => false,
                        MediaClass::Text => data.get().len() > QUOTED_BYTES_MAX,
                        _ => true,
                    };
                    line.data(data.get(), is_bytes);
                }
                Some(value) => line.raw(own, value.get()),
                None => {}
            }
        }
        let mut headers: BTreeMap<String, String> = BTreeMap::new();
        if let Some(text) = members.get("eventheaders") {
            let object: String = serde_json::from_str(text.get())
                .map_err(|_| "\"eventheaders\" is not a string".to_owned())?;
            let Distinct { members, twice } = serde_json::from_str::<Distinct<'_, String>>(&object)
                .map_err(|_| "\"eventheaders\" is not an object of strings".to_owned())?;
            if let Some(name) = twice {
                return Err(format!("\"eventheaders\" gives {} twice", quoted(&name)));
            }
            headers = members.into_iter().map(|(name, value)| (name.into_owned(), value)).collect();
        }
        for (name, value) in &members {
            // An offset of another's is an attribute of its own.
            let is_dropped =
                CLOUD_ONLY.contains(&name.as_ref()) && (foreign.is_none() || name != "offset");
            let is_known = is_dropped || CLOUD_MEMBERS.iter().any(|(known, _)| known == name);
            if !is_known {
                let text =
                    serde_json::from_str(value.get()).unwrap_or_else(|_| value.get().to_owned());
                headers.insert(name.to_string(), text);
            }
        }
        if let Some(subject) = members.get("subject").filter(|_| self.subject_as_header) {
            headers.entry(SUBJECT_HEADER.to_owned()).or_insert(string("subject", subject)?);
        }
        let offset = members.get("offset").copied().filter(|_| foreign.is_none());
        headers.extend(foreign.map(|source| (SOURCE_HEADER.to_owned(), source)));
        if !headers.is_empty() {
            let text = serde_json::to_string(&headers).expect("strings are JSON");
            line.raw("headers", &text);
        }
        Ok(self.finish(line, offset, number))
    }

    /// An id as it stands, unless it is to be another.
    fn push_id(&self, line: &mut Line, id: &RawValue, suffix: &str) -> Result<(), String> {
        if suffix.is_empty() && self.new_ids.is_none() {
            line.raw("id", id.get());
            return Ok(());
        }
        let id = string("id", id)?;
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

    fn finish(&self, mut line: Line, offset: Option<&RawValue>, number: u64) -> Vec<u8> {
        if let Some(topic) = self.topic.as_ref().filter(|_| !line.has("topic")) {
            line.text("topic", topic.as_str());
        }
        let prefix = self.new_ids.as_ref().or(self.id_prefix.as_ref());
        if let Some(prefix) = prefix.filter(|_| !line.has("id")) {
            // A string in a CloudEvent, whose integers have 32 bits.
            let digits = |value: &RawValue| value.get().trim_matches('"').parse::<u64>().ok();
            let place = match offset.and_then(digits) {
                // Beside those that are made of ids, which may be numbers.
                Some(offset) if self.new_ids.is_some() => format!("@{offset}"),
                Some(offset) => offset.to_string(),
                None => format!("#{number}"),
            };
            line.text("id", &format!("{prefix}{place}"));
        }
        line.finish()
    }
}

/// Whether `line`, made of a record, is of the event that a log gives as `object`: beside offset and time, all that
/// an object shows is the same.
pub fn is_line_of(line: &[u8], object: &str) -> bool {
    let Ok(stored) = Conversion::default().of_event(object, 0) else { return false };
    let (Ok(line), Ok(stored)) = (std::str::from_utf8(line), std::str::from_utf8(&stored)) else {
        return false;
    };
    let (Ok(line), Ok(stored)) = (members(line), members(stored)) else { return false };
    let is_same = |name: &str, one: &RawValue, other: &RawValue| match name {
        // Its bytes count, not what they mean.
        "data" => one.get() == other.get(),
        _ => value_of(one) == value_of(other),
    };
    line.len() == stored.len()
        && line.iter().zip(&stored).all(|((name, one), (other_name, other))| {
            name == other_name && is_same(name, one, other)
        })
}

/// What a content type means; JSON where there is none.
fn class_of(content_type: Option<&&RawValue>) -> MediaClass {
    let text = content_type.and_then(|value| serde_json::from_str::<String>(value.get()).ok());
    let media = text.as_deref().and_then(|text| MediaType::parse(text).ok());
    media.map_or(MediaClass::Json, |media| media.class)
}

fn value_of(text: &RawValue) -> Option<serde_json::Value> {
    serde_json::from_str(text.get()).ok()
}

/// The topic that a CloudEvent's subject becomes.
fn topic_of(subject: &RawValue) -> Result<Topic, String> {
    let subject = string("subject", subject)?;
    Topic::parse(&subject).map_err(|error| {
        format!(
            "\"subject\" becomes the topic, and {} {error}; with --topic and --subject-as-header it is kept as a header",
            quoted(&subject)
        )
    })
}

/// The string that a member is.
fn string(name: &str, value: &RawValue) -> Result<String, String> {
    serde_json::from_str(value.get()).map_err(|_| format!("\"{name}\" is not a string"))
}

/// What every CloudEvent has to have: a string that is not empty.
fn required(members: &Members<'_>, name: &str) -> Result<Option<String>, String> {
    let Some(value) = members.get(name) else { return Ok(None) };
    match string(name, value)? {
        text if text.is_empty() => Err(format!("\"{name}\" is empty")),
        text => Ok(Some(text)),
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

    /// Data: a string's characters as bytes where that is wanted, else as it stands.
    fn data(&mut self, value: &str, is_bytes: bool) {
        match serde_json::from_str::<String>(value) {
            Ok(text) if is_bytes => {
                self.name("data_base64");
                self.bytes.push(b'"');
                write::base64(&mut self.bytes, text.as_bytes());
                self.bytes.push(b'"');
            }
            _ => self.raw("data", value),
        }
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

#[cfg(test)]
mod tests {
    use super::{
        super::tests::{EVENT, text},
        *,
    };

    #[test]
    fn an_event_is_appended_without_its_place() {
        let line = Conversion::default().of_event(EVENT, 1).unwrap();
        assert_eq!(
            text(line),
            "{\"topic\":\"a/b\",\"type\":\"t\",\"id\":\"i\",\"key\":\"k\",\"headers\":{\"trace-id\":\"1\"},\
             \"content_type\":\"text/plain\",\"data\":\"x\\n\"}\n"
        );
        let conversion = Conversion {
            topic: Some(Topic::parse("c").unwrap()),
            id_prefix: Some("old-".into()),
            ..Conversion::default()
        };
        let line = conversion.of_event("{\"data\":{\"x\":\r\n 1.50},\"offset\":7}", 3).unwrap();
        assert_eq!(text(line), "{\"data\":{\"x\":   1.50},\"topic\":\"c\",\"id\":\"old-7\"}\n");
        let line = conversion.of_event("{}", 3).unwrap();
        assert_eq!(text(line), "{\"topic\":\"c\",\"id\":\"old-#3\"}\n");
        for bad in ["[]", "1", "{", "{\"subject\":\"a\"}"] {
            assert!(Conversion::default().of_event(bad, 1).is_err(), "{bad}");
        }
        let told = Conversion::default().of_event("[", 1).expect_err("an array");
        assert!(told.contains("--format cloudevents"), "{told}");
    }

    /// Its number in a part of an input is another than in all of it, and may be an offset of another event.
    #[test]
    fn an_id_is_made_of_the_offset_that_a_log_gave_and_of_no_others() {
        let conversion = Conversion { new_ids: Some("new-".into()), ..Conversion::default() };
        let id = |source: &str| {
            let event = format!(
                r#"{{"specversion":"1.0","type":"t","source":"{source}","subject":"a","offset":"42"}}"#
            );
            let line = text(conversion.of_cloud_event(&event, 7).expect("a CloudEvent"));
            let line: serde_json::Value = serde_json::from_str(&line).expect("an object");
            (line["id"].clone(), line["headers"]["offset"].clone())
        };
        assert_eq!(id(&format!("{OWN_SOURCE}main")), ("new-@42".into(), serde_json::Value::Null));
        assert_eq!(id("/kafka"), ("new-#7".into(), "42".into()));
    }

    #[test]
    fn foreign_cloud_events_keep_their_attributes_as_headers() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/s","type":"com.x","traceparent":"00-1","n":5,"data":[1]}"#;
        let conversion =
            Conversion { topic: Some(Topic::parse("in").unwrap()), ..Conversion::default() };
        let line = text(conversion.of_cloud_event(event, 1).unwrap());
        assert_eq!(
            line,
            "{\"type\":\"com.x\",\"id\":\"1@07d65507b49cba97\",\"data\":[1],\"headers\":{\"ce-source\":\"/s\",\
             \"n\":\"5\",\"traceparent\":\"00-1\"},\"topic\":\"in\"}\n"
        );
        assert!(conversion.of_cloud_event("{\"specversion\":\"0.3\"}", 1).is_err());
        assert!(conversion.of_cloud_event("{}", 1).is_err());
    }

    #[test]
    fn a_subject_is_the_topic_or_a_header() {
        let event = |subject: &str| {
            format!(
                r#"{{"specversion":"1.0","id":"1","source":"/api/v1/logs/main","type":"t","subject":{subject}}}"#
            )
        };
        let plain = Conversion::default();
        let line = text(plain.of_cloud_event(&event("\"a/b\""), 1).unwrap());
        assert_eq!(line, "{\"topic\":\"a/b\",\"type\":\"t\",\"id\":\"1\"}\n");
        for bad in ["\"/a//b\"", "\"$x\"", "\"\"", "5"] {
            let told = plain.of_cloud_event(&event(bad), 1).expect_err(bad);
            assert!(told.starts_with("\"subject\" "), "{told}");
        }
        let told = plain.of_cloud_event(&event("null"), 1).expect_err("it has no topic");
        assert!(told.contains("--topic"), "{told}");
        let topic = Some(Topic::parse("in").unwrap());
        let conversion = Conversion { topic, subject_as_header: true, ..Conversion::default() };
        let line = text(conversion.of_cloud_event(&event("\"/a//b\""), 1).unwrap());
        assert_eq!(
            line,
            "{\"type\":\"t\",\"id\":\"1\",\"headers\":{\"ce-subject\":\"/a//b\"},\"topic\":\"in\"}\n"
        );
        assert!(conversion.of_cloud_event(&event("5"), 1).is_err());
        let line = text(conversion.of_cloud_event(&event("null"), 1).unwrap());
        assert_eq!(line, "{\"type\":\"t\",\"id\":\"1\",\"topic\":\"in\"}\n");
    }

    /// JSON Event Format of CloudEvents 1.0, section 3.1.1: the string is the data.
    #[test]
    fn a_string_is_the_data_where_that_is_not_json() {
        let line = |content_type: &str, data: &str| {
            let event = format!(
                r#"{{"specversion":"1.0","id":"1","source":"/s","type":"t","subject":"a","datacontenttype":{content_type},"data":{data}}}"#
            );
            text(Conversion::default().of_cloud_event(&event, 1).unwrap())
        };
        let xml = line("\"application/xml\"", r#""<much wow=\"xml\"/>""#);
        assert!(xml.contains(r#""data_base64":"PG11Y2ggd293PSJ4bWwiLz4=""#), "{xml}");
        for (content_type, data) in [
            ("\"text/xml\"", "\"<a/>\""),
            ("\"application/json\"", "\"<a/>\""),
            ("null", "\"<a/>\""),
            ("\"application/xml\"", "5"),
            ("null", "null"),
        ] {
            let line = line(content_type, data);
            assert!(line.contains(&format!("\"data\":{data}")), "{content_type}: {line}");
        }
    }

    #[test]
    fn an_attribute_that_is_null_is_none() {
        let event = r#"{"specversion":"1.0","id":"1","source":"/api/v1/logs/main","type":"t","subject":null,"partitionkey":null,"traceparent":null,"eventheaders":null,"data":1}"#;
        let conversion =
            Conversion { topic: Some(Topic::parse("in").unwrap()), ..Conversion::default() };
        let line = text(conversion.of_cloud_event(event, 1).unwrap());
        assert_eq!(line, "{\"type\":\"t\",\"id\":\"1\",\"data\":1,\"topic\":\"in\"}\n");
        assert!(
            conversion.of_cloud_event(&event.replace("\"/api/v1/logs/main\"", "null"), 1).is_err()
        );
    }

    /// A megabyte of control characters is six when it is quoted, and a line was refused as too long.
    #[test]
    fn a_long_text_is_appended_as_bytes() {
        let of = |count: usize, content_type: &str| {
            let data = "\\u0001".repeat(count);
            let object =
                format!(r#"{{"topic":"a","content_type":"{content_type}","data":"{data}"}}"#);
            (Conversion::default().of_event(&object, 1).unwrap(), object)
        };
        let (line, object) = of(1 << 20, "text/plain");
        assert!(line.len() < QUOTED_BYTES_MAX, "{} bytes", line.len());
        assert!(text(line.clone()).contains("\"data_base64\":\"AQEB"));
        assert!(is_line_of(&line, &object));
        assert!(text(of(1000, "text/plain").0).contains("\"data\":"));
        assert!(text(of(1 << 20, "application/json").0).contains("\"data\":"));
    }

    #[test]
    fn a_line_is_of_the_event_that_shows_the_same() {
        let of = |object: &str| Conversion::default().of_event(object, 1).unwrap();
        let event = r#"{"offset":1,"time":"t","topic":"a","type":"t","id":"i","headers":{"a":"1","b":"2"},"data":{"x": 1} }"#;
        let same =
            r#"{"id":"i","type":"\u0074","headers":{"b":"2","a":"1"},"topic":"a","data":{"x": 1}}"#;
        assert!(is_line_of(&of(event), same));
        for other in [
            r#"{"id":"i","type":"t","headers":{"b":"2","a":"1"},"topic":"a","data":{"x":1}}"#,
            r#"{"id":"i","type":"t","headers":{"b":"2"},"topic":"a","data":{"x": 1}}"#,
            r#"{"id":"j","type":"t","headers":{"b":"2","a":"1"},"topic":"a","data":{"x": 1}}"#,
            r#"{"id":"i","type":"t","headers":{"b":"2","a":"1"},"topic":"a","key":"k","data":{"x": 1}}"#,
            r#"{"id":"i","type":"t","headers":{"b":"2","a":"1"},"topic":"a"}"#,
            "[]",
        ] {
            assert!(!is_line_of(&of(event), other), "{other}");
        }
    }

    #[test]
    fn every_event_gets_another_id_where_that_is_wanted() {
        let conversion = Conversion { new_ids: Some("again-".into()), ..Conversion::default() };
        for (event, id) in [
            (r#"{"offset":7,"id":"a"}"#, "again-a"),
            (r#"{"offset":7}"#, "again-@7"),
            (r#"{"offset":9,"id":"7"}"#, "again-7"),
            ("{}", "again-#3"),
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
}
