//! Sends and receives datagrams in batches over one connected socket. Takes queries, returns answers. Called by `load`.
//! The system calls are nix's safe ones.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, MultiHeaders, RecvMsg, recvmmsg, sendmmsg};
use nix::sys::time::TimeSpec;

/// The most datagrams of one call.
pub(crate) const SIZE: usize = 64;
/// Room for an answer: more than the payload that queries tell.
const ANSWER: usize = 2048;

/// Buffers for one call each way.
pub(crate) struct Batch {
    answers: Vec<u8>,
    lengths: [usize; SIZE],
    /// When the kernel had each answer.
    stamps: [u64; SIZE],
    incoming: MultiHeaders<()>,
    queries: Vec<u8>,
    outgoing: MultiHeaders<()>,
    /// The length of each query.
    length: usize,
}

impl Batch {
    /// Buffers of copies of `template`; `stamped`: the socket is told to stamp what it receives.
    pub(crate) fn new(template: &[u8], stamped: bool) -> Self {
        let room = stamped.then(|| nix::cmsg_space!(TimeSpec));
        Self {
            answers: vec![0; SIZE * ANSWER],
            lengths: [0; SIZE],
            stamps: [0; SIZE],
            incoming: MultiHeaders::preallocate(SIZE, room),
            queries: template.repeat(SIZE),
            outgoing: MultiHeaders::preallocate(SIZE, None),
            length: template.len(),
        }
    }

    /// The room of a query.
    pub(crate) fn query(&mut self, number: usize) -> &mut [u8] {
        &mut self.queries[number * self.length..][..self.length]
    }

    /// Sends the first `count` queries; returns how many the system took.
    pub(crate) fn send(&mut self, socket: &UdpSocket, count: usize) -> io::Result<usize> {
        let mut queries = self.queries.chunks_exact(self.length);
        let slices: [_; SIZE] = std::array::from_fn(|_| [IoSlice::new(queries.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        let sent = sendmmsg(socket.as_raw_fd(), &mut self.outgoing, &slices[..count], [None; SIZE], [], flags);
        match sent {
            Ok(sent) => Ok(sent.count()),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ENOBUFS) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// Receives what has arrived, without waiting; returns how many datagrams that are.
    pub(crate) fn receive(&mut self, socket: &UdpSocket) -> io::Result<usize> {
        let mut answers = self.answers.chunks_exact_mut(ANSWER);
        let mut slices: [_; SIZE] = std::array::from_fn(|_| [IoSliceMut::new(answers.next().unwrap_or_default())]);
        let flags = MsgFlags::MSG_DONTWAIT;
        match recvmmsg(socket.as_raw_fd(), &mut self.incoming, slices.iter_mut(), flags, None) {
            Ok(received) => {
                let places = self.lengths.iter_mut().zip(&mut self.stamps);
                let taken = received.zip(places).map(|(message, (length, stamp))| {
                    *length = message.bytes;
                    *stamp = stamp_of(&message);
                });
                Ok(taken.count())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The first `count` answers of the last call, with when the kernel had them, as [`now`] counts; 0 if it doesn't
    /// stamp them.
    pub(crate) fn answers(&self, count: usize) -> impl Iterator<Item = (&[u8], u64)> {
        let answers = self.answers.chunks_exact(ANSWER).zip(&self.lengths).zip(&self.stamps).take(count);
        answers.map(|((answer, &length), &stamp)| (&answer[..length.min(ANSWER)], stamp))
    }
}

/// When the kernel had a datagram.
fn stamp_of(message: &RecvMsg<'_, '_, ()>) -> u64 {
    let stamp = message.cmsgs().ok().and_then(|mut all| {
        all.find_map(|one| match one {
            ControlMessageOwned::ScmTimestampns(time) => Some(time),
            _ => None,
        })
    });
    let seconds = |time: TimeSpec| u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000;
    stamp.map_or(0, |time| seconds(time) + u64::try_from(time.tv_nsec()).unwrap_or(0))
}

/// Nanoseconds by the clock that the kernel stamps datagrams by.
pub(crate) fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{setsockopt, sockopt};

    use super::*;

    #[test]
    fn a_batch_goes_out_and_comes_back_in_order() {
        let [near, far] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        setsockopt(&far, sockopt::ReceiveTimestampns, &true).unwrap();
        let mut batch = Batch::new(b"query", false);
        let mut other = Batch::new(b"", true);
        // Each time, not only the first: the kernel shortens what it was given for stamps.
        for round in 0..3 {
            for number in 0..SIZE {
                batch.query(number)[0] = u8::try_from(number).unwrap();
            }
            let before = now();
            assert_eq!(batch.send(&near, 3).unwrap(), 3);
            assert_eq!(batch.receive(&near).unwrap(), 0);
            let mut got = Vec::new();
            bailiwick_tests::wait::until("datagrams arrive", || {
                let received = other.receive(&far).unwrap();
                got.extend(other.answers(received).map(|(answer, stamp)| (answer.to_vec(), stamp)));
                (got.len() == 3).then_some(())
            });
            let octets: Vec<&[u8]> = got.iter().map(|(answer, _)| &answer[..]).collect();
            assert_eq!(octets, [b"\0uery", b"\x01uery", b"\x02uery"]);
            assert!(got.iter().all(|(_, stamp)| (before..=now()).contains(stamp)), "round {round}: {got:?}");
        }
    }
}
