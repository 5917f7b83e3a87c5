//! Aligned memory that is lent to the kernel.
