//! From a directory to a log: scan, cut, seal.
