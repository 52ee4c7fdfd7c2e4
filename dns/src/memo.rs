//! Encoded answers kept for whoever asks the same: a packet and the snapshot of the moment enter, the bytes [`respond`]
//! would make of them leave, most often by copying. Each UDP thread has one; nothing in it is shared.
//!
//! What is kept depends on nothing but the name, the type, the class of clients and whether EDNS and DO are there, and
//! holds until rules, zones, geography or health change an answer. What differs from query to query is patched: id, RD,
//! CD, the case of the question, the client subnet with its scope, and whether the whole fits the client's payload.
//! What differs from name to name in nothing but its own records is kept once for all of them ([`pattern`]). Answers
//! that had to be signed at once aren't kept: another signature would be as good and not the same. Everything else is
//! answered by [`respond`] on the same thread, and of what is kept every so-manieth is compared with it.

#[cfg(test)]
mod cost;
mod patch;
mod pattern;
mod query;
mod table;
#[cfg(test)]
mod tests;

use std::net::IpAddr;

use smallvec::SmallVec;

use crate::response::answer::Asking;
use crate::response::respond::Datagram;
use crate::response::wire::{Class, Context, HEADER, Limiter, Outcome, Transport, Verdict, respond};
use crate::state::snapshot::Snapshot;
use crate::system::batch::SIZE;
use crate::zone::ServiceIndex;
use crate::zones::Seek;
use patch::{Hit, Source};
use pattern::{Answers, Pattern, Patterns, Stands};
use query::Query;
use table::{Entry, Key, Table};

/// Longer responses aren't kept, so that the memory of the table is bounded by what it usually is.
const LONGEST: usize = 512;
/// How many steered names are remembered to guess by, a power of two.
const STEERED: usize = 256;
/// Of so many hits one is compared with what it should be.
const COMPARE_EVERY: u32 = 1 << 16;

/// What is known of a query before those ahead of it in its batch are answered.
struct Ahead<'s, 'p> {
    query: Query<'p>,
    place: Place<'s>,
}

