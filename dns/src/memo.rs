//! The memo: answers that one UDP thread keeps for later queries that ask the same question. Takes a batch of datagrams
//! and the snapshot, returns the same bytes that [`respond`] would return. Called by the responder. Each thread has a
//! memo of its own.
//!
//! A kept answer depends only on the name, the type, whether the query has EDNS and DO, and, at a steered name (whose
//! records depend on the client), on the client's class (clients for which the rules decide alike) and part of the
//! class (clients that are moved together because of load). It is used until rules, zones, geography or health change
//! it. Everything else differs between queries and is patched: the id, RD, CD, the case of the question, the client
//! subnet with its scope, and truncation to the client's payload.
//!
//! Answers that differ between names only in the names' own records share one [`pattern`]. Answers with a signature
//! that was made for the query aren't kept, because the same answer would get another signature later. Everything that
//! isn't kept is answered by [`respond`] on the same thread. A query that is answered from the memo is a hit. One hit
//! in [`COMPARE_EVERY`] is compared with the answer of [`respond`].

#[cfg(test)]
mod cost;
mod patch;
mod pattern;
mod query;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use bailiwick_host::system::batch::SIZE;
use smallvec::SmallVec;

use crate::response::answer::{Asking, Origin};
use crate::response::respond::Datagram;
use crate::response::wire::{Class, Context, HEADER, Limiter, Outcome, Transport, Verdict, respond};
use crate::state::snapshot::Snapshot;
use crate::zone::ServiceIndex;
use crate::zones::Seek;
use patch::{Hit, HitSource};
use pattern::{Answers, NamePosition, Pattern, Patterns};
use query::Query;
use table::{Entry, Key, Table};

/// The longest response that is kept, in octets. It bounds the memory of the table.
const LONGEST: usize = 512;
/// How many steered names are remembered, so that the memo can guess what to prefetch into the CPU's cache. A power of
/// two.
const STEERED: usize = 256;
/// One in this many hits is compared with the answer made without the memo.
const COMPARE_EVERY: u32 = 1 << 16;

/// A query of a batch that was read but not answered yet, and where its answer probably is.
struct PendingQuery<'s, 'p> {
    query: Query<'p>,
    place: LookupPlace<'s>,
}

