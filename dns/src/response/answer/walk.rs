//! Looks one query up in the zones (RFC 1034 §4.3.2). Takes a zone and a query, returns the three sections of the
//! answer. Called by `answer`.

mod signed;

use bailiwick_rules::table::RegionIndex;

use self::signed::DenialPlace;
use super::{Answer, AnswerSet, Data, Owner, Query, Rcode, Responses, Signed, SteeredAnswer, SteeredAnswers};
use crate::protocol::name::Name;
use crate::protocol::rdata::{Rdatas, rtype, target};
use crate::zone::{LookupResult, NodeId, RrSet, ServiceIndex, Zone};
use crate::zones::{ServedZone, Zones};

/// How many aliases one answer follows. Of a longer chain, only the first part is answered, and the resolver asks for
/// the rest.
const MAX_CHASE: usize = 8;

/// Answers from `zone`, which contains the queried name, and from other zones if aliases point there.
pub(super) fn walk<'a>(
    zones: &'a Zones,
    steering: &'a impl SteeredAnswers,
    query: &Query<'a>,
    zone: &'a ServedZone,
) -> Answer<'a> {
    let compact_ok = query.dnssec.ok && query.dnssec.compact_ok && zone.signed().is_some();
    let answer = Answer { authoritative: true, compact_ok, ..Answer::bare(Rcode::NOERROR) };
    let mut walk = Walk { zones, steering, query, answer };
    walk.follow(zone);
    walk.signed_in_time()
}

/// One query on its way through the zones (RFC 1034 §4.3.2).
struct Walk<'a, 'q, S> {
    zones: &'a Zones,
    steering: &'a S,
    query: &'q Query<'a>,
    answer: Answer<'a>,
}

/// The result of looking one name up.
enum Step<'a> {
    /// The answer is complete.
    Done,
    /// An alias was added. Its target has to be looked up next.
    Alias(Owner<'a>),
}

/// A name with the node that answers for it.
#[derive(Clone, Copy)]
struct At<'w, 'a> {
    zone: &'a ServedZone,
    node: NodeId,
    name: &'w Owner<'a>,
    /// Whether the node is a wildcard that was expanded to the name.
    is_of_wildcard: bool,
}

/// An RRset of a node.
#[derive(Clone, Copy)]
struct Set<'a> {
    rtype: u16,
    ttl: u32,
    rdatas: Rdatas<'a>,
    origin: Origin,
}

/// The answer has become SERVFAIL. The reason is in the answer.
struct ServFail;

/// The source of an RRset.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Origin {
    /// The master file.
    Static,
    /// The rules: a region, or `denied_answers`.
    Steered(Option<RegionIndex>),
    /// The zone's keys.
    Keys,
}

