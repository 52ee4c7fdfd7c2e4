//! Replaces a process that serves by a new process. The old process sends its sockets through a Unix socket in the
//! state directory. The new process begins to read the sockets before the old process stops. So every query that waits
//! in a socket is answered by one of the two processes.
//!
//! The protocol, after each side has checked that the other runs as the same user (`SO_PEERCRED`) or as root:
//!
//! | new | old |
//! | --- | --- |
//! | connects, writes `HELLO` | |
//! | | writes the octet of a role together with one socket (`SCM_RIGHTS`); after the last socket `END` |
//! | writes `NEXT` after each socket | |
//! | loads its files and answers on the sockets, then writes `READY` | answers meanwhile |
//! | | stops reading and accepting, then writes `YIELDED` and ends |
//!
//! A connection that ends before `READY` leaves the old process as it was.

use std::fs::{File, Permissions};
use std::io::{self, IoSlice, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use nix::sys::socket::{ControlMessage, MsgFlags, getsockopt, sendmsg, sockopt};
use tokio::sync::mpsc::UnboundedSender;
use tracing::{error, info, warn};

use crate::sockets::inherited::{HandedSocket, Inherited, Role};
use crate::system::batch::{passed_files, receive_file};
use crate::system::state_dir;

/// The socket's name in the state directory.
const NAME: &str = "takeover.sock";
/// How long the first message of the new process is.
const HELLO: usize = 22;
/// The first message of a process to itself, to end its waiting.
const GOODBYE: &[u8; HELLO] = b"bailiwick takeover end";
/// From the new process: it has taken a socket, and the next may come.
const NEXT: u8 = b'+';
/// From the old process: there are no more sockets.
const END: u8 = b'.';
/// From the new process: it answers queries.
const READY: u8 = b'!';
/// From the old process: it doesn't read queries any more.
const YIELDED: u8 = b'-';
/// From the old process: the file sent with this octet is the lock of the state directory, not a socket.
const LOCK: u8 = b'L';
/// How long one side waits for the other's next message.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long the old process waits until the new process has loaded its files.
const LOADING: Duration = Duration::from_secs(600);

/// The octet of each role in the protocol.
const ROLES: [(u8, Role); 6] =
    [(b'd', Role::Dns), (b't', Role::Dot), (b'q', Role::Doq), (b'h', Role::Doh), (b'a', Role::Api), (b'e', Role::Edge)];

/// Which program serves. Neither takes the other's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// The DNS server.
    Dns,
    /// The native gateway.
    Edge,
}

impl Program {
    /// The first message of the new process: the program, the protocol and its version.
    const fn hello(self) -> &'static [u8; HELLO] {
        match self {
            Self::Dns => b"bailiwick takeover v1\n",
            Self::Edge => b"bailiwick-edge take 1\n",
        }
    }
}

/// The path of the socket at which the process that uses this state directory accepts a takeover.
fn path(state_dir: &Path) -> PathBuf {
    state_dir.join(NAME)
}

/// What the new process has received from the old process.
pub struct ReceivedState {
    /// The sockets.
    pub inherited: Inherited,
    /// The lock of the state directory, which both processes hold from now on.
    pub lock: Option<Arc<File>>,
    /// The connection to the old process, to stop it.
    pub old_process: OldProcess,
}

/// The old process. It serves until [`OldProcess::replace`].
pub struct OldProcess(UnixStream);

impl OldProcess {
    /// Reports that this process answers, and waits until the old process has stopped reading.
    ///
    /// # Errors
    /// When the connection has ended, or the old process doesn't answer in time.
    pub fn replace(mut self) -> io::Result<()> {
        self.0.write_all(&[READY])?;
        match read_octet(&mut self.0)? {
            YIELDED => Ok(()),
            other => Err(unexpected(other)),
        }
    }
}

