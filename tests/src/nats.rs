//! Three real NATS servers on loopback, with certificates on both sides and a user for each node, as `bailiwick fleet
//! nats-config` sets them up. A test stops, starts and robs them. Used by tests of fleets.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use async_nats::jetstream::stream::{Config, RawMessageErrorKind};
use async_nats::jetstream::{self, Context, ErrorCode};
use async_nats::{Client, ConnectOptions, HeaderMap};
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::link::Link;
use crate::node::{Setup, bailiwick};
use crate::process::{Process, cached};
use crate::tls_stand_in::Authority;
use crate::{net, wait};

/// How many servers there are.
pub const SERVERS: usize = 3;

/// The servers. They end when this is dropped.
#[derive(Debug)]
pub struct Nats {
    folder: TempDir,
    program: PathBuf,
    servers: Vec<(SocketAddr, Option<Process>)>,
    /// The links of servers that stand apart. The first lead clients to each server.
    links: Vec<Way>,
    runtime: Runtime,
}

/// A link to a server.
#[derive(Debug)]
struct Way {
    /// The server that it leads from; `None` for clients.
    from: Option<usize>,
    to: usize,
    link: Link,
}

impl Nats {
    /// Three servers with users for these nodes; `None`, and a line that says so, where there is no `nats-server`.
    ///
    /// # Panics
    /// If they don't start.
    #[must_use]
    pub fn start(nodes: &[&str]) -> Option<Self> {
        Self::start_with(nodes, None)
    }

    /// The same where each server is reached by links, from other servers too, that take this time there and back.
    ///
    /// # Panics
    /// If they don't start.
    #[must_use]
    pub fn start_apart(nodes: &[&str], round_trip: Duration) -> Option<Self> {
        Self::start_with(nodes, Some(round_trip))
    }

    fn start_with(nodes: &[&str], apart: Option<Duration>) -> Option<Self> {
        let program = cached("nats/bin/nats-server", "nats")?;
        let folder = TempDir::new().expect("a temporary folder");
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let addresses: Vec<SocketAddr> = (0..SERVERS).map(|_| net::free_port()).collect();
        let servers: Vec<String> =
            addresses.iter().map(|address| format!("{address}:{}", net::free_port().port())).collect();
        let to = folder.path().display().to_string();
        let (nodes, servers) = (nodes.join(","), servers.join(","));
        let made = bailiwick(["fleet", "nats-config", "--nodes", &nodes, "--servers", &servers, "--to", &to]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let mut nats = Self {
            folder,
            program,
            servers: addresses.into_iter().map(|address| (address, None)).collect(),
            links: Vec::new(),
            runtime: runtime.expect("an event queue"),
        };
        nats.write_certificates();
        nats.add_administrator();
        if let Some(round_trip) = apart {
            nats.part(round_trip);
        }
        (0..SERVERS).for_each(|number| nats.start_server(number));
        match apart {
            Some(_) => nats.await_all(),
            None => nats.await_leader(),
        }
        Some(nats)
    }

    /// Puts links before all servers: one for nodes, then one for each other server.
    fn part(&mut self, round_trip: Duration) {
        let link = |to: SocketAddr| {
            let link = Link::to(to);
            link.round_trip(round_trip);
            link
        };
        let clients = self.servers.iter().enumerate().map(|(to, (address, _))| (to, *address));
        self.links = clients.map(|(to, address)| Way { from: None, to, link: link(address) }).collect();
        for number in 0..SERVERS {
            let file = self.path(&format!("server{}.conf", number + 1));
            let text = std::fs::read_to_string(&file).expect("a configuration");
            let lines = text.lines().map(|line| match line.split_once("nats-route://") {
                Some((before, after)) => {
                    let route: SocketAddr = after.trim_end_matches('"').parse().expect("an address");
                    let way = Way { from: Some(number), to: self.server_of_route(route), link: link(route) };
                    let line = format!("{before}nats-route://{}\"\n", way.link.address());
                    self.links.push(way);
                    line
                }
                // Else servers would tell each other where they are without the links.
                None if line.trim_start().starts_with("advertise:") => "  no_advertise: true\n".to_owned(),
                None => format!("{line}\n"),
            });
            let text: String = lines.collect();
            std::fs::write(&file, text).expect("written");
        }
        let text = std::fs::read_to_string(self.publisher()).expect("a configuration");
        std::fs::write(self.publisher(), self.by_links(text)).expect("written");
    }

    /// A configuration of a client, with servers by their links if they have any.
    fn by_links(&self, text: String) -> String {
        let with_links = self.servers.iter().zip(&self.links);
        with_links.fold(text, |text, ((own, _), way)| text.replace(&own.to_string(), &way.link.address().to_string()))
    }

    /// The server that other servers reach there, by its own configuration.
    fn server_of_route(&self, route: SocketAddr) -> usize {
        let listens = |number: &usize| {
            let text = std::fs::read_to_string(self.path(&format!("server{}.conf", number + 1)));
            text.is_ok_and(|text| text.contains(&format!("listen: \"{route}\"")))
        };
        (0..SERVERS).find(listens).expect("a server that listens there")
    }

    /// Cuts a server that stands apart off from nodes and other servers.
    pub fn cut_off(&self, number: usize) {
        self.ways_of(number).for_each(Link::cut);
    }

    fn ways_of(&self, number: usize) -> impl Iterator<Item = &Link> {
        let is_of = move |way: &&Way| way.to == number || way.from == Some(number);
        self.links.iter().filter(is_of).map(|way| &way.link)
    }

    /// Lets a server that was cut off be reached again.
    pub fn heal(&self, number: usize) {
        self.ways_of(number).for_each(Link::heal);
    }

    /// A file of the folder that `bailiwick fleet nats-config` wrote.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write_certificates(&self) {
        let authority = Authority::new("bailiwick tests");
        let put = |folder: &Path, name: &str, (certificate, key): (String, String)| {
            std::fs::write(folder.join("ca.pem"), &authority.pem).expect("written");
            std::fs::write(folder.join(format!("{name}.pem")), certificate).expect("written");
            std::fs::write(folder.join(format!("{name}.key")), key).expect("written");
        };
        put(self.folder.path(), "node", authority.issue_pem(&["node.example.com"]));
        for number in 1..=SERVERS {
            let own = self.path(&format!("home{number}"));
            std::fs::create_dir(&own).expect("a folder");
            put(&own, "server", authority.issue_pem(&["localhost", "127.0.0.1"]));
        }
    }

