//! `bailiwick fleet nats-config`: takes the names of nodes and the addresses of servers, writes the servers'
//! configurations, the users with their permissions and keys, and each node's section.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use clap::Args;

use crate::program::report::Report;
use crate::state::fleet::{NKey, is_name};

/// The name of the user that publishes, and of its files.
const PUBLISHER: &str = "publisher";

/// Options of `bailiwick fleet nats-config`.
#[derive(Debug, Args)]
pub(crate) struct NatsConfigArgs {
    /// The names of the nodes, as `node` of their configurations says.
    #[arg(long, value_name = "NAME,…", required = true, value_delimiter = ',', value_parser = node)]
    nodes: Vec<String>,
    /// Where NATS runs, one or three or five servers: HOST, HOST:PORT or HOST:PORT:CLUSTER-PORT.
    #[arg(long, value_name = "HOST,…", required = true, value_delimiter = ',', value_parser = server)]
    servers: Vec<Server>,
    /// The folder to write into. It is made if need be.
    #[arg(long, value_name = "FOLDER", default_value = "nats")]
    to: PathBuf,
}

/// A server of NATS.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Server {
    /// Its host, an IPv6 address in brackets.
    host: String,
    port: u16,
    cluster_port: u16,
}

impl Server {
    /// Where it listens: at its own address if that is a loopback one, else everywhere, which for a server with an IPv6
    /// address is both families.
    fn listens(&self) -> &str {
        match self.host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(address) if address.is_loopback() => &self.host,
            Ok(IpAddr::V6(_)) => "[::]",
            _ => "0.0.0.0",
        }
    }
}

/// Reads a node's name.
fn node(text: &str) -> Result<String, String> {
    match text {
        PUBLISHER => Err(format!("{PUBLISHER} is the user that publishes; give the node another name")),
        text if is_name(text) => Ok(text.to_owned()),
        _ => Err("write a name of letters, digits, \"-\", \"_\" and dots between".to_owned()),
    }
}

