//! Runs a server. Takes a peer, returns a process that has answered. The whole process group ends when this is dropped,
//! or when this program is told to end. Called by `main`.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_tests::dns::question;
use bailiwick_tests::net::free_port;
use bailiwick_tests::process::Process;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cores::Cores;
use crate::peers::{Peer, Place, found};
use crate::proc::{Cpu, cpu, memory, runs};
use crate::world::{Country, ORIGIN};

/// How long a server may take to read its zone: a million names take some seconds.
const LOADING: Duration = Duration::from_secs(180);
/// How long servers may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(1);
/// A server that spends less of a core than this has settled.
const QUIET: f64 = 0.02;

/// What all servers have in common.
#[derive(Debug)]
pub(crate) struct Common {
    /// The temporary folder of this run.
    pub(crate) folder: PathBuf,
    /// The country database.
    pub(crate) mmdb: PathBuf,
    /// Where countries are steered to.
    pub(crate) countries: Vec<Country>,
    /// Whether TLS is wanted.
    pub(crate) encrypted: bool,
}

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    /// What it is.
    pub(crate) peer: Peer,
    /// Where it answers by UDP and TCP.
    pub(crate) address: SocketAddr,
    /// Where it answers by TLS, if it was asked to and can.
    pub(crate) encrypted: Option<SocketAddr>,
    /// Where it answers by HTTPS, if it was asked to and can.
    pub(crate) https: Option<SocketAddr>,
    /// Where it answers by QUIC, if it was asked to and can.
    pub(crate) quic: Option<SocketAddr>,
    /// Its folder; `cert.pem` is in it if it was asked for TLS.
    pub(crate) folder: PathBuf,
    /// From its start to its first right answer.
    pub(crate) loaded: Duration,
    /// Where it runs, with how many threads that answer UDP.
    pub(crate) cores: Cores,
    group: i32,
    process: Process,
}

impl Server {
    /// Starts it on its cores with a zone of so many names and waits until it answers.
    ///
    /// # Errors
    /// When it can't be started, ends, or doesn't answer; with what it said.
    pub(crate) fn start(peer: &Peer, names: u32, cores: &Cores, common: &Common) -> Result<Self, String> {
        let name = peer.name();
        let folder = TempDir::with_prefix_in(format!("{name}-"), &common.folder)
            .map_err(|error| format!("{}: {error}", common.folder.display()))?
            .keep(); // it goes with the folder it is in
        let address = free_port();
        let [encrypted, https, quic] = [0; 3].map(|_| common.encrypted.then(free_port));
        if encrypted.is_some() {
            certificate(&folder)?;
        }
        let Common { mmdb, countries, .. } = common;
        let threads = cores.threads;
        let place = Place { folder: &folder, address, encrypted, https, quic, mmdb, countries, names, threads };
        let words = peer.command(&place)?;
        let log = fs::File::create(folder.join("out")).map_err(|error| format!("{}: {error}", folder.display()))?;
        let errors = log.try_clone().map_err(|error| format!("{}: {error}", folder.display()))?;
        let mut command = tethered(&words[0]);
        command.args(&words[1..]).current_dir(&folder).stdout(Stdio::from(log)).stderr(errors).process_group(0);
        let began = Instant::now();
        let process = cores.on_servers(|| {
            let mut groups = groups();
            let process = Process::start(&mut command);
            groups.push(group_of(&process));
            process
        })?;
        let group = group_of(&process);
        let (peer, cores, loaded) = (peer.clone(), cores.clone(), Duration::ZERO);
        let mut server = Self { peer, address, encrypted, https, quic, folder, loaded, cores, group, process };
        server.wait_until_it_answers(began).map_err(|error| {
            let reported = |file: &str| fs::read_to_string(server.folder.join(file)).unwrap_or_default();
            format!("{name} {error}: {}{}", reported("out").trim(), reported("log").trim())
        })?;
        server.loaded = began.elapsed();
        Ok(server)
    }

