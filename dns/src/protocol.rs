//! Names, record data and type bit maps as octets. Used by all code that reads or writes DNS.

pub mod name;
pub mod rdata;
pub(crate) mod type_bitmap;
