//! What was counted of the services that a drill moves clients of. Takes the sums of a node, returns counts by region,
//! and whether any of them lies outside of its fence. Written by the node at `/v1/drills/NAME`, read by
//! `bailiwick drill run`, which takes differences.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::audit::{Allows, Book};
use crate::geo::CountryCode;
use crate::id::{RegionId, ServiceId};
use crate::observe::{ByWord, Counts, Histogram, Key, OTHER};
use crate::rules::Ratio;
use crate::time::Timestamp;

/// The results of requests that failed for a reason other than the request.
const FAILED: [&str; 7] = [
    "region_unavailable",
    "upstream_timeout",
    "upstream_interrupted",
    "internal_error",
    "not_ready",
    "rules_too_old",
    "receipt_unavailable",
];
/// The results of requests that were refused because there is no room, or no region that may serve them.
const REFUSED: [&str; 8] = [
    "capacity_refused",
    "quota_exhausted",
    "insufficient_quota",
    "budget_exhausted",
    "concurrency_exhausted",
    "rate_limit_exceeded",
    "busy",
    "residency_denied",
];

/// What a node counted since its process began.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counted {
    /// The node.
    pub node: String,
    /// When its process began. Counts of another process begin anew.
    pub begun: Timestamp,
    /// When it counted this.
    pub at: Timestamp,
    /// The revision of the rules.
    pub revision: u64,
    /// SHA-256 of the rules, in hex.
    pub rules_sha256: String,
    /// How many Workers report.
    pub workers: usize,
    /// By region of the drilled services.
    pub regions: BTreeMap<RegionId, OfRegion>,
    /// Requests that were sent to no region.
    pub nowhere: EdgeCounts,
    /// What was compared with fences.
    pub checked: Checked,
}

/// Counts of one region.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct OfRegion {
    /// Answers of DNS that named it.
    pub dns: u64,
    /// What Workers counted.
    pub edge: EdgeCounts,
    /// Its load; 1 is full. Absent if it isn't known.
    pub load: Option<f64>,
}

/// What Workers counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EdgeCounts {
    /// Requests that were sent there, retries included.
    pub sent: u64,
    /// Requests that ended, by where they were served or last tried.
    pub requests: u64,
    /// Of these, those that failed.
    pub failed: u64,
    /// Of these, those that were refused.
    pub refused: u64,
    /// The times to the first token.
    pub first_token: Histogram,
}

/// What was compared with fences.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Answers of DNS that were compared with the fence of the client's country.
    pub dns: u64,
    /// Of these, those that named a region outside.
    pub dns_outside: u64,
    /// Answers of DNS that weren't compared, because no counter was left for their country.
    pub dns_left_out: u64,
    /// Requests sent to endpoints that were compared with the fence of the client's jurisdictions.
    pub edge: u64,
    /// Of these, those that lie within no fence but that of a tenant, which counts don't tell apart.
    pub edge_by_tenant: u64,
    /// Of these, those that lie outside of every fence that the client may have.
    pub edge_outside: u64,
    /// Requests sent to endpoints that weren't compared, because their client's jurisdictions weren't counted.
    #[serde(default)]
    pub edge_left_out: u64,
    /// Entries of batches that weren't counted, of whatever kind and service, such as for want of room, at a Worker or
    /// at the node. What they were of isn't known.
    #[serde(default)]
    pub edge_uncounted: u64,
    /// Batches of counts of Workers that didn't arrive, of whatever service.
    #[serde(default)]
    pub batches_lost: u64,
}

impl Checked {
    /// How many lie outside.
    #[must_use]
    pub fn outside(&self) -> u64 {
        self.dns_outside + self.edge_outside
    }