/// Where the answer to a query is to be had.
#[derive(Clone, Copy)]
enum Place<'s> {
    /// Probably among the entries.
    Table,
    /// In a zone, if anywhere.
    Zone(Seek<'s>),
    /// In a zone, where the name stands here.
    Found(Seek<'s>, Stands),
    /// In none of the zones.
    Nowhere,
}

/// One thread's kept answers.
pub(crate) struct Memo {
    table: Table,
    patterns: Patterns,
    /// Hashes of steered names lately asked for, with their services: a guess at what to load.
    steered: Box<[(u64, ServiceIndex); STEERED]>,
    /// The generation of rules, zones and geography that all of it holds in.
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

    /// How many datagrams were answered by what was kept.
    pub(crate) fn hits(&self) -> u64 {
        self.hits
    }

    /// How many of those that were compared weren't what they should be: always 0, or this program is wrong.
    pub(crate) fn mismatches(&self) -> u64 {
        self.mismatches
    }

    /// Answers a batch of datagrams: byte for byte what [`respond`] answers. `count` learns what became of each.
    ///
    /// All of them are read before the first is answered, and each step has loaded what the next one looks at, so that
    /// the whole batch waits for memory about as long as one datagram would.
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
        // Filled where it is, as it is large.
        let mut ahead = SmallVec::<[_; SIZE]>::new();
        ahead.extend(batch.iter().map(|datagram| self.look(context, snapshot, datagram.packet, datagram.from)));
        for Ahead { place, .. } in ahead.iter().flatten() {
            if let Place::Zone(seek) = place {
                seek.approach();
            }
        }
        for Ahead { query, place } in ahead.iter_mut().flatten() {
            if let Place::Zone(seek) = *place {
                *place = Place::Found(seek, seek.locate(query.name).into());
            }
        }
        for (Datagram { packet, from, response }, ahead) in batch.iter_mut().zip(&ahead) {
            count(match ahead {
                Some(ahead) => self.answer(context, snapshot, ahead, packet, *from, response),
                None => answer_uncached(context, snapshot, packet, *from, response),
            });
        }
    }

    /// Reads a datagram and has loaded what its answer is probably made of; `None` if it is for the full path alone.
    #[inline]
    fn look<'s, 'p>(
        &self,
        context: &Context<'_>,
        snapshot: &'s Snapshot,
        packet: &'p [u8],
        from: IpAddr,
    ) -> Option<Ahead<'s, 'p>> {
        let query = query::read(packet)?;
        if query.is_dnssec_ok() && snapshot.has_stale_signatures(context.now) {
            return None;
        }
        if !self.table.expect(&Key::new(&query)) {
            let place = snapshot.zones().seek(query.name, query.qtype).map_or(Place::Nowhere, Place::Zone);
            return Some(Ahead { query, place });
        }
        let (hash, service) = self.steered[steered_place(query.hash)];
        if hash == query.hash
            && let Some(classes) = snapshot.world().classes_of(service)
        {
            classes.expect(query.ecs.filter(|ecs| ecs.source > 0).map_or(from, |ecs| ecs.address));
        }
        Some(Ahead { query, place: Place::Table })
    }

    /// Answers one datagram into `out`, which is overwritten.
    fn answer(
        &mut self,
        context: &Context<'_>,
        snapshot: &Snapshot,
        ahead: &Ahead<'_, '_>,
        packet: &[u8],
        from: IpAddr,
        out: &mut Vec<u8>,
    ) -> Outcome {
        let Ahead { query, place } = ahead;
        // By reference, as moving it would wait for what was only just written.
        let kept = self.find(query, *place, snapshot, from);
        let Some(kept) = &kept else {
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
            match limiter.judge(from, kept.class()) {
                Verdict::Answer => {}
                Verdict::Slip => limit = 0,
                Verdict::Drop => {
                    out.clear();
                    return Outcome::Dropped;
                }
            }
        }
        let outcome = kept.write(query, packet, limit, out);
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

    /// What is kept for this query in this snapshot.
    #[inline]
    fn find<'k>(
        &'k self,
        query: &Query<'_>,
        place: Place<'k>,
        snapshot: &'k Snapshot,
        from: IpAddr,
    ) -> Option<Hit<'k>> {
        match place {
            Place::Nowhere => None,
            // Perhaps another of this batch was kept.
            Place::Found(seek, stands) => {
                self.of_pattern(query, seek, stands).or_else(|| self.entry(query, snapshot, from))
            }
            Place::Table | Place::Zone(_) => self.entry(query, snapshot, from).or_else(|| {
                let seek = snapshot.zones().seek(query.name, query.qtype)?;
                self.of_pattern(query, seek, seek.locate(query.name).into())
            }),
        }
    }

    /// The entry.
    #[inline]
    fn entry(&self, query: &Query<'_>, snapshot: &Snapshot, from: IpAddr) -> Option<Hit<'_>> {
        let key = Key::new(query);
        let entry = self.table.find(&key, query.name)?;
        let Some(service) = entry.asks else {
            return Some(Hit { source: Source::Entry(entry), scope: 0 });
        };
        // The name is steered: what it is answered with depends on the client.
        let (class, scope) = snapshot.class_of(service, &Asking { transport: from, ecs: query.ecs })?;
        let entry = self.table.find(&key.of_class(class), query.name)?;
        let holds = entry.decided == snapshot.service_generation(service);
        holds.then_some(Hit { source: Source::Entry(entry), scope })
    }

    /// The pattern, with what it is to be filled in by.
    #[inline]
    fn of_pattern<'k>(&'k self, query: &Query<'_>, seek: Seek<'k>, stands: Stands) -> Option<Hit<'k>> {
        let answers = Answers::of(query, seek.zone(), stands)?;
        let pattern = self.patterns.find(query, &seek, answers)?;
        Some(Hit { source: Source::Pattern(pattern, answers), scope: 0 })
    }

    /// Makes the same answer the long way and sends that, should they differ.
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

    /// Keeps an answer that others may get, too.
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
            let Some((class, _)) = snapshot.class_of(service, &Asking { transport: from, ecs: query.ecs }) else {
                return;
            };
            self.steered[steered_place(query.hash)] = (query.hash, service);
            self.table.put(&key, query.name, |mut wire| {
                wire.set(&bare[..HEADER + query.name.as_wire().len()]);
                Entry { asks: Some(service), wire, ..Entry::empty() }
            });
            key = key.of_class(class);
            decided = snapshot.service_generation(service);
        }
        self.table.put(&key, query.name, |mut wire| {
            wire.set(&bare);
            Entry { decided, asks: None, service, region, rcode, kind, wire }
        });
    }

    /// Keeps the pattern of a response without what was of its query alone, if it is of one that isn't there.
    fn keep_pattern(&mut self, query: &Query<'_>, snapshot: &Snapshot, bare: &[u8]) -> bool {
        let Some(seek) = snapshot.zones().seek(query.name, query.qtype) else { return false };
        let answers = Answers::of(query, seek.zone(), seek.locate(query.name).into());
        let answers = answers.filter(|answers| !self.patterns.have(query, &seek, *answers));
        let pattern = answers.and_then(|answers| Pattern::new(query, &seek, answers, bare));
        let is_one = pattern.is_some();
        pattern.into_iter().for_each(|pattern| self.patterns.put(pattern));
        is_one
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

/// A limiter that has already counted this query.
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
