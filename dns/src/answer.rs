//! All DNS semantics: zones, steering and one parsed query enter, the records and flags of the answer leave; `wire` calls it and writes bytes.
//!
//! Nothing here knows a socket, a clock or a packet. See [`answer`].

use std::net::IpAddr;

use crate::name::{Name, NameRef};
use crate::rdata::Rdatas;
use crate::zone::ServiceIndex;

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

/// A name or record data that lives in the query or zone, or was made for this answer.
#[derive(Debug, Clone)]
pub enum Owner<'a> {
    /// Borrowed from the query, a zone or the rules.
    Ref(NameRef<'a>),
    /// Made by a DNAME.
    Made(Name),
}

/// The data of an RRset.
#[derive(Debug, Clone)]
pub enum Data<'a> {
    /// From a zone or the rules.
    Stored(Rdatas<'a>),
    /// One name, made by a DNAME.
    Made(Name),
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
    /// The steered services this answer asked, the first of them and how many.
    pub service: Option<ServiceIndex>,
}
