//! The edge half.
