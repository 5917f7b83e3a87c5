//! The index of a segment: offsets, times and topics.
