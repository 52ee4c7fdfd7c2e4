//! The way of one query through the zones (RFC 1034 §4.3.2): a zone and a query enter, the three sections leave; `answer` calls it.

use super::{Answer, AnswerSet, Data, Owner, Query, Rcode, Steered, SteeredAnswers};
use crate::name::Name;
use crate::rdata::{Rdatas, rtype, target};
use crate::zone::{Found, NodeId, RrSet, ServiceIndex, Zone, Zones};

/// How many aliases one answer follows. A longer chain is given as far as that; the resolver asks on.
const MAX_CHASE: usize = 8;
/// Answers from `zone`, the one the query's name lies in, and from the others where aliases lead there.
pub(super) fn walk<'a>(
    zones: &'a Zones,
    steering: &'a impl SteeredAnswers,
    query: &Query<'a>,
    zone: &'a Zone,
) -> Answer<'a> {
    let answer = Answer { authoritative: true, ..Answer::bare(Rcode::NOERROR) };
    let mut walk = Walk { zones, steering, query, answer };
    walk.follow(zone);
    walk.answer
}

/// One query on its way through the zones (RFC 1034 §4.3.2).
struct Walk<'a, 'q, S> {
    zones: &'a Zones,
    steering: &'a S,
    query: &'q Query<'a>,
    answer: Answer<'a>,
}

/// What one name came to.
enum Step<'a> {
    /// The answer is complete.
    Done,
    /// An alias was added; its target is next.
    Alias(Owner<'a>),
}