/// Asks the process that uses `state_dir` for its sockets; `None` if there is no such process.
///
/// # Errors
/// When the old process doesn't send its sockets. It then continues to serve.
pub fn take(program: Program, state_dir: &Path) -> io::Result<Option<ReceivedState>> {
    let mut stream = match UnixStream::connect(path(state_dir)) {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    check_peer(&stream)?;
    be_patient(&stream, PATIENCE)?;
    stream.write_all(program.hello())?;
    let (mut inherited, mut lock) = (Inherited::default(), None);
    loop {
        let (word, file) = receive_file(stream.as_fd())?;
        let role = ROLES.iter().find(|(octet, _)| *octet == word).map(|(_, role)| *role);
        match (role, file) {
            (Some(role), Some(file)) => inherited.add(Some(role), file)?,
            (None, Some(file)) if word == LOCK => lock = Some(Arc::new(File::from(file))),
            (None, None) if word == END => break,
            _ => return Err(unexpected(word)),
        }
        stream.write_all(&[NEXT])?;
    }
    Ok(Some(ReceivedState { inherited, lock, old_process: OldProcess(stream) }))
}

/// A new process that answers on this process's sockets and waits until this process stops.
pub struct Successor {
    /// The id of the new process.
    pub pid: i32,
    /// This process sends through this channel when it has stopped reading.
    pub yielded: mpsc::Sender<()>,
}

/// What is handed over to a new process: copies of all sockets, and the lock of the state directory.
pub struct Handover {
    /// The sockets with their roles.
    pub sockets: Vec<HandedSocket>,
    /// The lock of the state directory.
    pub lock: Arc<File>,
}

/// Waits for a new process that takes over, in a thread of its own. When the new process answers, it is sent to
/// `successors`. `on_request` is called with `true` when a takeover begins, and with `false` if it fails.
///
/// # Errors
/// When the socket can't be made.
pub fn listen(
    program: Program,
    state_dir: &Path,
    handover: Handover,
    on_request: impl Fn(bool) + Send + 'static,
    successors: UnboundedSender<Successor>,
) -> io::Result<()> {
    let path = path(state_dir);
    // The socket is made under another name and then renamed, so that an older socket works until the new one does.
    let temporary = path.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary)?;
    std::fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    std::fs::rename(&temporary, &path)?;
    let serve = move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { continue };
            let failed =
                |error: &io::Error| error!("a takeover came to nothing ({error}); this process goes on serving");
            match greeted(program, &mut stream) {
                Ok(Some(pid)) => {
                    on_request(true);
                    match hand_over(pid, &mut stream, &handover, &successors) {
                        // This process ends, which closes its copies of the sockets.
                        Ok(()) => return,
                        Err(error) => failed(&error),
                    }
                    on_request(false);
                }
                // The copies would keep the sockets open while this process answers what it has.
                Ok(None) => return,
                Err(error) => failed(&error),
            }
        }
    };
    std::thread::Builder::new().name("takeover".to_owned()).spawn(serve).map(drop)
}

/// Removes the socket, because this process ends. Then nobody takes over any more, and the copies of the sockets are
/// closed.
pub fn forget(state_dir: &Path) {
    let path = path(state_dir);
    if let Ok(mut stream) = UnixStream::connect(&path) {
        let _ = stream.write_all(GOODBYE);
    }
    let _ = std::fs::remove_file(path);
}

/// Reads the first message of another process. Returns the id of one that is to take over; `None` if the message is
/// this process's own.
fn greeted(program: Program, stream: &mut UnixStream) -> io::Result<Option<i32>> {
    let pid = check_peer(stream)?;
    be_patient(stream, PATIENCE)?;
    let mut hello = [0; HELLO];
    stream.read_exact(&mut hello)?;
    let is_own = i32::try_from(std::process::id()) == Ok(pid);
    match &hello {
        hello if hello == program.hello() => Ok(Some(pid)),
        hello if hello == GOODBYE && is_own => Ok(None),
        _ => {
            let message = "the other process is another program or speaks another version";
            Err(io::Error::new(io::ErrorKind::InvalidData, message))
        }
    }
}

