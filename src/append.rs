//! An append request on its way to an acknowledgement.