impl<'a, S: SteeredAnswers> Walk<'a, '_, S> {
    /// From name to name along aliases, for as long as they stay in our zones.
    fn follow(&mut self, mut zone: &'a Zone) {
        let mut name = Owner::Ref(self.query.qname);
        for chased in 0..=MAX_CHASE {
            let Step::Alias(target) = self.step(zone, &name) else {
                return;
            };
            let again = self.answer.answer.iter().any(|set| set.is(rtype::CNAME, target.name()));
            let Some(next) = self.zones.find(target.name(), self.query.qtype) else {
                return;
            };
            if again || chased == MAX_CHASE {
                return;
            }
            (name, zone) = (target, next);
        }
    }

    fn step(&mut self, zone: &'a Zone, name: &Owner<'a>) -> Step<'a> {
        let found = zone.locate(name.name());
        if matches!(found, Found::Exact(_)) && self.answer.answer.is_empty() {
            self.answer.keepable = true;
        }
        match found {
            // DS at a delegation is the parent's own data (RFC 4035 §3.1.4.1).
            Found::Cut { node, below: 0 } if self.query.qtype == rtype::DS => self.at_node(zone, node, name),
            Found::Exact(node) | Found::Wildcard(node) => self.at_node(zone, node, name),
            Found::Cut { node, below } => self.refer(zone, node, name.ancestor(below)),
            Found::Dname { node, below } => self.redirect(zone, node, name, below),
            Found::Missing => {
                self.answer.rcode = Rcode::NXDOMAIN;
                self.deny(zone)
            }
        }
    }

    /// The name exists, or a wildcard stands for it (RFC 1034 §4.3.2 steps 3a and 3c).
    fn at_node(&mut self, zone: &'a Zone, node: NodeId, name: &Owner<'a>) -> Step<'a> {
        let steered = zone.steered(node);
        let steers = |rtype: u16| steered.is_some_and(|owner| owner.types.contains(&rtype));
        let mut qtype = self.query.qtype;
        if qtype == rtype::ANY {
            // One RRset of our choice is enough (RFC 8482 §4.1).
            let first = zone.sets(node).first().map(|set| set.rtype);
            match first.or_else(|| steered.and_then(|owner| owner.types.first().copied())) {
                Some(rtype) => qtype = rtype,
                None => return self.deny(zone),
            }
        }
        for rtype in [qtype, rtype::CNAME] {
            let found = if let Some(owner) = steered
                && steers(rtype)
            {
                let Some(found) = self.ask(owner.service, rtype) else {
                    return Step::Done;
                };
                found
            } else if let Some(set) = zone.set(node, rtype) {
                (set.ttl, set.rdatas.as_ref())
            } else {
                continue;
            };
            let (ttl, rdatas) = found;
            if rdatas.is_empty() {
                break; // a type that the rules have nothing for: no data
            }
            self.answer.answer.push(AnswerSet { owner: name.clone(), rtype, ttl, data: Data::Stored(rdatas) });
            if rtype == rtype::CNAME && qtype != rtype::CNAME {
                let target = rdatas.first().and_then(|rdata| target(rtype, rdata));
                return target.map_or(Step::Done, |target| Step::Alias(Owner::Ref(target)));
            }
            self.complete(zone, rtype, rdatas, !steers(rtype));
            return Step::Done;
        }
        self.deny(zone)
    }

    /// What the rules say, or `None` when they offer nothing and the answer became SERVFAIL.
    fn ask(&mut self, service: ServiceIndex, rtype: u16) -> Option<(u32, Rdatas<'a>)> {
        let steering = self.steering;
        if *self.answer.service.get_or_insert(service) != service {
            self.answer.keepable = false;
        }
        match steering.resolve(service, rtype, &self.query.client) {
            Steered::Records { ttl, rdatas, scope } => {
                // A chain holds where all of its links hold: their prefixes all contain the client, so the longest is the meet.
                self.answer.scope = self.answer.scope.max(scope);
                Some((ttl, rdatas))
            }
            Steered::Nothing { scope, ede } => {
                let scope = self.answer.scope.max(scope);
                self.answer =
                    Answer { scope, ede: Some(ede), service: self.answer.service, ..Answer::bare(Rcode::SERVFAIL) };
                None
            }
        }
    }

    /// Adds what a resolver would ask next: the zone's servers, and addresses of what the answer names (RFC 1034 §4.3.2 step 6).
    /// Steered answers stay small.
    fn complete(&mut self, zone: &'a Zone, rtype: u16, rdatas: Rdatas<'a>, is_static: bool) {
        self.add_addresses(zone, rtype, rdatas);
        let names_itself =
            rtype == rtype::NS && self.answer.answer.last().is_some_and(|set| set.owner.name() == zone.origin());
        if is_static
            && !names_itself
            && let Some(servers) = zone.set(zone.apex(), rtype::NS)
        {
            self.authority(Owner::Ref(zone.origin()), servers, servers.ttl);
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref());
        }
    }

    /// The SOA for a negative answer, with the negative TTL (RFC 2308 §3).
    fn deny(&mut self, zone: &'a Zone) -> Step<'a> {
        if let Some(soa) = zone.set(zone.apex(), rtype::SOA) {
            self.authority(Owner::Ref(zone.origin()), soa, zone.negative_ttl());
        }
        Step::Done
    }

    /// A referral (RFC 1034 §4.3.2 step 3b). AA speaks of the first name only (RFC 1035 §4.1.1).
    fn refer(&mut self, zone: &'a Zone, node: NodeId, owner: Owner<'a>) -> Step<'a> {
        self.answer.authoritative = !self.answer.answer.is_empty();
        if let Some(servers) = zone.set(node, rtype::NS) {
            self.authority(owner, servers, servers.ttl);
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref());
        }
        Step::Done
    }

    /// A DNAME stands above the name: the rest of the name moves below its target (RFC 6672 §3.2).
    fn redirect(&mut self, zone: &'a Zone, node: NodeId, name: &Owner<'a>, below: usize) -> Step<'a> {
        let dname = zone.set(node, rtype::DNAME);
        let Some((dname, to)) = dname.and_then(|set| Some((set, target(rtype::DNAME, set.rdatas.as_ref().first()?)?)))
        else {
            return Step::Done;
        };
        let owner = name.ancestor(below);
        let made = name.name().strip_suffix(owner.name()).and_then(|labels| Name::join(labels, to));
        // A target below the DNAME itself moves the name forever, longer each time: once is enough.
        let endless = to.is_within(owner.name());
        let (ttl, data) = (dname.ttl, Data::Stored(dname.rdatas.as_ref()));
        if !self.answer.answer.iter().any(|set| set.is(rtype::DNAME, owner.name())) {
            self.answer.answer.push(AnswerSet { owner, rtype: rtype::DNAME, ttl, data });
        }
        let Some(made) = made else {
            self.answer.rcode = Rcode::YXDOMAIN;
            return Step::Done;
        };
        // The CNAME lives as long as the DNAME that made it (RFC 6672 §3.1).
        let data = Data::Made(made.clone());
        self.answer.answer.push(AnswerSet { owner: name.clone(), rtype: rtype::CNAME, ttl, data });
        if endless || matches!(self.query.qtype, rtype::CNAME | rtype::ANY) {
            return Step::Done;
        }
        Step::Alias(Owner::Made(made))
    }

    fn authority(&mut self, owner: Owner<'a>, set: &'a RrSet, ttl: u32) {
        self.answer.authority.push(AnswerSet { owner, rtype: set.rtype, ttl, data: Data::Stored(set.rdatas.as_ref()) });
    }

    /// Adds the static addresses of the hosts that `rdatas` name, glue included (siblings', too: RFC 9471 §2), unless the answer has them already.
    fn add_addresses(&mut self, zone: &'a Zone, rtype: u16, rdatas: Rdatas<'a>) {
        if !matches!(rtype, rtype::NS | rtype::MX | rtype::SRV | rtype::SVCB | rtype::HTTPS) {
            return;
        }
        for host in rdatas.iter().filter_map(|rdata| target(rtype, rdata)) {
            if !host.is_within(zone.origin()) {
                continue;
            }
            let node = match zone.locate(host) {
                Found::Exact(node) | Found::Wildcard(node) => Some(node),
                Found::Cut { .. } => zone.glue(host),
                Found::Dname { .. } | Found::Missing => None,
            };
            let Some(node) = node else { continue };
            for set in zone.sets(node).iter().filter(|set| matches!(set.rtype, rtype::A | rtype::AAAA)) {
                let sections = self.answer.answer.iter().chain(&self.answer.additional);
                if !sections.into_iter().any(|other| other.is(set.rtype, host)) {
                    let data = Data::Stored(set.rdatas.as_ref());
                    self.answer.additional.push(AnswerSet {
                        owner: Owner::Ref(host),
                        rtype: set.rtype,
                        ttl: set.ttl,
                        data,
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
