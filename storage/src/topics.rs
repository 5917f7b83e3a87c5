//! What a log knows of its topics.
