//! How a process is started, watched and replaced: messages to the service manager, and the takeover by a new process.

pub mod service_manager;
pub mod signals;
pub mod takeover;
pub mod upgrade;
