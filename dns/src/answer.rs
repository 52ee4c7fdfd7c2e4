//! All DNS semantics: zones, steering and one parsed query enter, the records and flags of the answer leave; `wire` calls it and writes bytes.
//!
//! Nothing here knows a socket, a clock or a packet. See [`answer`].

use std::net::IpAddr;

use crate::name::{Name, NameRef};
use crate::rdata::{Rdatas, rtype, target};
use crate::zone::{Found, NodeId, RrSet, ServiceIndex, Zone, Zones};

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asking {
    /// The source address of the packet or connection.
    pub transport: IpAddr,
    /// The EDNS Client Subnet option, if the query had one.
    pub ecs: Option<Ecs>,
}

/// A valid EDNS Client Subnet option of a query (RFC 7871 §6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ecs {
    /// The address; the bits after the prefix are zero.
    pub address: IpAddr,
    /// How many leading bits of the address are known. 0: the client wants to be located by nothing but the transport address.
    pub source: u8,
}

/// What the rules answer at a steered name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Steered<'a> {
    /// The chosen region's RRset.
    Records {
        /// Time to live in seconds.
        ttl: u32,
        /// The data.
        rdatas: Rdatas<'a>,
        /// For which prefix length around the client this holds.
        scope: u8,
    },
    /// Nothing may be answered: SERVFAIL.
    Nothing {
        /// For which prefix length around the client this holds.
        scope: u8,
        /// The extended error (RFC 8914): 18 for an empty fence, 14 when every region is withheld.
        ede: u16,
    },
}

/// The rules as `answer` sees them.
pub trait SteeredAnswers {
    /// What this client gets for a steered name of `service` and one of its types.
    fn resolve(&self, service: ServiceIndex, rtype: u16, client: &Asking) -> Steered<'_>;
}

/// No rules: for servers of static zones and for tests.
#[derive(Debug, Clone, Copy)]
pub struct NoSteering;

impl SteeredAnswers for NoSteering {
    fn resolve(&self, _: ServiceIndex, _: u16, _: &Asking) -> Steered<'_> {
        Steered::Nothing { scope: 0, ede: 14 }
    }
}

/// The question and who asks it.
#[derive(Debug, Clone, Copy)]
pub struct Query<'a> {
    /// The name asked for, in the case it was asked.
    pub qname: NameRef<'a>,
    /// The type asked for.
    pub qtype: u16,
    /// The class asked for.
    pub qclass: u16,
    /// The client.
    pub client: Asking,
}

/// A response code, extended ones included (RFC 6895 §2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Rcode(pub u16);

impl Rcode {
    /// No error.
    pub const NOERROR: Self = Self(0);
    /// The query is malformed.
    pub const FORMERR: Self = Self(1);
    /// The server can't answer.
    pub const SERVFAIL: Self = Self(2);
    /// The name doesn't exist.
    pub const NXDOMAIN: Self = Self(3);
    /// The server doesn't know this kind of query.
    pub const NOTIMP: Self = Self(4);
    /// The server won't answer.
    pub const REFUSED: Self = Self(5);
    /// A DNAME made the name too long (RFC 6672 §2.2).
    pub const YXDOMAIN: Self = Self(6);
    /// Unknown EDNS version (RFC 6891 §6.1.3).
    pub const BADVERS: Self = Self(16);
}

/// The owner of an RRset in an answer.
#[derive(Debug, Clone)]
pub enum Owner<'a> {
    /// Borrowed from the query, a zone or the rules.
    Ref(NameRef<'a>),
    /// Made by a DNAME.
    Made(Name),
}

impl<'a> Owner<'a> {
    /// The name.
    pub fn name(&self) -> NameRef<'_> {
        match self {
            Self::Ref(name) => *name,
            Self::Made(name) => name.as_ref(),
        }
    }

    /// The name without its first `count` labels.
    fn ancestor(&self, count: usize) -> Self {
        fn strip(name: NameRef<'_>, count: usize) -> NameRef<'_> {
            (0..count).fold(name, |name, _| name.parent().unwrap_or(NameRef::ROOT))
        }
        match self {
            Self::Ref(name) => Self::Ref(strip(*name, count)),
            Self::Made(name) => Self::Made(strip(name.as_ref(), count).to_name()),
        }
    }
}

/// The data of an RRset in an answer.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// From a zone or the rules.
    Stored(Rdatas<'a>),
    /// The target of a CNAME made by a DNAME.
    Made(Name),
}

