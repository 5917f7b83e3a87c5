//! Frames in flight, and the synced offset behind them.
