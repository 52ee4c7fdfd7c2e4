//! One connection of DNS over QUIC. Takes the connection after its handshake and answers one query on each of its
//! streams, many at a time, until the client closes it, is idle or breaks the protocol. Called by the accept loop in
//! `quic`.
//!
//! The memory of a connection is bounded: its unanswered queries have at most [`HELD`] octets together, and at most
//! [`WRITING`] responses wait for the client at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_server::net::quic::DoqErrorCode;
use hickory_server::net::xfer::Protocol;
use hickory_server::server::Request;
use quinn::{Connection, ReadError, RecvStream, SendStream};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::LAST;
use crate::net::streams::Shared;
use crate::response::respond::Respond;
use crate::response::wire::{HEADER, Outcome, Transport};

/// The octets of the length before a message (RFC 9250 §4.2).
const LENGTH: usize = 2;
/// How many octets of unanswered queries a connection may hold: two queries of the longest length.
const HELD: usize = 128 * 1024;
/// How many responses of a connection may wait at once for room in its send window.
const WRITING: usize = 8;
/// The code for a message that is never answered: DOQ_UNSPECIFIED_ERROR (RFC 9250 §4.3), for which hickory has no name.
const UNANSWERED: DoqErrorCode = DoqErrorCode::Unknown(0x5);

/// Why a connection is closed: the error code for the client, and the reason as text.
#[derive(Clone, Copy)]
struct Closed(DoqErrorCode, &'static str);

impl Closed {
    /// A protocol error, which is fatal for the connection (RFC 9250 §4.3.3).
    fn protocol(reason: &'static str) -> Self {
        Self(DoqErrorCode::ProtocolError, reason)
    }
}

/// Answers until the client leaves, is idle or breaks the protocol, or the server drains.
pub(super) async fn serve<R: Respond>(connection: Connection, shared: &Shared<R>) {
    let session =
        Session { connection: &connection, shared, held_octets: AtomicUsize::new(0), writing: Semaphore::new(WRITING) };
    let Closed(code, reason) = session.run().await;
    debug!(client = %connection.remote_address(), reason, "a QUIC connection ended");
    connection.close(code.into(), reason.as_bytes());
}

/// The state of one connection.
struct Session<'c, R> {
    connection: &'c Connection,
    shared: &'c Shared<R>,
    /// The octets of received queries that aren't answered yet.
    held_octets: AtomicUsize,
    /// Permits to make and send a response, one for each response.
    writing: Semaphore,
}

impl<R: Respond> Session<'_, R> {
    /// Answers the queries of a connection, each in its own stream. Returns why the connection is closed.
    async fn run(&self) -> Closed {
        let mut yielded = self.shared.yielded.clone();
        let mut streams = FuturesUnordered::new();
        loop {
            let idle = self.shared.gate.idle();
            tokio::select! {
                biased; // queries that have arrived are answered before more streams are accepted
                _ = yielded.wait_for(|yielded| *yielded) => break,
                Some(answered) = streams.next() => {
                    if let Err(closed) = answered {
                        return closed;
                    }
                }
                accepted = timeout(idle, self.connection.accept_bi()) => match accepted {
                    Ok(Ok((send, receive))) => streams.push(self.exchange(send, receive)),
                    Ok(Err(_)) => return Closed(DoqErrorCode::NoError, "closed by the client"),
                    // Open streams have their own time limit.
                    Err(_) if streams.is_empty() => return Closed(DoqErrorCode::NoError, "idle"),
                    Err(_) => {}
                },
            }
        }
        let _ = timeout(LAST, async { while streams.next().await.is_some() {} }).await;
        Closed(DoqErrorCode::NoError, "the server stops")
    }

    /// Handles one stream from its first octet to its last. An error ends the whole connection.
    async fn exchange(&self, mut send: SendStream, mut receive: RecvStream) -> Result<(), Closed> {
        let patience = self.shared.gate.patience();
        let deadline = Instant::now() + patience;
        let mut query = QueryOctets { octets: Vec::new(), total: &self.held_octets };
        match timeout_at(deadline, query.read(&mut receive)).await {
            Ok(Ok(Read::Query)) => {}
            Ok(Ok(Read::Cancelled)) => {
                let _ = send.reset(DoqErrorCode::RequestCancelled.into());
                return Ok(());
            }
            Ok(Err(closed)) => return Err(closed),
            Err(_) => return Err(Closed::protocol("a query took too long")),
        }
        self.answer(query, &mut send, patience).await?;
        // A query is answered as soon as it is complete. Afterwards this checks that no octets follow.
        match timeout_at(deadline, receive.read_chunk(1, true)).await {
            Ok(Ok(Some(_))) => Err(Closed::protocol(SECOND)),
            Ok(Ok(None) | Err(_)) => Ok(()),
            Err(_) => Err(Closed::protocol("a query's stream was not finished")),
        }
    }

    /// Answers one query and writes the response to its stream. An error closes the whole connection.
    async fn answer(&self, query: QueryOctets<'_>, send: &mut SendStream, patience: Duration) -> Result<(), Closed> {
        let message = query.octets.get(LENGTH..).unwrap_or_default();
        refuse(message)?;
        self.shared.gate.count_message();
        let client = self.connection.remote_address();
        // hickory decodes the request only to find the option edns-tcp-keepalive, which is forbidden here (RFC 9250
        // §5.5.2). If hickory can't decode the request, the responder refuses it.
        if let Ok(request) = Request::from_bytes(message.to_vec(), client, Protocol::Quic)
            && request.edns.as_ref().is_some_and(|edns| edns.option(EdnsCode::Keepalive).is_some())
        {
            return Err(Closed::protocol("edns-tcp-keepalive was sent by QUIC"));
        }
        let Ok(_permit) = self.writing.acquire().await else { return Ok(()) };
        let mut response = Vec::with_capacity(512);
        let from = client.ip().to_canonical();
        let outcome = self.shared.responder.respond(message, from, Transport::Quic, &mut response);
        drop(query);
        let length = u16::try_from(response.len());
        let (Outcome::Answered { .. }, Ok(length)) = (outcome, length) else {
            let _ = send.reset(UNANSWERED.into());
            return Ok(());
        };
        let mut chunks = [Bytes::copy_from_slice(&length.to_be_bytes()), Bytes::from(response)];
        match timeout(patience, send.write_all_chunks(&mut chunks)).await {
            // If the client stopped the stream or is gone, it wants no response.
            Ok(sent) => drop(sent.is_ok().then(|| send.finish())),
            Err(_) => return Err(Closed(DoqErrorCode::ExcessiveLoad, "responses are not taken")),
        }
        Ok(())
    }
}

