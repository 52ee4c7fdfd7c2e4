//! The generator. Takes a server's address and a workload, returns how many queries were answered and how fast. Called
//! by `rounds`, which reads the server's CPU time before and after. It runs on the calling thread and looks at every
//! answer.

#[cfg(test)]
mod tests;

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::batch::{self, Batch, SIZE};
use crate::workload::{Draw, Workload};

/// A query unanswered for so long is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// The most that a steady rate sends later than it was due.
const STEADY: Duration = Duration::from_millis(1);
/// The socket's receive buffer in octets; the system gives as much as it allows.
const BUFFER: usize = 4 << 20;

/// How fast queries are sent.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Always so many queries are outstanding.
    Window(usize),
    /// So many queries are sent per second, whatever comes back.
    Rate(u32),
    /// So many per second, too, but what a generator that was kept from working didn't send, beyond a millisecond's
    /// worth, is never sent: made up for at once, it would be a flood of its own.
    Steady(u32),
}

/// What became of the queries.
#[derive(Debug, Default, Clone)]
pub(crate) struct Tally {
    /// How many were sent.
    pub(crate) sent: u64,
    /// How many queries of a steady rate were never sent.
    pub(crate) skipped: u64,
    /// How many were answered, rightly or not.
    pub(crate) answered: u64,
    /// How many were not answered.
    pub(crate) lost: u64,
    /// Answers with another response code, number of records or no QR bit.
    pub(crate) wrong: u64,
    /// Answers that nobody waited for.
    pub(crate) stray: u64,
    /// The octets of all answers.
    pub(crate) octets: u64,
    /// From the first query to the last answer.
    pub(crate) took: Duration,
    /// Microseconds that answers took, sorted; empty if nobody wants them.
    pub(crate) latencies: Vec<u32>,
}

/// How the time of an answer is measured.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Timed {
    /// Not at all.
    No,
    /// From when the query was due to when the generator looked: what kept the generator counts too.
    FromDue,
    /// From just before the query was sent to when the kernel had the answer: nothing of the generator's counts.
    OnTheWay,
}

/// Questions of one kind to one server.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stream<'w> {
    /// What is asked.
    pub(crate) workload: &'w Workload,
    /// What the answers should be.
    pub(crate) expected: Expected,
    /// How fast.
    pub(crate) pace: Pace,
    /// How its answers are timed.
    pub(crate) timed: Timed,
    /// Over how many sockets: a server's threads divide clients by their ports.
    pub(crate) sockets: usize,
}

/// What is expected of answers.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expected {
    pub(crate) rcode: u8,
    pub(crate) records: u16,
}

/// Asks all `streams` side by side for `length`, then waits for what is outstanding; tells what became of each. Of
/// several sockets each has its share.
///
/// # Errors
/// When the system refuses a socket, or nobody listens any more.
pub(crate) fn run(
    server: SocketAddr,
    streams: &[Stream<'_>],
    length: Duration,
    draw: &mut Draw,
) -> Result<Vec<Tally>, String> {
    let fault = |error: std::io::Error| format!("{server} can't be asked any more: {error}");
    let mut flights = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        for _ in 0..stream.sockets {
            flights.push((number, Flight::new(server, stream).map_err(fault)?));
        }
    }
    let mut tally = vec![Tally::default(); streams.len()];
    let began = Instant::now();
    let mut swept = began;
    let mut last = began;
    loop {
        let mut idle = true;
        for (number, flight) in &mut flights {
            let (stream, tally) = (&streams[*number], &mut tally[*number]);
            let received = flight.receive(began, stream, tally).map_err(fault)?;
            if received > 0 {
                (idle, last) = (false, Instant::now());
            }
            let elapsed = began.elapsed();
            if elapsed >= length {
                continue;
            }
            let due = match stream.pace {
                Pace::Window(_) => u64::MAX,
                Pace::Rate(rate) => due(elapsed, rate).saturating_sub(tally.sent),
                Pace::Steady(rate) => {
                    let (behind, most) =
                        (due(elapsed, rate).saturating_sub(tally.sent + tally.skipped), due(STEADY, rate));
                    tally.skipped += behind.saturating_sub(most);
                    behind.min(most)
                }
            };
            let sent = flight.send(stream, draw, began, due, tally).map_err(fault)?;
            idle &= sent == 0;
        }
        let now = Instant::now();
        if now - swept > PATIENCE / 4 {
            swept = now;
            for (number, flight) in &mut flights {
                tally[*number].lost += flight.sweep(now - began);
            }
        }
        if now - began >= length && flights.iter().all(|(_, flight)| flight.free.len() == flight.slots.len()) {
            break;
        }
        if idle {
            // On a machine with one core the server needs it now.
            std::thread::yield_now();
        }
    }
    for tally in &mut tally {
        tally.took = last - began;
        tally.latencies.sort_unstable();
    }
    Ok(tally)
}

/// How many queries of a fixed rate are due after so long.
fn due(elapsed: Duration, rate: u32) -> u64 {
    u64::try_from(elapsed.as_nanos() * u128::from(rate) / 1_000_000_000).unwrap_or(u64::MAX)
}

/// When query `number` of a fixed rate is due, in nanoseconds.
fn scheduled(number: u64, rate: u32) -> u64 {
    (number + 1) * 1_000_000_000 / u64::from(rate.max(1))
}

/// One socket with what is outstanding on it.
pub(crate) struct Flight {
    socket: UdpSocket,
    batch: Batch,
    slots: Vec<Slot>,
    /// Slots in which nothing is outstanding, the longest unused first.
    free: std::collections::VecDeque<u16>,
    /// The lower bits of an id are its slot's number; the others change with each use, so that a late answer is known.
    bits: u32,
    /// The last stamp of an answer.
    latest: u64,
}

