//! The handshake, and RFC 6455 frames over memory.