/// How reading a stream ended.
enum Read {
    /// A complete query was read.
    Query,
    /// The client cancelled the query.
    Cancelled,
}

/// The octets that have arrived on a stream. They count towards the limit of the connection.
struct QueryOctets<'t> {
    octets: Vec<u8>,
    total: &'t AtomicUsize,
}

impl QueryOctets<'_> {
    /// Reads until the query is complete.
    async fn read(&mut self, receive: &mut RecvStream) -> Result<Read, Closed> {
        loop {
            let chunk = match receive.read_chunk(usize::MAX, true).await {
                Ok(chunk) => chunk,
                Err(ReadError::Reset(_) | ReadError::ConnectionLost(_)) => return Ok(Read::Cancelled),
                Err(_) => return Err(Closed(DoqErrorCode::InternalError, "a stream can't be read")),
            };
            if let Some(chunk) = &chunk {
                self.octets.extend_from_slice(&chunk.bytes);
                let total = self.total.fetch_add(chunk.bytes.len(), Ordering::Relaxed) + chunk.bytes.len();
                if total > HELD {
                    return Err(Closed(DoqErrorCode::ExcessiveLoad, "too many octets of unfinished queries"));
                }
            }
            match whole(&self.octets, chunk.is_none()) {
                Ok(true) => return Ok(Read::Query),
                Ok(false) => {}
                Err(reason) => return Err(Closed::protocol(reason)),
            }
        }
    }
}

impl Drop for QueryOctets<'_> {
    fn drop(&mut self) {
        self.total.fetch_sub(self.octets.len(), Ordering::Relaxed);
    }
}

const SECOND: &str = "a second query came on a stream";

/// Whether the octets of a stream are one complete query after its length. The error says how they break the protocol
/// (RFC 9250 §4.3.3).
fn whole(octets: &[u8], finished: bool) -> Result<bool, &'static str> {
    let expected = octets.first_chunk::<LENGTH>().map(|length| usize::from(u16::from_be_bytes(*length)));
    match expected.map(|expected| octets.len().cmp(&(LENGTH + expected))) {
        Some(_) if expected < Some(HEADER) => Err("a query is shorter than a header"),
        Some(std::cmp::Ordering::Greater) => Err(SECOND),
        Some(std::cmp::Ordering::Equal) => Ok(true),
        _ if finished => Err("a stream ended before its query did"),
        _ => Ok(false),
    }
}

/// Returns an error for a query whose id isn't 0 (RFC 9250 §4.2.1).
fn refuse(message: &[u8]) -> Result<(), Closed> {
    match message {
        [0, 0, ..] => Ok(()),
        _ => Err(Closed::protocol("a query's id is not 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn framed(message: &[u8]) -> Vec<u8> {
        [&u16::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat()
    }

    #[test]
    fn rfc9250_4_2_a_query_is_whole_when_all_octets_of_its_length_are_there() {
        let query = framed(&[0; 40]);
        for cut in 0..query.len() {
            assert_eq!(whole(&query[..cut], false), Ok(false), "{cut} octets");
        }
        assert_eq!((whole(&query, false), whole(&query, true)), (Ok(true), Ok(true)));
        let longest = framed(&[0; 65_535]);
        assert_eq!(whole(&longest, true), Ok(true));
    }

    #[test]
    fn rfc9250_4_3_3_a_stream_that_ends_early_or_has_more_octets_breaks_the_protocol() {
        let query = framed(&[0; 40]);
        for cut in 0..query.len() {
            assert!(whole(&query[..cut], true).is_err(), "{cut} octets");
        }
        assert_eq!(whole(&[&query[..], &query[..]].concat(), false), Err(SECOND));
        assert_eq!(whole(&[&query[..], &[0]].concat(), true), Err(SECOND));
        for short in 0..HEADER {
            assert!(whole(&framed(&vec![0; short]), true).is_err(), "a message of {short} octets");
        }
    }

    #[test]
    fn rfc9250_4_2_1_the_id_is_0() {
        assert!(refuse(&[0, 0, 1, 0]).is_ok());
        for other in [&[0, 1][..], &[1, 0], &[0], &[]] {
            assert!(refuse(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn octets_of_a_connection_are_counted_until_they_are_dropped() {
        let total = AtomicUsize::new(30);
        drop(QueryOctets { octets: vec![0; 20], total: &total });
        assert_eq!(total.into_inner(), 10);
    }
}
