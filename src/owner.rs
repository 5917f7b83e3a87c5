//! The owner of a log: drives its commits and publishes what became visible.
