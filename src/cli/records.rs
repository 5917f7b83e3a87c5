//! The formats of `export` and `import`: event objects, one a line, and batches of CloudEvents 1.0.
//!
//! ```text
//! event object     CloudEvent              note
//! topic            subject                 or else, if wanted, an import makes that the header `ce-subject`
//! id               id                      of an event without one: `<tag>/<offset>`, which no other log has
//! type             type
//! key              partitionkey
//! content_type     datacontenttype
//! data             data
//! data_base64      data_base64
//! time             time                    an import does not keep it: the log gives another
//! headers          eventheaders            their object as a string: attributes have no others
//!                  source                  `/api/v1/logs/<log>`
//! offset           offset                  a string; an import keeps that of a foreign one, as a header
//! ```
//! Attributes of foreign CloudEvents that are none of these become headers of the event, as does `offset`, and a foreign source does so
//! as `ce-source`. A CloudEvent is known by source and id together, an event by its id alone: so that of a foreign one
//! is `<id>@<16 hex digits of its source>` here, which an export takes apart again. Ids of our own exports stay as
//! they are.

mod conversion;
mod distinct;
mod input;

use std::{borrow::Cow, collections::BTreeMap};

use clap::ValueEnum;
use serde_json::value::RawValue;

use self::distinct::Distinct;
pub use self::{
    conversion::{Conversion, is_line_of},
    input::{ReadError, for_each},
};
use crate::{input::quoted, json::write};

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

/// How the sources of our own CloudEvents begin.
const OWN_SOURCE: &str = "/api/v1/logs/";
/// The header that keeps the source of a foreign one, named as in the HTTP binding of CloudEvents.
const SOURCE_HEADER: &str = "ce-source";
/// The header that keeps the subject of a CloudEvent where it does not become the topic.
const SUBJECT_HEADER: &str = "ce-subject";

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
    // An attribute of a foreign one with that name is its own.
    if foreign.is_none() {
        push("offset", &format!("\"{offset}\""));
    }
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

fn members(object: &str) -> Result<Members<'_>, String> {
    let Distinct { members, twice } =
        serde_json::from_str(object).map_err(|error| format!("not a JSON object: {error}"))?;
    match twice {
        Some(name) => Err(format!("member {} is given twice", quoted(&name))),
        None => Ok(members),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) const EVENT: &str = r#"{"offset":42,"time":"2025-11-21T04:40:00.007Z","topic":"a/b","type":"t","id":"i","key":"k","headers":{"trace-id":"1"},"content_type":"text/plain","data":"x\n"}"#;

    fn origin() -> Origin {
        Origin { log: "main".into(), tag: "k3f9q".into() }
    }

    pub(super) fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).unwrap()
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

    /// A CloudEvent is known by source and id: those of several sources may have the same id.
    #[test]
    fn foreign_cloud_events_are_told_apart_and_exported_as_they_came() {
        let conversion = Conversion::default();
        let value = |text: &str| serde_json::from_str::<serde_json::Value>(text).unwrap();
        let mut ids = std::collections::BTreeSet::new();
        for source in ["/one", "/two", "urn:three"] {
            for more in ["", r#","n":"5""#, r#","offset":"9""#] {
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
}