    /// All of them, as left out: nobody knows by which fences they have to be judged.
    fn left_out(mut self) -> Self {
        self.leave_out_edge();
        self.dns_left_out += self.dns;
        (self.dns, self.dns_outside) = (0, 0);
        self
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            dns: self.dns.saturating_sub(other.dns),
            dns_outside: self.dns_outside.saturating_sub(other.dns_outside),
            dns_left_out: self.dns_left_out.saturating_sub(other.dns_left_out),
            edge: self.edge.saturating_sub(other.edge),
            edge_by_tenant: self.edge_by_tenant.saturating_sub(other.edge_by_tenant),
            edge_outside: self.edge_outside.saturating_sub(other.edge_outside),
            edge_left_out: self.edge_left_out.saturating_sub(other.edge_left_out),
            edge_uncounted: self.edge_uncounted.saturating_sub(other.edge_uncounted),
            batches_lost: self.batches_lost.saturating_sub(other.batches_lost),
        }
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.dns += other.dns;
        self.dns_outside += other.dns_outside;
        self.dns_left_out += other.dns_left_out;
        self.edge += other.edge;
        self.edge_by_tenant += other.edge_by_tenant;
        self.edge_outside += other.edge_outside;
        self.edge_left_out += other.edge_left_out;
        self.edge_uncounted += other.edge_uncounted;
        self.batches_lost += other.batches_lost;
    }

    /// Takes what Workers counted as left out. They may have decided by other rules than the node judges by.
    pub fn leave_out_edge(&mut self) {
        self.edge_left_out += self.edge;
        (self.edge, self.edge_by_tenant, self.edge_outside) = (0, 0, 0);
    }

    /// Whether something of the drilled services may not have been compared.
    #[must_use]
    pub fn has_gaps(&self) -> bool {
        self.dns_left_out + self.edge_left_out + self.edge_uncounted + self.batches_lost > 0
    }
}

impl EdgeCounts {
    fn add(&mut self, counts: &Counts) {
        let sum = |words: &ByWord, of: &[&str]| of.iter().filter_map(|word| words.get(*word)).sum::<u64>();
        self.sent += counts.attempts.values().sum::<u64>();
        self.requests += counts.requests.values().sum::<u64>();
        self.failed += sum(&counts.requests, &FAILED);
        self.refused += sum(&counts.requests, &REFUSED);
        self.first_token.merge(&counts.first_token);
    }

    /// Adds another one.
    pub fn merge(&mut self, other: &Self) {
        self.sent += other.sent;
        self.requests += other.requests;
        self.failed += other.failed;
        self.refused += other.refused;
        self.first_token.merge(&other.first_token);
    }

    fn less(&self, other: &Self) -> Self {
        Self {
            sent: self.sent.saturating_sub(other.sent),
            requests: self.requests.saturating_sub(other.requests),
            failed: self.failed.saturating_sub(other.failed),
            refused: self.refused.saturating_sub(other.refused),
            first_token: self.first_token.less(&other.first_token),
        }
    }

    /// The share of requests that failed, and the share that were refused. `None` without requests.
    #[must_use]
    pub fn rates(&self) -> Option<(Ratio, Ratio)> {
        (self.requests > 0)
            .then(|| (Ratio::between(self.failed, self.requests), Ratio::between(self.refused, self.requests)))
    }

    /// The time to the first token that `thousandths` of all streamed answers keep, in milliseconds.
    #[must_use]
    pub fn first_token_ms(&self, thousandths: u64) -> Option<u64> {
        Some(self.first_token.quantile_us(thousandths)?.div_ceil(1_000))
    }
}

impl Counted {
    /// Adds what Workers counted of a drilled service.
    pub fn add_edge(&mut self, book: &Book, key: &Key, counts: &Counts) {
        let Some(region) = &key.region else {
            self.nowhere.add(counts);
            return;
        };
        self.regions.entry(region.clone()).or_default().edge.add(counts);
        let sent: u64 = counts.attempts.values().sum();
        if key.clients == OTHER {
            self.checked.edge_left_out += sent;
            return;
        }
        self.checked.edge += sent;
        match book.allows_clients(key.service.as_str(), &key.clients, region.as_str()) {
            Allows::Yes => {}
            Allows::OfTenants => self.checked.edge_by_tenant += sent,
            Allows::No => self.checked.edge_outside += sent,
        }
    }

    /// Adds answers of DNS. `country` is `None` for a client that nobody can place; `is_known` is false for answers
    /// whose country wasn't counted.
    pub fn add_dns(
        &mut self,
        book: &Book,
        (service, region): (&ServiceId, &RegionId),
        (country, is_known): (Option<CountryCode>, bool),
        count: u64,
    ) {
        self.regions.entry(region.clone()).or_default().dns += count;
        if !is_known {
            self.checked.dns_left_out += count;
            return;
        }
        self.checked.dns += count;
        if !book.allows_country(service.as_str(), country, region.as_str()) {
            self.checked.dns_outside += count;
        }
    }

