//! The accept loop of a shard.
