//! A link between two programs on this machine that a test slows down, cuts and heals. Takes the address that is really
//! listened on, gives another one to connect to, and passes on what comes.
//!
//! A cut link swallows: who sends gets no error, and who connects hears nothing, as if a cable had been pulled. What
//! was sent meanwhile arrives when the link is healed. [`Link::reset`] is the other kind of failure: connections break.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many pieces of up to 16 KiB may be under way in one direction.
const PIECES: usize = 1_024;

/// The link. It ends, and its connections with it, when this is dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// How long a byte takes in one direction.
    delay: Duration,
    is_cut: bool,
    is_closed: bool,
    /// Both ends of every connection.
    open: Vec<TcpStream>,
}

impl Link {
    /// A link to what listens at `to`.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn to(to: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        Self::accept_from(listener, to)
    }

    /// A link that is connected to by `listener`.
    ///
    /// # Panics
    /// If the listener has no address.
    #[must_use]
    pub fn accept_from(listener: TcpListener, to: SocketAddr) -> Self {
        let address = listener.local_addr().expect("an address");
        let shared = Arc::<Shared>::default();
        let of_thread = Arc::clone(&shared);
        let accepting = std::thread::spawn(move || accept(&listener, to, &of_thread));
        Self { address, shared, accepting: Some(accepting) }
    }

    /// Where to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on each byte takes half of this time, so that an answer takes all of it.
    pub fn round_trip(&self, time: Duration) {
        self.shared.change(|state| state.delay = time / 2);
    }

    /// Passes nothing on until [`Link::heal`].
    pub fn cut(&self) {
        self.shared.change(|state| state.is_cut = true);
    }

    /// Passes on what was held back, and all that comes.
    pub fn heal(&self) {
        self.shared.change(|state| state.is_cut = false);
    }

    /// Breaks every connection. New ones are taken.
    pub fn reset(&self) {
        self.shared.change(State::hang_up);
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.change(|state| {
            state.is_closed = true;
            state.hang_up();
        });
        // Wakes the thread that accepts.
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_secs(1));
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

impl State {
    fn hang_up(&mut self) {
        for stream in self.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        self.changed.notify_all();
    }

    /// Waits while the link is cut; `false` if it has ended.
    fn wait_while_cut(&self) -> bool {
        let held = |state: &mut State| state.is_cut && !state.is_closed;
        let state = self.changed.wait_while(self.state(), held).unwrap_or_else(PoisonError::into_inner);
        !state.is_closed
    }
}

fn accept(listener: &TcpListener, to: SocketAddr, shared: &Arc<Shared>) {
    for near in listener.incoming() {
        let Ok(near) = near else { return };
        if shared.state().is_closed {
            return;
        }
        let shared = Arc::clone(shared);
        std::thread::spawn(move || connect(&near, to, &shared));
    }
}

/// Passes on both directions of one connection.
fn connect(near: &TcpStream, to: SocketAddr, shared: &Arc<Shared>) {
    if !shared.wait_while_cut() {
        return;
    }
    let Ok(far) = TcpStream::connect(to) else { return };
    let _ = (near.set_nodelay(true), far.set_nodelay(true));
    let ends = || Some((near.try_clone().ok()?, far.try_clone().ok()?));
    let (Some(to_far), Some(to_near), Some(kept)) = (ends(), ends().map(|(near, far)| (far, near)), ends()) else {
        return;
    };
    shared.change(|state| state.open.extend([kept.0, kept.1]));
    for (from, to) in [to_far, to_near] {
        let (sender, receiver) = sync_channel(PIECES);
        let (reading, writing) = (Arc::clone(shared), Arc::clone(shared));
        std::thread::spawn(move || read(from, &sender, &reading));
        std::thread::spawn(move || write(to, &receiver, &writing));
    }
}

/// Takes pieces from one end, each with the time at which it is to arrive.
fn read(mut from: TcpStream, sender: &SyncSender<(Instant, Vec<u8>)>, shared: &Shared) {
    let mut piece = vec![0; 16 << 10];
    while let Ok(length @ 1..) = from.read(&mut piece) {
        let arrives = Instant::now() + shared.state().delay;
        if sender.send((arrives, piece[..length].to_vec())).is_err() {
            return;
        }
    }
}

/// Gives pieces to the other end when they are to arrive. The end of one direction is passed on as well.
fn write(mut to: TcpStream, receiver: &Receiver<(Instant, Vec<u8>)>, shared: &Shared) {
    while let Ok((arrives, piece)) = receiver.recv() {
        std::thread::sleep(arrives.saturating_duration_since(Instant::now()));
        if !shared.wait_while_cut() || to.write_all(&piece).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something that sends back all that it gets.
    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                std::thread::spawn(move || std::io::copy(&mut stream.try_clone().unwrap(), &mut { stream }));
            }
        });
        address
    }

    fn ask(stream: &mut TcpStream, limit: Duration) -> std::io::Result<Duration> {
        let begun = Instant::now();
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(b"x")?;
        stream.read_exact(&mut [0])?;
        Ok(begun.elapsed())
    }

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn a_slow_link_takes_its_time_and_a_cut_one_keeps_what_was_sent() {
        let link = Link::to(echo());
        let mut stream = TcpStream::connect(link.address()).unwrap();
        ask(&mut stream, LONG).unwrap();
        link.round_trip(Duration::from_millis(80));
        assert!(ask(&mut stream, LONG).unwrap() >= Duration::from_millis(80));
        link.cut();
        ask(&mut stream, Duration::from_millis(150)).unwrap_err();
        let mut late = TcpStream::connect(link.address()).unwrap();
        ask(&mut late, Duration::from_millis(50)).unwrap_err();
        link.heal();
        stream.set_read_timeout(Some(LONG)).unwrap();
        stream.read_exact(&mut [0]).unwrap();
        ask(&mut stream, LONG).unwrap();
        ask(&mut late, LONG).unwrap();
    }

    #[test]
    fn a_reset_breaks_connections_and_takes_new_ones() {
        let link = Link::to(echo());
        let mut stream = TcpStream::connect(link.address()).unwrap();
        ask(&mut stream, LONG).unwrap();
        link.reset();
        assert!(ask(&mut stream, LONG).is_err());
        ask(&mut TcpStream::connect(link.address()).unwrap(), LONG).unwrap();
    }
}