    /// Gives servers the users that `bailiwick fleet nats-config` wrote last, for these nodes, as
    /// `nats-server --signal reload` does. A node whose key was deleted has a new one.
    ///
    /// # Panics
    /// If they can't be written.
    pub fn change_users(&self, nodes: &[&str]) {
        let servers = self.servers.iter().map(|(address, _)| address.to_string()).collect::<Vec<_>>().join(",");
        // Only users are taken from what it writes: configurations stay, with the ports of their clusters.
        let kept: Vec<String> = (1..=SERVERS).map(|number| format!("server{number}.conf")).collect();
        let before: Vec<Vec<u8>> = kept.iter().map(|name| std::fs::read(self.path(name)).expect("a file")).collect();
        let to = self.folder.path().display().to_string();
        let nodes = nodes.join(",");
        let made = bailiwick(["fleet", "nats-config", "--nodes", &nodes, "--servers", &servers, "--to", &to]);
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        for (name, bytes) in kept.iter().zip(before) {
            std::fs::write(self.path(name), bytes).expect("written");
        }
        self.add_administrator();
        self.servers.iter().filter_map(|(_, server)| server.as_ref()).for_each(|server| server.signal("HUP"));
    }

    /// Takes the permission to use a subject away from all users.
    ///
    /// # Panics
    /// If no user has it.
    pub fn forbid(&self, subject: &str) {
        let (file, quoted) = (self.path("users.conf"), format!("\"{subject}\""));
        let users = std::fs::read_to_string(&file).expect("users");
        let fewer: String =
            users.lines().filter(|line| !line.contains(&quoted)).map(|line| line.to_owned() + "\n").collect();
        assert_ne!(users, fewer, "nobody may use {subject}");
        std::fs::write(&file, fewer).expect("written");
        self.servers.iter().filter_map(|(_, server)| server.as_ref()).for_each(|server| server.signal("HUP"));
    }

    /// A user that may do everything.
    fn add_administrator(&self) {
        let file = self.path("users.conf");
        let users = std::fs::read_to_string(&file).expect("users");
        let more = users.replacen("users: [\n", "users: [\n      { user: admin, password: admin }\n", 1);
        std::fs::write(&file, more).expect("written");
    }