/// Gives the sockets and the lock to a process that is to take over, and waits until it is ready.
fn hand_over(
    pid: i32,
    stream: &mut UnixStream,
    handover: &Handover,
    successors: &UnboundedSender<Successor>,
) -> io::Result<()> {
    info!(pid, "another process asks for the sockets and will take over once it is ready");
    let lock = std::iter::once((LOCK, handover.lock.as_fd()));
    let sockets = handover.sockets.iter().map(|handed| (octet_of(handed.role), handed.file.as_fd()));
    for (word, file) in lock.chain(sockets) {
        let files = [file.as_raw_fd()];
        let message = [ControlMessage::ScmRights(&files)];
        sendmsg::<()>(stream.as_raw_fd(), &[IoSlice::new(&[word])], &message, MsgFlags::MSG_NOSIGNAL, None)?;
        match read_octet(stream)? {
            NEXT => {}
            other => return Err(unexpected(other)),
        }
    }
    stream.write_all(&[END])?;
    be_patient(stream, LOADING)?;
    match read_octet(stream)? {
        READY => {}
        other => return Err(unexpected(other)),
    }
    let (yielded, has_yielded) = mpsc::channel();
    if successors.send(Successor { pid, yielded }).is_err() {
        return Err(io::Error::other("this process ends already"));
    }
    // If the server ends without a report, the channel is closed, which means the same.
    let _ = has_yielded.recv();
    let _ = stream.write_all(&[YIELDED]);
    Ok(())
}

/// The octet of a role in the protocol.
fn octet_of(role: Role) -> u8 {
    ROLES.iter().find(|(_, known)| *known == role).map_or(END, |(octet, _)| *octet)
}

/// The peer's process, if it runs as the same user or as root.
fn check_peer(stream: &UnixStream) -> io::Result<i32> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)?;
    let own = nix::unistd::geteuid().as_raw();
    if peer.uid() != own && peer.uid() != 0 {
        let message = format!("the other process runs as user {}, this one as {own}", peer.uid());
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, message));
    }
    Ok(peer.pid())
}

/// Sets how long reads and writes wait for the other process.
fn be_patient(stream: &UnixStream, patience: Duration) -> io::Result<()> {
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))
}

/// Waits for the next message, which is one octet.
fn read_octet(stream: &mut UnixStream) -> io::Result<u8> {
    let mut word = [0];
    stream.read_exact(&mut word)?;
    Ok(word[0])
}

/// The error if the other process sends another message than the protocol allows here.
fn unexpected(word: u8) -> io::Error {
    let message = format!("the other process said {:?}, which isn't expected here", char::from(word));
    io::Error::new(io::ErrorKind::InvalidData, message)
}

/// Locks a state directory, and makes the directory if it is missing. `None` if another process holds the lock.
#[must_use]
pub fn lock(state_dir: &Path) -> Option<Arc<File>> {
    let _ = state_dir::make(state_dir);
    state_dir::lock(state_dir)
}

