//! A strict JSON scanner.