    /// Starts a server, counted from 0.
    ///
    /// # Panics
    /// If it runs already, or its files can't be written.
    pub fn start_server(&mut self, number: usize) {
        let home = self.path(&format!("home{}", number + 1));
        let log = std::fs::File::options().append(true).create(true).open(home.join("log")).expect("a log");
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.path(&format!("server{}.conf", number + 1)));
        command.current_dir(&home).stdout(Stdio::null()).stderr(log);
        let slot = &mut self.servers[number].1;
        assert!(slot.is_none(), "server {number} runs");
        *slot = Some(Process::start(&mut command));
    }

    /// Kills a server. It keeps its files.
    pub fn stop_server(&mut self, number: usize) {
        self.servers[number].1 = None;
    }

    /// Kills all servers, then starts them and waits until they serve.
    pub fn restart(&mut self) {
        (0..SERVERS).for_each(|number| self.stop_server(number));
        (0..SERVERS).for_each(|number| self.start_server(number));
        self.await_leader();
    }

    /// Where a server is connected to.
    #[must_use]
    pub fn address(&self, number: usize) -> SocketAddr {
        self.servers[number].0
    }

    /// Waits until JetStream has leaders, so that buckets can be made, read and written.
    pub fn await_leader(&self) {
        wait::until_true("JetStream answers", || {
            let answers = async |jetstream: Context| {
                let stream = jetstream.get_stream_no_info("KV_bw_rules").await.ok()?;
                jetstream.query_account().await.ok()?;
                match stream.get_last_raw_message_by_subject("$KV.bw_rules.head").await.map_err(|error| error.kind()) {
                    Ok(_) | Err(RawMessageErrorKind::NoMessageFound) => Some(()),
                    Err(RawMessageErrorKind::JetStream(error)) => {
                        (error.error_code() == ErrorCode::STREAM_NOT_FOUND).then_some(())
                    }
                    Err(_) => None,
                }
            };
            self.run(answers).flatten().is_some()
        });
    }

    /// Waits until every server takes part: a bucket that needs all of them can be made, and each has its copy.
    pub fn await_all(&self) {
        const PROBE: &str = "probe";
        let name = || PROBE.to_owned();
        wait::until_true("every server takes part", || {
            let are_all_there = async |jetstream: Context| {
                let config = Config { name: name(), num_replicas: SERVERS, ..Config::default() };
                let mut stream = jetstream.get_or_create_stream(config).await.ok()?;
                let replicas = &stream.info().await.ok()?.cluster.as_ref()?.replicas;
                let is_whole = replicas.len() == SERVERS - 1 && replicas.iter().all(|one| one.current && !one.offline);
                is_whole.then_some(())
            };
            self.run(are_all_there).flatten().is_some()
        });
        self.run(async |jetstream| jetstream.delete_stream(name()).await.ok());
    }

    /// `[fleet]` for a node's configuration.
    #[must_use]
    pub fn section(&self, node: &str) -> String {
        let addresses: Vec<SocketAddr> = self.servers.iter().map(|(address, _)| *address).collect();
        self.by_links(self.section_by(node, &addresses))
    }

    /// The same with the servers reached by other addresses, such as a link's.
    ///
    /// # Panics
    /// If nothing was written for the node.
    #[must_use]
    pub fn section_by(&self, node: &str, addresses: &[SocketAddr]) -> String {
        let mut text = std::fs::read_to_string(self.path(&format!("{node}.toml"))).expect("a section");
        for file in ["ca.pem", "node.pem", "node.key", &format!("{node}.nk")] {
            text = text.replace(&format!("{file:?}"), &format!("{:?}", self.path(file)));
        }
        for ((own, _), other) in self.servers.iter().zip(addresses) {
            text = text.replace(&own.to_string(), &other.to_string());
        }
        text
    }

    /// A node that begins without rules of its own. `more` are lines for its `[fleet]`.
    ///
    /// # Panics
    /// If nothing was written for the node.
    #[must_use]
    pub fn node(&self, name: &str, zone: &str, more: &str) -> Setup {
        let setup = Setup::new(&json!({}), zone);
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).expect("a configuration");
        let config = format!("node = {name:?}\n{}", config.replace("rules = \"rules.json\"\n", ""));
        setup.write("bailiwick.toml", &config);
        setup.with(&self.section(name).replace("[fleet]\n", &format!("[fleet]\n{more}")))
    }

    /// The configuration of the publisher.
    #[must_use]
    pub fn publisher(&self) -> String {
        self.path("publisher.toml").display().to_string()
    }

    /// Does something as the user that may do everything; `None` if no server can be reached.
    pub fn run<T>(&self, act: impl AsyncFnOnce(Context) -> T) -> Option<T> {
        let options = ConnectOptions::with_user_and_password("admin".to_owned(), "admin".to_owned());
        self.as_user(options, async |client: Client| {
            let mut jetstream = jetstream::new(client);
            jetstream.set_timeout(Duration::from_secs(2));
            act(jetstream).await
        })
    }

    /// Does something as the user of a node or as the publisher; `None` if no server can be reached.
    ///
    /// # Panics
    /// If the user has no key.
    pub fn run_as<T>(&self, user: &str, act: impl AsyncFnOnce(Client) -> T) -> Option<T> {
        let seed = std::fs::read_to_string(self.path(&format!("{user}.nk"))).expect("a key");
        let users = std::fs::read_to_string(self.path("users.conf")).expect("users");
        let after = users.split(&format!("# {user}\n")).nth(1).expect("the user");
        let public = after.split("nkey: ").nth(1).and_then(|rest| rest.split_whitespace().next()).expect("its key");
        let options = ConnectOptions::with_nkey(seed.trim().to_owned());
        self.as_user(options.custom_inbox_prefix(format!("_INBOX.{public}")), act)
    }

    fn as_user<T>(&self, options: ConnectOptions, act: impl AsyncFnOnce(Client) -> T) -> Option<T> {
        let options = options
            .add_root_certificates(self.path("ca.pem"))
            .add_client_certificate(self.path("node.pem"), self.path("node.key"))
            .connection_timeout(Duration::from_secs(2))
            .require_tls(true);
        let urls: Vec<String> = self.servers.iter().map(|(address, _)| format!("tls://{address}")).collect();
        let connected = self.wait_for(options.connect(urls)).ok()?;
        Some(self.wait_for(act(connected)))
    }

    fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// Writes an entry of a bucket, whatever stands there.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write(&self, bucket: &str, key: &str, bytes: &[u8]) {
        self.write_with(HeaderMap::new(), bucket, key, bytes);
    }

    /// Deletes an entry of a bucket, as `nats kv del` does.
    ///
    /// # Panics
    /// If it can't be deleted.
    pub fn delete(&self, bucket: &str, key: &str) {
        let mut headers = HeaderMap::new();
        headers.insert("KV-Operation", "DEL");
        self.write_with(headers, bucket, key, b"");
    }

    fn write_with(&self, headers: HeaderMap, bucket: &str, key: &str, bytes: &[u8]) {
        let (subject, bytes) = (format!("$KV.{bucket}.{key}"), bytes.to_vec());
        let written = self.run(async |jetstream| {
            let sent = jetstream.publish_with_headers(subject, headers, bytes.into()).await;
            sent.expect("sent").await
        });
        written.expect("a server").expect("written");
    }

    /// Reads the last entry of a key.
    #[must_use]
    pub fn read(&self, bucket: &str, key: &str) -> Option<Vec<u8>> {
        let subject = format!("$KV.{bucket}.{key}");
        self.run(async |jetstream| {
            let stream = jetstream.get_stream(format!("KV_{bucket}")).await.ok()?;
            Some(stream.get_last_raw_message_by_subject(&subject).await.ok()?.payload.to_vec())
        })?
    }

    /// Deletes a bucket with all that is in it.
    ///
    /// # Panics
    /// If it can't be deleted.
    pub fn delete_bucket(&self, bucket: &str) {
        let stream = format!("KV_{bucket}");
        self.run(async |jetstream| jetstream.delete_stream(stream).await).expect("a server").expect("deleted");
    }

    /// How many consumers the buckets have.
    ///
    /// # Panics
    /// If a bucket can't be looked at.
    #[must_use]
    pub fn consumers(&self) -> usize {
        // Leaders may still be elected.
        wait::until("the buckets can be looked at", || {
            self.run(async |jetstream| {
                let mut count = 0;
                for stream in ["KV_bw_rules", "KV_bw_state"] {
                    count += jetstream.get_stream(stream).await.ok()?.cached_info().state.consumer_count;
                }
                Some(count)
            })?
        })
    }
}
