//! Lists topics.
