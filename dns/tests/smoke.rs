//! The built program: what `init` writes is checked, served, asked by UDP and TCP, told to reload, and ended by a
//! signal.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use hickory_proto::op::{Message, MessageType, OpCode, Query};
use hickory_proto::rr::{Name, RecordType};
use serde_json::Value;

const PATIENCE: Duration = Duration::from_secs(30);

fn bailiwick(directory: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_bailiwick")).args(arguments).current_dir(directory).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Waits for a condition; what it is about is told if it doesn't come.
fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        match condition() {
            Some(found) => return found,
            None if Instant::now() > end => panic!("{what} didn't come within {PATIENCE:?}"),
            None => std::thread::sleep(Duration::from_millis(10)),
        }
    }
}

/// A serving program, ended with the test.
struct Served {
    child: Child,
    dns: SocketAddr,
    directory: tempfile::TempDir,
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Served {
    fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(bailiwick(path, &["init"]).status.success());
        let config = std::fs::read_to_string(path.join("bailiwick.toml")).unwrap();
        let config = config.replace("\"127.0.0.1:5300\"", "\"127.0.0.1:0\"").replace("127.0.0.1:8053", "127.0.0.1:0");
        std::fs::write(path.join("bailiwick.toml"), config).unwrap();
        let mut child = Command::new(env!("CARGO_BIN_EXE_bailiwick"))
            .args(["serve", "--ready-file", "ready.json", "--log", "debug", "--log-format", "json"])
            .current_dir(path)
            .stderr(std::fs::File::create(path.join("log")).unwrap())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let ready = wait_for("the ready file", || {
            assert_eq!(child.try_wait().unwrap(), None, "{}", std::fs::read_to_string(path.join("log")).unwrap());
            std::fs::read(path.join("ready.json")).ok()
        });
        let ready: Value = serde_json::from_slice(&ready).unwrap();
        assert!(ready["api"].as_str().unwrap().parse::<SocketAddr>().unwrap().port() > 0);
        let dns = ready["dns"][0].as_str().unwrap().parse().unwrap();
        Self { child, dns, directory }
    }

    fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    fn log(&self) -> Vec<Value> {
        let log = std::fs::read_to_string(self.directory.path().join("log")).unwrap();
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|_| panic!("{line}"))).collect()
    }

    fn by_udp(&self, packet: &[u8]) -> Message {
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        client.send_to(packet, self.dns).unwrap();
        let mut buffer = [0; 4096];
        let length = client.recv(&mut buffer).unwrap();
        Message::from_vec(&buffer[..length]).unwrap()
    }

    /// What comes back on a connection of its own; `None`: it was closed without an answer.
    fn by_tcp(&self, packet: &[u8]) -> Option<Vec<u8>> {
        let mut stream = TcpStream::connect(self.dns).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = u16::try_from(packet.len()).unwrap().to_be_bytes();
        stream.write_all(&[&length, packet].concat()).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).ok()?;
        (all.len() > 2).then(|| all.split_off(2))
    }
}

fn query() -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Query, OpCode::Query);
    message.queries.push(Query::query(Name::from_ascii("chat.ai.example.com.").unwrap(), RecordType::A));
    message.to_vec().unwrap()
}

fn addresses(message: &Message) -> Vec<String> {
    message.answers.iter().map(|record| record.data.to_string()).collect()
}

