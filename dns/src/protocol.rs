//! Names, record data and type bit maps as octets. Everything that reads or writes DNS uses them.

pub mod name;
pub mod rdata;
pub(crate) mod type_bitmap;
