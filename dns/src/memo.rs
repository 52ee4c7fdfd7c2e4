//! Encoded answers kept for whoever asks the same: a packet and the snapshot of the moment enter, the bytes [`respond`] would make of them leave,
//! most often by copying. Each UDP thread has one; nothing in it is shared.
//!
//! What is kept depends on nothing but the name, the type, the class of clients and whether EDNS and DO are there, and holds until rules, zones,
//! geography or health change an answer. What differs from query to query is patched: id, RD, CD, the case of the question, the client subnet
//! with its scope, and whether the whole fits the client's payload. Answers that had to be signed at once aren't kept: another signature would be
//! as good and not the same. Everything else is answered by [`respond`] on the same thread, and of what
//! is kept every so-manieth is compared with it.

#[cfg(test)]
mod cost;
mod denial;
mod query;
mod table;
#[cfg(test)]
mod tests;

use std::cell::Cell;
use std::net::IpAddr;

use bailiwick_rules::table::RegionIndex;

use crate::answer::{Asking, Rcode, Steered, SteeredAnswers};
use crate::name::NameRef;
use crate::snapshot::Snapshot;
use crate::wire::{Class, Context, HEADER, Limiter, Outcome, TC, Transport, Verdict, respond};
use crate::zone::{Found, ServiceIndex, Zone};
use denial::{Denial, Denials};
use query::{Query, Scratch};
use table::{Entry, Key, Table, Wire};

/// The octets of an OPT record without options.
const OPT: usize = 11;
/// Longer responses aren't kept, so that the memory of the table is bounded by what it usually is.
const LONGEST: usize = 512;
/// So many datagrams of one batch tell whether it pays to look ahead.
const ENOUGH: u32 = 8;
/// For so many batches it isn't done if it didn't.
const PAUSE: u32 = 15;
/// How many steered names are remembered to guess by, a power of two.
const STEERED: usize = 256;
/// Of so many hits one is compared with what it should be.
const SHADOW: u32 = 1 << 16;

/// What became of one datagram.
pub(crate) struct Told {
    /// As [`respond`] tells it.
    pub(crate) outcome: Outcome,
    /// The region whose records they are, if a service answered.
    pub(crate) region: Option<RegionIndex>,
}

/// Whether it pays to look ahead: under a flood of names that don't exist it doesn't.
#[derive(Debug, Default, Clone, Copy)]
struct Foresight {
    /// Datagrams of this batch that were looked at beforehand.
    tried: u32,
    /// Those for which something was kept.
    useful: u32,
    /// For how many batches nothing is looked at.
    pause: u32,
}

/// One thread's kept answers.
pub(crate) struct Memo {
    table: Table,
    denials: Denials,
    /// Hashes of steered names lately asked for, with their services: a guess at what to load.
    steered: Box<[(u64, ServiceIndex); STEERED]>,
    foresight: Foresight,
    scratch: Scratch,
    /// The generation of rules, zones and geography that all of it holds in.
    world: u64,
    /// Hits since the last comparison.
    unwatched: u32,
    hits: u64,
    mismatches: u64,
    shadow: Vec<u8>,
}

