//! Makes the client's response. Takes a committed answer or a failure, and the record of the request's attempts;
//! returns a [`Reply`] or its headers. Called by `serve` and `proxy`.

use std::rc::Rc;

use bailiwick_rules::table::{ServiceIndex, Table, TenantIndex};
use bailiwick_rules::time::Timestamp;

use crate::decide::attempt::Record;
use crate::decide::denial::Denial;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::logs::Subject;
use crate::decide::plan::Target;
use crate::runtime::clock;

/// The service and the tenant of a request, with the rules that they were found in.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The rules.
    pub(crate) table: Rc<Table>,
    /// The service.
    pub(crate) service: ServiceIndex,
    /// The tenant, if the service has any.
    pub(crate) tenant: Option<TenantIndex>,
}

/// A response with a complete body, or without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: u16,
    /// The headers.
    pub(crate) headers: Headers,
    /// The body. `None` for a status that allows no body: with a body, the runtime would throw an exception.
    pub(crate) body: Option<Vec<u8>>,
}

impl Reply {
    /// Makes a response. The body is left out if the status allows none.
    pub(crate) fn new(status: u16, headers: Headers, body: Vec<u8>) -> Self {
        Self { status, headers, body: (!matches!(status, 204 | 205 | 304)).then_some(body) }
    }
}

/// The facts about a request that are headers of every response to it.
#[derive(Clone, Debug)]
pub(crate) struct ResponseInfo {
    /// `x-request-id` and `x-bailiwick-request-id`.
    pub(crate) request_id: String,
    /// `x-bailiwick-upstream-request-id`: the request id of the endpoint that answered last.
    pub(crate) upstream_id: Option<String>,
    /// `x-bailiwick-revision`: the revision that the request was steered by, with `;feed=…` if the rules' feed fails.
    pub(crate) revision: Option<String>,
    /// `x-bailiwick-rules-age`: how long ago a source confirmed those rules, in seconds. Only set if the rules are old.
    pub(crate) rules_age: Option<u64>,
    /// The service and the tenant of the request, once known.
    pub(crate) whose: Option<Identity>,
    /// If no endpoint may be asked: the reasons.
    pub(crate) denied: Option<Rc<Denial>>,
    /// `x-bailiwick-shed`: from where to where the request was moved because of load.
    pub(crate) shed: Option<Rc<str>>,
    /// `x-bailiwick-stale`: the replicas that are too far behind in the region that was kept as the freshest.
    pub(crate) stale: Option<Rc<[String]>>,
    /// What is known of the request for its event, if the rules have sinks.
    pub(crate) logged: Option<Rc<Subject>>,
    /// When the request arrived.
    pub(crate) began: Timestamp,
    /// When the request was steered.
    pub(crate) steered: Option<Timestamp>,
}

impl ResponseInfo {
    /// The facts about a request that has just arrived.
    pub(crate) fn new(request_id: String) -> Self {
        Self {
            request_id,
            upstream_id: None,
            revision: None,
            rules_age: None,
            whose: None,
            denied: None,
            shed: None,
            stale: None,
            logged: None,
            began: clock::now(),
            steered: None,
        }
    }

    /// Adds the headers about the request.
    fn write(&self, headers: &mut Headers, record: Option<&Record>) {
        headers.set("cache-control", "no-store");
        headers.set("x-request-id", &self.request_id);
        headers.set("x-bailiwick-request-id", &self.request_id);
        if let Some(upstream_id) = &self.upstream_id {
            headers.set("x-bailiwick-upstream-request-id", upstream_id);
        }
        if let Some(revision) = &self.revision {
            headers.set("x-bailiwick-revision", revision);
        }
        if let Some(age) = self.rules_age {
            headers.set("x-bailiwick-rules-age", &age.to_string());
        }
        if let Some(shed) = &self.shed {
            headers.set("x-bailiwick-shed", shed);
        }
        if let Some(stale) = &self.stale {
            headers.set("x-bailiwick-stale", &stale.join(", "));
        }
        if let Some(record) = record.filter(|record| !record.attempts.is_empty()) {
            headers.set("x-bailiwick-attempts", &record.header());
        }
        let now = clock::now();
        let steered = self.steered.unwrap_or(now);
        let (before, after) = (steered.since(self.began), now.since(steered));
        headers.set("server-timing", &format!("steer;dur={}, upstream;dur={}", before.0, after.0));
    }

    /// The headers of an endpoint's answer. `headers` are the endpoint's headers that may pass. Headers that name the
    /// endpoint and the request are added.
    pub(crate) fn answer_headers(&self, mut headers: Headers, target: Option<&Target>, record: &Record) -> Headers {
        if let Some(target) = target {
            headers.set("x-bailiwick-region", target.region_id().as_str());
            headers.set("x-bailiwick-jurisdiction", target.jurisdiction());
            headers.set("x-bailiwick-endpoint", target.id().as_str());
            if let Some(arm) = target.arm() {
                headers.set("x-bailiwick-arm", arm.as_str());
            }
        }
        self.write(&mut headers, Some(record));
        headers
    }

    /// The headers of a stream that begins before its endpoint is known.
    pub(crate) fn early_stream_headers(&mut self) -> Headers {
        // The upstream id that is known so far belongs to an attempt that failed.
        self.upstream_id = None;
        let mut headers = Headers::default();
        headers.set("content-type", "text/event-stream; charset=utf-8");
        self.write(&mut headers, None);
        headers
    }

    /// The status and the headers of a failure in OpenAI's form of errors. [`Failure::body`] is the body.
    pub(crate) fn failure_headers(&self, failure: &Failure, record: Option<&Record>) -> (u16, Headers) {
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        for (name, value) in failure.headers() {
            headers.set(name, &value);
        }
        self.write(&mut headers, record);
        // `Refused` carries the endpoint's status, which may be unusual. The client gets only statuses of HTTP errors.
        let status = if (400..=599).contains(&failure.status()) { failure.status() } else { 502 };
        (status, headers)
    }

    /// The response for a failure, in OpenAI's form of errors.
    pub(crate) fn failure(&self, failure: &Failure) -> Reply {
        let (status, headers) = self.failure_headers(failure, None);
        Reply::new(status, headers, failure.body().into_bytes())
    }

    /// A response that has only headers.
    pub(crate) fn no_content(&self, mut headers: Headers) -> Reply {
        self.write(&mut headers, None);
        Reply::new(204, headers, Vec::new())
    }

    /// A JSON response that the Worker makes itself.
    pub(crate) fn json(&self, status: u16, value: &serde_json::Value) -> Reply {
        let mut headers = Headers::default();
        headers.set("content-type", "application/json");
        self.write(&mut headers, None);
        Reply::new(status, headers, value.to_string().into_bytes())
    }

    /// A text response that the Worker makes itself, of this content type.
    pub(crate) fn of_type(&self, content_type: &str, text: &str) -> Reply {
        let mut headers = Headers::default();
        headers.set("content-type", content_type);
        self.write(&mut headers, None);
        Reply::new(200, headers, text.as_bytes().to_vec())
    }
}
