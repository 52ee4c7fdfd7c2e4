//! Sockets that listen: binds them, or takes those that another process bound.

pub mod bind;
pub mod inherited;