impl Data<'_> {
    /// The rdatas in wire format.
    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let (stored, made) = match self {
            Self::Stored(rdatas) => (*rdatas, None),
            Self::Made(name) => (Rdatas::EMPTY, Some(name.as_wire())),
        };
        stored.iter().chain(made)
    }
}

/// One RRset of an answer.
#[derive(Debug, Clone)]
pub struct AnswerSet<'a> {
    /// The owner.
    pub owner: Owner<'a>,
    /// The type.
    pub rtype: u16,
    /// Time to live in seconds.
    pub ttl: u32,
    /// The data.
    pub data: Data<'a>,
}

/// What to send back.
#[derive(Debug, Clone)]
pub struct Answer<'a> {
    /// The response code.
    pub rcode: Rcode,
    /// The AA bit.
    pub authoritative: bool,
    /// The answer section.
    pub answer: Vec<AnswerSet<'a>>,
    /// The authority section.
    pub authority: Vec<AnswerSet<'a>>,
    /// The additional section without OPT.
    pub additional: Vec<AnswerSet<'a>>,
    /// For which prefix length around the client the answer holds (RFC 7871 §7.2.1); 0 for whatever doesn't depend on the client.
    pub scope: u8,
    /// An extended error code (RFC 8914).
    pub ede: Option<u16>,
    /// The first steered service that had a say.
    pub service: Option<ServiceIndex>,
}

impl Answer<'_> {
    /// An answer without records.
    pub fn bare(rcode: Rcode) -> Self {
        Self {
            rcode,
            authoritative: false,
            answer: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            scope: 0,
            ede: None,
            service: None,
        }
    }
}

/// Class IN.
const IN: u16 = 1;
/// How many aliases one answer follows. A longer chain is given as far as that; the resolver asks on.
const MAX_CHASE: usize = 8;
/// The extended error for names outside every zone: Not Authoritative (RFC 8914 §4.21).
const NOT_AUTHORITATIVE: u16 = 20;

/// Answers a query from the zones and the rules.
pub fn answer<'a>(
    zones: &'a Zones,
    steering: &'a impl SteeredAnswers,
    query: &Query<'a>,
) -> Answer<'a> {
    if let Some(rcode) = refusal(query) {
        return Answer::bare(rcode);
    }
    let Some(zone) = zones.find(query.qname, query.qtype) else {
        return Answer {
            ede: Some(NOT_AUTHORITATIVE),
            ..Answer::bare(Rcode::REFUSED)
        };
    };
    let mut walk = Walk {
        zones,
        steering,
        query,
        answer: Answer {
            authoritative: true,
            ..Answer::bare(Rcode::NOERROR)
        },
    };
    walk.follow(zone);
    walk.answer
}

