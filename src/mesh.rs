//! Bounded mailboxes between shards; the only cross-thread code.
