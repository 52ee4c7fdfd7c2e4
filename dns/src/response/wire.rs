//! Answers packets. Takes the packet of a query, returns the packet of the response. `answer` decides on the records.
//! All transports call [`respond`].

mod context;
mod cookies;
mod encode;
mod parse;

use std::net::IpAddr;

use bailiwick_rules::table::RegionIndex;

use crate::response::answer::identity::CHAOS;
use crate::response::answer::{Answer, Asking, Dnssec, Origin, Query, Rcode, SteeredAnswers, answer};
use crate::zone::ServiceIndex;
use crate::zones::Zones;
pub use context::{Class, Context, Limiter, Settings, Transport, Verdict};
use cookies::CookieCheck;
pub use cookies::Cookies;
use encode::Encoder;
pub(crate) use encode::TC;
use parse::Request;
pub(crate) use parse::{ECS, HEADER, read_ecs};

/// The UDP payload that this server offers, and the most octets that it sends over UDP. It fits every path (DNS flag
/// day 2020).
pub const UDP_PAYLOAD: u16 = 1232;
/// The UDP payload of a client that offers none or a smaller one (RFC 1035 §4.2.1, RFC 6891 §6.2.3).
pub(crate) const LEAST_PAYLOAD: u16 = 512;

/// How a packet was answered, for counters and logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// No response is sent: the packet is a response itself, isn't a DNS message, or is beyond the rate limit.
    Dropped,
    /// `out` holds the response.
    Answered {
        /// The response code.
        rcode: Rcode,
        /// The type of the question, if the question could be read.
        qtype: Option<u16>,
        /// Whether the response was truncated.
        truncated: bool,
        /// The service of the rules from which the answer has records, if the name is steered.
        service: Option<ServiceIndex>,
        /// The region whose records were answered.
        region: Option<RegionIndex>,
        /// The origin under which a steered answer is counted.
        origin: Origin,
        /// The class by which a limiter counts the response.
        class: Class,
        /// Whether the same query of another client of the same class may get the same records: the response isn't
        /// truncated, has no extended error, and is [`Answer::keepable`].
        keepable: bool,
    },
}

#[cfg(test)]
impl Outcome {
    /// A positive answer of which nothing else is known.
    pub(crate) fn positive() -> Self {
        Self::Answered {
            rcode: Rcode::NOERROR,
            qtype: None,
            truncated: false,
            service: None,
            region: None,
            origin: Origin::default(),
            class: Class::Positive,
            keepable: false,
        }
    }
}

/// Options of the response that depend on neither zones nor rules.
struct Options<'s> {
    nsid: Option<&'s [u8]>,
    cookie: Option<[u8; 24]>,
    /// The idle timeout of edns-tcp-keepalive, in units of 100 ms.
    keepalive: Option<u16>,
    padding: bool,
}

/// Answers one packet. `out` is overwritten; after [`Outcome::Dropped`] it is empty.
pub fn respond(
    context: &Context<'_>,
    zones: &Zones,
    steering: &impl SteeredAnswers,
    packet: &[u8],
    from: IpAddr,
    transport: Transport,
    out: &mut Vec<u8>,
) -> Outcome {
    out.clear();
    let Some(request) = parse::parse(packet) else {
        return Outcome::Dropped;
    };
    let checked = checked(context, &request, from);
    let proven = transport.is_stream() || checked.is_some_and(|checked| checked.proven);
    let limiter = context.limiter.filter(|_| !proven);
    let mut verdict = limiter.map_or(Verdict::Answer, |limiter| limiter.admit(from));
    let mut reply = match refused_for_cookie(context, &request, checked.as_ref(), transport) {
        // A query beyond the rate limit is answered without reading zones and rules.
        _ if verdict != Verdict::Answer => Answer::bare(request.verdict),
        Some(refusal) => refusal,
        None => reply(context, zones, steering, &request, from, transport),
    };
    let class = Class::of(&reply);
    if verdict == Verdict::Answer {
        verdict = limiter.map_or(verdict, |limiter| limiter.judge(from, class));
    }
    if verdict == Verdict::Drop {
        return Outcome::Dropped;
    }
    if verdict == Verdict::Slip && checked.is_some() {
        // A client that sent a cookie can prove its address with the new cookie, and needs no other transport.
        reply = Answer::bare(Rcode::BADCOOKIE);
    }
    let options = options(context.settings, &request, checked, transport);
    let slips = verdict == Verdict::Slip && checked.is_none();
    let limit = if slips || reply.truncated { 0 } else { limit(&request, transport) };
    let truncated = write(&request, &reply, &options, limit, out);
    Outcome::Answered {
        rcode: reply.rcode,
        qtype: request.question.map(|question| question.qtype),
        truncated,
        service: reply.service,
        region: reply.region,
        origin: reply.origin,
        class,
        keepable: reply.keepable && reply.ede.is_none() && !truncated,
    }
}

