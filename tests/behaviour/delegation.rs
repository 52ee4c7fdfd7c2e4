//! The Internet in small, in a namespace of its own: Unbound resolves through an NSD parent that delegates to
//! `bailiwick`, each at port 53 of an address of its own, with Client Subnet sent.

use std::path::Path;
use std::process::Stdio;

use bailiwick_tests::namespace::Namespace;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::Process;
use bailiwick_tests::{geo, wait};
use tempfile::TempDir;

use crate::fixture::{World, ZONE};

const PARENT: &str = "127.0.0.2";
const CHILD: &str = "127.0.0.3";
const RESOLVER: &str = "127.0.0.4";

/// Started in this order, ended in the other.
struct Internet {
    _resolver: Process,
    _parent: Process,
    _child: Node,
    _folder: TempDir,
    namespace: Namespace,
}

impl Internet {
    fn start(namespace: Namespace) -> Self {
        let folder = TempDir::new().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let nsd = file("nsd.conf", &nsd_conf(folder.path()));
        let unbound = file("unbound.conf", &unbound_conf(folder.path()));
        let start = |program: &str, arguments: &[&str]| {
            let mut command = namespace.command(&find(program));
            Process::start(command.args(arguments).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let internet = Self {
            _resolver: start("unbound", &["-d", "-c", &unbound]),
            _parent: start("nsd", &["-d", "-c", &nsd]),
            _child: child(&namespace),
            _folder: folder,
            namespace,
        };
        wait::until_true("the parent answers through the resolver", || {
            internet.dig(RESOLVER, &["+tries=1", "+time=1", "www.example.com", "A"]).contains("192.0.2.1")
        });
        internet
    }

    fn dig(&self, server: &str, question: &[&str]) -> String {
        let server = format!("@{server}");
        let mut arguments = vec![server.as_str(), "+noall", "+comments", "+answer", "+authority", "+additional"];
        arguments.extend(question);
        self.namespace.text_of("dig", &arguments)
    }

    fn short(&self, question: &[&str]) -> String {
        let mut arguments = vec!["@127.0.0.4", "+short"];
        arguments.extend(question);
        self.namespace.text_of("dig", &arguments).trim().to_owned()
    }
}

fn child(namespace: &Namespace) -> Node {
    let mut rules = World::start().rules(1);
    for region in rules["regions"].as_object_mut().unwrap().values_mut() {
        // The stand-ins are outside the namespace.
        region.as_object_mut().unwrap().remove("monitor");
    }
    let setup = Setup::new(&rules, ZONE);
    let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
    setup.write("bailiwick.toml", &config.replacen("127.0.0.1:0", &format!("{CHILD}:53"), 1));
    setup.start_inside(namespace)
}

fn nsd_conf(folder: &Path) -> String {
    let zone = format!(
        "$ORIGIN example.com.\n$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n@ IN NS ns\nns IN A {PARENT}\n\
         www IN A 192.0.2.1\nai IN NS ns1.ai\nns1.ai IN A {CHILD}\n"
    );
    std::fs::write(folder.join("example.com.zone"), zone).unwrap();
    format!(
        "server:\n ip-address: {PARENT}\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n server-count: 1\n \
         database: \"\"\n\
         zonesdir: {folder:?}\n xfrdir: {folder:?}\n xfrdfile: \"\"\n zonelistfile: {list:?}\n logfile: {log:?}\n\
         remote-control:\n control-enable: no\n\
         zone:\n name: example.com\n zonefile: example.com.zone\n",
        list = folder.join("zone.list"),
        log = folder.join("nsd.log"),
    )
}

/// The resolver knows where `example.com` is, as one knows the root; everything below it finds by delegation.
fn unbound_conf(folder: &Path) -> String {
    format!(
        "server:\n interface: {RESOLVER}\n username: \"\"\n chroot: \"\"\n directory: {folder:?}\n pidfile: \"\"\n\
         use-syslog: no\n logfile: {log:?}\n do-daemonize: no\n num-threads: 1\n do-not-query-localhost: no\n\
         access-control: 127.0.0.0/8 allow\n module-config: \"subnetcache iterator\"\n send-client-subnet: {CHILD}\n\
         client-subnet-always-forward: yes\n max-client-subnet-ipv4: 32\n\
         remote-control:\n control-enable: no\n\
         stub-zone:\n name: example.com\n stub-addr: {PARENT}\n",
        log = folder.join("unbound.log"),
    )
}

/// Debian keeps name servers where ordinary users don't look.
fn find(program: &str) -> String {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin"];
    let place = places.iter().map(|place| format!("{place}/{program}")).find(|path| Path::new(path).exists());
    place.unwrap_or_else(|| program.to_owned())
}

/// Neighbours inside the scope share the cached answer, everybody else asks anew; the other way round, too, and for a
/// negative answer of scope 0 as well (RFC 7871 §7.3.1).
fn an_answer_cached_for_germans_never_reaches_americans(internet: &Internet) {
    let ask = |client: &str| internet.short(&[&format!("+subnet={client}/32"), "strict.ai.example.com", "A"]);
    let (german, american) = ("192.0.2.10", "192.0.2.40");
    for (first, first_answer, second, second_answer) in [
        ("91.0.0.1", german, "12.0.0.1", american),
        ("12.0.0.99", american, "91.0.0.99", german),
        // The halves of one /24: the rules' network is German, the other half nobody's.
        ("198.51.100.127", german, "198.51.100.128", "192.0.2.99"),
        ("198.51.100.200", "192.0.2.99", "198.51.100.1", german),
    ] {
        for _ in 0..3 {
            assert_eq!(ask(first), first_answer, "{first}");
            assert_eq!(ask(second), second_answer, "{second} after {first}");
        }
    }
    // Existence is everybody's: the negative answer may be shared.
    for client in ["91.0.0.1", "12.0.0.1"] {
        let subnet = format!("+subnet={client}/32");
        let reported = internet.dig(RESOLVER, &[&subnet, "strict.ai.example.com", "SRV"]);
        assert!(reported.contains("status: NOERROR") && reported.contains("ANSWER: 0"), "{reported}");
    }
}

#[test]
fn a_resolver_behind_a_delegation_gets_each_client_its_region() {
    let Some(namespace) = Namespace::new() else {
        println!("skipped: this machine allows no network namespace (needs root or user namespaces)");
        return;
    };
    let internet = Internet::start(namespace);
    let referral = internet.dig(PARENT, &["+norec", "chat.ai.example.com", "A"]);
    assert!(referral.contains("ns1.ai.example.com.") && referral.contains(CHILD), "{referral}");

    for _ in 0..2 {
        // The second time out of the resolver's cache: an answer for one subnet never reaches another.
        for (client, address) in
            [(geo::GERMAN, "192.0.2.10"), (geo::BRITISH, "192.0.2.30"), (geo::AMERICAN, "192.0.2.40")]
        {
            let subnet = format!("+subnet={client}/24");
            assert_eq!(internet.short(&[&subnet, "chat.ai.example.com", "A"]), address, "{client}");
        }
    }
    an_answer_cached_for_germans_never_reaches_americans(&internet);
    assert_eq!(internet.short(&["alias.ai.example.com", "A"]), "www.ai.example.com.\n192.0.2.80");
    assert!(internet.dig(RESOLVER, &["nothing.ai.example.com", "A"]).contains("status: NXDOMAIN"));
    assert!(internet.dig(RESOLVER, &["empty.ai.example.com", "A"]).contains("status: NOERROR"));
    assert_eq!(
        internet.short(&["+tcp", "big.ai.example.com", "TXT"]).lines().count(),
        7,
        "the resolver came back by TCP"
    );
}
