//! What the whole does, tried from outside: a file per behaviour.

mod vectors;
