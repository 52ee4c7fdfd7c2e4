//! Signs the RRsets of a zone. Takes the RRsets one after another, and the zone's previous version with its signatures.
//! Returns signatures for each RRset. Earlier signatures are used again if possible. The others are made on several
//! cores. Called by [`super::presign`].

use std::collections::HashMap;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::canonical::SignedData;
use super::denial::{Next, nsec};
use super::key::{KeyError, SigningKey};
use super::key_set::KeySet;
use super::presigned::{Published, SignedZone};
use super::sign::{Signatures, sign};
use crate::protocol::name::{Name, NameRef};
use crate::protocol::rdata::{RdataSet, Rdatas, rtype};
use crate::zone::{RrSet, ServiceIndex, Zone};

/// Signatures that are due within this time, in seconds, are renewed now, so that renewals happen in batches.
const BATCH: u32 = 3_600;
/// If a zone has at most this many names, all its NSECs are signed before any query. In a larger zone, most NSECs would
/// never be needed.
const ALL_NSECS: usize = 10_000;
/// A thread is started only for at least this many RRsets.
const WORTH_A_THREAD: usize = 64;
/// The time between two log lines about the progress of a long signing.
const TELL: Duration = Duration::from_secs(1);

/// The RRsets of one zone that need a signature, and the signatures found so far.
pub(super) struct Plan<'a> {
    zone: &'a Zone,
    /// The zone's previous version and its signatures, if it was signed.
    before: Option<(&'a Zone, &'a SignedZone)>,
    /// Whether the previous signatures were made by the same keys. First for data, then for the RRsets that are made
    /// from the keys.
    same_keys: [bool; 2],
    now: u32,
    /// The earlier signatures that are used again, by the place (index) of the RRset in the plan; `None` if a job will
    /// make signatures.
    found: Vec<Option<Signatures>>,
    jobs: Vec<Job>,
}

/// One RRset to be signed.
struct Job {
    /// The RRset's place in the plan.
    place: usize,
    owner: Name,
    rtype: u16,
    ttl: u32,
    rdatas: RdataSet,
    /// Whether this RRset is made from the keys (DNSKEY, CDS, CDNSKEY). All keys of the DNSKEY RRset sign it.
    of_keys: bool,
}

impl<'a> Plan<'a> {
    /// An empty plan.
    pub(super) fn new(zone: &'a Zone, key_set: &KeySet, before: Option<(&'a Zone, &'a SignedZone)>, now: u32) -> Self {
        let same_keys = before.map_or([false; 2], |(_, signed)| {
            let data = key_set.signers().map(SigningKey::dnskey).eq(signed.key_set().signers().map(SigningKey::dnskey));
            let keys = key_set.dnskey_signers().map(SigningKey::dnskey);
            [data, keys.eq(signed.key_set().dnskey_signers().map(SigningKey::dnskey))]
        });
        Self { zone, before, same_keys, now, found: Vec::new(), jobs: Vec::new() }
    }

