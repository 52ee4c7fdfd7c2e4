//! Other authoritative servers with the same zones: NSD and Knot from Debian, each on a loopback port of its own.

use std::fmt::Write as _;
use std::net::{SocketAddr, UdpSocket};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use tempfile::TempDir;

use crate::dns::question;
use crate::net::free_port;
use crate::process::Process;
use crate::wait;

/// A running server.
#[derive(Debug)]
pub struct Peer {
    /// Its name.
    pub name: &'static str,
    /// Where it answers by UDP and TCP.
    pub address: SocketAddr,
    _process: Process,
    _folder: TempDir,
}

/// Starts NSD with zones given by origin and master file; `None` where it isn't installed.
#[must_use]
pub fn nsd(zones: &[(String, String)]) -> Option<Peer> {
    let program = installed("nsd")?;
    start("NSD", program, &["-d", "-c"], zones, |folder, address| {
        let mut conf = format!(
            "server:\n ip-address: {}\n port: {}\n username: \"\"\n zonesdir: \"{folder}\"\n database: \"\"\n \
             pidfile: \"{folder}/pid\"\n \
             xfrdfile: \"{folder}/xfrd\"\n xfrdir: \"{folder}\"\n zonelistfile: \"{folder}/list\"\n logfile: \
             \"{folder}/log\"\n \
             refuse-any: no\n server-count: 1\n rrl-ratelimit: 0\n\
             remote-control:\n control-enable: no\n",
            address.ip(),
            address.port()
        );
        for (origin, _) in zones {
            let _ = write!(conf, "zone:\n name: {origin}\n zonefile: {origin}.zone\n");
        }
        conf
    })
}

/// Starts Knot with zones given by origin and master file; `None` where it isn't installed.
#[must_use]
pub fn knot(zones: &[(String, String)]) -> Option<Peer> {
    let program = installed("knotd")?;
    start("Knot", program, &["-c"], zones, |folder, address| {
        let mut conf = format!(
            "server:\n  rundir: {folder}\n  listen: {}@{}\n  udp-workers: 1\n  tcp-workers: 1\n  \
             background-workers: 1\n\
             database:\n  storage: {folder}\n\
             template:\n  - id: default\n    storage: {folder}\n    file: \"%s.zone\"\n    semantic-checks: off\n\
             zone:\n",
            address.ip(),
            address.port()
        );
        for (origin, _) in zones {
            let _ = writeln!(conf, "  - domain: {origin}\n    file: {origin}.zone");
        }
        conf
    })
}

fn start(
    name: &'static str,
    program: &str,
    arguments: &[&str],
    zones: &[(String, String)],
    conf: impl Fn(&str, SocketAddr) -> String,
) -> Option<Peer> {
    let folder = TempDir::new().expect("a temporary folder");
    let address = free_port();
    for (origin, text) in zones {
        std::fs::write(folder.path().join(format!("{origin}.zone")), text).expect("written");
    }
    let path = folder.path().join("conf");
    std::fs::write(&path, conf(&folder.path().display().to_string(), address)).expect("written");
    let log = std::fs::File::create(folder.path().join("out")).expect("a log");
    let errors = log.try_clone().expect("a log");
    let mut command = Command::new(program);
    command.args(arguments).arg(&path).stdout(Stdio::from(log)).stderr(errors);
    let mut process = Process::start(&mut command);
    // A server that has its last zone has all.
    let last = zones.last().map(|(origin, _)| question(origin, "SOA").to_wire())?;
    wait::until_true("the other server answers", || {
        if let Some(status) = process.ended() {
            let reported = |file: &str| std::fs::read_to_string(folder.path().join(file)).unwrap_or_default();
            panic!("{name} ended with {status}: {}{}", reported("out"), reported("log"));
        }
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
        let mut answer = [0; 2048];
        socket.send_to(&last, address).is_ok()
            && socket.recv(&mut answer).is_ok_and(|length| length > 12 && answer[3] & 15 == 0)
    });
    Some(Peer { name, address, _process: process, _folder: folder })
}

/// The program's path: Debian keeps name servers where not everybody's PATH leads.
fn installed(program: &str) -> Option<&'static str> {
    let paths: &[&'static str] = match program {
        "nsd" => &["/usr/sbin/nsd", "/usr/local/sbin/nsd"],
        _ => &["/usr/sbin/knotd", "/usr/local/sbin/knotd"],
    };
    paths.iter().copied().find(|path| Path::new(path).exists())
}
