//! Monoio runtimes as Strandline needs them, and the end of a slice.
