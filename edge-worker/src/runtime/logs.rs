//! Sends events and spans to the sinks of the rules. Takes the outcome of requests; posts batches of OTLP in the
//! background. Called by `serve` and `proxy`. Without `logs` in the rules there is no [`LogSender`], and nothing is
//! done.
//!
//! When a request has ended, its event is put into the isolate's queue. If no post is under way, one begins inside
//! `waitUntil`, and first gathers for a second. No request waits for it. A post belongs to the request that began it,
//! and ends with the runtime's patience, 30 s after that request.

mod post;

use std::cell::{Cell, RefCell};

use bailiwick_rules::table::Table;
use serde_json::json;

use crate::decide::attempt::Run;
use crate::decide::logs::{self, Facts, Pseudonyms, Sent, Signal};
use crate::decide::plan::Target;
use crate::platform::{Env, RawExchange};
use crate::runtime::clock;
use crate::runtime::log;
use crate::runtime::metrics;
use crate::runtime::outbox;
use crate::runtime::reply::ResponseInfo;
use crate::runtime::request::ClientRequest;

/// The secret with the key of tenants' pseudonyms.
const KEY: &str = "LOGS_KEY";

thread_local! {
    /// Whether it was logged that the key can't be used.
    static IS_KEY_LOGGED: Cell<bool> = const { Cell::new(false) };
}

/// The key of tenants' pseudonyms. A key that is too short is logged once, as all events lack their tenant.
fn pseudonyms(env: &Env) -> Option<Pseudonyms> {
    let secret = env.text(KEY).filter(|secret| !secret.trim().is_empty())?;
    let key = Pseudonyms::of_key(&secret);
    if key.is_none() && !IS_KEY_LOGGED.replace(true) {
        log::warn(&json!({ "event": "logs_key_invalid" }));
    }
    key
}

/// What it takes to post in the background.
#[derive(Clone)]
pub(crate) struct LogSender {
    env: Env,
    exchange: RawExchange,
}

impl LogSender {
    /// The sender of a request. `None` if the rules have no sinks.
    pub(crate) fn of(table: Option<&Table>, request: &ClientRequest, env: &Env) -> Option<Self> {
        table.filter(|table| !table.sinks().is_empty())?;
        Some(Self { env: env.clone(), exchange: request.exchange().clone() })
    }

    /// Logs a request that was answered without being sent to an endpoint.
    #[inline(never)]
    pub(crate) fn unsent(&self, info: &ResponseInfo, code: &'static str, status: u16) {
        self.note(info, code, Some(status), None);
    }

    /// Logs a request that was sent to endpoints, or was about to be sent. `model` is the client's name of the model.
    #[inline(never)]
    pub(crate) fn ran(
        &self,
        info: &ResponseInfo,
        run: &Run,
        model: Option<&str>,
        code: &'static str,
        status: Option<u16>,
    ) {
        let record = run.record();
        let targets: Vec<Option<&Target>> = record.attempts.iter().map(|attempt| run.target(attempt.target)).collect();
        self.note(info, code, status, Some((Sent { record, targets: &targets }, model)));
    }

    /// Puts the event and the spans of a request into the queue, and begins a post if none is under way.
    fn note(
        &self,
        info: &ResponseInfo,
        code: &'static str,
        status: Option<u16>,
        sent: Option<(Sent<'_>, Option<&str>)>,
    ) {
        let known = info.whose.as_ref().zip(info.logged.as_deref());
        let sink = known.and_then(|(whose, subject)| Some(whose.table.sink(subject.sink?)));
        let (Some((whose, subject)), Some(sink)) = (known, sink) else {
            return metrics::sink("", Signal::Logs, "dropped_no_sink", 1);
        };
        let table = &*whose.table;
        let ended = clock::now();
        let tenant = whose.tenant.map(|tenant| table.tenant(tenant));
        let pseudonym = tenant.and_then(|tenant| {
            let key = pseudonyms(&self.env)?;
            Some(key.of(tenant.id.as_str(), sink.id.as_str(), ended))
        });
        let fence: Vec<&str> = subject.fence.iter().map(|region| table.region(*region).id.as_str()).collect();
        let content = subject.content.as_ref().map(RefCell::borrow);
        let facts = Facts {
            request_id: &info.request_id,
            revision: table.revision().number,
            service: table.service(whose.service).id.as_str(),
            tenant: pseudonym.as_deref(),
            tier: tenant.and_then(|tenant| Some(table.tier_of(tenant)?.0.as_str())),
            fence: &fence,
            operation: subject.operation,
            model: sent.and_then(|(_, model)| model),
            code,
            status,
            began: info.began,
            ended,
            sent: sent.map(|(sent, _)| sent),
            trace: subject.trace.as_ref(),
            content: content.as_deref(),
        };
        outbox::push(sink, Signal::Logs, &logs::record(&facts));
        for span in logs::spans(&facts) {
            outbox::push(sink, Signal::Traces, &span);
        }
        post::begin(&self.env, &self.exchange);
    }
}
