//! What the whole does, tried from outside with real clients: a file per behaviour.

mod api;
mod command_line;
mod compliance;
mod delegation;
mod edns;
mod ferret;
mod fixture;
mod health;
mod malformed;
mod reload;
mod rfc8906;
mod startup;
mod steering;
mod vectors;
mod zones;
