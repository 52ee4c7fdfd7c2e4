//! The floor of the house: what the kernel, the disk and the clock offer, in forms that the rest of the crate can test.
//! Knows nothing of DNS.

pub(crate) mod batch;
pub(crate) mod clock;
pub(crate) mod file_reload;
pub(crate) mod files;
pub(crate) mod random;
pub mod tasks;
