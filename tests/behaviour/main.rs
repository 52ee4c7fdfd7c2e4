//! What the whole does, tried from outside with real clients: a file per behaviour.

mod api;
mod command_line;
mod compliance;
mod delegation;
mod differential;
mod dnssec;
mod edns;
mod ferret;
mod fixture;
mod half_written;
mod health;
mod keys;
mod last_good;
mod malformed;
mod nothing_stops;
mod operators;
mod rate_limit;
mod reload;
mod rfc8906;
mod startup;
mod steering;
mod tcp;
mod tls;
mod vectors;
mod wildcard;
mod zones;