/// The verdict on the request's cookie, if the request has a cookie of a valid form.
fn checked(context: &Context<'_>, request: &Request<'_>, from: IpAddr) -> Option<CookieCheck> {
    let cookie = request.edns?.cookie?;
    let sound = !matches!(request.verdict, Rcode::FORMERR | Rcode::BADVERS);
    sound.then(|| context.settings.cookies.check(&cookie, from, context.now))
}

/// BADCOOKIE for a datagram that needs a valid server cookie and has none (RFC 7873 §5.2.3, §5.2.4), and for a request
/// without a question whose server cookie isn't valid (§5.4).
fn refused_for_cookie<'a>(
    context: &Context<'_>,
    request: &Request<'_>,
    checked: Option<&CookieCheck>,
    transport: Transport,
) -> Option<Answer<'a>> {
    if checked?.proven || request.verdict != Rcode::NOERROR {
        return None;
    }
    let pings = request.question.is_none() && request.edns?.cookie?.has_server();
    let required = context.settings.cookies.required() && !transport.is_stream() && request.question.is_some();
    (pings || required).then(|| Answer::bare(Rcode::BADCOOKIE))
}

/// The answer to a request, or a bare response code if the request is malformed.
fn reply<'a>(
    context: &Context<'a>,
    zones: &'a Zones,
    steering: &'a impl SteeredAnswers,
    request: &Request<'a>,
    from: IpAddr,
    transport: Transport,
) -> Answer<'a> {
    let question = match (request.verdict, request.question) {
        (Rcode::NOERROR, Some(question)) => question,
        // The request is malformed, or has no question because it asks only for a cookie.
        (rcode, _) => return Answer::bare(rcode),
    };
    let ecs = request.edns.and_then(|edns| edns.ecs);
    let client = Asking { transport: from, ecs };
    let dnssec = Dnssec {
        ok: request.edns.is_some_and(|edns| edns.dnssec_ok),
        compact_ok: request.edns.is_some_and(|edns| edns.compact_ok),
        by_stream: transport.is_stream(),
        now: context.now,
    };
    let responses = context.settings.responses;
    let query =
        Query { qname: question.qname, qtype: question.qtype, qclass: question.qclass, client, dnssec, responses };
    if question.qclass == CHAOS {
        return context.settings.identity.answer(&query);
    }
    answer(zones, steering, &query)
}

/// The EDNS options of the response.
fn options<'s>(
    settings: &'s Settings,
    request: &Request<'_>,
    checked: Option<CookieCheck>,
    transport: Transport,
) -> Options<'s> {
    let wants = |wish: fn(&parse::Edns<'_>) -> bool| request.edns.as_ref().is_some_and(wish);
    let idle = u16::try_from(settings.idle.as_millis() / 100).unwrap_or(u16::MAX);
    Options {
        nsid: settings.identity.nsid().filter(|_| wants(|edns| edns.wants_nsid)),
        cookie: checked.map(|checked| checked.reply),
        keepalive: (transport.has_keepalive() && wants(|edns| edns.wants_keepalive)).then_some(idle),
        padding: transport.is_encrypted() && wants(|edns| edns.wants_padding),
    }
}

/// The most octets that a response may have.
fn limit(request: &Request<'_>, transport: Transport) -> usize {
    let octets = match transport {
        Transport::Udp => request.edns.map_or(LEAST_PAYLOAD, |edns| edns.payload.clamp(LEAST_PAYLOAD, UDP_PAYLOAD)),
        _ => u16::MAX,
    };
    usize::from(octets)
}

/// Writes the whole response. If it doesn't fit, writes only the question, with the truncation bit, and never a part of
/// an RRset (RFC 2181 §9). Returns whether the response was truncated.
fn write(request: &Request<'_>, reply: &Answer<'_>, options: &Options<'_>, limit: usize, out: &mut Vec<u8>) -> bool {
    let mut encoder = Encoder::new(out, request, reply);
    encoder.records(reply);
    encoder.opt(request, reply, options, limit);
    let truncated = !encoder.fits(limit);
    if truncated {
        let mut encoder = Encoder::new(out, request, reply);
        encoder.truncate();
        encoder.opt(request, reply, options, limit);
    }
    truncated
}

#[cfg(test)]
mod tests;