/// The response code for what no zone answers, whatever the name.
fn refusal(query: &Query<'_>) -> Option<Rcode> {
    if query.qclass != IN {
        return Some(Rcode::REFUSED);
    }
    match query.qtype {
        rtype::AXFR | rtype::IXFR => Some(Rcode::REFUSED),
        // Types that name no data: 0 is reserved, OPT is for the additional section only, NXNAME for bitmaps (RFC 9824 §3.2).
        0 | rtype::OPT | rtype::NXNAME => Some(Rcode::FORMERR),
        rtype::TKEY | rtype::TSIG | rtype::MAILA | rtype::MAILB => Some(Rcode::NOTIMP),
        _ => None,
    }
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
            let again = self
                .answer
                .answer
                .iter()
                .any(|set| set.rtype == rtype::CNAME && set.owner.name() == target.name());
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
        match zone.locate(name.name()) {
            // DS at a delegation is the parent's own data (RFC 4035 §3.1.4.1).
            Found::Cut { node, below: 0 } if self.query.qtype == rtype::DS => {
                self.at_node(zone, node, name)
            }
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
            self.answer.answer.push(AnswerSet {
                owner: name.clone(),
                rtype,
                ttl,
                data: Data::Stored(rdatas),
            });
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
        self.answer.service.get_or_insert(service);
        match steering.resolve(service, rtype, &self.query.client) {
            Steered::Records { ttl, rdatas, scope } => {
                // A chain holds where all of its links hold: their prefixes all contain the client, so the longest is the meet.
                self.answer.scope = self.answer.scope.max(scope);
                Some((ttl, rdatas))
            }
            Steered::Nothing { scope, ede } => {
                let scope = self.answer.scope.max(scope);
                self.answer = Answer {
                    scope,
                    ede: Some(ede),
                    service: self.answer.service,
                    ..Answer::bare(Rcode::SERVFAIL)
                };
                None
            }
        }
    }

    /// Adds what a resolver would ask next: the zone's servers, and addresses of what the answer names (RFC 1034 §4.3.2 step 6).
    /// Steered answers stay small.
    fn complete(&mut self, zone: &'a Zone, rtype: u16, rdatas: Rdatas<'a>, is_static: bool) {
        self.add_addresses(zone, rtype, rdatas, Reach::Authority);
        let names_itself = rtype == rtype::NS
            && self
                .answer
                .answer
                .last()
                .is_some_and(|set| set.owner.name() == zone.origin());
        if is_static
            && !names_itself
            && let Some(servers) = zone.set(zone.apex(), rtype::NS)
        {
            self.authority(Owner::Ref(zone.origin()), servers, servers.ttl);
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref(), Reach::Authority);
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
            self.add_addresses(zone, rtype::NS, servers.rdatas.as_ref(), Reach::Glue);
        }
        Step::Done
    }

    /// A DNAME stands above the name: the rest of the name moves below its target (RFC 6672 §3.2).
    fn redirect(
        &mut self,
        zone: &'a Zone,
        node: NodeId,
        name: &Owner<'a>,
        below: usize,
    ) -> Step<'a> {
        let Some(dname) = zone.set(node, rtype::DNAME) else {
            return Step::Done;
        };
        let owner = name.ancestor(below);
        let made = dname
            .rdatas
            .as_ref()
            .first()
            .and_then(|rdata| target(rtype::DNAME, rdata))
            .and_then(|target| {
                let labels = name.name().strip_suffix(owner.name())?;
                Name::join(labels, target)
            });
        let known = self
            .answer
            .answer
            .iter()
            .any(|set| set.rtype == rtype::DNAME && set.owner.name() == owner.name());
        if !known {
            self.answer.answer.push(AnswerSet {
                owner,
                rtype: rtype::DNAME,
                ttl: dname.ttl,
                data: Data::Stored(dname.rdatas.as_ref()),
            });
        }
        let Some(made) = made else {
            self.answer.rcode = Rcode::YXDOMAIN;
            return Step::Done;
        };
        // The CNAME lives as long as the DNAME that made it (RFC 6672 §3.1).
        self.answer.answer.push(AnswerSet {
            owner: name.clone(),
            rtype: rtype::CNAME,
            ttl: dname.ttl,
            data: Data::Made(made.clone()),
        });
        // A name that stays below the DNAME would be moved forever, longer each time.
        let endless = made.as_ref().is_within(name.ancestor(below).name());
        if endless || matches!(self.query.qtype, rtype::CNAME | rtype::ANY) {
            return Step::Done;
        }
        Step::Alias(Owner::Made(made))
    }

    fn authority(&mut self, owner: Owner<'a>, set: &'a RrSet, ttl: u32) {
        self.answer.authority.push(AnswerSet {
            owner,
            rtype: set.rtype,
            ttl,
            data: Data::Stored(set.rdatas.as_ref()),
        });
    }

    /// Adds the static addresses of the hosts that `rdatas` name, unless the answer has them already.
    fn add_addresses(&mut self, zone: &'a Zone, rtype: u16, rdatas: Rdatas<'a>, reach: Reach) {
        if !matches!(
            rtype,
            rtype::NS | rtype::MX | rtype::SRV | rtype::SVCB | rtype::HTTPS
        ) {
            return;
        }
        for host in rdatas.iter().filter_map(|rdata| target(rtype, rdata)) {
            let node = match reach {
                Reach::Glue => zone.glue(host),
                Reach::Authority if host.is_within(zone.origin()) => match zone.locate(host) {
                    Found::Exact(node) => Some(node),
                    Found::Cut { .. } => zone.glue(host),
                    _ => None,
                },
                Reach::Authority => None,
            };
            let Some(node) = node else { continue };
            for set in zone
                .sets(node)
                .iter()
                .filter(|set| matches!(set.rtype, rtype::A | rtype::AAAA))
            {
                let sections = self.answer.answer.iter().chain(&self.answer.additional);
                if !sections
                    .into_iter()
                    .any(|other| other.rtype == set.rtype && other.owner.name() == host)
                {
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

/// Which addresses may be added.
#[derive(Clone, Copy)]
enum Reach {
    /// What the zone answers for, and glue below delegations.
    Authority,
    /// Glue wherever the zone has it, siblings' included (RFC 9471 §2).
    Glue,
}
