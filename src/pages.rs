//! The built-in page, and the pages of the problems.
