//! One pinned core: its runtime, its logs, its connections.