impl Memo {
    pub(crate) fn new() -> Self {
        Self {
            table: Table::new(),
            denials: Denials::new(),
            foresight: Foresight::default(),
            steered: Box::new([(0, ServiceIndex(0)); STEERED]),
            scratch: Scratch::new(),
            world: 0,
            unwatched: 0,
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

    /// Begins a batch.
    pub(crate) fn begin(&mut self) {
        let Foresight { tried, useful, pause } = self.foresight;
        let vain = tried >= ENOUGH && useful < tried / 8;
        self.foresight = Foresight { tried: 0, useful: 0, pause: if vain { PAUSE } else { pause.saturating_sub(1) } };
    }

    /// Loads what the answer to this datagram is probably made of, to be there when it is answered.
    pub(crate) fn expect(&mut self, snapshot: &Snapshot, packet: &[u8], from: IpAddr) {
        if self.foresight.pause > 0 {
            return;
        }
        let Some(query) = query::read(packet, &mut self.scratch) else { return };
        self.foresight.tried += 1;
        match self.steered[steered_place(query.hash)] {
            (hash, service) if hash == query.hash && self.world == snapshot.generation() => {
                self.foresight.useful += 1;
                if let Some(classes) = snapshot.world().classes_of(service) {
                    classes.expect(query.ecs.filter(|ecs| ecs.source > 0).map_or(from, |ecs| ecs.address));
                }
            }
            _ => self.foresight.useful += u32::from(self.table.expect(&Key::new(&query))),
        }
    }

    /// Answers one datagram into `out`, which is overwritten: byte for byte what [`respond`] answers.
    pub(crate) fn respond(
        &mut self,
        context: &Context<'_>,
        snapshot: &Snapshot,
        packet: &[u8],
        from: IpAddr,
        out: &mut Vec<u8>,
    ) -> Told {
        let Some(query) = query::read(packet, &mut self.scratch) else {
            return in_full(context, snapshot, packet, from, out);
        };
        if query.is_dnssec_ok() && snapshot.has_stale_signatures(context.now) {
            return in_full(context, snapshot, packet, from, out);
        }
        if self.world != snapshot.generation() {
            self.forget();
            self.world = snapshot.generation();
        }
        let Some(kept) = self.find(&query, snapshot, from) else {
            let told = in_full(context, snapshot, packet, from, out);
            self.keep(&query, snapshot, from, &told, out);
            return told;
        };
        let (entry, mut limit) = (kept.entry, query.limit);
        if let Some(limiter) = context.limiter {
            let admitted = limiter.admit(from);
            if admitted != Verdict::Answer {
                let admitted = Admitted { limiter, admitted };
                return in_full(&Context { limiter: Some(&admitted), ..*context }, snapshot, packet, from, out);
            }
            match limiter.judge(from, entry.kind) {
                Verdict::Answer => {}
                Verdict::Slip => limit = 0,
                Verdict::Drop => {
                    out.clear();
                    return Told { outcome: Outcome::Dropped, region: entry.region };
                }
            }
        }
        let truncated = patch(&kept, &query, packet, limit, out);
        let told = Told {
            outcome: Outcome::Answered {
                rcode: entry.rcode,
                qtype: Some(query.qtype),
                truncated,
                service: entry.service,
                class: entry.kind,
                keepable: kept.denial.is_none() && !truncated,
            },
            region: entry.region,
        };
        self.hits += 1;
        self.unwatched += 1;
        if self.unwatched >= SHADOW && limit != 0 {
            self.unwatched = 0;
            self.compare(context, snapshot, packet, from, out);
        }
        told
    }

    fn forget(&mut self) {
        self.table.clear();
        self.denials.clear();
    }

    /// What is kept for this query in this snapshot.
    fn find(&self, query: &Query<'_>, snapshot: &Snapshot, from: IpAddr) -> Option<Kept<'_>> {
        let name = self.scratch.name(query);
        let key = Key::new(query);
        let Some(entry) = self.table.find(&key, name) else {
            return self.find_denial(query, snapshot);
        };
        let Some(service) = entry.asks else {
            return Some(Kept { entry, question_end: query.question_end, scope: 0, denial: None });
        };
        // The name is steered: what it is answered with depends on the client.
        let (class, scope) = snapshot.class_of(service, &Asking { transport: from, ecs: query.ecs })?;
        let entry = self.table.find(&key.of_class(class), name)?;
        let holds = entry.decided == snapshot.service_generation(service);
        holds.then_some(Kept { entry, question_end: query.question_end, scope, denial: None })
    }

    /// The pattern of a name error.
    fn find_denial(&self, query: &Query<'_>, snapshot: &Snapshot) -> Option<Kept<'_>> {
        let (name, zone) = self.missing(query, snapshot)?;
        let denial = self.denials.find(zone, query.form, name)?;
        Some(Kept { entry: &denial.entry, question_end: denial.question_end, scope: 0, denial: Some(denial) })
    }

    /// The name and its zone, if it is in one of ours and doesn't exist.
    fn missing<'m>(&'m self, query: &Query<'_>, snapshot: &'m Snapshot) -> Option<(NameRef<'m>, &'m Zone)> {
        let name = NameRef::from_wire(self.scratch.name(query)).ok()?;
        let zone = snapshot.zones().find(name, query.qtype)?;
        (zone.locate(name) == Found::Missing).then_some((name, zone))
    }

    /// Makes the same answer the long way and sends that, should they differ.
    #[cold]
    fn compare(&mut self, context: &Context<'_>, snapshot: &Snapshot, packet: &[u8], from: IpAddr, out: &mut Vec<u8>) {
        in_full(&Context { limiter: None, ..*context }, snapshot, packet, from, &mut self.shadow);
        if *out != self.shadow {
            self.mismatches += 1;
            self.forget();
            std::mem::swap(out, &mut self.shadow);
            tracing::error!(
                "a kept answer was not what it should be: please report it. It was mended, and all that was kept is dropped"
            );
        }
    }

    /// Keeps an answer that others may get, too.
    fn keep(&mut self, query: &Query<'_>, snapshot: &Snapshot, from: IpAddr, told: &Told, out: &[u8]) {
        let Outcome::Answered { rcode, service, class: kind, keepable, truncated, .. } = told.outcome else { return };
        if truncated || out.len() > LONGEST {
            return;
        }
        let name = self.scratch.name(query);
        let bare = &out[..out.len() - query.option.len()];
        let made = |decided, mut wire: Wire| {
            wire.set(bare);
            blank(wire.bytes_mut(), name, query);
            Entry { decided, asks: None, service, region: told.region, rcode, kind, wire }
        };
        let mut key = Key::new(query);
        if !keepable {
            if rcode == Rcode::NXDOMAIN
                && service.is_none()
                && let Some((name, zone)) = self.missing(query, snapshot)
            {
                let opt = if query.has_edns() { OPT } else { 0 };
                if let Some(denial) = Denial::new(zone, query.form, name, opt, made(0, Wire::default())) {
                    self.denials.put(denial);
                }
            }
            return;
        }
        let mut decided = 0;
        if let Some(service) = service {
            let Some((class, _)) = snapshot.class_of(service, &Asking { transport: from, ecs: query.ecs }) else {
                return;
            };
            self.steered[steered_place(query.hash)] = (query.hash, service);
            self.table.put(&key, name, |mut wire| {
                wire.set(&bare[..HEADER + name.len()]);
                wire.bytes_mut()[HEADER..].copy_from_slice(name);
                Entry { asks: Some(service), wire, ..Entry::empty() }
            });
            key = key.of_class(class);
            decided = snapshot.service_generation(service);
        }
        self.table.put(&key, name, |wire| made(decided, wire));
    }
}

/// What was kept and fits a query.
struct Kept<'m> {
    entry: &'m Entry,
    /// Where the question ends in it.
    question_end: usize,
    /// For which prefix length around the client it holds.
    scope: u8,
    denial: Option<&'m Denial>,
}

#[allow(clippy::cast_possible_truncation)] // only the lower bits are wanted
fn steered_place(hash: u64) -> usize {
    hash as usize % STEERED
}

/// Answers a datagram the long way.
fn in_full(context: &Context<'_>, snapshot: &Snapshot, packet: &[u8], from: IpAddr, out: &mut Vec<u8>) -> Told {
    tell(context, snapshot, packet, from, Transport::Udp, out)
}

/// Answers a packet by this snapshot, and tells which region did.
pub(crate) fn tell(
    context: &Context<'_>,
    snapshot: &Snapshot,
    packet: &[u8],
    from: IpAddr,
    transport: Transport,
    out: &mut Vec<u8>,
) -> Told {
    let steering = Watched { snapshot, region: Cell::new(None) };
    let outcome = respond(context, snapshot.zones(), &steering, packet, from, transport, out);
    Told { outcome, region: steering.region.get() }
}

/// Takes out of a response without its client subnet what was of its query alone.
fn blank(wire: &mut [u8], name: &[u8], query: &Query<'_>) {
    wire[..2].fill(0);
    wire[2] &= !query::RD;
    wire[3] &= !query::CD;
    wire[HEADER..HEADER + name.len()].copy_from_slice(name);
    if query.ecs.is_some()
        && let Some(length) = wire.last_chunk_mut::<2>()
    {
        *length = [0; 2];
    }
}

/// Writes what is kept as the answer to this query; whether it was truncated.
fn patch(kept: &Kept<'_>, query: &Query<'_>, packet: &[u8], limit: usize, out: &mut Vec<u8>) -> bool {
    out.clear();
    let (head, tail) = kept.entry.wire.bytes().split_at(kept.question_end);
    let truncated = query.question_end + tail.len() + query.option.len() > limit;
    out.extend_from_slice(&packet[..query.question_end]);
    if truncated {
        let opt = if query.has_edns() { OPT } else { 0 };
        out.extend_from_slice(&tail[tail.len() - opt..]);
    } else {
        out.extend_from_slice(tail);
        if let Some(denial) = kept.denial {
            denial.shift(out, query.question_end);
        }
    }
    // Id and question are the query's, and so are two flags.
    out[2] = head[2] | packet[2] & query::RD;
    out[3] = head[3] | packet[3] & query::CD;
    out[4..HEADER].copy_from_slice(&head[4..HEADER]);
    if truncated {
        out[2] |= TC;
        out[6..HEADER].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(query.has_edns())]);
    }
    if let Some(ecs) = query.ecs {
        // Behind the OPT's own octets, which end with the length of its options: at most 24.
        let end = out.len();
        out[end - 1] = query.option.len().to_le_bytes()[0];
        out.extend_from_slice(query.option);
        out[end + 7] = if ecs.source == 0 { 0 } else { kept.scope };
    }
    truncated
}

/// A snapshot that remembers which region it answered with.
struct Watched<'s> {
    snapshot: &'s Snapshot,
    region: Cell<Option<RegionIndex>>,
}

impl SteeredAnswers for Watched<'_> {
    fn resolve(&self, service: ServiceIndex, rtype: u16, client: &Asking) -> Steered<'_> {
        let (steered, region) = self.snapshot.resolve_to(service, rtype, client);
        self.region.set(region);
        steered
    }
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
