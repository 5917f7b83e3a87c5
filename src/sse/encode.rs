//! Server-Sent Events as bytes.
