//! The real `bailiwick serve` with a configuration of its own in a folder of its own.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;

use serde_json::Value;
use tempfile::TempDir;

use crate::namespace::Namespace;
use crate::process::Process;
use crate::{geo, wait};

/// The token of every test node's API.
pub const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// What a node is started with.
#[derive(Debug)]
pub struct Setup {
    folder: TempDir,
}

impl Setup {
    /// A folder with the rules, one zone `ai.example.com` and the real country database.
    ///
    /// # Panics
    /// If files can't be written.
    #[must_use]
    pub fn new(rules: &Value, zone: &str) -> Self {
        let setup = Self { folder: TempDir::new().expect("a temporary folder") };
        setup.write("rules.json", &rules.to_string());
        setup.write("ai.example.com.zone", zone);
        setup.write("api.token", TOKEN);
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nrules = \"rules.json\"\ngeoip = {:?}\nstate_dir = \"state\"\n\
             [zones]\n\"ai.example.com\" = \"ai.example.com.zone\"\n\
             [api]\nlisten = \"127.0.0.1:0\"\ntoken_file = \"api.token\"\n",
            geo::database()
        );
        setup.write("bailiwick.toml", &config);
        setup
    }

    /// A file of the folder.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Writes a file of the folder at one stroke, as an editor does: a new file moved over the old.
    ///
    /// # Panics
    /// If it can't be written.
    pub fn write(&self, name: &str, text: &str) {
        let fresh = self.path(&format!(".{name}.new"));
        std::fs::write(&fresh, text).expect("written");
        std::fs::rename(&fresh, self.path(name)).expect("moved");
    }

    /// Adds lines to the configuration.
    ///
    /// # Panics
    /// If it can't be written.
    #[must_use]
    pub fn with(self, lines: &str) -> Self {
        let config = std::fs::read_to_string(self.path("bailiwick.toml")).expect("a configuration");
        self.write("bailiwick.toml", &format!("{config}{lines}"));
        self
    }

    /// Writes a new self-signed certificate for `localhost` and its key: `tls.pem` and `tls.key`.
    ///
    /// # Panics
    /// If it can't be made or written.
    pub fn write_certificate(&self) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        self.write("tls.pem", &made.cert.pem());
        self.write("tls.key", &made.signing_key.serialize_pem());
    }

    /// With the sections named (`dot`, `doq`, `doh`), each on a free port, and a certificate.
    ///
    /// # Panics
    /// If files can't be written.
    #[must_use]
    pub fn encrypted(self, sections: &[&str]) -> Self {
        self.write_certificate();
        let section =
            |name: &&str| format!("[{name}]\nlisten = [\"127.0.0.1:0\"]\ncert = \"tls.pem\"\nkey = \"tls.key\"\n");
        let lines: String = sections.iter().map(section).collect();
        self.with(&lines)
    }

    /// With a new key for the zone, which is signed from the start.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn signed(self) -> Self {
        self.signed_by("13")
    }

    /// [`Setup::signed`] by an algorithm, given by its number.
    ///
    /// # Panics
    /// If the key can't be made.
    #[must_use]
    pub fn signed_by(self, algorithm: &str) -> Self {
        let signed = self.with("[dnssec.\"ai.example.com\"]\nkeys = \"keys\"\n");
        signed.keys(&["generate", "--algorithm", algorithm]);
        signed
    }

    /// The DS of that key, as it would stand in the parent's zone.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn ds(&self) -> String {
        self.keys(&["ds", "--early"])
    }

    /// What `bailiwick keys` says.
    fn keys(&self, words: &[&str]) -> String {
        let config = self.path("bailiwick.toml").display().to_string();
        let output = bailiwick(["keys"].into_iter().chain(words.iter().copied()).chain(["--config", config.as_str()]));
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Starts the server and waits until it serves.
    ///
    /// # Panics
    /// If it ends instead; with what it said.
    #[must_use]
    pub fn start(self) -> Node {
        self.start_by(Command::new(binary()))
    }

    /// [`Setup::start`] with standard error going elsewhere than to the file that [`Node::log`] reads, and with these
    /// variables set.
    ///
    /// # Panics
    /// As [`Setup::start`].
    #[must_use]
    pub fn start_with(self, log: impl Into<Stdio>, variables: &[(&str, &Path)]) -> Node {
        let mut command = Command::new(binary());
        command.envs(variables.iter().copied());
        self.start_logging(command, log.into())
    }

    /// [`Setup::start`] inside a namespace.
    ///
    /// # Panics
    /// As [`Setup::start`].
    #[must_use]
    pub fn start_inside(self, namespace: &Namespace) -> Node {
        self.start_by(namespace.command(&binary().display().to_string()))
    }

    /// [`Setup::start`] with at most `files` open at once.
    ///
    /// # Panics
    /// As [`Setup::start`].
    #[must_use]
    pub fn start_limited(self, files: u32) -> Node {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("ulimit -n {files} && exec \"$0\" \"$@\"")]).arg(binary());
        self.start_by(command)
    }

    /// [`Setup::start`] by a command that the program's arguments are added to.
    ///
    /// # Panics
    /// As [`Setup::start`].
    #[must_use]
    pub fn start_by(self, command: Command) -> Node {
        let _ = std::fs::remove_file(self.path("log"));
        let log = std::fs::File::options().append(true).create(true).open(self.path("log")).expect("a log");
        let node = self.start_logging(command, log.into());
        // Lines are written by a thread of their own: whoever reads the log now finds all that was said of the start.
        node.tells("serving");
        node
    }

    fn start_logging(self, mut command: Command, log: Stdio) -> Node {
        let ready = self.path("ready.json");
        let _ = std::fs::remove_file(&ready);
        command.arg("serve").arg("--config").arg(self.path("bailiwick.toml")).arg("--ready-file").arg(&ready);
        command.stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        let reported: Value = wait::until("the server is ready", || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}: {}", std::fs::read_to_string(self.path("log")).unwrap_or_default());
            }
            serde_json::from_str(&std::fs::read_to_string(&ready).ok()?).ok()
        });
        let address = |value: &Value| value.as_str().and_then(|text| text.parse::<SocketAddr>().ok());
        Node {
            dns: address(&reported["dns"][0]).expect("a DNS address"),
            api: address(&reported["api"]).expect("an API address"),
            dot: address(&reported["dot"][0]),
            doq: address(&reported["doq"][0]),
            doh: address(&reported["doh"][0]),
            process,
            setup: self,
        }
    }

    /// Tries to start the server and waits for its end.
    #[must_use]
    pub fn start_in_vain(&self) -> Output {
        bailiwick(["serve", "--config", &self.path("bailiwick.toml").display().to_string()])
    }
}

