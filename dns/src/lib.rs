//! The DNS half.
