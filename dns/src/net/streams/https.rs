//! DNS over HTTPS (RFC 8484). Takes a connection after its TLS handshake, answers its POST and GET requests over HTTP/2
//! or HTTP/1.1 until the connection is idle or the server drains. Called by the accept loop.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{RawQuery, Request, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::Shared;
use super::gate::Gate;
use crate::response::respond::Respond;
use crate::response::wire::{HEADER, Outcome, Transport};

/// The path for queries.
const PATH: &str = "/dns-query";
/// The media type of a DNS message (RFC 8484 §6).
const MESSAGE: &str = "application/dns-message";
/// The largest query, in octets.
const LARGEST: usize = 65_535;
/// How many requests of one connection may be in progress at once.
const CONCURRENT: u32 = 64;
/// The most octets of a request's header fields over HTTP/2. The path is one of them, so a GET holds a query of some
/// 12,000 octets. Longer queries need a POST.
const HEADERS: u32 = 16 * 1024;
/// The buffer of HTTP/1.1, in octets: room for the longest URI, which has 65,534 octets in hyper, and for the header
/// fields. Such a GET holds a query of 49,139 octets. Longer queries need a POST.
const BUFFER: usize = 128 * 1024;
/// How long requests in progress may still take once the connection must end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Where the header has the number of questions.
const QDCOUNT: usize = 4;
/// Where the header has the number of records in the answer section.
const ANCOUNT: usize = 6;
/// Where the header has the number of records in the authority section.
const NSCOUNT: usize = 8;
/// The octets of a question after its name: type and class (RFC 1035 §4.1.2).
const QUESTION_REST: usize = 4;
/// Where a record has its TTL, counted from the end of its name (RFC 1035 §4.1.3).
const TTL: usize = 4;
/// Where a record has the length of its data, counted from the end of its name.
const RDLENGTH: usize = 8;
/// Where a record has its data, counted from the end of its name.
const RDATA: usize = 10;

/// What all requests of one connection share.
struct Session<R> {
    responder: Arc<R>,
    gate: Arc<Gate>,
    /// The client's address.
    from: IpAddr,
    /// When the last DNS message arrived, or the connection began. The connection is idle from then on.
    idle_since: std::sync::Mutex<Instant>,
}

/// Answers until the client leaves, is idle, or the server drains.
pub(super) async fn serve<R: Respond>(stream: TlsStream<TcpStream>, client: SocketAddr, shared: &Shared<R>) {
    let session = Arc::new(Session {
        responder: Arc::clone(&shared.responder),
        gate: Arc::clone(&shared.gate),
        from: client.ip().to_canonical(),
        idle_since: std::sync::Mutex::new(Instant::now()),
    });
    let service = TowerToHyperService::new(router(Arc::clone(&session)));
    let mut builder = Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(shared.gate.patience()).max_buf_size(BUFFER);
    builder.http2().timer(TokioTimer::new()).max_concurrent_streams(CONCURRENT).max_header_list_size(HEADERS);
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let mut stop = shared.stop.clone();
    loop {
        let idle_from = session.idle_since();
        let end = tokio::select! {
            ended = &mut connection => {
                if let Err(error) = ended {
                    debug!(%client, %error, "a connection ended");
                }
                return;
            }
            () = sleep_until(idle_from + shared.gate.idle()) => session.idle_since() == idle_from,
            _ = stop.wait_for(|stop| *stop) => true,
        };
        if end {
            break;
        }
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(CLOSE_TIMEOUT, connection).await;
}

impl<R> Session<R> {
    fn idle_since(&self) -> Instant {
        *self.idle_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Notes that a message has arrived now.
    fn touch(&self) {
        *self.idle_since.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Instant::now();
    }
}

fn router<R: Respond>(session: Arc<Session<R>>) -> Router {
    Router::new().route(PATH, get(by_get::<R>).post(by_post::<R>)).fallback(not_found).with_state(session)
}

async fn not_found() -> (StatusCode, &'static str) {
    (StatusCode::NOT_FOUND, "DNS queries are taken at /dns-query\n")
}

/// Answers a GET: the message is the variable `dns`, in base64url without padding (RFC 8484 §4.1).
async fn by_get<R: Respond>(State(session): State<Arc<Session<R>>>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let dns = query.split('&').find_map(|variable| variable.strip_prefix("dns="));
    let Some(message) = dns.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()) else {
        return (StatusCode::BAD_REQUEST, "the variable dns has to hold a DNS message in base64url without padding\n")
            .into_response();
    };
    session.answer(&message)
}

/// Answers a POST: the message is the body (RFC 8484 §4.1). The body is read before its type is refused, because a
/// client that is still sending might not see the refusal.
async fn by_post<R: Respond>(State(session): State<Arc<Session<R>>>, headers: HeaderMap, request: Request) -> Response {
    let is_message =
        headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().eq_ignore_ascii_case(MESSAGE.as_bytes()));
    match timeout(session.gate.patience(), to_bytes(request.into_body(), LARGEST)).await {
        Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        Ok(_) if !is_message => {
            (StatusCode::UNSUPPORTED_MEDIA_TYPE, "send a DNS message as application/dns-message\n").into_response()
        }
        Ok(Err(_)) => (StatusCode::PAYLOAD_TOO_LARGE, "a DNS message has at most 65,535 octets\n").into_response(),
        Ok(Ok(message)) => session.answer(&message),
    }
}

