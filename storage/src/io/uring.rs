//! Writes, syncs and reads on a shard's io_uring, by monoio.