#[derive(Clone, Copy, Default)]
struct Slot {
    id: u16,
    outstanding: bool,
    /// When it was sent or due, in nanoseconds since the beginning.
    at: u64,
    /// When it was sent by the clock the kernel stamps answers by.
    stamp: u64,
}

impl Flight {
    /// A socket to a server for its share of a stream.
    ///
    /// # Errors
    /// When the system refuses one.
    pub(crate) fn new(server: SocketAddr, stream: &Stream<'_>) -> std::io::Result<Self> {
        let most = match stream.pace {
            Pace::Window(window) => window.div_ceil(stream.sockets),
            Pace::Rate(_) | Pace::Steady(_) => 1 << 14,
        };
        let socket = UdpSocket::bind((server.ip(), 0))?;
        socket.connect(server)?;
        setsockopt(&socket, sockopt::RcvBufForce, &BUFFER)
            .or_else(|_| setsockopt(&socket, sockopt::RcvBuf, &BUFFER))?;
        let stamped = stream.timed == Timed::OnTheWay;
        if stamped {
            setsockopt(&socket, sockopt::ReceiveTimestampns, &true)?;
        }
        let count = u16::try_from(most.clamp(1, 1 << 15)).unwrap_or(1 << 15);
        let bits = u32::from(count).next_power_of_two().trailing_zeros();
        let slots = (0..count).map(|number| Slot { id: number, ..Slot::default() }).collect();
        let batch = Batch::new(stream.workload.template(), stamped);
        Ok(Self { socket, batch, slots, free: (0..count).collect(), bits, latest: 0 })
    }

    /// When the kernel had the last answer, as [`batch::now`] counts, if answers are timed on the way.
    pub(crate) fn latest(&self) -> u64 {
        self.latest
    }

    /// Sends at most `due` queries and one batch.
    pub(crate) fn send(
        &mut self,
        stream: &Stream<'_>,
        draw: &mut Draw,
        began: Instant,
        due: u64,
        tally: &mut Tally,
    ) -> std::io::Result<usize> {
        let count = SIZE.min(self.free.len()).min(usize::try_from(due).unwrap_or(SIZE));
        if count == 0 {
            return Ok(0);
        }
        let now = nanoseconds(began.elapsed());
        for (number, &slot) in self.free.iter().take(count).enumerate() {
            let place = &mut self.slots[usize::from(slot)];
            place.id = place.id.wrapping_add(1 << self.bits);
            place.at = match stream.pace {
                Pace::Window(_) | Pace::Steady(_) => now,
                Pace::Rate(rate) => scheduled(tally.sent + number as u64, rate),
            };
            stream.workload.write(place.id, draw, self.batch.query(number));
        }
        if stream.timed == Timed::OnTheWay {
            // As late as can be: making queries isn't the server's.
            let stamp = batch::now();
            for &slot in self.free.iter().take(count) {
                self.slots[usize::from(slot)].stamp = stamp;
            }
        }
        let sent = self.batch.send(&self.socket, count)?;
        for slot in self.free.drain(..sent) {
            self.slots[usize::from(slot)].outstanding = true;
        }
        tally.sent += sent as u64;
        Ok(sent)
    }

    /// Receives what has arrived, without waiting; returns how many datagrams that were.
    pub(crate) fn receive(&mut self, began: Instant, stream: &Stream<'_>, tally: &mut Tally) -> std::io::Result<usize> {
        let received = self.batch.receive(&self.socket)?;
        let now = if stream.timed == Timed::FromDue { nanoseconds(began.elapsed()) } else { 0 };
        let mask = (1_u16 << self.bits) - 1;
        for (answer, stamp) in self.batch.answers(received) {
            let Some(&[high, low, flags, code, _, _, many, few]) = answer.first_chunk() else {
                tally.wrong += 1;
                continue;
            };
            let id = u16::from_be_bytes([high, low]);
            let slot = id & mask;
            match self.slots.get_mut(usize::from(slot)) {
                Some(place) if place.outstanding && place.id == id => {
                    place.outstanding = false;
                    self.latest = self.latest.max(stamp);
                    let took = match stream.timed {
                        Timed::No => None,
                        Timed::FromDue => Some(now.saturating_sub(place.at)),
                        Timed::OnTheWay => Some(stamp.saturating_sub(place.stamp)),
                    };
                    tally.latencies.extend(took.map(|took| u32::try_from(took / 1000).unwrap_or(u32::MAX)));
                }
                _ => {
                    tally.stray += 1;
                    continue;
                }
            }
            self.free.push_back(slot);
            tally.answered += 1;
            tally.octets += answer.len() as u64;
            let Expected { rcode, records } = stream.expected;
            let right = flags & 0x80 != 0 && code & 15 == rcode && u16::from_be_bytes([many, few]) == records;
            tally.wrong += u64::from(!right);
        }
        Ok(received)
    }

    /// Gives up what has been outstanding for too long; returns how many those are.
    pub(crate) fn sweep(&mut self, elapsed: Duration) -> u64 {
        let oldest = nanoseconds(elapsed.saturating_sub(PATIENCE));
        let mut lost = 0;
        for (number, slot) in self.slots.iter_mut().enumerate() {
            if slot.outstanding && slot.at < oldest {
                slot.outstanding = false;
                self.free.push_back(u16::try_from(number).unwrap_or_default());
                lost += 1;
            }
        }
        lost
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
