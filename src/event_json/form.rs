//! How the body of a request with event objects is read, as its header fields say.

use strandline_storage::append::OffsetScope;

use super::{
    fields::shown,
    media_type::{MediaClass, MediaType},
    raw::{Field, check_encoding},
    terms::{AppendTerms, Terms},
};
use crate::{
    input::{not_yet, quoted},
    problem::{Problem, ProblemKind},
};

/// How the body of `POST /api/v1/events` is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventsForm {
    /// One event object, or an array of them, and what the append asks for beside them.
    Json(Option<Box<AppendTerms>>),
    /// One event object a line.
    Lines,
}

impl EventsForm {
    /// Reads the header fields of the request, names in any case.
    pub fn from_fields<'a>(
        fields: impl Iterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<EventsForm, Problem> {
        let (mut content, mut terms) = (None, Terms::default());
        for (name, value) in fields {
            match Field::of(name) {
                Field::ContentType => {
                    if content.replace(events_content(value)?).is_some() {
                        let detail = "the header field Content-Type stands more than once";
                        return Err(Problem::new(ProblemKind::InvalidHeader, detail));
                    }
                }
                Field::ContentEncoding => check_encoding(value)?,
                Field::Term(field) => terms.take(field, name, value)?,
                Field::Later => return Err(not_yet(&shown(name))),
                Field::EventType | Field::EventKey | Field::EventHeader(_) => {
                    let detail =
                        format!("{} is for raw appends: use the object's member", shown(name));
                    return Err(Problem::new(ProblemKind::InvalidHeader, detail));
                }
                Field::Other => {}
            }
        }
        terms.refuse_id()?;
        match content.unwrap_or(EventsContent::Json) {
            EventsContent::Json => Ok(EventsForm::Json(terms.finish(OffsetScope::Log)?)),
            EventsContent::Lines => terms.refuse_lines().map(|()| EventsForm::Lines),
        }
    }
}

enum EventsContent {
    Json,
    Lines,
}

fn events_content(content_type: &[u8]) -> Result<EventsContent, Problem> {
    let text = String::from_utf8_lossy(content_type);
    let class = MediaType::parse(&text).map(|media| media.class);
    match class {
        Ok(MediaClass::Json | MediaClass::Form) => Ok(EventsContent::Json),
        Ok(MediaClass::Lines) => Ok(EventsContent::Lines),
        Ok(MediaClass::CloudEvents) => Err(not_yet(&format!("the content type {}", quoted(&text)))),
        Ok(MediaClass::Text | MediaClass::Other) | Err(_) => {
            let detail = format!(
                "event objects are application/json or application/x-ndjson, not {}",
                quoted(&text)
            );
            Err(Problem::new(ProblemKind::UnsupportedMediaType, detail))
        }
    }
}

/// Refuses a request whose body calls itself anything but JSON; none and form-urlencoded, what
/// `curl -d` sends, are JSON too.
pub fn check_json_body<'a>(
    fields: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> Result<(), Problem> {
    for (name, value) in fields {
        match Field::of(name) {
            Field::ContentType => {
                let text = String::from_utf8_lossy(value);
                let class = MediaType::parse(&text).map(|media| media.class);
                if !matches!(class, Ok(MediaClass::Json | MediaClass::Form)) {
                    let detail = format!("the body is application/json, not {}", quoted(&text));
                    return Err(Problem::new(ProblemKind::UnsupportedMediaType, detail));
                }
            }
            Field::ContentEncoding => check_encoding(value)?,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// API §2: none and form-urlencoded "at `/api/v1/events` .. is taken as JSON".
    #[test]
    fn content_types_of_event_objects() {
        let form = |fields: &[(&str, &str)]| {
            EventsForm::from_fields(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
        };
        let of = |content_type| form(&[("Content-Type", content_type)]);
        let json = || Ok(EventsForm::Json(None));
        assert_eq!(form(&[]), json());
        assert_eq!(of("application/x-www-form-urlencoded"), json());
        assert_eq!(of("application/json; charset=utf-8"), json());
        assert_eq!(of("application/x-ndjson"), Ok(EventsForm::Lines));
        for content_type in ["text/plain", "image/png", "garbage"] {
            assert_eq!(of(content_type).unwrap_err().status(), 415, "{content_type}");
        }
        assert_eq!(of("application/cloudevents-batch+json").unwrap_err().status(), 501);
        assert_eq!(form(&[("Idempotency-Key", "x")]).unwrap_err().status(), 400);
        assert_eq!(form(&[("Event-Type", "x")]).unwrap_err().status(), 400);
        assert_eq!(form(&[("Content-Encoding", "br")]).unwrap_err().status(), 415);
    }

    /// API §2: "400 for streams"; a producer's sequence at this path counts in the log.
    #[test]
    fn terms_of_event_objects() {
        let form = |fields: &[(&str, &str)]| {
            EventsForm::from_fields(fields.iter().map(|(name, value)| (*name, value.as_bytes())))
        };
        let producer = [("Producer-Id", "p"), ("Producer-Epoch", "0"), ("Producer-Seq", "1")];
        let Ok(EventsForm::Json(Some(terms))) = form(&producer) else { panic!("no terms") };
        assert_eq!(terms.producer.expect("a producer").scope, OffsetScope::Log);
        let expected = ("Expected-Offset", "7");
        let Ok(EventsForm::Json(Some(terms))) = form(&[expected]) else { panic!("no terms") };
        assert_eq!(terms.expected_offset, Some(7));
        for field in [expected, producer[0]] {
            let problem = form(&[field, ("Content-Type", "application/x-ndjson")]).unwrap_err();
            assert_eq!(problem.kind(), ProblemKind::InvalidHeader);
        }
    }
}