impl<'a, S: SteeredAnswers> Walk<'a, '_, S> {
    /// Looks the queried name up, and then the targets of aliases as long as they are in a zone of this server.
    fn follow(&mut self, mut zone: &'a ServedZone) {
        let mut name = Owner::Ref(self.query.qname);
        for chased in 0..=MAX_CHASE {
            let Step::Alias(target) = self.step(zone, &name) else {
                return;
            };
            let again = self.answer.answer.iter().any(|set| set.is(rtype::CNAME, target.name()));
            let next = self.zones.find(target.name(), self.query.qtype);
            let is_missing = self.zones.is_missing(target.name(), self.query.qtype, next);
            let Some(next) = next.filter(|_| !is_missing) else {
                return;
            };
            if again || chased == MAX_CHASE {
                return;
            }
            (name, zone) = (target, next);
        }
    }

    /// Looks one name up in its zone.
    fn step(&mut self, zone: &'a ServedZone, name: &Owner<'a>) -> Step<'a> {
        let at = |node, is_of_wildcard| At { zone, node, name, is_of_wildcard };
        let location = zone.locate(name.name());
        if matches!(location, LookupResult::Exact(_)) && self.answer.answer.is_empty() {
            self.answer.keepable = true;
        }
        match location {
            // DS at a delegation is the parent's own data (RFC 4035 §3.1.4.1).
            LookupResult::Cut { node, below: 0 } if self.query.qtype == rtype::DS => self.at_node(at(node, false)),
            LookupResult::Exact(node) => self.at_node(at(node, false)),
            LookupResult::Wildcard(node) => self.at_node(at(node, true)),
            LookupResult::Cut { node, below } => self.refer(zone, node, name.ancestor(below)),
            LookupResult::Dname { node, below } => self.redirect(zone, node, name, below),
            LookupResult::Missing => self.miss(zone, name),
        }
    }

    /// Answers for a name that exists or that a wildcard matches (RFC 1034 §4.3.2 steps 3a and 3c).
    fn at_node(&mut self, at: At<'_, 'a>) -> Step<'a> {
        let At { zone, node, name, .. } = at;
        let mut qtype = self.query.qtype;
        if let (Some(signed), rtype::RRSIG | rtype::NSEC) = (zone.signed(), qtype) {
            return self.answer_query_for_proof(at, signed);
        }
        if qtype == rtype::ANY {
            // One RRset that the server chooses is enough (RFC 8482 §4.1).
            match first_type(zone, node) {
                Some(rtype) => qtype = rtype,
                None => return self.deny(at),
            }
        }
        for rtype in [qtype, rtype::CNAME] {
            let Ok(found) = self.find(at, rtype) else { return Step::Done };
            let Some(set) = found else { continue };
            let rdatas = set.rdatas;
            if rdatas.is_empty() {
                break; // the rules publish this type, but this region has no record of it: no data
            }
            let Some(signed) = self.signatures(at, &set) else { return Step::Done };
            let data = Data::Stored(rdatas);
            self.answer.answer.push(AnswerSet { owner: name.clone(), rtype, ttl: set.ttl, data, signed });
            if rtype == rtype::CNAME && qtype != rtype::CNAME {
                let target = rdatas.first().and_then(|rdata| target(rtype, rdata));
                return target.map_or(Step::Done, |target| Step::Alias(Owner::Ref(target)));
            }
            self.complete(zone, rtype, rdatas, set.origin == Origin::Static);
            return Step::Done;
        }
        self.deny(at)
    }

    /// The RRset of a node and type, if there is one. An error if the rules allow no records; then the answer has
    /// become SERVFAIL.
    fn find(&mut self, at: At<'_, 'a>, rtype: u16) -> Result<Option<Set<'a>>, ServFail> {
        let At { zone, node, .. } = at;
        let answer_set = |set: &'a RrSet, origin| Set { rtype, ttl: set.ttl, rdatas: set.rdatas.as_ref(), origin };
        match zone.steered(node) {
            Some(owner) if owner.types.contains(&rtype) => self.ask(owner.service, rtype).map(Some),
            _ => Ok(match zone.set(node, rtype) {
                Some(set) => Some(answer_set(set, Origin::Static)),
                None => zone.key_set(node, rtype).map(|set| answer_set(set, Origin::Keys)),
            }),
        }
    }

    /// The RRset that the rules give this client. An error if the rules allow no records; then the answer has become
    /// SERVFAIL.
    fn ask(&mut self, service: ServiceIndex, rtype: u16) -> Result<Set<'a>, ServFail> {
        let steering = self.steering;
        if *self.answer.service.get_or_insert(service) != service {
            self.answer.keepable = false;
        }
        self.answer.origin = steering.origin_of(service, &self.query.client);
        match steering.resolve(service, rtype, &self.query.client) {
            SteeredAnswer::Records { ttl, rdatas, scope, region } => {
                // A chain of aliases applies only to clients for which every link applies. All the links' prefixes
                // contain the client, so the longest prefix is their intersection.
                self.answer.scope = self.answer.scope.max(scope);
                self.answer.region = region;
                Ok(Set { rtype, ttl, rdatas, origin: Origin::Steered(region) })
            }
            SteeredAnswer::Nothing { scope, ede } => {
                self.answer.scope = self.answer.scope.max(scope);
                self.answer.region = None;
                self.fail(ede);
                Err(ServFail)
            }
        }
    }

    /// Makes the answer SERVFAIL, for this reason (RFC 8914).
    fn fail(&mut self, ede: u16) {
        let Answer { scope, service, region, origin, compact_ok, .. } = self.answer;
        let bare = Answer::bare(Rcode::SERVFAIL);
        self.answer = Answer { scope, ede: Some(ede), service, region, origin, compact_ok, ..bare };
    }

    /// Adds what a resolver would ask for next: the zone's servers, and the addresses of the hosts that the answer
    /// names (RFC 1034 §4.3.2 step 6). Steered answers get no servers, so that they stay small.
    fn complete(&mut self, zone: &'a ServedZone, rtype: u16, rdatas: Rdatas<'a>, is_static: bool) {
        // In a signed zone, these records would need signatures as well.
        if self.query.responses == Responses::Minimal || (self.query.dnssec.ok && zone.signed().is_some()) {
            return;
        }
        self.add_addresses(zone, rtype, rdatas);
        let names_itself =
            rtype == rtype::NS && self.answer.answer.last().is_some_and(|set| set.owner.name() == zone.origin());
        if is_static
            && !names_itself
            && let Some(servers) = zone.set(zone.apex(), rtype::NS)
        {
            self.authority(zone, zone.apex(), Owner::Ref(zone.origin()), servers, servers.ttl);
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref());
        }
    }

    /// Answers for a name that exists, but doesn't have the type.
    fn deny(&mut self, at: At<'_, 'a>) -> Step<'a> {
        self.add_soa(at.zone);
        self.add_nsec(at.zone, at.name, at.place());
        Step::Done
    }

    /// Answers for a name that doesn't exist.
    fn miss(&mut self, zone: &'a ServedZone, name: &Owner<'a>) -> Step<'a> {
        if let (Some(signed), true, rtype::RRSIG | rtype::NSEC) =
            (zone.signed(), self.query.dnssec.ok, self.query.qtype)
        {
            return self.answer_query_for_nsec(zone, signed, name, DenialPlace::Nowhere);
        }
        self.answer.rcode = self.rcode_of_missing(zone);
        self.add_soa(zone);
        self.add_nsec(zone, name, DenialPlace::Nowhere);
        Step::Done
    }

    /// Adds the SOA of a negative answer, with the negative TTL (RFC 2308 §3).
    fn add_soa(&mut self, zone: &'a ServedZone) {
        if let Some(soa) = zone.set(zone.apex(), rtype::SOA) {
            self.authority(zone, zone.apex(), Owner::Ref(zone.origin()), soa, zone.negative_ttl());
        }
    }

    /// Answers with a referral (RFC 1034 §4.3.2 step 3b). The AA bit is about the first name only (RFC 1035 §4.1.1), so
    /// it is set if an alias precedes the referral.
    fn refer(&mut self, zone: &'a ServedZone, node: NodeId, owner: Owner<'a>) -> Step<'a> {
        self.answer.authoritative = !self.answer.answer.is_empty();
        if let Some(servers) = zone.set(node, rtype::NS) {
            self.authority(zone, node, owner.clone(), servers, servers.ttl);
            match zone.set(node, rtype::DS).filter(|_| self.query.dnssec.ok && zone.signed().is_some()) {
                Some(ds) => self.authority(zone, node, owner, ds, ds.ttl),
                None => self.add_nsec(zone, &owner, DenialPlace::Node(node)),
            }
            if self.has_failed() {
                return Step::Done;
            }
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref());
        }
        Step::Done
    }

    /// Answers for a name below a DNAME: the labels below the DNAME are put before its target (RFC 6672 §3.2).
    fn redirect(&mut self, zone: &'a ServedZone, node: NodeId, name: &Owner<'a>, below: usize) -> Step<'a> {
        let dname = zone.set(node, rtype::DNAME);
        let Some((dname, to)) = dname.and_then(|set| Some((set, target(rtype::DNAME, set.rdatas.as_ref().first()?)?)))
        else {
            return Step::Done;
        };
        let owner = name.ancestor(below);
        let target = name.name().strip_suffix(owner.name()).and_then(|labels| Name::join(labels, to));
        // If the target is below the DNAME itself, the name would be redirected forever and get longer each time. So it
        // is redirected only once.
        let endless = to.is_within(owner.name());
        let (ttl, data) = (dname.ttl, Data::Stored(dname.rdatas.as_ref()));
        if !self.answer.answer.iter().any(|set| set.is(rtype::DNAME, owner.name())) {
            let set = Set { rtype: rtype::DNAME, ttl, rdatas: dname.rdatas.as_ref(), origin: Origin::Static };
            let Some(signed) = self.signatures(At { zone, node, name: &owner, is_of_wildcard: false }, &set) else {
                return Step::Done;
            };
            self.answer.answer.push(AnswerSet { owner, rtype: rtype::DNAME, ttl, data, signed });
        }
        let Some(target) = target else {
            self.answer.rcode = Rcode::YXDOMAIN;
            return Step::Done;
        };
        // The CNAME has the TTL of the DNAME that made it (RFC 6672 §3.1), and isn't signed (§5.3.1).
        let (data, signed) = (Data::Made(target.clone()), Signed::No);
        self.answer.answer.push(AnswerSet { owner: name.clone(), rtype: rtype::CNAME, ttl, data, signed });
        if endless || matches!(self.query.qtype, rtype::CNAME | rtype::ANY) {
            return Step::Done;
        }
        Step::Alias(Owner::Made(target))
    }

    /// Adds an RRset to the authority section, with its signatures.
    fn authority(&mut self, zone: &'a ServedZone, node: NodeId, owner: Owner<'a>, set: &'a RrSet, ttl: u32) {
        let (rtype, rdatas) = (set.rtype, set.rdatas.as_ref());
        // The NS records of a delegation aren't signed, because they belong to the child zone (RFC 4035 §2.2).
        let signed = if rtype == rtype::NS && zone.is_cut(node) {
            Some(Signed::No)
        } else {
            let set = Set { rtype, ttl: set.ttl, rdatas, origin: Origin::Static };
            self.signatures(At { zone, node, name: &owner, is_of_wildcard: false }, &set)
        };
        if let Some(signed) = signed {
            self.answer.authority.push(AnswerSet { owner, rtype, ttl, data: Data::Stored(rdatas), signed });
        }
    }

    /// Adds the static addresses of the hosts that `rdatas` name, unless the answer has them already. Glue is included,
    /// that of sibling zones too (RFC 9471 §2). A client that wants signatures gets only glue, which is never signed
    /// (RFC 4035 §2.2, §3.1.1).
    fn add_addresses(&mut self, zone: &'a ServedZone, rtype: u16, rdatas: Rdatas<'a>) {
        if !matches!(rtype, rtype::NS | rtype::MX | rtype::SRV | rtype::SVCB | rtype::HTTPS) {
            return;
        }
        for host in rdatas.iter().filter_map(|rdata| target(rtype, rdata)) {
            if !host.is_within(zone.origin()) {
                continue;
            }
            let node = match zone.locate(host) {
                LookupResult::Exact(_) | LookupResult::Wildcard(_)
                    if self.query.dnssec.ok && zone.signed().is_some() =>
                {
                    None
                }
                LookupResult::Exact(node) | LookupResult::Wildcard(node) => Some(node),
                LookupResult::Cut { .. } => zone.glue(host),
                LookupResult::Dname { .. } | LookupResult::Missing => None,
            };
            let Some(node) = node else { continue };
            for set in zone.sets(node).iter().filter(|set| matches!(set.rtype, rtype::A | rtype::AAAA)) {
                let sections = self.answer.answer.iter().chain(&self.answer.additional);
                if !sections.into_iter().any(|other| other.is(set.rtype, host)) {
                    let (data, signed) = (Data::Stored(set.rdatas.as_ref()), Signed::No);
                    let (owner, rtype, ttl) = (Owner::Ref(host), set.rtype, set.ttl);
                    self.answer.additional.push(AnswerSet { owner, rtype, ttl, data, signed });
                }
            }
        }
    }
}

/// The type that answers a query for ANY at a name: the first type of the zone file, or else of the rules.
fn first_type(zone: &Zone, node: NodeId) -> Option<u16> {
    let first = zone.sets(node).first().map(|set| set.rtype);
    first.or_else(|| zone.steered(node)?.types.first().copied())
}

#[cfg(test)]
mod tests;
