//! A bounded, strict request head, and the body behind it.
