//! Reads sinks of events, and references to them. Called by [`super::rules`] and the readers of services and tenants.

use super::Context;
use super::http::base_url;
use super::region::places;
use super::value::{boolean, reference, secret_name};
use crate::id::SinkId;
use crate::json::{Node, Reader};
use crate::rules::{SecretName, Sink};

pub(super) fn sink(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Sink> {
    let mut fields = reader.object(node)?;
    let countries = fields.required("countries", "a list of all the countries it keeps events in", |reader, node| {
        places(reader, node, context)
    });
    let otlp =
        fields.required("otlp", "where events are posted, such as https://otel.eu.example.net/v1/logs", base_url);
    let traces = fields.optional("traces", base_url);
    let secret = fields.optional("secret", token_name);
    let content = fields.optional("content", boolean).unwrap_or_default();
    fields.finish();
    Some(Sink { countries: countries?, otlp: otlp?, traces, secret, content })
}

/// The name of the secret with a sink's token.
fn token_name(reader: &mut Reader<'_>, node: &Node) -> Option<SecretName> {
    let name = secret_name(reader, node)?;
    if name.is_of_worker() {
        return reader.fail(format!("is {name}, a secret of the Worker's own, which no sink may get; name another"));
    }
    Some(name)
}

/// A sink by its name.
pub(super) fn named(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<SinkId> {
    reference(reader, node, "sink", &context.sinks, SinkId::parse)
}
