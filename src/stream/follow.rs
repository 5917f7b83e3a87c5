//! Published frames on their way to views.
