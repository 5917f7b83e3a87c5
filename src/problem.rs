//! Errors of storage and protocol as statuses, close codes and advice to the client.
