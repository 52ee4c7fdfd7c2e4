//! A signed Internet in small, in a namespace of its own: NSD serves a parent that BIND's `dnssec-signzone` signed and
//! the children of the zone under test, `bailiwick` that zone, and a validating Unbound resolves from the parent's
//! trust anchor alone. Each has port 53 of an address of its own.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use bailiwick_tests::namespace::Namespace;
use bailiwick_tests::node::{Node, Setup};
use bailiwick_tests::process::{Process, text_of};
use bailiwick_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

/// NSD: the parent `example.com` and what the zone under test delegates.
pub(crate) const PARENT: &str = "127.0.0.2";
/// `bailiwick`: `ai.example.com`.
pub(crate) const CHILD: &str = "127.0.0.3";
/// Unbound.
pub(crate) const RESOLVER: &str = "127.0.0.4";
/// A client in each of three networks, German, British and American.
pub(crate) const CLIENTS: [&str; 3] = ["127.1.0.1", "127.2.0.1", "127.3.0.1"];

/// What the zone under test holds beside steered names: every shape of an answer.
const ZONE: &str = r#"$ORIGIN ai.example.com.
$TTL 300
@       IN SOA  ns1 hostmaster 1 3600 600 86400 60
@       IN NS   ns1
ns1     IN A    127.0.0.3
www     IN A    192.0.2.80
www     IN AAAA 2001:db8::80
Mixed   IN MX   10 Mail.WWW
alias   IN CNAME chain
chain   IN CNAME www
steered IN CNAME chat
dangle  IN CNAME nothing
moved   IN DNAME safe
*.wild  IN TXT  "from the wildcard"
*.wild  IN AAAA 2001:db8::7
*.walias IN CNAME www
deep.empty IN A 192.0.2.81
sub     IN NS   ns.sub
ns.sub  IN A    127.0.0.2
safe    IN NS   ns.safe
ns.safe IN A    127.0.0.2
chat    IN MX   10 www
old.gpu IN A    192.0.2.82
\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255\255 IN NS ns.sub
"#;

/// Runs `dnsviz grok` on what was probed. Debian's looks for a module that its pygraphviz no longer has.
const GROK: &str = r#"
import base64, json, sys, types, pygraphviz
release = types.ModuleType("pygraphviz.release")
release.version = "1.7"
sys.modules["pygraphviz.release"] = release
from dnsviz.commands import grok

def damage(part):
    if isinstance(part, list):
        for one in part:
            damage(one)
    elif isinstance(part, dict):
        for key, value in part.items():
            if key == "message" and isinstance(value, str):
                message = bytearray(base64.b64decode(value))
                message[-40] ^= 1
                part[key] = base64.b64encode(bytes(message)).decode()
            else:
                damage(value)

probed = json.load(open("probe.json"))
damage(probed.get(globals().get("damaged", ""), {}))
json.dump(probed, open("probe.json", "w"))
grok.main(["grok", "-r", "probe.json"] + sys.argv[1:])
"#;

/// Whether `dnsviz` runs here.
pub(crate) fn has_dnsviz() -> bool {
    let imported = Command::new("/usr/bin/python3").args(["-c", "import dnsviz, pygraphviz"]).output();
    Path::new(&find("dnsviz")).exists() && imported.is_ok_and(|output| output.status.success())
}

/// Started in this order, ended in the other.
pub(crate) struct Internet {
    _resolver: Process,
    _parent: Process,
    _node: Node,
    pub(crate) folder: TempDir,
    pub(crate) namespace: Namespace,
}

/// Whether all that is needed is installed; says what isn't.
pub(crate) fn tools() -> bool {
    let missing: Vec<&str> = ["delv", "unbound", "nsd", "dnssec-signzone", "dnssec-keygen", "dnssec-dsfromkey"]
        .into_iter()
        .filter(|tool| !Path::new(&find(tool)).exists())
        .collect();
    if !missing.is_empty() {
        println!("skipped: {} not installed; run scripts/setup", missing.join(", "));
    }
    missing.is_empty()
}

