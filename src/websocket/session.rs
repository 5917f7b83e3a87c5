//! A WebSocket's life after the handshake.
