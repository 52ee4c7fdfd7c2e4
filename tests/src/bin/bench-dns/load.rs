//! The generator: a server's address and a workload enter, how much was answered and how leave. It runs on the calling
//! thread and looks at every answer; the runner reads the server's CPU time around it.

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};

use crate::batch::{self, Batch, SIZE};
use crate::workload::{Draw, Workload};

/// A query unanswered for so long is lost.
const PATIENCE: Duration = Duration::from_millis(500);
/// What a steady rate makes up for at most.
const STEADY: Duration = Duration::from_millis(1);
/// The socket's receive buffer in octets; the system gives as much as it allows.
const BUFFER: usize = 4 << 20;

/// How fast is asked.
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
pub(crate) struct Told {
    /// How many were sent.
    pub(crate) sent: u64,
    /// How many of a steady rate never were.
    pub(crate) skipped: u64,
    /// How many were answered, rightly or not.
    pub(crate) answered: u64,
    /// How many weren't.
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

/// From when to when an answer takes its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Timed {
    /// Nobody wants to know.
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
    /// What is to come back.
    pub(crate) expected: Expected,
    /// How fast.
    pub(crate) pace: Pace,
    /// What of it is timed.
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
) -> Result<Vec<Told>, String> {
    let fault = |error: std::io::Error| format!("{server} can't be asked any more: {error}");
    let mut flights = Vec::new();
    for (number, stream) in streams.iter().enumerate() {
        for _ in 0..stream.sockets {
            flights.push((number, Flight::new(server, stream).map_err(fault)?));
        }
    }
    let mut told = vec![Told::default(); streams.len()];
    let began = Instant::now();
    let mut swept = began;
    let mut last = began;
    loop {
        let mut idle = true;
        for (number, flight) in &mut flights {
            let (stream, told) = (&streams[*number], &mut told[*number]);
            let received = flight.receive(began, stream, told).map_err(fault)?;
            if received > 0 {
                (idle, last) = (false, Instant::now());
            }
            let elapsed = began.elapsed();
            if elapsed >= length {
                continue;
            }
            let due = match stream.pace {
                Pace::Window(_) => u64::MAX,
                Pace::Rate(rate) => due(elapsed, rate).saturating_sub(told.sent),
                Pace::Steady(rate) => {
                    let (behind, most) =
                        (due(elapsed, rate).saturating_sub(told.sent + told.skipped), due(STEADY, rate));
                    told.skipped += behind.saturating_sub(most);
                    behind.min(most)
                }
            };
            let sent = flight.send(stream, draw, began, due, told).map_err(fault)?;
            idle &= sent == 0;
        }
        let now = Instant::now();
        if now - swept > PATIENCE / 4 {
            swept = now;
            for (number, flight) in &mut flights {
                told[*number].lost += flight.sweep(now - began);
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
    for told in &mut told {
        told.took = last - began;
        told.latencies.sort_unstable();
    }
    Ok(told)
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
        told: &mut Told,
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
                Pace::Rate(rate) => scheduled(told.sent + number as u64, rate),
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
        told.sent += sent as u64;
        Ok(sent)
    }

    /// Receives what has arrived, without waiting; returns how many datagrams that were.
    pub(crate) fn receive(&mut self, began: Instant, stream: &Stream<'_>, told: &mut Told) -> std::io::Result<usize> {
        let received = self.batch.receive(&self.socket)?;
        let now = if stream.timed == Timed::FromDue { nanoseconds(began.elapsed()) } else { 0 };
        let mask = (1_u16 << self.bits) - 1;
        for (answer, stamp) in self.batch.answers(received) {
            let Some(&[high, low, flags, code, _, _, many, few]) = answer.first_chunk() else {
                told.wrong += 1;
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
                    told.latencies.extend(took.map(|took| u32::try_from(took / 1000).unwrap_or(u32::MAX)));
                }
                _ => {
                    told.stray += 1;
                    continue;
                }
            }
            self.free.push_back(slot);
            told.answered += 1;
            told.octets += answer.len() as u64;
            let Expected { rcode, records } = stream.expected;
            let right = flags & 0x80 != 0 && code & 15 == rcode && u16::from_be_bytes([many, few]) == records;
            told.wrong += u64::from(!right);
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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    /// Answers every query by `answer`, which may change it, refuse it (false) or leave it, until dropped.
    struct Answering {
        address: SocketAddr,
        ended: Arc<AtomicBool>,
    }

    impl Answering {
        fn start(mut answer: impl FnMut(u64, &mut [u8]) -> bool + Send + 'static) -> Self {
            let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
            socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let (address, ended) = (socket.local_addr().unwrap(), Arc::new(AtomicBool::new(false)));
            let stop = Arc::clone(&ended);
            std::thread::spawn(move || {
                let (mut buffer, mut number) = ([0; 512], 0);
                while !stop.load(Ordering::Relaxed) {
                    let Ok((length, from)) = socket.recv_from(&mut buffer) else { continue };
                    buffer[2] |= 0x80;
                    if answer(number, &mut buffer[..length]) {
                        let _ = socket.send_to(&buffer[..length], from);
                    }
                    number += 1;
                }
            });
            Self { address, ended }
        }

        fn ask(&self, pace: Pace) -> Told {
            let timed = if matches!(pace, Pace::Rate(_)) { Timed::FromDue } else { Timed::No };
            self.ask_all(&[(pace, timed)]).remove(0)
        }

        fn ask_all(&self, streams: &[(Pace, Timed)]) -> Vec<Told> {
            let (workload, expected) = (&Workload::of_missing(), Expected { rcode: 0, records: 0 });
            let stream = |&(pace, timed)| Stream { workload, expected, pace, timed, sockets: 2 };
            let streams: Vec<Stream<'_>> = streams.iter().map(stream).collect();
            run(self.address, &streams, Duration::from_millis(100), &mut Draw::new(1)).unwrap()
        }
    }

    impl Drop for Answering {
        fn drop(&mut self) {
            self.ended.store(true, Ordering::Relaxed);
        }
    }

    #[test]
    fn all_that_is_answered_is_counted() {
        let told = Answering::start(|_, _| true).ask(Pace::Window(16));
        assert!(told.answered > 0);
        assert_eq!((told.sent, told.wrong), (told.answered + told.lost, 0));
        assert!(told.stray <= told.lost, "what came too late isn't an answer any more");
        assert_eq!(told.octets, told.answered * Workload::of_missing().length() as u64);
    }

    #[test]
    fn wrong_answers_are_told_from_right_ones() {
        let told = Answering::start(|number, answer| {
            match number % 4 {
                0 => answer[2] &= 0x7f,
                1 => answer[3] |= 2,
                2 => answer[7] = 1,
                _ => {}
            }
            true
        })
        .ask(Pace::Window(16));
        assert!(told.wrong * 4 >= told.answered * 2, "{} of {}", told.wrong, told.answered);
        assert!(told.wrong < told.answered);
    }

    #[test]
    fn answers_nobody_waits_for_are_strays_and_what_they_answered_is_lost() {
        let told = Answering::start(|number, answer| {
            if number == 0 {
                answer[0] ^= 0x80;
            }
            number != 1
        })
        .ask(Pace::Window(8));
        assert!(told.stray >= 1 && told.lost >= 2, "{told:?}");
        assert_eq!(told.sent, told.answered + told.lost);
    }

    #[test]
    fn a_rate_is_kept_and_timed() {
        let told = Answering::start(|_, _| true).ask(Pace::Rate(5000));
        assert!((1..=500).contains(&told.sent), "{}", told.sent);
        assert_eq!(told.latencies.len() as u64, told.answered);
        assert!(told.latencies.is_sorted());
    }

    #[test]
    fn streams_beside_each_other_are_told_apart() {
        let answering = Answering::start(|_, _| true);
        let told = answering.ask_all(&[(Pace::Rate(2000), Timed::OnTheWay), (Pace::Rate(6000), Timed::No)]);
        assert!((1..=200).contains(&told[0].sent), "{}", told[0].sent);
        assert!((1..=600).contains(&told[1].sent) && told[1].sent > told[0].sent, "{}", told[1].sent);
        assert_eq!([told[0].wrong, told[1].wrong], [0, 0]);
        assert_eq!(told[0].latencies.len() as u64, told[0].answered);
        assert!(told[1].latencies.is_empty());
    }

    #[test]
    fn time_on_the_way_is_the_servers_not_the_generators() {
        // It takes a moment over each fourth, which those behind it wait for.
        let told = Answering::start(|number, _| {
            let began = Instant::now();
            while number % 4 == 0 && began.elapsed() < Duration::from_millis(2) {}
            true
        })
        .ask_all(&[(Pace::Rate(500), Timed::OnTheWay)])
        .remove(0);
        let slow = told.latencies.iter().filter(|&&took| took >= 2000).count();
        assert!(slow as u64 >= told.answered / 5 && slow > 0, "{told:?}");
        assert!(told.latencies.iter().all(|&took| took < 10_000_000), "the clocks are the same: {told:?}");
    }

    #[test]
    fn a_steady_rate_makes_up_for_a_millisecond_at_most() {
        // What is sent as answers come, by a generator on a machine that may have one core: never more than is due.
        let told = Answering::start(|_, _| true).ask_all(&[(Pace::Steady(5000), Timed::No)]).remove(0);
        assert!((1..=500).contains(&(told.sent + told.skipped)), "{} and {}", told.sent, told.skipped);
        assert!(told.sent > 0);
        // Nothing can be outstanding that isn't due within a millisecond: five of five thousand.
        let held = Answering::start(|number, _| number % 2 == 0).ask_all(&[(Pace::Steady(1), Timed::No)]).remove(0);
        assert!(held.sent <= 1, "{held:?}");
    }

    #[test]
    fn a_schedule_and_what_is_due_by_it_agree() {
        for number in [0, 1, 19_999, 20_000] {
            let at = Duration::from_nanos(scheduled(number, 20_000));
            assert_eq!(due(at, 20_000), number + 1);
            assert_eq!(due(at - Duration::from_nanos(1), 20_000), number);
        }
    }
}
