//! Where a reader stands, and its text form.
