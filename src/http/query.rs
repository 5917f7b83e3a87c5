//! Query strings, form-decoded, as typed requests.
//!
//! A parameter that an operation does not have is refused by name, since a misspelt filter that is
//! ignored would return the wrong events; `_` alone is ignored (cache busters use it). A parameter
//! that takes one value is refused when it comes twice. Values are strict: what is not exactly a
//! number, a truth value or a time is 400, never a default.

pub mod form;
mod history;
mod requests;
mod selection;
mod stream;
mod values;

pub use form::{Form, Parameter};
pub use history::{HistoryRequest, Order};
pub use requests::{
    AppendRequest, AppendTarget, PlainRequest, TopicsRequest, TrimBefore, TrimRequest,
};
pub use selection::CHOICES_MAX;
pub use stream::{Format, StreamRequest, Transport};
pub use values::HISTORY_EVENTS_MAX;
