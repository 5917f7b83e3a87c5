//! Pages of events, and NDJSON at the reader's pace.
