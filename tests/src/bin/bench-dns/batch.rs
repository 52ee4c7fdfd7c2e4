//! Datagrams in batches over one connected socket: queries enter, answers leave; `load` drives it. The calls are nix's safe ones.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::UdpSocket;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, MultiHeaders, recvmmsg, sendmmsg};

/// The most datagrams of one call.
pub(crate) const SIZE: usize = 64;
/// Room for an answer: more than the payload that queries tell.
const ANSWER: usize = 2048;

/// Buffers for one call each way.
pub(crate) struct Batch {
    answers: Vec<u8>,
    lengths: [usize; SIZE],
    incoming: MultiHeaders<()>,
    queries: Vec<u8>,
    outgoing: MultiHeaders<()>,
    /// The length of each query.
    length: usize,
}

impl Batch {
    /// Buffers of copies of `template`.
    pub(crate) fn new(template: &[u8]) -> Self {
        Self {
            answers: vec![0; SIZE * ANSWER],
            lengths: [0; SIZE],
            incoming: MultiHeaders::preallocate(SIZE, None),
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
                Ok(received.zip(&mut self.lengths).map(|(message, length)| *length = message.bytes).count())
            }
            Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
            Err(error) => Err(error.into()),
        }
    }

    /// The first `count` answers of the last call.
    pub(crate) fn answers(&self, count: usize) -> impl Iterator<Item = &[u8]> {
        let answers = self.answers.chunks_exact(ANSWER).zip(&self.lengths).take(count);
        answers.map(|(answer, &length)| &answer[..length.min(ANSWER)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_goes_out_and_comes_back_in_order() {
        let [near, far] = [0; 2].map(|_| UdpSocket::bind("127.0.0.1:0").unwrap());
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        let mut batch = Batch::new(b"query");
        for number in 0..SIZE {
            batch.query(number)[0] = u8::try_from(number).unwrap();
        }
        assert_eq!(batch.send(&near, 3).unwrap(), 3);
        assert_eq!(batch.receive(&near).unwrap(), 0);
        let mut other = Batch::new(b"");
        let received = bailiwick_tests::wait::until("datagrams arrive", || {
            Some(other.receive(&far).unwrap()).filter(|&count| count > 0)
        });
        let got: Vec<&[u8]> = other.answers(received).collect();
        assert_eq!(got, [b"\0uery", b"\x01uery", b"\x02uery"]);
    }
}
