//! Access to the kernel, the disk and the clock, in forms that the rest of the crate can test. Has no code about DNS.

pub(crate) mod batch;
pub(crate) mod clock;
pub(crate) mod file_reload;
pub(crate) mod files;
pub(crate) mod random;
pub mod tasks;