/// A running server.
#[derive(Debug)]
pub struct Node {
    /// Where it answers DNS.
    pub dns: SocketAddr,
    /// Where its API is.
    pub api: SocketAddr,
    /// Where it answers by TLS.
    pub dot: Option<SocketAddr>,
    /// Where it answers by QUIC.
    pub doq: Option<SocketAddr>,
    /// Where it answers by HTTPS.
    pub doh: Option<SocketAddr>,
    /// Its process.
    pub process: Process,
    /// Its files.
    pub setup: Setup,
}

impl Node {
    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.setup.path("log")).unwrap_or_default()
    }

    /// Waits until it has logged `what`.
    ///
    /// # Panics
    /// If it doesn't.
    #[track_caller]
    pub fn tells(&self, what: &str) {
        wait::until_true(&format!("the log says {what:?}"), || self.log().contains(what));
    }

    /// The body of `GET path`, whatever the status.
    ///
    /// # Panics
    /// If the API doesn't answer.
    #[must_use]
    pub fn get(&self, path: &str) -> String {
        self.call("GET", path, None, None).1
    }

    /// Status and body of a call.
    ///
    /// # Panics
    /// If the API doesn't answer.
    #[must_use]
    pub fn call(&self, method: &str, path: &str, token: Option<&str>, body: Option<&Value>) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{}{path}", self.api));
        if let Some(token) = token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header("content-type", "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        let response = agent.run(request.body(body).expect("a request"));
        let mut response = response.unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        let text = response.body_mut().read_to_string().expect("a body");
        (response.status().as_u16(), text)
    }

    /// Has a new process take over, and waits until it serves and the old one has ended.
    ///
    /// # Panics
    /// If it ends instead, or the old one doesn't.
    pub fn take_over(&mut self) {
        let ready = self.setup.path("ready.json");
        let log = std::fs::File::options().append(true).create(true).open(self.setup.path("log")).expect("a log");
        let mut command = Command::new(binary());
        command.args(["serve", "--takeover", "--config"]).arg(self.setup.path("bailiwick.toml"));
        command.arg("--ready-file").arg(&ready).stdout(Stdio::null()).stderr(log);
        let mut process = Process::start(&mut command);
        wait::until("the new process serves", || {
            if let Some(status) = process.ended() {
                panic!("it ended with {status}: {}", self.log());
            }
            let reported: Value = serde_json::from_str(&std::fs::read_to_string(&ready).ok()?).ok()?;
            (reported["pid"] == process.id()).then_some(())
        });
        let status = std::mem::replace(&mut self.process, process).wait();
        assert!(status.success(), "{status}: {}", self.log());
    }

    /// Gives the folder back after the process has been ended.
    #[must_use]
    pub fn stop(self) -> Setup {
        drop(self.process);
        self.setup
    }
}

/// Runs `bailiwick` to its end.
///
/// # Panics
/// If it can't be started.
pub fn bailiwick<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Output {
    Command::new(binary()).args(arguments).stdin(Stdio::null()).output().expect("bailiwick runs")
}

/// The binary beside this test, built if need be.
///
/// # Panics
/// If it doesn't build.
#[must_use]
pub fn binary() -> &'static Path {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.args(["build", "--quiet", "--package", "bailiwick-dns"]).current_dir(geo::root());
        // What cargo tells a test of its package would be taken for a change of the build, and half of it done anew.
        let of_package = |name: &OsString| {
            let name = name.to_string_lossy();
            name.starts_with("CARGO_MANIFEST_") || name.starts_with("CARGO_PKG_")
        };
        std::env::vars_os().map(|(name, _)| name).filter(of_package).for_each(|name| _ = build.env_remove(name));
        let built = build.status();
        assert!(built.is_ok_and(|status| status.success()), "bailiwick doesn't build");
        let program = std::env::current_exe().expect("this program has a path");
        let beside = program.parent().expect("a folder");
        // Tests stand in target/debug/deps, programs such as benchmarks in target/debug.
        let folder = if beside.ends_with("deps") { beside.parent().unwrap_or(beside) } else { beside };
        folder.join("bailiwick")
    })
}
