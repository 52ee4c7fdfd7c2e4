//! Charges attempts to quotas, and requests to their tenants' budgets. Takes the events of a run; withholds endpoints
//! whose quotas are used up, and records in the isolate's memory how much was taken and used. Called by `proxy`. If no
//! quota or budget applies to a request, it has no [`Metering`]. An answer is committed when its first bytes are sent
//! to the client; then no other endpoint can be tried.

use bailiwick_rules::quota::{Dimension, Reading, write_span};
use bailiwick_rules::rules::Budget;
use bailiwick_rules::table::{QuotaIndex, Table, Tenant, TenantIndex};
use serde_json::json;

use super::{Driver, is_event_stream};
use crate::decide::attempt::{End, Outcome, Record};
use crate::decide::headers::Headers;
use crate::decide::plan::Target;
use crate::decide::quota::place::country_of;
use crate::decide::quota::usage_event::UsageEvents;
use crate::decide::quota::{Charge, Demand, Settlement, Tokens};
use crate::runtime::clock;
use crate::runtime::log;
use crate::runtime::memory;
use crate::runtime::metrics;
use crate::runtime::reply::Identity;

/// The charges of one request to quotas and to its tenant's budget.
#[derive(Debug)]
pub(crate) struct Metering {
    demand: Demand,
    /// Whether the edge asked for the usage of a stream and the client didn't, so that the client doesn't get it.
    hides_usage: bool,
    /// The charge of the current attempt, and the attempt's index.
    charge: Option<(Charge, usize)>,
    /// The charge to the tenant's budget. A request is charged to the budget once, however many endpoints are asked.
    budget: Option<Charge>,
    /// Reads the events of a stream that reports its usage.
    events: Option<UsageEvents>,
}

impl Metering {
    /// Begins to meter a request. With `hides_usage`, the client doesn't get the event that reports nothing but the
    /// usage.
    pub(crate) fn new(demand: Demand, hides_usage: bool) -> Self {
        Self { demand, hides_usage, charge: None, budget: None, events: None }
    }

    /// The known part of the request's cost.
    pub(crate) fn demand(&self) -> &Demand {
        &self.demand
    }
}

/// A tenant with its budget, if it has one.
pub(crate) fn budget_of(table: &Table, tenant: Option<TenantIndex>) -> Option<(&Tenant, &Budget)> {
    let tenant = table.tenant(tenant?);
    Some((tenant, tenant.limits.as_ref()?.budget.as_ref()?))
}

impl Driver {
    /// Withholds endpoints whose quotas don't allow the request now. With `is_new`, the node is told with the next ask
    /// how much the request lacked.
    #[inline(never)]
    pub(super) fn withhold(&mut self, is_new: bool) {
        let (Some(metering), Some(Identity { table, .. })) = (&self.job.metering, &self.info.whose) else { return };
        let now = clock::now();
        memory::with(|memory| {
            self.run.withhold(|target| {
                let quota = quota_of(table.quotas(), target)?;
                let refusal = memory.quotas.check(quota, &metering.demand, now).err();
                if refusal.is_some() && is_new {
                    memory.quotas.note_lack(quota, &metering.demand, now);
                }
                refusal
            });
        });
    }

    /// Charges the attempt that is sent to an endpoint, and settles the attempt before it.
    #[inline(never)]
    pub(super) fn charge(&mut self, target: usize) {
        self.settle();
        let (Some(metering), Some(Identity { table, .. })) = (&mut self.job.metering, &self.info.whose) else { return };
        if metering.budget.is_none() {
            let charge =
                |budget| memory::with(|memory| memory.quotas.charge_budget(budget, &metering.demand, clock::now()));
            metering.budget = budget_of(table, metering.demand.tenant).map(charge);
        }
        let quota = self.run.target(target).and_then(|target| quota_of(table.quotas(), target));
        let charge = |quota| memory::with(|memory| memory.quotas.charge(quota, &metering.demand, clock::now()));
        let position = self.run.record().attempts.len().saturating_sub(1);
        metering.charge = quota.map(charge).map(|charge| (charge, position));
        metering.events = None;
    }

    /// Replaces the estimated cost of the last attempt by its real cost.
    #[inline(never)]
    pub(super) fn settle(&mut self) {
        let Some(metering) = &mut self.job.metering else { return };
        let Some((charge, position)) = metering.charge.take() else { return };
        let end = settlement(metering, self.run.record(), position);
        memory::with(|memory| memory.quotas.settle(&charge, &metering.demand, end, clock::now()));
    }

    /// Settles all open charges at the end of the request.
    #[inline(never)]
    pub(super) fn settle_all(&mut self) {
        self.settle();
        let Some(metering) = &mut self.job.metering else { return };
        if let Some(tokens) = Tokens::of(&self.run.record().usage) {
            memory::with(|memory| memory.quotas.learn(&metering.demand, tokens));
        }
        let Some(charge) = metering.budget.take() else { return };
        let record = self.run.record();
        let end = settlement(metering, record, record.attempts.len().saturating_sub(1));
        memory::with(|memory| memory.quotas.settle(&charge, &metering.demand, end, clock::now()));
    }

