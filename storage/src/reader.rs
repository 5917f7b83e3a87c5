//! Events from a place up to an end, across segments.
