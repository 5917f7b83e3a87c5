//! Lines out of a body, within limits.
