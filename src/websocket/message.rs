//! The JSON messages of a WebSocket, both ways.
