//! What is known of a request for its event before it is sent. Takes the rules and the client; returns the sink of its
//! event, if one lies in the client's fence. Called by `serve`.

use std::cell::RefCell;
use std::rc::Rc;

use bailiwick_rules::steer::{Client, logged, stand};
use bailiwick_rules::table::{RegionIndex, ServiceIndex, SinkIndex, Table};

use super::content::Content;
use super::event::Operation;
use super::trace::Trace;
use crate::decide::route::Route;

/// What is known of a request for its event.
#[derive(Debug)]
pub(crate) struct Subject {
    /// The sink; `None` if none lies in the client's fence.
    pub(crate) sink: Option<SinkIndex>,
    /// The regions that may process the client.
    pub(crate) fence: Vec<RegionIndex>,
    /// What the request asks for.
    pub(crate) operation: Operation,
    /// The trace, if the sink takes spans.
    pub(crate) trace: Option<Trace>,
    /// What is kept of prompt and answer, if the service keeps them.
    pub(crate) content: Option<RefCell<Content>>,
}

impl Subject {
    /// The subject of a request whose client is known. `None` if the rules have no sinks.
    pub(crate) fn of(
        table: &Table,
        service: ServiceIndex,
        client: &Client,
        route: Option<&Route>,
        traceparent: Option<&str>,
        request_id: &str,
    ) -> Option<Rc<Self>> {
        if table.sinks().is_empty() {
            return None;
        }
        let found = logged(table, service, &stand(table, client));
        let sink = found.sink.map(|sink| &table.sink(sink).rule);
        let traces = sink.is_some_and(|sink| sink.traces.is_some());
        let keeps = sink.is_some_and(|sink| sink.content) && table.service(service).log_content;
        Some(Rc::new(Self {
            sink: found.sink,
            fence: found.fence.iter().map(|fenced| fenced.region).collect(),
            operation: route.map(Operation::of).unwrap_or_default(),
            trace: traces.then(|| Trace::of(traceparent, request_id)),
            content: keeps.then(RefCell::default),
        }))
    }

    /// The `traceparent` of an attempt, counted from 1; `None` if the client's own is passed on.
    pub(crate) fn traceparent(&self, request_id: &str, attempt: usize) -> Option<String> {
        self.trace.as_ref().map(|trace| trace.header(request_id, attempt))
    }

    /// The name of the sink that gets prompt and answer, for the receipt.
    pub(crate) fn keeper(&self, table: &Table) -> Option<String> {
        self.content.as_ref().and(self.sink).map(|sink| table.sink(sink).id.to_string())
    }
}
