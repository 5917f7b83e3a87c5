//! A disk in memory with seeded faults, for tests.
