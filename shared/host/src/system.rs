//! Access to the kernel, the disk and the clock, in forms that their callers can test. Has no code about DNS or HTTP.

pub mod batch;
pub mod clock;
pub mod file_reload;
pub mod files;
pub mod open_files;
pub mod random;
pub mod state_dir;
pub mod tasks;