    fn wait_until_it_answers(&mut self, began: Instant) -> Result<(), String> {
        let query = question(&format!("ns1.{ORIGIN}"), "A").to_wire();
        while began.elapsed() < LOADING {
            if let Some(status) = self.process.ended() {
                return Err(format!("ended with {status}"));
            }
            let fault = |error: std::io::Error| format!("can't be asked: {error}");
            let socket = UdpSocket::bind("127.0.0.1:0").map_err(fault)?;
            socket.connect(self.address).map_err(fault)?;
            socket.set_read_timeout(Some(Duration::from_millis(50))).map_err(fault)?;
            let mut answer = [0; 2048];
            // It refuses, fails or is silent while it reads its zone.
            if socket.send(&query).is_ok()
                && socket
                    .recv(&mut answer)
                    .is_ok_and(|length| length > 12 && answer[2] & 0x80 != 0 && answer[3] & 15 == 0)
            {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        Err(format!("didn't answer within {LOADING:?}"))
    }

    /// As it is called, with its threads if it has several.
    pub(crate) fn name(&self) -> String {
        named(self.peer.name(), self.cores.threads)
    }

    /// What it has cost so far.
    pub(crate) fn cpu(&self) -> Cpu {
        cpu(self.group)
    }

    /// Stops it until what is returned is dropped; whatever is sent to it meanwhile lies in its sockets.
    ///
    /// # Errors
    /// When it has ended.
    pub(crate) fn halt(&self) -> Result<Halted, String> {
        killpg(Pid::from_raw(self.group), Signal::SIGSTOP)
            .map_err(|error| format!("{} can't be stopped: {error}", self.name()))?;
        Ok(Halted(self.group))
    }

    /// Its memory in octets.
    pub(crate) fn memory(&self) -> u64 {
        memory(self.group)
    }

    /// Waits until it has nothing left to do, so that it disturbs nobody; for at most ten seconds.
    #[allow(clippy::cast_precision_loss)] // nanoseconds of seconds
    pub(crate) fn settle(&self) {
        let began = Instant::now();
        while began.elapsed() < Duration::from_secs(10) {
            let (before, looked) = (self.cpu(), Instant::now());
            std::thread::sleep(Duration::from_millis(20));
            let spent = self.cpu().since(&before).nanoseconds as f64;
            if spent < looked.elapsed().as_nanos() as f64 * QUIET {
                return;
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let mut groups = groups();
        end(&[self.group]);
        groups.retain(|&group| group != self.group);
    }
}

/// A server that may not run; dropped, it may.
#[derive(Debug)]
pub(crate) struct Halted(i32);

impl Drop for Halted {
    fn drop(&mut self) {
        let _ = killpg(Pid::from_raw(self.0), Signal::SIGCONT);
    }
}

/// A server's or a workload's name with a number of threads, if there are several.
pub(crate) fn named(name: &str, threads: usize) -> String {
    match threads {
        1 => name.to_owned(),
        threads => format!("{name}, {threads} threads"),
    }
}

/// A command that the system ends should this program be killed outright.
pub(crate) fn tethered(program: &str) -> Command {
    match found("setpriv") {
        Some(setpriv) => {
            let mut command = Command::new(setpriv);
            command.args(["--pdeathsig", "KILL"]).arg(program);
            command
        }
        None => Command::new(program),
    }
}

fn group_of(process: &Process) -> i32 {
    i32::try_from(process.id()).unwrap_or(i32::MAX)
}

/// A certificate for loopback and its key.
fn certificate(folder: &Path) -> Result<(), String> {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]);
    let made = made.map_err(|error| format!("no certificate can be made: {error}"))?;
    fs::write(folder.join("cert.pem"), made.cert.pem())
        .and_then(|()| fs::write(folder.join("key.pem"), made.signing_key.serialize_pem()))
        .map_err(|error| format!("{}: {error}", folder.display()))
}

/// The process groups there are.
fn groups() -> MutexGuard<'static, Vec<i32>> {
    static GROUPS: Mutex<Vec<i32>> = Mutex::new(Vec::new());
    GROUPS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Ends every server and lets no other be started: the last thing this program does when it is told to end.
pub(crate) fn end_all() -> impl Drop {
    let groups = groups();
    end(&groups);
    groups
}

/// Tells groups to end, which lets those of several processes clear up among themselves, and makes them soon after.
fn end(groups: &[i32]) {
    for (signal, patience) in [(Signal::SIGTERM, END_TIMEOUT), (Signal::SIGKILL, Duration::ZERO)] {
        for &group in groups {
            let _ = killpg(Pid::from_raw(group), signal);
        }
        let reported = Instant::now();
        while reported.elapsed() < patience && groups.iter().any(|&group| runs(group)) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
