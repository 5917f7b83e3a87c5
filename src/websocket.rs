//! WebSocket: frames and messages, and the session behind them.

pub mod frames;
pub mod message;
pub mod session;