    /// Plans one RRset and returns its place. `old` are the RRset's previous signatures, if its data is the same.
    fn plan(&mut self, old: Option<&Signatures>, owner: Name, set: (u16, u32, Rdatas<'_>), of_keys: bool) -> usize {
        let ((rtype, ttl, rdatas), place) = (set, self.found.len());
        let horizon = self.now.wrapping_add(BATCH);
        let same_keys = self.same_keys[usize::from(of_keys)];
        let reusable = old.filter(|old| same_keys && old.are_fresh(ttl, self.now, horizon)).cloned();
        if reusable.is_none() {
            self.jobs.push(Job { place, owner, rtype, ttl, rdatas: rdatas.to_set(), of_keys });
        }
        self.found.push(reusable);
        place
    }

    /// Plans the static RRsets. Returns the place of each, by the RRset's number; `None` if the zone doesn't sign it.
    pub(super) fn static_sets(&mut self) -> Vec<Option<usize>> {
        let mut places = vec![None; self.zone.set_count()];
        let (zone, before) = (self.zone, self.before);
        for own in zone.own_sets() {
            let (owner, set) = (zone.name_of(own.node), own.set);
            let old = before.and_then(|(before, signed)| {
                let number = before.set_number(before.glue(owner.as_ref())?, set.rtype)?;
                let same = before.set_by_number(number).rdatas == set.rdatas;
                signed.of_static(number).filter(|_| same)
            });
            places[own.number] = Some(self.plan(old, owner, (set.rtype, set.ttl, set.rdatas.as_ref()), false));
        }
        places
    }

    /// Plans the NSECs. Returns the place of each, by the name's number. The apex's NSEC also lists the types of
    /// `of_keys`. In a large zone, only the NSECs of the apex and of steered names (whose records depend on the client)
    /// are planned.
    pub(super) fn nsecs(&mut self, of_keys: &[RrSet]) -> Vec<Option<usize>> {
        let mut places = vec![None; self.zone.name_count()];
        let (zone, before) = (self.zone, self.before);
        let all = zone.name_count() <= ALL_NSECS;
        for node in zone.own_nodes() {
            if !all && zone.steered(node).is_none() && node != zone.apex() {
                continue;
            }
            let (owner, ttl) = (zone.name_of(node), zone.negative_ttl());
            let of_keys = of_keys.iter().filter(|_| node == zone.apex()).map(|set| set.rtype);
            let rdata = nsec(owner.as_ref(), zone.origin(), Next::of(zone, node), zone.types(node).chain(of_keys));
            let old = before.and_then(|(before, signed)| {
                let node = before.glue(owner.as_ref())?;
                let same =
                    nsec(owner.as_ref(), zone.origin(), Next::of(before, node), signed.types(before, node)) == rdata;
                signed.of_nsec(before.number_of(node)).filter(|_| same)
            });
            let rdatas = RdataSet::new(rtype::NSEC, [&*rdata]);
            places[zone.number_of(node)] = Some(self.plan(old, owner, (rtype::NSEC, ttl, rdatas.as_ref()), false));
        }
        places
    }

    /// Plans every RRset that may be answered at a steered name. Returns each with its place, by the number of the
    /// steered name.
    pub(super) fn steered_sets(
        &mut self,
        published: &dyn Fn(ServiceIndex) -> Vec<Published>,
    ) -> Vec<Vec<(Published, usize)>> {
        let mut of_services: HashMap<ServiceIndex, Vec<Published>> = HashMap::new();
        let mut all = Vec::new();
        let (zone, before) = (self.zone, self.before);
        for owner in zone.steered_owners() {
            let sets = of_services.entry(owner.service).or_insert_with(|| published(owner.service));
            let old = before.and_then(|(before, signed)| {
                Some(signed.variants(before.steered_number(before.glue(owner.name.as_ref())?)?))
            });
            let old = old.unwrap_or_default();
            let mut planned: Vec<(Published, usize)> = Vec::with_capacity(sets.len());
            for set in sets.iter() {
                let equal =
                    |other: &Published| (other.rtype, other.ttl) == (set.rtype, set.ttl) && other.rdatas == set.rdatas;
                let place = match planned.iter().find(|(other, _)| equal(other)) {
                    // Regions that publish equal RRsets share the signatures.
                    Some(&(_, place)) => place,
                    None => {
                        let old =
                            old.iter().find(|variant| equal(&variant.published)).map(|variant| &variant.signatures);
                        let data = (set.rtype, set.ttl, set.rdatas.as_ref());
                        self.plan(old, owner.name.clone(), data, false)
                    }
                };
                planned.push((set.clone(), place));
            }
            all.push(planned);
        }
        all
    }

    /// Plans the RRsets that are derived from the keys (DNSKEY, CDS, CDNSKEY) and returns their places.
    pub(super) fn apex_sets(&mut self, sets: &[RrSet]) -> Vec<usize> {
        let (zone, before) = (self.zone, self.before);
        let mut place = |set: &RrSet| {
            let old = before.and_then(|(_, signed)| signed.apex_set(set.rtype));
            let old = old.filter(|(old, _)| old.rdatas == set.rdatas).map(|(_, signatures)| signatures);
            let data = (set.rtype, set.ttl, set.rdatas.as_ref());
            self.plan(old, zone.origin().to_name(), data, true)
        };
        sets.iter().map(&mut place).collect()
    }

    /// Runs the jobs and returns all signatures, by place.
    ///
    /// # Errors
    /// When the system gives no random bytes.
    pub(super) fn carry_out(self, key_set: &KeySet) -> Result<Vec<Signatures>, KeyError> {
        let origin = self.zone.origin();
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        // If the zone was signed before, it is in service, and the other half of the cores answers queries.
        let threads = if self.before.is_some() { cores.div_ceil(2) } else { cores };
        let new_signatures = in_parallel(&self.jobs, threads, origin, |job| {
            let Job { owner, rtype, ttl, rdatas, .. } = job;
            let covered = SignedData { owner: owner.as_ref(), rtype: *rtype, ttl: *ttl, rdatas: rdatas.as_ref() };
            if job.of_keys {
                sign(&covered, origin, key_set.dnskey_signers(), self.now)
            } else {
                sign(&covered, origin, key_set.signers(), self.now)
            }
        })?;
        let mut stored = self.found;
        for (job, signatures) in self.jobs.iter().zip(new_signatures) {
            stored[job.place] = Some(signatures);
        }
        Ok(stored.into_iter().flatten().collect())
    }
}

/// Runs all jobs on up to `threads` threads. Logs the progress if that takes long.
fn in_parallel<'j>(
    jobs: &'j [Job],
    threads: usize,
    origin: NameRef<'_>,
    sign: impl Fn(&'j Job) -> Result<Signatures, KeyError> + Sync,
) -> Result<Vec<Signatures>, KeyError> {
    let share = jobs.len().div_ceil(threads).max(WORTH_A_THREAD);
    if jobs.len() <= share {
        return jobs.iter().map(sign).collect();
    }
    let done = AtomicUsize::new(0);
    let (sign, done) = (&sign, &done);
    std::thread::scope(|scope| {
        let (ended, ends) = mpsc::channel::<()>();
        let start = |share: &'j [Job]| {
            let ended = ended.clone();
            scope.spawn(move || {
                let _ended = ended; // dropped with the last job
                let count = |job| {
                    done.fetch_add(1, Ordering::Relaxed);
                    sign(job)
                };
                share.iter().map(count).collect::<Result<Vec<_>, _>>()
            })
        };
        let threads: Vec<_> = jobs.chunks(share).map(start).collect();
        drop(ended);
        while ends.recv_timeout(TELL) == Err(RecvTimeoutError::Timeout) {
            tracing::info!(zone = %origin, "signing: {} of {} RRsets", done.load(Ordering::Relaxed), jobs.len());
        }
        let mut signatures = Vec::with_capacity(jobs.len());
        for thread in threads {
            signatures.extend(thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?);
        }
        Ok(signatures)
    })
}