impl<R: Respond> Session<R> {
    /// Answers a message. A DNS error is a success of HTTP (RFC 8484 §4.2.1). Only a message that isn't a query is an
    /// error of HTTP.
    fn answer(&self, message: &[u8]) -> Response {
        self.touch();
        self.gate.count_message();
        let mut response = Vec::new();
        match self.responder.respond(message, self.from, Transport::Https, &mut response) {
            Outcome::Dropped => (StatusCode::BAD_REQUEST, "that is no DNS query\n").into_response(),
            Outcome::Answered { service, .. } => {
                // HTTP may not cache an answer for longer than DNS (§5.1). A steered answer may not be cached for other
                // clients.
                let private = if service.is_some() { "private, " } else { "" };
                let fresh = format!("{private}max-age={}", least_ttl(&response).unwrap_or_default());
                let headers = [(CONTENT_TYPE, MESSAGE.to_owned()), (CACHE_CONTROL, fresh)];
                (headers, Body::from(response)).into_response()
            }
        }
    }
}

/// The shortest TTL of the answer section. If that section is empty, the shortest TTL of the authority section, which
/// is how long a negative answer may be cached (RFC 2308 §5).
fn least_ttl(message: &[u8]) -> Option<u32> {
    let u16_at = |at: usize| Some(u16::from_be_bytes(*message.get(at..)?.first_chunk()?));
    let after_name = |mut at: usize| loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            // A pointer to the rest of the name has two octets (RFC 1035 §4.1.4).
            0xc0.. => return Some(at + 2),
            length => at += 1 + usize::from(length),
        }
    };
    let mut at = HEADER;
    for _ in 0..u16_at(QDCOUNT)? {
        at = after_name(at)? + QUESTION_REST;
    }
    let mut least = None;
    for count in [ANCOUNT, NSCOUNT] {
        for _ in 0..u16_at(count)? {
            at = after_name(at)?;
            let ttl = u32::from_be_bytes(*message.get(at + TTL..)?.first_chunk()?);
            least = Some(least.map_or(ttl, |least: u32| least.min(ttl)));
            at += RDATA + usize::from(u16_at(at + RDLENGTH)?);
        }
        if least.is_some() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use hickory_proto::op::{Message, MessageType, OpCode, Query};
    use hickory_proto::rr::rdata::{A, NS};
    use hickory_proto::rr::{Name, RData, Record, RecordType};

    use super::*;

    #[test]
    fn an_answer_is_fresh_as_long_as_its_shortest_ttl() {
        let name = Name::from_ascii("www.example.com.").unwrap();
        let record = |ttl, data| Record::from_rdata(name.clone(), ttl, data);
        let mut message = Message::new(0, MessageType::Response, OpCode::Query);
        message.queries.push(Query::query(name.clone(), RecordType::A));
        assert_eq!(least_ttl(&message.to_vec().unwrap()), None);
        message.authorities.push(record(7, RData::NS(NS(name.clone()))));
        assert_eq!(least_ttl(&message.to_vec().unwrap()), Some(7));
        for ttl in [300, 30, 60] {
            message.answers.push(record(ttl, RData::A(A::new(192, 0, 2, 1))));
        }
        let whole = message.to_vec().unwrap();
        assert_eq!(least_ttl(&whole), Some(30), "only the answer section counts");
        for length in 0..whole.len() {
            let _ = least_ttl(&whole[..length]);
        }
    }
}
