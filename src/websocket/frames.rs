//! WebSocket as bytes (RFC 6455): the handshake, frames in, frames out. Sans-I/O.
//!
//! ```text
//! Head ------------ accept ----> Accepted | Problem      what the 101 answers
//! received bytes -- Decoder ---> Received | CloseCode    tungstenite, over memory
//! JSON text ------- push_text_frame --> bytes            not masked: the same for every connection
//! ```
//! No extension is taken up, so that reserved bits are never set.

mod decode;
mod encode;
mod handshake;

pub use decode::{Decoder, MESSAGE_BYTES_MAX, Received};
pub use encode::{
    encode_text_frame, push_close, push_close_reply, push_ping, push_pong, push_text_frame,
};
pub use handshake::{Accepted, SUBPROTOCOL, accept};