    /// Writes the state of the tenant's budget, if it has one, to the headers of the answer.
    #[inline(never)]
    pub(super) fn add_limit_headers(&self, headers: &mut Headers) {
        if let (Some(_), Some(whose)) = (&self.job.metering, &self.info.whose) {
            add_budget_headers(whose, headers);
        }
    }

    /// Applies the rate limit headers of an answer to the quota that the attempt was charged to.
    #[inline(never)]
    pub(super) fn read_quota_headers(&mut self, status: u16, headers: &Headers) {
        let Some((charge, _)) = self.job.metering.as_ref().and_then(|metering| metering.charge.as_ref()) else {
            return;
        };
        let now = clock::now();
        let reading = Reading::of(|name| headers.get(name), now);
        memory::with(|memory| memory.quotas.apply_headers(charge, status, &reading, now));
    }

    /// Whether the usage of the stream has to be read, so that the stream can't be handed to the runtime's own pipe.
    pub(super) fn reads_usage(&self) -> bool {
        let current = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        self.job.metering.is_some() && current.is_some_and(Target::counts_tokens)
    }

    /// Begins to read the events of a committed stream: to count them, and to remove the usage if the client didn't ask
    /// for it.
    #[inline(never)]
    pub(super) fn begin_events(&mut self) {
        if !self.reads_usage() {
            return;
        }
        let content_type = self.upstream_headers.as_ref().and_then(|headers| headers.get("content-type"));
        let is_stream = content_type.is_some_and(is_event_stream);
        if let Some(metering) = self.job.metering.as_mut().filter(|_| is_stream) {
            metering.events = Some(UsageEvents::new(metering.hides_usage));
        }
    }

    /// Takes bytes of a committed answer, returns the bytes for the client.
    pub(super) fn pass_events(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match self.job.metering.as_mut().and_then(|metering| metering.events.as_mut()) {
            Some(events) => events.pass(bytes),
            None => bytes,
        }
    }

    /// Logs a warning if the headers of an answer name a country outside of the region's countries.
    #[inline(never)]
    pub(super) fn check_place(&self, headers: &Headers) {
        let Some(country) = headers.get("x-ms-region").and_then(country_of) else { return };
        let current = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        let (Some(target), Some(whose)) = (current, &self.info.whose) else { return };
        if whose.table.region(target.region()).countries.contains(country) {
            return;
        }
        metrics::note("answer_from_elsewhere");
        if log::may_log_failure(clock::now()) {
            log::warn(&json!({
                "event": "answer_from_elsewhere", "request_id": self.info.request_id,
                "region": target.region_id().as_str(), "endpoint": target.id().as_str(), "country": country.to_string(),
            }));
        }
    }
}

/// The quota of an endpoint.
fn quota_of<'q>(
    quotas: &'q [bailiwick_rules::table::Quota],
    target: &Target,
) -> Option<&'q bailiwick_rules::table::Quota> {
    target.quota().and_then(|QuotaIndex(index)| quotas.get(index as usize))
}

/// The end of an attempt, as far as its charge is concerned.
fn settlement(metering: &Metering, record: &Record, position: usize) -> Settlement {
    let outcome = record.attempts.get(position).and_then(|attempt| attempt.outcome);
    let tokens = Tokens::of(&record.usage);
    match (outcome, record.end) {
        (Some(Outcome::Committed), _) if tokens.is_some() => Settlement::Used(tokens),
        (Some(Outcome::Committed), Some(End::Whole | End::Piped)) => Settlement::Used(None),
        // The answer broke off or hasn't ended, but the endpoint may have generated tokens until now.
        (None | Some(Outcome::Committed | Outcome::ClientGone | Outcome::Timeout), _) => {
            Settlement::Left { seen: metering.events.as_ref().map_or(0, UsageEvents::seen) }
        }
        (Some(_), _) => Settlement::Refused,
    }
}

/// Writes the state of a tenant's budget, if it has one, to the headers of an answer.
pub(crate) fn add_budget_headers(whose: &Identity, headers: &mut Headers) {
    if let Some(budget) = budget_of(&whose.table, whose.tenant) {
        let reported = memory::with(|memory| memory.quotas.left_of(budget, clock::now()));
        write_limits(reported, headers);
    }
}

/// Writes the limits of requests and tokens to headers, as OpenAI does.
fn write_limits([requests, tokens]: [Option<Dimension>; 2], headers: &mut Headers) {
    for (kind, reported) in [("requests", requests), ("tokens", tokens)] {
        let Some(reported) = reported else { continue };
        let mut write = |what: &str, value: Option<String>| {
            if let Some(value) = value {
                headers.set(&format!("x-ratelimit-{what}-{kind}"), &value);
            }
        };
        write("limit", reported.limit.map(|limit| limit.to_string()));
        write("remaining", reported.remaining.map(|remaining| remaining.to_string()));
        write("reset", reported.reset.map(write_span));
    }
}
