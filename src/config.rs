//! Addresses, limits and timeouts of the server.
