//! The counters of a node. Takes outcomes of packets from the responder, returns the text of `/metrics` to the API.
//!
//! Packets over streams are counted in shared counters. Each thread that answers datagrams has counters of its own.
//! These are summed when metrics are read.

mod accept;
mod accesses;
mod aggregate;
mod exposition;
mod fences;
mod latency;
mod plain;
mod protobuf;
mod serving;
mod thread;
mod traffic;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bailiwick_host::system::file_reload::FileHealth;
use bailiwick_rules::id::{RegionId, ServiceId};

use crate::net::rate_limit::Limiter;
use crate::net::streams::Gate;
use crate::protocol::rdata::rtype;
use crate::response::answer::{Origin, Rcode};
use crate::response::wire::{Outcome, Transport};
use crate::state::owner::Handle;
pub(crate) use accept::Format;
use accesses::Accesses;
pub(crate) use accesses::LostAccess;
pub(crate) use aggregate::{Aggregated, Lost, Window};
pub(crate) use fences::Fences;
pub(crate) use latency::{EVERY, Latency};
pub(crate) use plain::plain;
pub(crate) use protobuf::protobuf;
pub(crate) use serving::AnswersByRevision;
pub(crate) use thread::{SteeredCounters, ThreadCounters};
pub(crate) use traffic::TrafficFilter;

/// The transports, with their names in labels.
const TRANSPORTS: [(Transport, &str); 5] = [
    (Transport::Udp, "udp"),
    (Transport::Tcp, "tcp"),
    (Transport::Tls, "tls"),
    (Transport::Quic, "quic"),
    (Transport::Https, "https"),
];
/// The response codes with a label of their own. All others count as `other`.
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
/// The query types with a label of their own. All others count as `other`.
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
pub(crate) struct Metrics {
    answered: [Answered; TRANSPORTS.len()],
    dropped: [AtomicU64; TRANSPORTS.len()],
    truncated: [AtomicU64; TRANSPORTS.len()],
    latency: [Latency; TRANSPORTS.len()],
    steered: Mutex<BTreeMap<Steering, u64>>,
    traffic: Mutex<traffic::Recorder>,
    serving: Mutex<serving::Serving>,
    threads: Mutex<Vec<Arc<ThreadCounters>>>,
    /// What the last check of fences found.
    pub(crate) fences: Fences,
    /// What became of the aggregate.
    pub(crate) aggregated: Aggregated,
    /// What became of the access log.
    pub(crate) accesses: Accesses,
    gate: Option<Arc<Gate>>,
    limiter: Option<Arc<Limiter>>,
    files: Vec<Arc<FileHealth>>,
}

/// Numbers of answers by response code and query type. The last of each counts all others.
type Answered = [[AtomicU64; QTYPES.len() + 1]; RCODES.len() + 1];

/// What steered answers are counted by: the service, the region whose records were answered, and the origin (the
/// client's country, and whether the resolver sent the client's subnet). Without a region, the answer had the service's
/// `denied_answers` or no records.
pub(crate) type Steering = (ServiceId, Option<RegionId>, Origin);

impl Default for Metrics {
    fn default() -> Self {
        let zero = || AtomicU64::new(0);
        let zeros = |_| std::array::from_fn(|_| std::array::from_fn(|_| zero()));
        Self {
            answered: std::array::from_fn(zeros),
            dropped: std::array::from_fn(|_| zero()),
            truncated: std::array::from_fn(|_| zero()),
            latency: std::array::from_fn(|_| Latency::default()),
            steered: Mutex::default(),
            traffic: Mutex::default(),
            serving: Mutex::default(),
            threads: Mutex::default(),
            fences: Fences::default(),
            aggregated: Aggregated::default(),
            accesses: Accesses::default(),
            gate: None,
            limiter: None,
            files: Vec::new(),
        }
    }
}

