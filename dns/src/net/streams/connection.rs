//! One connection of DNS over TCP or TLS. Takes queries as length and message, returns responses in the same form, in
//! the order of the queries. Called by the accept loop.
//!
//! Queries may be pipelined (RFC 7766 §6.2.1.1). All queries that have arrived are answered before the next read, with
//! few writes. Making an answer never waits, so keeping the order causes no delay. A connection's memory is bounded:
//! the next queries are read only after the previous queries are answered and the client has taken the responses.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::{Gate, Shared};
use crate::response::respond::Respond;
use crate::response::wire::{Outcome, Transport};

/// The octets of the length before a message (RFC 1035 §4.2.2).
const LENGTH: usize = 2;
/// How many octets of buffer are reserved for a read. For a longer message the buffer grows. It is freed once all
/// messages that have arrived are answered.
const READ: usize = 4096;
/// Responses are sent when this many octets wait, or when all queries that have arrived are answered.
const WAITING: usize = 16 * 1024;
/// How long the rest of a message may take to arrive once the server drains.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a drain waits for octets that are in the socket already. The runtime learns of them only when it next asks
/// the system.
const LAST_LOOK: Duration = Duration::from_millis(10);
/// How long closing a connection may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Answers until the client leaves, is idle or too slow, or the server drains.
pub(super) async fn serve<S, R>(mut stream: S, client: SocketAddr, transport: Transport, shared: &Shared<R>)
where
    S: AsyncRead + AsyncWrite + Unpin,
    R: Respond,
{
    let mut session = Session::new(client, transport);
    if let Err(error) = session.run(&mut stream, shared).await {
        debug!(%client, %error, "a connection ended");
    }
    // TLS ends with a close_notify. The timeout is for clients that read nothing.
    let _ = timeout(CLOSE_TIMEOUT, stream.shutdown()).await;
}

/// The state of one connection.
struct Session {
    client: SocketAddr,
    transport: Transport,
    /// The octets that were read but not answered. After [`Session::answer`], they are at most the beginning of one
    /// message.
    arrived: Vec<u8>,
    /// The responses that weren't sent yet, each after its length.
    waiting: Vec<u8>,
    /// The buffer for one response.
    response: Vec<u8>,
    /// When the last response was sent, or the connection began. Messages without a response don't count.
    idle_since: Instant,
    /// When the message in `arrived` began.
    begun: Instant,
    /// When the connection ends at the latest, once the server drains.
    drain_end: Option<Instant>,
}

impl Session {
    fn new(client: SocketAddr, transport: Transport) -> Self {
        let now = Instant::now();
        let (arrived, waiting, response) = Default::default();
        Self { client, transport, arrived, waiting, response, idle_since: now, begun: now, drain_end: None }
    }

    /// Reads and answers in turns, until the client leaves, is idle or too slow, or the server drains.
    async fn run<S, R>(&mut self, stream: &mut S, shared: &Shared<R>) -> io::Result<()>
    where
        S: AsyncRead + AsyncWrite + Unpin,
        R: Respond,
    {
        let mut stop = shared.stop.clone();
        loop {
            self.answer(stream, shared).await?;
            let is_draining = *stop.borrow();
            let Some(deadline) = self.deadline(is_draining, &shared.gate) else { return Ok(()) };
            self.arrived.reserve(self.missing().max(READ));
            let had = self.arrived.len();
            tokio::select! {
                biased; // queries that have arrived are answered before a drain begins
                read = timeout_at(deadline, stream.read_buf(&mut self.arrived)) => match read {
                    Ok(Ok(0)) | Err(_) => return Ok(()),
                    Ok(Ok(_)) if had == 0 => self.begun = Instant::now(),
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return Err(error),
                },
                changed = stop.changed(), if !is_draining => {
                    if changed.is_err() {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Until when the next octets must arrive; `None` if the connection must end now.
    fn deadline(&mut self, is_draining: bool, gate: &Gate) -> Option<Instant> {
        // The time for a message counts from its first octet. Further octets don't extend it.
        let deadline = match self.arrived.is_empty() {
            true => self.idle_since + gate.idle(),
            false => self.begun + gate.patience(),
        };
        if !is_draining {
            return Some(deadline);
        }
        // The end is fixed when the drain is noticed, so that a client that sends octet by octet can't postpone it.
        let now = Instant::now();
        let end = *self.drain_end.get_or_insert(now + DRAIN_TIMEOUT);
        let last = if self.arrived.is_empty() { end.min(now + LAST_LOOK) } else { end.min(deadline) };
        (now < end).then_some(last)
    }

    /// Answers every complete message that has arrived.
    async fn answer<S, R>(&mut self, stream: &mut S, shared: &Shared<R>) -> io::Result<()>
    where
        S: AsyncWrite + Unpin,
        R: Respond,
    {
        // An IPv6 socket shows an IPv4 client as `::ffff:192.0.2.1`.
        let from = self.client.ip().to_canonical();
        let mut at = 0;
        while let Some(message) = first_message(&self.arrived[at..]) {
            shared.gate.count_message();
            let outcome = shared.responder.respond(message, from, self.transport, &mut self.response);
            at += LENGTH + message.len();
            if outcome == Outcome::Dropped {
                continue;
            }
            // A response has at most 65,535 octets.
            let Ok(length) = u16::try_from(self.response.len()) else { continue };
            self.waiting.extend_from_slice(&length.to_be_bytes());
            self.waiting.extend_from_slice(&self.response);
            if self.waiting.len() >= WAITING {
                self.send(stream, shared.gate.patience()).await?;
            }
        }
        self.arrived.drain(..at);
        if !self.waiting.is_empty() {
            self.send(stream, shared.gate.patience()).await?;
        }
        if at > 0 {
            // The rest is the beginning of another message, whose time begins now.
            self.begun = Instant::now();
        }
        if self.arrived.is_empty() {
            // The buffers are freed, so that an idle connection holds nearly no memory.
            for buffer in [&mut self.arrived, &mut self.waiting, &mut self.response] {
                buffer.clear();
                buffer.shrink_to(0);
            }
        }
        Ok(())
    }

    /// Sends the waiting responses. The client must take them within `patience`.
    async fn send<S: AsyncWrite + Unpin>(&mut self, stream: &mut S, patience: Duration) -> io::Result<()> {
        let sending = async {
            stream.write_all(&self.waiting).await?;
            stream.flush().await
        };
        timeout(patience, sending).await.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        self.waiting.clear();
        self.idle_since = Instant::now();
        Ok(())
    }

    /// How many octets of the current message are missing, as far as its length is known.
    fn missing(&self) -> usize {
        let Some(length) = self.arrived.first_chunk::<LENGTH>() else { return 0 };
        (LENGTH + usize::from(u16::from_be_bytes(*length))).saturating_sub(self.arrived.len())
    }
}

/// The message at the start of `octets`, if all of it is there. It may be empty.
fn first_message(octets: &[u8]) -> Option<&[u8]> {
    let (length, rest) = octets.split_first_chunk::<LENGTH>()?;
    rest.get(..usize::from(u16::from_be_bytes(*length)))
}

#[cfg(test)]
mod tests;