/// The sockets that systemd passes (`sd_listen_fds(3)`): the file descriptors from 3 on, if `LISTEN_PID` is this
/// process.
#[must_use]
pub fn of_systemd() -> Inherited {
    let read = |name: &str| std::env::var(name).ok();
    let count = passed(read("LISTEN_PID").as_deref(), read("LISTEN_FDS").as_deref(), std::process::id());
    let names = read("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut inherited = Inherited::default();
    for file in passed_files(count) {
        let name = names.next().unwrap_or_default();
        if let Err(error) = file.and_then(|file: OwnedFd| inherited.add(Role::named(name), file)) {
            warn!(name, %error, "a file that systemd passes is of no use");
        }
    }
    inherited
}

/// How many files are passed to the process with the id `own`.
fn passed(pid: Option<&str>, count: Option<&str>, own: u32) -> u16 {
    let is_ours = pid.and_then(|pid| pid.parse().ok()) == Some(own);
    count.filter(|_| is_ours).and_then(|count| count.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;

    fn handover(socket: &UdpSocket, directory: &Path) -> Handover {
        Handover { sockets: vec![HandedSocket::copy(Role::Dns, socket).unwrap()], lock: lock(directory).unwrap() }
    }

    #[test]
    fn sockets_go_over_and_the_old_process_yields_when_the_new_one_is_ready() {
        let directory = tempfile::tempdir().unwrap();
        assert!(take(Program::Dns, directory.path()).unwrap().is_none(), "no server runs");
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        let (successors, mut ready) = tokio::sync::mpsc::unbounded_channel();
        listen(Program::Dns, directory.path(), handover(&socket, directory.path()), |_| {}, successors).unwrap();
        assert!(lock(directory.path()).is_none(), "another process holds the lock");

        // A takeover that fails changes nothing.
        drop(take(Program::Dns, directory.path()).unwrap().unwrap());
        let mut taken = take(Program::Dns, directory.path()).unwrap().unwrap();
        assert!(taken.lock.is_some() && ready.try_recv().is_err());
        let taken_socket = taken.inherited.take_udp(Role::Dns, address).pop().unwrap();
        assert_eq!(taken_socket.local_addr().unwrap(), address);
        let replacing = std::thread::spawn(move || taken.old_process.replace());
        let successor = ready.blocking_recv().unwrap();
        assert_eq!(successor.pid, i32::try_from(std::process::id()).unwrap());
        successor.yielded.send(()).unwrap();
        replacing.join().unwrap().unwrap();
    }

    #[test]
    fn a_process_that_ends_keeps_no_copy_of_its_sockets() {
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let sockets = vec![HandedSocket::copy(Role::Edge, &listener).unwrap()];
        let handover = Handover { sockets, lock: lock(directory.path()).unwrap() };
        let (successors, _ready) = tokio::sync::mpsc::unbounded_channel();
        listen(Program::Edge, directory.path(), handover, |_| panic!("nobody takes over"), successors).unwrap();
        drop(listener);
        assert!(std::net::TcpStream::connect(address).is_ok(), "the copy listens");
        forget(directory.path());
        assert!(take(Program::Edge, directory.path()).unwrap().is_none());
        let begun = std::time::Instant::now();
        let await_end = |what: &str, goes_on: &dyn Fn() -> bool| {
            while goes_on() {
                assert!(begun.elapsed() < PATIENCE, "{what}");
                std::thread::yield_now();
            }
        };
        await_end("it still listens", &|| std::net::TcpStream::connect(address).is_ok());
        // It is let go after the sockets.
        await_end("the lock isn't free", &|| lock(directory.path()).is_none());
    }

    #[test]
    fn who_speaks_otherwise_gets_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let (successors, mut ready) = tokio::sync::mpsc::unbounded_channel();
        listen(Program::Dns, directory.path(), handover(&socket, directory.path()), |_| {}, successors).unwrap();
        let mut stream = UnixStream::connect(path(directory.path())).unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        // The server left bytes unread, so the connection may end with a reset.
        assert!(matches!(stream.read(&mut [0; 10]), Ok(0) | Err(_)));
        assert!(take(Program::Edge, directory.path()).is_err(), "another program");
        assert!(take(Program::Dns, directory.path()).unwrap().is_some() && ready.try_recv().is_err());
    }

    #[test]
    fn every_role_has_its_own_octet_and_name() {
        let roles = [Role::Dns, Role::Dot, Role::Doq, Role::Doh, Role::Api, Role::Edge];
        let octets: std::collections::BTreeSet<u8> = roles.into_iter().map(octet_of).collect();
        assert_eq!(octets.len(), roles.len());
        assert!([NEXT, END, READY, YIELDED, LOCK].iter().all(|other| !octets.contains(other)), "{octets:?}");
        assert!(roles.into_iter().all(|role| Role::named(role.name()) == Some(role)));
    }

    #[test]
    fn files_are_passed_to_the_process_that_is_named() {
        assert_eq!(passed(Some("7"), Some("3"), 7), 3);
        assert_eq!((passed(Some("8"), Some("3"), 7), passed(None, Some("3"), 7)), (0, 0));
        assert_eq!((passed(Some("7"), None, 7), passed(Some("7"), Some("-1"), 7)), (0, 0));
    }
}
