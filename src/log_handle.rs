//! A log as any shard sees it.
