//! One socket's life.
