//! Writes events as NDJSON.
