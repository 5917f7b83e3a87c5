//! Every limit and default of a log.