#[test]
fn what_init_writes_serves_reloads_and_ends_by_a_signal() {
    let mut served = Served::start();
    // 127.0.0.0/8 is American by the rules that init writes.
    assert_eq!(addresses(&served.by_udp(&query())), ["192.0.2.30"]);
    assert_eq!(addresses(&Message::from_vec(&served.by_tcp(&query()).unwrap()).unwrap()), ["192.0.2.30"]);

    let rules = served.directory.path().join("rules.json");
    let changed = std::fs::read_to_string(&rules).unwrap();
    let changed = changed.replace("\"revision\": 1", "\"revision\": 2").replace("192.0.2.30", "192.0.2.31");
    std::fs::write(&rules, changed).unwrap();
    served.signal("HUP");
    wait_for("the new address", || (addresses(&served.by_udp(&query())) == ["192.0.2.31"]).then_some(()));

    served.signal("TERM");
    let status = wait_for("the end", || served.child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(!served.directory.path().join("ready.json").exists());
    assert!(TcpStream::connect(served.dns).is_err());
}

#[test]
fn malformed_packets_are_survived_and_never_logged_above_debug() {
    let served = Served::start();
    let good = query();
    let mut packets: Vec<Vec<u8>> = (0..good.len()).map(|end| good[..end].to_vec()).collect();
    // Every octet of the header and the question, spoilt one at a time.
    for at in 2..good.len() {
        for value in [0, 1, 0x3f, 0x40, 0xc0, 0xff] {
            let mut packet = good.clone();
            packet[at] = value;
            packets.push(packet);
        }
    }
    // OPT records with broken options: cut off, a client subnet of an unknown family, one with a scope and stray bits,
    // two OPTs.
    let options: [&[u8]; 4] =
        [&[0, 8, 0, 9, 0], &[0, 8, 0, 4, 0, 9, 24, 0], &[0, 8, 0, 7, 0, 1, 17, 9, 1, 2, 255], &[0, 10, 0, 1, 1]];
    for option in options {
        let mut packet = good.clone();
        packet[11] = 1;
        packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, u8::try_from(option.len()).unwrap()]);
        packet.extend(option);
        packets.push(packet.clone());
        packet[11] = 2;
        packet.extend([0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0]);
        packets.push(packet);
    }
    let client = UdpSocket::bind("127.0.0.1:0").unwrap();
    for packet in &packets {
        client.send_to(packet, served.dns).unwrap();
        served.by_tcp(packet);
    }
    assert_eq!(addresses(&served.by_udp(&good)), ["192.0.2.30"]);
    assert_eq!(addresses(&Message::from_vec(&served.by_tcp(&good).unwrap()).unwrap()), ["192.0.2.30"]);
    let loud: Vec<Value> =
        served.log().into_iter().filter(|line| ["WARN", "ERROR"].iter().any(|level| line["level"] == *level)).collect();
    assert!(loud.is_empty(), "{loud:#?}");
}

#[test]
fn a_broken_start_tells_every_error_and_exits_1() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    assert!(bailiwick(path, &["init"]).status.success());
    assert!(bailiwick(path, &["check"]).status.success());
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let config = std::fs::read_to_string(path.join("bailiwick.toml")).unwrap();
    std::fs::write(path.join("bailiwick.toml"), config.replace("127.0.0.1:5300", &address)).unwrap();
    std::fs::write(path.join("rules.json"), r#"{"version": 1, "revision": 1, "regoins": {}}"#).unwrap();
    std::fs::write(path.join("ai.example.com.zone"), "@ 300 IN NONSENSE x\n").unwrap();
    std::fs::write(path.join("api.token"), "two words\n").unwrap();

    let ended = bailiwick(path, &["serve"]);
    let reported = text(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{reported}");
    for part in [address.as_str(), "/regoins", "ai.example.com.zone:1", "api.token:1"] {
        assert!(reported.contains(part), "{part:?} is not in {reported}");
    }
    let checked = bailiwick(path, &["check"]);
    assert_eq!(checked.status.code(), Some(1));
    for part in ["/regoins", "ai.example.com.zone:1", "api.token:1"] {
        assert!(text(&checked.stderr).contains(part), "{part:?} is not in {}", text(&checked.stderr));
    }
    assert_eq!(bailiwick(path, &["chekc"]).status.code(), Some(2));
}

#[test]
fn output_has_no_colour_when_it_is_no_terminal() {
    let directory = tempfile::tempdir().unwrap();
    let reported = bailiwick(directory.path(), &["check"]);
    assert!(text(&reported.stderr).starts_with("error: bailiwick.toml: can't be read"), "{}", text(&reported.stderr));
    for arguments in [&["--help"][..], &["serve", "--help"], &["completions", "bash"], &["man"], &["schema"]] {
        let reported = bailiwick(directory.path(), arguments);
        assert!(
            reported.status.success() && !reported.stdout.is_empty() && !reported.stdout.contains(&0x1b),
            "{arguments:?}"
        );
    }
}