/// Where to look for the answer to a query.
#[derive(Clone, Copy)]
enum LookupPlace<'s> {
    /// Probably an entry of the table.
    Table,
    /// The name belongs to this zone. Its position there isn't known yet.
    Zone(Seek<'s>),
    /// The name belongs to this zone, and has this position there.
    Found(Seek<'s>, NamePosition),
    /// The name belongs to no zone.
    Nowhere,
}

/// The answers that one thread keeps.
pub(crate) struct Memo {
    table: Table,
    patterns: Patterns,
    /// Hashes of steered names that were asked for recently, with their services. They tell which data to prefetch.
    steered: Box<[(u64, ServiceIndex); STEERED]>,
    /// The snapshot's generation for which everything here is valid.
    world: u64,
    /// Hits since the last comparison.
    since_comparison: u32,
    hits: u64,
    mismatches: u64,
    shadow: Vec<u8>,
}

impl Memo {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            patterns: Patterns::new(),
            steered: Box::new([(0, ServiceIndex(0)); STEERED]),
            world: 0,
            since_comparison: 0,
            hits: 0,
            mismatches: 0,
            shadow: Vec::new(),
        }
    }

    /// How many datagrams were answered from the memo.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// How many compared hits differed from the right answer. If this isn't 0, this program has a fault.
    pub(crate) fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Answers a batch of datagrams, byte for byte as [`respond`] does. Calls `count` with the outcome of each
    /// datagram.
    ///
    /// Each step is done for the whole batch before the next step begins, and prefetches the memory that the next step
    /// reads. So the whole batch waits for memory about as long as one datagram would.
    pub(crate) fn respond(
        &mut self,
        context: &Context<'_>,
        snapshot: &Snapshot,
        batch: &mut [Datagram<'_>],
        mut count: impl FnMut(Outcome),
    ) {
        if self.world != snapshot.generation() {
            self.forget();
            self.world = snapshot.generation();
        }
        // The list is large, so it is filled in place instead of being collected and moved.
        let mut ahead = SmallVec::<[_; SIZE]>::new();
        ahead.extend(batch.iter().map(|datagram| self.look(context, snapshot, datagram.packet, datagram.from)));
        for PendingQuery { place, .. } in ahead.iter().flatten() {
            if let LookupPlace::Zone(seek) = place {
                seek.approach();
            }
        }
        for PendingQuery { query, place } in ahead.iter_mut().flatten() {
            if let LookupPlace::Zone(seek) = *place {
                *place = LookupPlace::Found(seek, seek.locate(query.name).into());
            }
        }
        for (Datagram { packet, from, response }, ahead) in batch.iter_mut().zip(&ahead) {
            count(match ahead {
                Some(ahead) => self.answer(context, snapshot, ahead, packet, *from, response),
                None => answer_uncached(context, snapshot, packet, *from, response),
            });
        }
    }

    /// Reads a datagram and prefetches the memory from which its answer will probably be made. `None` if the memo can't
    /// answer it.
    #[inline]
    fn look<'s, 'p>(
        &self,
        context: &Context<'_>,
        snapshot: &'s Snapshot,
        packet: &'p [u8],
        from: IpAddr,
    ) -> Option<PendingQuery<'s, 'p>> {
        let query = query::read(packet)?;
        if query.is_dnssec_ok() && snapshot.has_stale_signatures(context.now) {
            return None;
        }
        if !self.table.prefetch(&Key::new(&query)) {
            let place = snapshot.zones().seek(query.name, query.qtype).map_or(LookupPlace::Nowhere, LookupPlace::Zone);
            return Some(PendingQuery { query, place });
        }
        let (hash, service) = self.steered[steered_place(query.hash)];
        if hash == query.hash
            && let Some(classes) = snapshot.world().classes_of(service)
        {
            classes.expect(query.ecs.filter(|ecs| ecs.source > 0).map_or(from, |ecs| ecs.address));
        }
        Some(PendingQuery { query, place: LookupPlace::Table })
    }

    /// Answers one datagram into `out`, which is overwritten.
    fn answer(
        &mut self,
        context: &Context<'_>,
        snapshot: &Snapshot,
        ahead: &PendingQuery<'_, '_>,
        packet: &[u8],
        from: IpAddr,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let PendingQuery { query, place } = ahead;
        // Taken by reference, because moving the value would have to wait for memory that was written just before.
        let answer = self.find(query, *place, snapshot, from);
        let Some(answer) = &answer else {
            let outcome = answer_uncached(context, snapshot, packet, from, out);
            self.keep(query, snapshot, from, &outcome, out);
            return outcome;
        };
        let mut limit = usize::from(query.limit);
        if let Some(limiter) = context.limiter {
            let admitted = limiter.admit(from);
            if admitted != Verdict::Answer {
                let admitted = Admitted { limiter, admitted };
                return answer_uncached(&Context { limiter: Some(&admitted), ..*context }, snapshot, packet, from, out);
            }
            match limiter.judge(from, answer.class()) {
                Verdict::Answer => {}
                Verdict::Slip => limit = 0,
                Verdict::Drop => {
                    out.clear();
                    return Outcome::Dropped;
                }
            }
        }
        let outcome = answer.write(query, packet, limit, out);
        self.hits += 1;
        self.since_comparison += 1;
        if self.since_comparison >= COMPARE_EVERY && limit != 0 {
            self.since_comparison = 0;
            self.compare(context, snapshot, packet, from, out);
        }
        outcome
    }

    fn forget(&mut self) {
        self.table.clear();
        self.patterns.clear();
    }

    /// The kept answer to this query, if one is valid in this snapshot.
    #[inline]
    fn find<'k>(
        &'k self,
        query: &Query<'_>,
        place: LookupPlace<'k>,
        snapshot: &'k Snapshot,
        from: IpAddr,
    ) -> Option<Hit<'k>> {
        match place {
            LookupPlace::Nowhere => None,
            // An earlier query of this batch may have added it.
            LookupPlace::Found(seek, stands) => {
                self.of_pattern(query, seek, stands).or_else(|| self.entry(query, snapshot, from))
            }
            LookupPlace::Table | LookupPlace::Zone(_) => self.entry(query, snapshot, from).or_else(|| {
                let seek = snapshot.zones().seek(query.name, query.qtype)?;
                self.of_pattern(query, seek, seek.locate(query.name).into())
            }),
        }
    }

    /// The entry of the table that answers this query.
    #[inline]
    fn entry(&self, query: &Query<'_>, snapshot: &Snapshot, from: IpAddr) -> Option<Hit<'_>> {
        let key = Key::new(query);
        let entry = self.table.find(&key, query.name)?;
        let Some(service) = entry.asks else {
            return Some(Hit { source: HitSource::Entry(entry), scope: 0, origin: Origin::default() });
        };
        // The name is steered, so the answer depends on the client.
        let client_key = snapshot.client_key_of(service, &Asking { transport: from, ecs: query.ecs })?;
        let entry = self.table.find(&key.of_client(&client_key), query.name)?;
        let holds = entry.decided == snapshot.service_generation(service);
        holds.then_some(Hit { source: HitSource::Entry(entry), scope: client_key.scope, origin: client_key.origin })
    }

    /// The pattern that answers this query, and the records to fill in.
    #[inline]
    fn of_pattern<'k>(&'k self, query: &Query<'_>, seek: Seek<'k>, stands: NamePosition) -> Option<Hit<'k>> {
        let answers = Answers::of(query, seek.zone(), stands)?;
        let pattern = self.patterns.find(query, &seek, answers)?;
        Some(Hit { source: HitSource::Pattern(pattern, answers), scope: 0, origin: Origin::default() })
    }

    /// Makes the answer without the memo. If the kept answer differs from it, replaces the kept answer in `out` and
    /// forgets everything that is kept.
    #[cold]
    fn compare(&mut self, context: &Context<'_>, snapshot: &Snapshot, packet: &[u8], from: IpAddr, out: &mut Vec<u8>) {
        answer_uncached(&Context { limiter: None, ..*context }, snapshot, packet, from, &mut self.shadow);
        if *out != self.shadow {
            self.mismatches += 1;
            self.forget();
            std::mem::swap(out, &mut self.shadow);
            tracing::error!(
                "a kept answer was not what it should be: please report it. It was mended, and all that was kept is \
                 dropped"
            );
        }
    }

    /// Keeps an answer if other clients may get it too.
    fn keep(&mut self, query: &Query<'_>, snapshot: &Snapshot, from: IpAddr, outcome: &Outcome, out: &[u8]) {
        let Outcome::Answered { rcode, service, region, class: kind, keepable, truncated, .. } = *outcome else {
            return;
        };
        if truncated || out.len() > LONGEST {
            return;
        }
        let bare = patch::bare(query, out);
        if service.is_none() && self.keep_pattern(query, snapshot, &bare) {
            return;
        }
        if !keepable {
            return;
        }
        let (mut key, mut decided) = (Key::new(query), 0);
        if let Some(service) = service {
            let Some(client_key) = snapshot.client_key_of(service, &Asking { transport: from, ecs: query.ecs }) else {
                return;
            };
            self.steered[steered_place(query.hash)] = (query.hash, service);
            self.table.put(&key, query.name, |mut wire| {
                wire.set(&bare[..HEADER + query.name.as_wire().len()]);
                Entry { asks: Some(service), wire, ..Entry::empty() }
            });
            key = key.of_client(&client_key);
            decided = snapshot.service_generation(service);
        }
        self.table.put(&key, query.name, |mut wire| {
            wire.set(&bare);
            Entry { decided, asks: None, service, region, rcode, kind, wire }
        });
    }

    /// Makes and keeps the pattern of a response, if there is none yet. Returns whether it did. `bare` is the response
    /// without the parts that belong to its query only.
    fn keep_pattern(&mut self, query: &Query<'_>, snapshot: &Snapshot, bare: &[u8]) -> bool {
        let Some(seek) = snapshot.zones().seek(query.name, query.qtype) else { return false };
        let answers = Answers::of(query, seek.zone(), seek.locate(query.name).into());
        let answers = answers.filter(|answers| !self.patterns.have(query, &seek, *answers));
        let pattern = answers.and_then(|answers| Pattern::new(query, &seek, answers, bare));
        let is_made = pattern.is_some();
        pattern.into_iter().for_each(|pattern| self.patterns.put(pattern));
        is_made
    }
}

#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn steered_place(hash: u64) -> usize {
    hash as usize % STEERED
}

/// Answers a datagram without the memo.
fn answer_uncached(
    context: &Context<'_>,
    snapshot: &Snapshot,
    packet: &[u8],
    from: IpAddr,
    out: &mut Vec<u8>,
) -> Outcome {
    respond(context, snapshot.zones(), snapshot, packet, from, Transport::Udp, out)
}

/// A limiter that returns the verdict of an earlier call of [`Limiter::admit`], so that the query isn't counted twice.
struct Admitted<'l> {
    limiter: &'l dyn Limiter,
    admitted: Verdict,
}

impl Limiter for Admitted<'_> {
    fn admit(&self, _: IpAddr) -> Verdict {
        self.admitted
    }

    fn judge(&self, from: IpAddr, class: Class) -> Verdict {
        self.limiter.judge(from, class)
    }
}
