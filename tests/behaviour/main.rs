//! What the whole does, tried from outside with real clients: a file per behaviour.

mod api;
mod command_line;
mod delegation;
mod differential;
mod fixture;
mod health;
mod malformed;
mod rate_limit;
mod reload;
mod startup;
mod steering;
mod tcp;
mod tls;
mod vectors;
mod zones;
