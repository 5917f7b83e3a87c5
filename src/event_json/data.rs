//! The data of an event object, in each of its forms, and what content type it has then.

use std::borrow::Cow;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde_json::value::RawValue;
use strandline_storage::event::DataForm;

use super::{
    faults::{invalid, not_json, text_of},
    media_type::{MediaClass, MediaType},
    raw::text_form,
};
use crate::{
    json::{check, members},
    problem::Problem,
};

/// Data as it is stored, and what it is.
pub(super) struct Content<'a> {
    pub(super) content_type: &'a str,
    pub(super) form: DataForm,
    pub(super) data: Bytes,
}

/// The content that `data` or `data_base64` is, slices of `source`, or none of them.
pub(super) fn content_of<'a>(
    data: Option<&RawValue>,
    data_base64: Option<&RawValue>,
    media: Option<&MediaType<'a>>,
    source: &Bytes,
) -> Result<Content<'a>, Problem> {
    match (data, data_base64) {
        (Some(_), Some(_)) => Err(invalid(
            "members \"data\" and \"data_base64\" are both given: one event has one data",
        )),
        (Some(value), None) => content_of_value(value, media, source),
        (None, Some(value)) => {
            let encoded = text_of("data_base64", value)?;
            let data = STANDARD.decode(encoded.as_bytes()).map_err(|error| {
                invalid(&format!("member \"data_base64\" is not padded base64: {error}"))
            })?;
            content_of_bytes(data.into(), media, "application/octet-stream")
        }
        (None, None) => content_of_bytes(Bytes::new(), media, "text/plain"),
    }
}

/// The content of `data`: JSON as it stands, or the characters of a string.
fn content_of_value<'a>(
    value: &RawValue,
    media: Option<&MediaType<'a>>,
    source: &Bytes,
) -> Result<Content<'a>, Problem> {
    let content_type = media.map_or("", |media| media.stored);
    if let Some(MediaType { class: MediaClass::Text, .. }) = media {
        let text = members::string(value).ok_or_else(|| {
            invalid(
                "member \"data\" is not a string of characters, as its content_type text/* needs",
            )
        })?;
        let data = match text {
            Cow::Borrowed(text) => source.slice_ref(text.as_bytes()),
            Cow::Owned(text) => text.into(),
        };
        return Ok(Content { content_type, form: DataForm::Text, data });
    }
    check::check_depth(value.get()).map_err(|error| not_json("member \"data\"", &error))?;
    let form = match media.map_or(MediaClass::Json, |media| media.class) {
        MediaClass::Json => DataForm::Json,
        _ => DataForm::Binary,
    };
    Ok(Content { content_type, form, data: source.slice_ref(value.get().as_bytes()) })
}

/// The content of bytes, which are what their content type says, if anything.
fn content_of_bytes<'a>(
    data: Bytes,
    media: Option<&MediaType<'a>>,
    default: &'static str,
) -> Result<Content<'a>, Problem> {
    let (content_type, class) = match media {
        Some(media) => (media.stored, media.class),
        None => (default, classify_default(default)),
    };
    let form = match class {
        MediaClass::Json => {
            check::check(&data).map_err(|error| not_json("the data", &error))?;
            DataForm::Json
        }
        MediaClass::Text => text_form(&data),
        _ => DataForm::Binary,
    };
    Ok(Content { content_type, form, data })
}

fn classify_default(content_type: &str) -> MediaClass {
    if content_type == "text/plain" { MediaClass::Text } else { MediaClass::Other }
}