impl Internet {
    /// `None` where the machine forbids a namespace or lacks a tool; it is said.
    pub(crate) fn start(algorithm: &str) -> Option<Self> {
        if !tools() {
            return None;
        }
        let Some(namespace) = Namespace::new() else {
            println!("skipped: this machine allows no network namespace (needs root or user namespaces)");
            return None;
        };
        let folder = TempDir::new().unwrap();
        let at = folder.path();
        // The grandchild first: its DS stands in the child, and the child's in the parent.
        sign(at, "safe.ai.example.com", "@ IN NS ns\nns IN A 127.0.0.2\nwww IN A 192.0.2.91\n");
        std::fs::write(
            at.join("sub.ai.example.com.zone"),
            head("sub.ai.example.com") + "@ IN NS ns\nns IN A 127.0.0.2\nwww IN A 192.0.2.90\n",
        )
        .unwrap();
        let setup = Setup::new(&rules(), &(ZONE.to_owned() + &ds(at, "safe.ai.example.com")));
        let setup = setup.signed_by(algorithm);
        let config = std::fs::read_to_string(setup.path("bailiwick.toml")).unwrap();
        setup.write("bailiwick.toml", &config.replacen("127.0.0.1:0", &format!("{CHILD}:53"), 1));
        let our_ds = setup.ds();
        let node = setup.start_inside(&namespace);
        let delegation = format!("@ IN NS ns\nns IN A {PARENT}\nai IN NS ns1.ai\nns1.ai IN A {CHILD}\n{our_ds}\n");
        sign(at, "example.com", &delegation);

        let (nsd, unbound) = (at.join("nsd.conf"), at.join("unbound.conf"));
        std::fs::write(&nsd, nsd_conf(at)).unwrap();
        std::fs::write(&unbound, unbound_conf(at)).unwrap();
        let start = |program: &str, conf: &Path| {
            let mut command = namespace.command(&find(program));
            Process::start(command.args(["-d", "-c"]).arg(conf).stdout(Stdio::null()).stderr(Stdio::null()))
        };
        let internet =
            Self { _resolver: start("unbound", &unbound), _parent: start("nsd", &nsd), _node: node, folder, namespace };
        wait::until_true("the parent answers through the resolver", || {
            let reported = internet.dig(RESOLVER, &["+tries=1", "+time=1", "example.com", "SOA"]);
            reported.contains("status: NOERROR") && reported.contains("ANSWER: 1")
        });
        internet.write_anchors();
        Some(internet)
    }

    /// What `dig` shows of an answer, with comments.
    pub(crate) fn dig(&self, server: &str, question: &[&str]) -> String {
        let server = format!("@{server}");
        let mut arguments = vec![server.as_str(), "+noall", "+comments", "+answer", "+authority"];
        arguments.extend(question);
        self.namespace.text_of("dig", &arguments)
    }

    /// What `delv` says, asking `server` from the client's address with the key of `zone` alone.
    pub(crate) fn delv(&self, server: &str, client: &str, zone: &str, name: &str, rtype: &str) -> String {
        let anchor = self.folder.path().join(format!("{zone}.anchor")).display().to_string();
        let (server, root) = (format!("@{server}"), format!("+root={zone}"));
        let arguments = [server.as_str(), "-b", client, "-a", &anchor, &root, name, rtype];
        let output = self.namespace.command("delv").args(arguments).stdin(Stdio::null()).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
    }

    /// What `dnsviz` finds wrong with these names, as JSON; nothing when nothing is.
    pub(crate) fn dnsviz(&self, names: &[String]) -> String {
        self.probe(names);
        self.grok("")
    }

    /// The same, after one octet of each answer at the second name has been changed behind the server's back.
    pub(crate) fn dnsviz_of_damaged(&self, names: &[String]) -> String {
        self.probe(names);
        self.grok(&format!("damaged = {:?}", format!("{}.", names[1])))
    }

