//! Event objects: parsed at the edge, rendered for readers.