    /// What was counted since an earlier look. Loads are those of now. Counts of another process count as they are.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        if (self.begun, &self.node) != (earlier.begun, &earlier.node) {
            return self.clone();
        }
        let none = OfRegion::default();
        let regions = self.regions.iter().map(|(name, region)| {
            let before = earlier.regions.get(name).unwrap_or(&none);
            let new = OfRegion {
                dns: region.dns.saturating_sub(before.dns),
                edge: region.edge.less(&before.edge),
                load: region.load,
            };
            (name.clone(), new)
        });
        Self {
            regions: regions.collect(),
            nowhere: self.nowhere.less(&earlier.nowhere),
            checked: self.checked.less(&earlier.checked),
            ..self.clone()
        }
    }

    /// What was counted since the look before this one. A node judges all counts of its process by the rules in service
    /// now. So when those changed between the looks, what was counted meanwhile is left out: part of it was decided by
    /// other rules, and the difference of what two rule books judge says nothing.
    #[must_use]
    pub fn since_look(&self, before: &Self) -> Self {
        let mut new = self.since(before);
        if self.rules_sha256 != before.rules_sha256 {
            let is_same_process = (self.begun, &self.node) == (before.begun, &before.node);
            let earlier = if is_same_process { before.checked.left_out() } else { Checked::default() };
            new.checked = self.checked.left_out().less(&earlier);
        }
        new
    }

    /// What Workers counted of all regions, and of requests that were sent to none.
    #[must_use]
    pub fn edge(&self) -> EdgeCounts {
        let mut all = self.nowhere.clone();
        self.regions.values().for_each(|region| all.merge(&region.edge));
        all
    }

    /// Of how many answers of DNS and requests of Workers, how many went to a region: `(to it, all)` of each.
    #[must_use]
    pub fn shares(&self, region: &RegionId) -> [(u64, u64); 2] {
        let to = self.regions.get(region).map_or((0, 0), |one| (one.dns, one.edge.sent));
        let all = self.regions.values().fold((0, 0), |(dns, sent), one| (dns + one.dns, sent + one.edge.sent));
        [(to.0, all.0), (to.1, all.1)]
    }
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;

    use super::*;

    pub(in super::super) fn counted(at: i64) -> Counted {
        serde_json::from_value(json!({ "node": "ns1", "begun": Timestamp(0), "at": Timestamp(at), "revision": 1,
            "rules_sha256": "0a", "workers": 1, "regions": {},
            "nowhere": { "sent": 0, "requests": 0, "failed": 0, "refused": 0,
                         "first_token": serde_json::to_value(Histogram::default()).unwrap() },
            "checked": Checked::default() }))
        .unwrap()
    }

    fn book() -> Book {
        Book::read(
            br#"{ "jurisdictions": { "eu": { "include": ["EU"] }, "uk": { "countries": ["GB"] } },
            "regions": { "fra": { "countries": ["DE"] }, "lon": { "countries": ["GB"] } },
            "tenants": { "acme": { "services": ["chat"], "process_in": ["uk"] } },
            "services": { "chat": { "regions": ["fra", "lon"], "residency": [
                { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["unknown"], "process_in": ["uk"] }] },
              "other": { "regions": ["fra", "lon"], "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } } }"#,
        )
    }

    fn key(service: &str, clients: &str, region: Option<&str>) -> Key {
        serde_json::from_value(json!({ "service": service, "clients": clients, "region": region })).unwrap()
    }

    fn counts(attempts: u64, requests: &serde_json::Value) -> Counts {
        serde_json::from_value(json!({ "attempts": { "committed": attempts }, "requests": requests })).unwrap()
    }

    #[test]
    fn what_leads_out_of_a_fence_is_counted_apart_from_what_only_a_tenants_fence_allows() {
        let (book, mut all) = (book(), counted(0));
        all.add_edge(&book, &key("chat", "eu", Some("fra")), &counts(10, &json!({ "ok": 9, "upstream_timeout": 1 })));
        all.add_edge(&book, &key("chat", "eu", Some("lon")), &counts(3, &json!({})));
        all.add_edge(&book, &key("other", "eu", Some("lon")), &counts(2, &json!({})));
        all.add_edge(&book, &key("other", "none", Some("fra")), &counts(1, &json!({})));
        all.add_edge(&book, &key("chat", "unknown", Some("lon")), &counts(1, &json!({})));
        all.add_edge(&book, &key("chat", "eu", None), &counts(0, &json!({ "capacity_refused": 4, "invalid_json": 6 })));
        let Checked { edge, edge_by_tenant, edge_outside, .. } = all.checked;
        assert_eq!((edge, edge_by_tenant, edge_outside), (17, 3, 3));
        let mut folded = counted(0);
        folded.add_edge(&book, &key("chat", OTHER, Some("fra")), &counts(8, &json!({})));
        assert_eq!((folded.checked.edge, folded.checked.edge_left_out, folded.checked.outside()), (0, 8, 0));
        let edge = all.edge();
        assert_eq!((edge.sent, edge.requests, edge.failed, edge.refused), (17, 20, 1, 4));
        assert_eq!(edge.rates(), Some((Ratio(50_000), Ratio(200_000))));
    }

    #[test]
    fn answers_of_dns_are_compared_with_the_fence_of_their_country() {
        let (book, mut all) = (book(), counted(0));
        let (chat, lon, fra) =
            (ServiceId::parse("chat").unwrap(), RegionId::parse("lon").unwrap(), RegionId::parse("fra").unwrap());
        all.add_dns(&book, (&chat, &fra), (CountryCode::parse("AT"), true), 5);
        all.add_dns(&book, (&chat, &lon), (CountryCode::parse("AT"), true), 2);
        all.add_dns(&book, (&chat, &lon), (None, true), 1);
        all.add_dns(&book, (&chat, &lon), (None, false), 7);
        let Checked { dns, dns_outside, dns_left_out, .. } = all.checked;
        assert_eq!((dns, dns_outside, dns_left_out), (8, 2, 7));
        assert_eq!(all.shares(&lon), [(10, 15), (0, 0)]);
    }

    #[test]
    fn what_was_counted_while_the_rules_changed_is_left_out() {
        let (book, mut early) = (book(), counted(0));
        early.add_edge(&book, &key("other", "eu", Some("fra")), &counts(1_000, &json!({})));
        let sums = [("fra", 1_000), ("lon", 7)];
        // By the new rules the edge may send nobody to Frankfurt. That isn't what it did before.
        let other = Book::read(br#"{ "services": { "other": { "regions": ["lon"] } } }"#);
        let judged = |book: &Book, sha: &str| {
            let mut late = Counted { rules_sha256: sha.to_owned(), ..counted(5_000) };
            for (region, sent) in sums {
                late.add_edge(book, &key("other", "eu", Some(region)), &counts(sent, &json!({})));
            }
            late
        };
        let late = judged(&other, "0b");
        assert!(late.since(&early).checked.edge_outside >= 1_000, "by the difference of two books");
        let new = late.since_look(&early).checked;
        assert_eq!((new.edge, new.edge_outside, new.edge_left_out), (0, 0, 7));
        // And back: what the old book forbids isn't hidden by what the new one forbade.
        let back = judged(&book, "0a").since_look(&late).checked;
        assert_eq!((back.edge, back.edge_outside, back.edge_left_out), (0, 0, 0));
        let same = judged(&book, "0a").since_look(&early).checked;
        assert_eq!((same.edge, same.edge_outside, same.edge_left_out), (7, 7, 0));
        let restarted = Counted { begun: Timestamp(1), ..judged(&book, "0c") };
        assert_eq!(restarted.since_look(&early).checked.edge_left_out, 1_007);
    }

    #[test]
    fn differences_are_of_one_process() {
        let (book, mut early) = (book(), counted(0));
        early.add_edge(&book, &key("chat", "eu", Some("fra")), &counts(10, &json!({ "ok": 10 })));
        let mut late = Counted { at: Timestamp(5_000), ..early.clone() };
        late.add_edge(&book, &key("chat", "eu", Some("fra")), &counts(5, &json!({ "ok": 5 })));
        assert_eq!((late.since(&early).edge().sent, late.since(&early).checked.edge), (5, 5));
        let restarted = Counted { begun: Timestamp(1), ..early.clone() };
        assert_eq!(restarted.since(&late).edge().sent, 10);
    }
}
