//! What is counted: outcomes of packets enter from the transports' responder, the text of `/metrics` leaves to the API.
//!
//! A query adds to plain atomics in a fixed table, without a lock or an allocation; only a steered answer looks its region's counter up.

mod exposition;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use bailiwick_rules::id::{RegionId, ServiceId};

use crate::answer::Rcode;
use crate::owner::Handle;
use crate::rdata::rtype;
use crate::wire::{Outcome, Transport};

/// The transports, with their names in labels.
const TRANSPORTS: [(Transport, &str); 5] = [
    (Transport::Udp, "udp"),
    (Transport::Tcp, "tcp"),
    (Transport::Tls, "tls"),
    (Transport::Quic, "quic"),
    (Transport::Https, "https"),
];
/// The response codes that are told apart; the rest is `other`.
const RCODES: [(Rcode, &str); 9] = [
    (Rcode::NOERROR, "NOERROR"),
    (Rcode::FORMERR, "FORMERR"),
    (Rcode::SERVFAIL, "SERVFAIL"),
    (Rcode::NXDOMAIN, "NXDOMAIN"),
    (Rcode::NOTIMP, "NOTIMP"),
    (Rcode::REFUSED, "REFUSED"),
    (Rcode::YXDOMAIN, "YXDOMAIN"),
    (Rcode::BADVERS, "BADVERS"),
    (Rcode::BADCOOKIE, "BADCOOKIE"),
];
/// The types that are told apart; the rest is `other`.
const QTYPES: [(u16, &str); 16] = [
    (rtype::A, "A"),
    (28, "AAAA"),
    (5, "CNAME"),
    (16, "TXT"),
    (2, "NS"),
    (6, "SOA"),
    (15, "MX"),
    (33, "SRV"),
    (65, "HTTPS"),
    (64, "SVCB"),
    (257, "CAA"),
    (43, "DS"),
    (48, "DNSKEY"),
    (12, "PTR"),
    (252, "AXFR"),
    (255, "ANY"),
];

/// All counters of one process.
#[derive(Debug)]
pub struct Metrics {
    answered: [[[AtomicU64; QTYPES.len() + 1]; RCODES.len() + 1]; TRANSPORTS.len()],
    dropped: [AtomicU64; TRANSPORTS.len()],
    truncated: [AtomicU64; TRANSPORTS.len()],
    steered: RwLock<BTreeMap<Steering, AtomicU64>>,
}

/// A service and the region that answered; no region: `denied_answers` or nothing.
type Steering = (ServiceId, Option<RegionId>);

impl Default for Metrics {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let zeros = |_| std::array::from_fn(|_| std::array::from_fn(|_| zero()));
        Self {
            answered: std::array::from_fn(zeros),
            dropped: std::array::from_fn(|_| zero()),
            truncated: std::array::from_fn(|_| zero()),
            steered: RwLock::default(),
        }
    }
}

impl Metrics {
    /// Counts what became of one packet.
    pub fn count(&self, transport: Transport, outcome: &Outcome) {
        let transport = TRANSPORTS.iter().position(|(known, _)| *known == transport).unwrap_or_default();
        match outcome {
            Outcome::Dropped => add(&self.dropped[transport]),
            Outcome::Answered { rcode, qtype, truncated, .. } => {
                let rcode = RCODES.iter().position(|(known, _)| known == rcode).unwrap_or(RCODES.len());
                let qtype = QTYPES.iter().position(|(known, _)| Some(*known) == *qtype).unwrap_or(QTYPES.len());
                add(&self.answered[transport][rcode][qtype]);
                if *truncated {
                    add(&self.truncated[transport]);
                }
            }
        }
    }

    /// Counts one steered answer.
    pub fn count_steered(&self, service: &ServiceId, region: Option<&RegionId>) {
        let key = (service.clone(), region.cloned());
        // A poisoned lock still holds good counters.
        if let Some(counter) = self.steered.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return add(counter);
        }
        add(self.steered.write().unwrap_or_else(PoisonError::into_inner).entry(key).or_default());
    }

    /// Everything in the OpenMetrics text format, with what `handle` tells of rules, regions and sources.
    #[must_use]
    pub fn text(self: &Arc<Self>, handle: &Handle) -> String {
        exposition::text(Arc::clone(self), handle.clone())
    }
}

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