    fn probe(&self, names: &[String]) {
        let file = self.folder.path().join("probe.json").display().to_string();
        let (parent, child) =
            (format!("example.com+:ns.example.com={PARENT}"), format!("ai.example.com:ns1.ai.example.com={CHILD}"));
        let mut arguments = vec!["probe", "-A", "-4", "-a", "example.com", "-x", &parent, "-x", &child, "-o", &file];
        arguments.extend(names.iter().map(String::as_str));
        let output = self.namespace.command("dnsviz").args(arguments).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn grok(&self, prelude: &str) -> String {
        let anchor = self.folder.path().join("anchor.zone");
        std::fs::write(&anchor, dnskey(self.folder.path(), "example.com")).unwrap();
        let output = Command::new("/usr/bin/python3")
            .args(["-c", &format!("{prelude}\n{GROK}"), "-P", "-l", "warning", "-t"])
            .arg(&anchor)
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Writes the anchors for `delv`: the zone's own key as it is served, and the parent's.
    fn write_anchors(&self) {
        let ours = self.dig(CHILD, &["+nocomments", "ai.example.com", "DNSKEY"]);
        for (zone, dnskey) in [("ai.example.com", ours), ("example.com", dnskey(self.folder.path(), "example.com"))] {
            let words: Vec<&str> = dnskey.split_whitespace().skip_while(|&word| word != "DNSKEY").skip(1).collect();
            let text =
                format!("trust-anchors {{ {zone}. static-key 257 3 {} \"{}\"; }};\n", words[2], words[3..].concat());
            std::fs::write(self.folder.path().join(format!("{zone}.anchor")), text).unwrap();
        }
    }
}

/// Three regions, each the only one for its network, and a service whose clients elsewhere are denied.
fn rules() -> Value {
    let region = |number: u8, country: &str| {
        json!({
            "countries": [country],
            "answers": {
                "A": [format!("192.0.2.{number}"), format!("192.0.2.{}", number + 1)],
                "AAAA": [format!("2001:db8::{number}")],
                "HTTPS": ["1 . alpn=h2,h3"],
            },
        })
    };
    let residency = json!([
        { "clients": ["de"], "process_in": ["de"] },
        { "clients": ["gb"], "process_in": ["gb"] },
        { "clients": ["us"], "process_in": ["us"] },
    ]);
    let regions = json!(["frankfurt", "london", "virginia"]);
    let networks = [("127.1.0.0/16", "DE"), ("127.2.0.0/16", "GB"), ("127.3.0.0/16", "US")];
    json!({
        "version": 1,
        "revision": 1,
        "jurisdictions": { "de": { "countries": ["DE"] }, "gb": { "countries": ["GB"] },
            "us": { "countries": ["US"] } },
        "regions": { "frankfurt": region(10, "DE"), "london": region(20, "GB"), "virginia": region(30, "US") },
        "services": {
            "chat": { "hosts": ["chat.ai.example.com", "*.gpu.ai.example.com"], "pattern": "active-active",
                "regions": regions, "residency": residency,
                      "when_all_down": "fail",
                      "denied_answers": { "A": ["192.0.2.99"], "AAAA": ["2001:db8::99"], "HTTPS": ["1 . alpn=h2"] } },
        },
        "networks": networks.map(|(prefix, country)| json!({ "prefix": prefix, "country": country })),
    })
}

fn head(zone: &str) -> String {
    format!("$ORIGIN {zone}.\n$TTL 300\n@ IN SOA ns hostmaster 1 3600 600 86400 60\n")
}

/// Writes a zone and signs it by BIND's tools with one new key.
fn sign(folder: &Path, zone: &str, records: &str) {
    let place = folder.display().to_string();
    let key = text_of(&find("dnssec-keygen"), ["-q", "-a", "13", "-f", "KSK", "-K", &place, zone]);
    std::fs::write(folder.join(format!("{zone}.key")), key.trim()).unwrap();
    let file = folder.join(format!("{zone}.unsigned"));
    let dnskey = dnskey(folder, zone);
    std::fs::write(&file, head(zone) + records + &dnskey + "\n").unwrap();
    let (signed, file) = (folder.join(format!("{zone}.zone")).display().to_string(), file.display().to_string());
    text_of(&find("dnssec-signzone"), ["-q", "-z", "-K", &place, "-d", &place, "-o", zone, "-f", &signed, &file]);
}

fn key_file(folder: &Path, zone: &str) -> PathBuf {
    let name = std::fs::read_to_string(folder.join(format!("{zone}.key"))).unwrap();
    folder.join(format!("{name}.key"))
}

/// The DNSKEY record of a zone that [`sign`] signed.
fn dnskey(folder: &Path, zone: &str) -> String {
    let text = std::fs::read_to_string(key_file(folder, zone)).unwrap();
    text.lines().find(|line| !line.starts_with(';')).unwrap().to_owned()
}

/// Its DS.
fn ds(folder: &Path, zone: &str) -> String {
    text_of(&find("dnssec-dsfromkey"), ["-2".as_ref(), key_file(folder, zone).as_os_str()])
}

fn nsd_conf(folder: &Path) -> String {
    let mut conf = format!(
        "server:\n ip-address: {PARENT}\n username: \"\"\n chroot: \"\"\n pidfile: \"\"\n server-count: 1\n \
         database: \"\"\n\
         zonesdir: {folder:?}\n xfrdir: {folder:?}\n xfrdfile: \"\"\n zonelistfile: {list:?}\n logfile: {log:?}\n\
         remote-control:\n control-enable: no\n",
        list = folder.join("zone.list"),
        log = folder.join("nsd.log"),
    );
    for zone in ["example.com", "sub.ai.example.com", "safe.ai.example.com"] {
        let _ = write!(conf, "zone:\n name: {zone}\n zonefile: {zone}.zone\n");
    }
    conf
}

/// The resolver knows where `example.com` is and its key, as one knows the root's; everything below it finds and
/// validates by delegation.
fn unbound_conf(folder: &Path) -> String {
    format!(
        "server:\n interface: {RESOLVER}\n username: \"\"\n chroot: \"\"\n directory: {folder:?}\n pidfile: \"\"\n\
         use-syslog: no\n logfile: {log:?}\n verbosity: 2\n val-log-level: 2\n do-daemonize: no\n num-threads: 1\n \
         do-not-query-localhost: no\n\
         access-control: 127.0.0.0/8 allow\n module-config: \"subnetcache validator iterator\"\n \
         send-client-subnet: {CHILD}\n\
         client-subnet-always-forward: yes\n max-client-subnet-ipv4: 32\n aggressive-nsec: yes\n \
         harden-dnssec-stripped: yes\n\
         trust-anchor: \"{anchor}\"\n\
         remote-control:\n control-enable: no\n\
         stub-zone:\n name: example.com\n stub-addr: {PARENT}\n",
        log = folder.join("unbound.log"),
        anchor = dnskey(folder, "example.com"),
    )
}

/// Debian keeps name servers and signers where ordinary users don't look.
fn find(program: &str) -> String {
    let places = ["/usr/sbin", "/usr/local/sbin", "/usr/bin", "/usr/local/bin"];
    let place = places.iter().map(|place| format!("{place}/{program}")).find(|path| Path::new(path).exists());
    place.unwrap_or_else(|| program.to_owned())
}