impl Metrics {
    /// Makes counters that also report connections, rate limits, and the files that are read again when they change.
    #[must_use]
    pub(crate) fn of(gate: Arc<Gate>, limiter: Option<Arc<Limiter>>, files: Vec<Arc<FileHealth>>) -> Self {
        Self { gate: Some(gate), limiter, files, ..Self::default() }
    }

    /// Counts the outcome of one packet.
    pub(crate) fn count(&self, transport: Transport, outcome: &Outcome) {
        let transport = TRANSPORTS.iter().position(|(known, _)| *known == transport).unwrap_or_default();
        match outcome {
            Outcome::Dropped => add(&self.dropped[transport]),
            Outcome::Answered { rcode, qtype, truncated, .. } => {
                let (rcode, qtype) = place(*rcode, *qtype);
                add(&self.answered[transport][rcode][qtype]);
                if *truncated {
                    add(&self.truncated[transport]);
                }
            }
        }
    }

    /// Records how long one answer over a stream took.
    pub(crate) fn took(&self, transport: Transport, span: Duration) {
        let transport = TRANSPORTS.iter().position(|(known, _)| *known == transport).unwrap_or_default();
        self.latency[transport].add(span, 1);
    }

    /// Counts one steered answer.
    pub(crate) fn count_steered(&self, service: &ServiceId, region: Option<&RegionId>, origin: Origin) {
        *self.steered().entry((service.clone(), region.cloned(), origin)).or_default() += 1;
    }

    /// All steered answers since this process began.
    pub(crate) fn all_steered(&self) -> BTreeMap<Steering, u64> {
        let mut sums = self.steered().clone();
        // A thread that begins needn't wait for the sums.
        let threads = self.threads().clone();
        for thread in threads {
            thread.sum_steered_into(&mut sums);
        }
        sums
    }

    /// Counters for a thread that answers datagrams.
    pub(crate) fn thread(&self) -> Arc<ThreadCounters> {
        let counters = Arc::new(ThreadCounters::default());
        self.threads().push(Arc::clone(&counters));
        counters
    }

    /// The files that are read again when they change, each with its state.
    pub(crate) fn files(&self) -> impl Iterator<Item = &FileHealth> {
        self.files.iter().map(|file| &**file)
    }

    fn steered(&self) -> MutexGuard<'_, BTreeMap<Steering, u64>> {
        // A poisoned lock still holds good counters.
        self.steered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn threads(&self) -> MutexGuard<'_, Vec<Arc<ThreadCounters>>> {
        self.threads.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All metrics in the OpenMetrics text format. `handle` gives the state of rules, regions and sources.
    #[must_use]
    pub(crate) fn text(self: &Arc<Self>, handle: &Handle) -> String {
        exposition::text(Arc::clone(self), handle.clone())
    }
}

/// The indexes in [`Answered`] at which answers of this response code and query type are counted.
fn place(rcode: Rcode, qtype: Option<u16>) -> (usize, usize) {
    let rcode = RCODE_PLACES.get(usize::from(rcode.0)).map_or(RCODES.len(), |place| usize::from(*place));
    let qtype = qtype.and_then(|qtype| QTYPE_PLACES.get(usize::from(qtype)));
    (rcode, qtype.map_or(QTYPES.len(), |place| usize::from(*place)))
}

/// For each response code, its index in [`RCODES`].
#[allow(clippy::cast_possible_truncation)] // there are far fewer than 256
static RCODE_PLACES: [u8; 24] = {
    let mut places = [RCODES.len() as u8; 24];
    let mut at = 0;
    while at < RCODES.len() {
        places[RCODES[at].0.0 as usize] = at as u8;
        at += 1;
    }
    places
};

/// For each query type, its index in [`QTYPES`].
#[allow(clippy::cast_possible_truncation)] // there are far fewer than 256
static QTYPE_PLACES: [u8; 258] = {
    let mut places = [QTYPES.len() as u8; 258];
    let mut at = 0;
    while at < QTYPES.len() {
        places[QTYPES[at].0 as usize] = at as u8;
        at += 1;
    }
    places
};

fn add(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}
