//! Topics and topic patterns: parsed once, then matched.