/// Reads a server's address: `HOST`, `HOST:PORT` or `HOST:PORT:CLUSTER-PORT`.
fn server(text: &str) -> Result<Server, String> {
    let (host, ports) = match text.find(']') {
        Some(end) => text.split_at(end + 1),
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    let mut ports =
        ports.split(':').skip(1).map(|port| port.parse::<u16>().map_err(|_| format!("{port:?} is no port")));
    let port = ports.next().transpose()?.unwrap_or(4222);
    let cluster_port = ports.next().transpose()?.unwrap_or(6222);
    let is_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-._[:]".contains(&byte);
    match host.is_empty() || !host.bytes().all(is_host) || ports.next().is_some() {
        true => Err("write HOST, HOST:PORT or HOST:PORT:CLUSTER-PORT, an IPv6 address in brackets".to_owned()),
        false => Ok(Server { host: host.to_owned(), port, cluster_port }),
    }
}

/// Writes everything.
pub(super) fn write(args: &NatsConfigArgs) -> Result<Report, String> {
    if args.servers.len().is_multiple_of(2) {
        return Err(
            "--servers: name one, three or five: an even number survives no more losses than one less".to_owned()
        );
    }
    let failed = |path: &Path, error: std::io::Error| format!("{}: can't be written ({error})", path.display());
    std::fs::create_dir_all(&args.to).map_err(|error| failed(&args.to, error))?;
    let write_file = |name: &str, text: &str, mode: Mode| {
        let file = args.to.join(name);
        replace(&file, text.as_bytes(), mode).map_err(|error| failed(&file, error))
    };
    let mut users = Vec::new();
    for name in args.nodes.iter().map(String::as_str).chain([PUBLISHER]) {
        let (key, file) = (format!("{name}.nk"), args.to.join(format!("{name}.nk")));
        let nkey = if file.exists() { NKey::read(&file)? } else { NKey::generate()? };
        write_file(&key, &format!("{}\n", nkey.seed()?), Mode::Private)?;
        users.push((name, nkey.public()));
        write_file(&format!("{name}.toml"), &section(name, &args.servers), Mode::Public)?;
    }
    write_file("users.conf", &accounts(&users), Mode::Public)?;
    for number in 0..args.servers.len() {
        write_file(&format!("server{}.conf", number + 1), &configuration(number, &args.servers), Mode::Public)?;
    }
    Ok(Report::fine(format!(
        "{to}/server1.conf …  a configuration for each server, with users.conf beside it\n\
         {to}/NODE.nk, NODE.toml  the key of each node, and the section for its bailiwick.toml\n\
         {to}/{PUBLISHER}.nk, {PUBLISHER}.toml  the same for who publishes\n\
         Bring certificates: server.pem, server.key and ca.pem for each server, node.pem, node.key and ca.pem for each \
         node. Keys are secret: copy each .nk file to its node alone.\n",
        to = args.to.display()
    )))
}

/// `[fleet]` of a node or of the publisher.
fn section(name: &str, servers: &[Server]) -> String {
    let urls: Vec<String> = servers.iter().map(|server| format!("\"tls://{}:{}\"", server.host, server.port)).collect();
    let head = match name {
        PUBLISHER => "# For `bailiwick rules publish --config publisher.toml`. It needs nothing else.\n".to_owned(),
        name => format!("# Add this to the bailiwick.toml of node {name}.\n"),
    };
    format!(
        "{head}[fleet]
mode = \"nats\"

[fleet.nats]
servers = [{}]
ca_file = \"ca.pem\"
cert_file = \"node.pem\"
key_file = \"node.key\"
nkey_file = \"{name}.nk\"
",
        urls.join(", ")
    )
}

/// The users and what each may do.
fn accounts(users: &[(&str, String)]) -> String {
    let mut text = "\
# The users of the fleet. Every server includes this file. Written by `bailiwick fleet nats-config`.
#
# A user is known by the public half of its NKey. Nodes read rules and bundles, and write nothing but what they tell of
# themselves and the pools of quotas, which all nodes share.
# Only the publisher writes rules and bundles. Nobody may delete a bucket: for that, use a user of your own.
accounts {
  BAILIWICK {
    jetstream: enabled
    users: [
"
    .to_owned();
    for (name, key) in users {
        let (may_send, may_hear) = permissions(name, key);
        let list = |subjects: Vec<String>| {
            subjects.iter().map(|subject| format!("            \"{subject}\"\n")).collect::<String>()
        };
        let _ = write!(
            text,
            "      \
# {name}
      {{
        nkey: {key}
        permissions: {{
          publish: {{ allow: [
{}          ] }}
          subscribe: {{ allow: [
{}          ] }}
        }}
      }}
",
            list(may_send),
            list(may_hear)
        );
    }
    text.push_str("    ]\n  }\n  SYS { users: [] }\n}\nsystem_account: SYS\n");
    text
}

/// The subjects that a user may send to, and those that it may hear.
fn permissions(name: &str, key: &str) -> (Vec<String>, Vec<String>) {
    let mut send = Vec::new();
    for bucket in ["bw_rules", "bw_state"] {
        send.push(format!("$JS.API.STREAM.INFO.KV_{bucket}"));
        send.push(format!("$JS.API.STREAM.MSG.GET.KV_{bucket}"));
        send.push(format!("$JS.API.DIRECT.GET.KV_{bucket}.>"));
        if name == PUBLISHER {
            send.push(format!("$JS.API.STREAM.CREATE.KV_{bucket}"));
        }
    }
    // The bucket of bundles is an object store, of which NATS' own tools know.
    for verb in ["STREAM.INFO.OBJ_bw_bundles", "STREAM.MSG.GET.OBJ_bw_bundles", "DIRECT.GET.OBJ_bw_bundles.>"] {
        send.push(format!("$JS.API.{verb}"));
    }
    // Answers come to a user's own inbox.
    let mut hear = vec![format!("_INBOX.{key}.>")];
    if name == PUBLISHER {
        send.push("$KV.bw_rules.head".to_owned());
        send.push("$KV.bw_rules.doc.>".to_owned());
        send.push("$JS.API.STREAM.CREATE.OBJ_bw_bundles".to_owned());
        send.extend(["$O.bw_bundles.M.>", "$O.bw_bundles.C.>"].map(str::to_owned));
        // The process that runs a rollout writes a lease.
        send.push("$KV.bw_state.run.>".to_owned());
        send.push("bw.ask.*".to_owned());
        hear.push("bw.told.>".to_owned());
    } else {
        send.extend([format!("$KV.bw_state.node.{name}"), format!("bw.health.{name}"), format!("bw.obs.{name}")]);
        // Every node takes its part of every quota, by compare-and-set.
        send.push("$KV.bw_state.lease.>".to_owned());
        send.push(format!("bw.told.{name}"));
        hear.extend(["bw.head", "bw.health.>", "bw.obs.>", "bw.ask.*"].map(str::to_owned));
    }
    (send, hear)
}

/// A section by which both sides of a connection show certificates. Each line begins with `indent`.
fn tls(indent: &str) -> String {
    let files = ["cert_file: \"server.pem\"", "key_file: \"server.key\"", "ca_file: \"ca.pem\""];
    let lines = files.into_iter().chain(["verify: true", "timeout: 5"]).map(|line| format!("{indent}  {line}\n"));
    format!("{indent}tls {{\n{}{indent}}}\n", lines.collect::<String>())
}

/// The configuration of one server.
fn configuration(number: usize, servers: &[Server]) -> String {
    let Some(own) = servers.get(number) else { return String::new() };
    let Server { host, port, cluster_port } = own;
    let (listens, name) = (own.listens(), number + 1);
    let routes = servers.iter().filter(|other| *other != own);
    let routes: String =
        routes.map(|other| format!("    \"nats-route://{}:{}\"\n", other.host, other.cluster_port)).collect();
    let cluster = match servers.len() {
        1 => String::new(),
        _ => format!(
            "\
\n# The other servers. They show certificates to each other, too.
cluster {{
  name: bailiwick
  listen: \"{listens}:{cluster_port}\"
  advertise: \"{host}:{cluster_port}\"
  routes: [
{routes}  ]
{}}}
",
            tls("  ")
        ),
    };
    format!(
        "\
# Server {name} of the fleet's NATS. Written by `bailiwick fleet nats-config`. Start it in a folder of its own, which
# has users.conf beside this file, and server.pem, server.key and ca.pem:  nats-server --config server{name}.conf
server_name: nats{name}
listen: \"{listens}:{port}\"
client_advertise: \"{host}:{port}\"

# A health report of many regions is larger than the usual 1 MB.
max_payload: 4MB

# A server or a node that doesn't answer is given up after 15 s: a line may be cut without a word.
ping_interval: 5s
ping_max: 2

# Both sides show certificates: server.pem is for {host}, and clients' are signed by ca.pem.
{}
# What was confirmed is on the disk, and survives a power cut.
jetstream {{
  store_dir: \"jetstream\"
  max_memory_store: 64MB
  max_file_store: 4GB
  sync_interval: always
}}
{cluster}
include \"users.conf\"
",
        tls("")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_with_their_ports() {
        let read = |text| server(text).map(|Server { host, port, cluster_port }| (host, port, cluster_port));
        assert_eq!(read("nats1.example.com"), Ok(("nats1.example.com".into(), 4222, 6222)));
        assert_eq!(read("127.0.0.1:1:2"), Ok(("127.0.0.1".into(), 1, 2)));
        assert_eq!(read("[::1]:1"), Ok(("[::1]".into(), 1, 6222)));
        for odd in ["", ":1", "a:b", "a:1:2:3", "a b", "a\"b", "a:70000"] {
            assert!(read(odd).is_err(), "{odd}");
        }
        let listens = |text| server(text).unwrap().listens().to_owned();
        assert_eq!(["127.0.0.1", "[::1]"].map(listens), ["127.0.0.1", "[::1]"]);
        assert_eq!(["nats1.example.com", "192.0.2.1", "[2001:db8::1]"].map(listens), ["0.0.0.0", "0.0.0.0", "[::]"]);
        assert!(node("publisher").is_err() && node("ns*").is_err() && node("ns1.example.com").is_ok());
    }

    #[test]
    fn keys_stay_when_a_node_is_added() {
        let folder = tempfile::tempdir().unwrap();
        let args = |nodes: &[&str]| NatsConfigArgs {
            nodes: nodes.iter().map(|name| (*name).to_owned()).collect(),
            servers: vec![server("nats1.example.com").unwrap()],
            to: folder.path().to_owned(),
        };
        write(&args(&["ns1"])).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        let before = text("ns1.nk");
        write(&args(&["ns1", "ns2"])).unwrap();
        assert_eq!(text("ns1.nk"), before);
        let users = text("users.conf");
        assert!(users.contains("$KV.bw_state.node.ns2"), "{users}");
        assert!(!users.contains(before.trim()), "no secret stands in what every server has");
        assert!(text("ns2.toml").contains("nkey_file = \"ns2.nk\""));
    }
}
