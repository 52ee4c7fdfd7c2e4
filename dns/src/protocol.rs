//! The words of DNS: names and record data as octets. Everything that reads or writes DNS stands on these two.

pub mod name;
pub mod rdata;
