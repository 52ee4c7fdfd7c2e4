//! Real Postgres servers of Debian's package, each with a folder of its own. Takes nothing from the machine but the
//! programs; nothing is left running. Postgres refuses to run as root, so root runs it as `nobody`.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::net::free_port;
use crate::wait;

/// The user and group `nobody` of Debian.
const NOBODY: u32 = 65_534;

/// A running server. Dropped, it is stopped at once and its folder removed.
#[derive(Debug)]
pub struct Postgres {
    programs: PathBuf,
    folder: TempDir,
    port: u16,
}

impl Postgres {
    /// The folder of the newest installed version's programs; `None` if there is none.
    #[must_use]
    pub fn programs() -> Option<PathBuf> {
        let versions = std::fs::read_dir("/usr/lib/postgresql").ok()?;
        let folders = versions.flatten().map(|entry| entry.path().join("bin"));
        folders.filter(|folder| folder.join("initdb").exists()).max()
    }

    /// A leader with an empty database `postgres`.
    ///
    /// # Panics
    /// If it can't be made or started.
    #[must_use]
    pub fn leader(programs: &Path) -> Self {
        let server = Self::new(programs);
        let data = server.data();
        let arguments = ["--auth=trust", "--username=postgres", "--no-sync", "--encoding=UTF8", "--pgdata"];
        done(server.program("initdb").args(arguments).arg(&data));
        server.start();
        server
    }

    /// A copy that follows a leader, which it reaches at `port`.
    ///
    /// # Panics
    /// If it can't be made or started.
    #[must_use]
    pub fn copy_of(programs: &Path, port: u16) -> Self {
        let server = Self::new(programs);
        let of = format!("host=127.0.0.1 port={port} user=postgres");
        let arguments = ["--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--pgdata"];
        done(server.program("pg_basebackup").args(arguments).arg(server.data()).arg("--dbname").arg(of));
        server.start();
        server
    }

    fn new(programs: &Path) -> Self {
        let folder = TempDir::new().expect("a temporary folder");
        if is_root() {
            std::os::unix::fs::chown(folder.path(), Some(NOBODY), Some(NOBODY)).expect("the folder is given away");
        }
        Self { programs: programs.to_owned(), folder, port: free_port().port() }
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// How `psql` connects to it.
    #[must_use]
    pub fn dsn(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port)
    }

    /// Runs a statement.
    ///
    /// # Panics
    /// If it fails.
    pub fn run(&self, statement: &str) -> String {
        let arguments = ["--no-psqlrc", "--tuples-only", "--no-align", "--command", statement, "--dbname"];
        let output = done(self.program("psql").args(arguments).arg(self.dsn()));
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    /// Makes a copy the leader.
    ///
    /// # Panics
    /// If it can't be promoted.
    pub fn promote(&self) {
        done(self.program("pg_ctl").args(["promote", "--pgdata"]).arg(self.data()));
    }

    /// Stops it as if the machine had died.
    pub fn kill(&self) {
        let arguments = ["stop", "--mode=immediate", "--wait", "--pgdata"];
        let _ = self.program("pg_ctl").args(arguments).arg(self.data()).output();
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn start(&self) {
        let settings = format!(
            "-p {} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c wal_level=replica \
             -c max_wal_senders=4 -c hot_standby=on -c wal_receiver_timeout=2s -c wal_retrieve_retry_interval=200ms \
             -c shared_buffers=16MB -c max_connections=20",
            self.port
        );
        let mut command = self.program("pg_ctl");
        command.args(["start", "--wait", "--timeout=60", "--pgdata"]).arg(self.data());
        command.arg("--log").arg(self.folder.path().join("log")).arg("--options").arg(settings);
        // The server keeps what it inherits open, so nobody may wait for the end of its output.
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("pg_ctl runs");
        let log = || std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        assert!(status.success(), "Postgres doesn't start: {}", log());
        wait::until("Postgres answers", || {
            self.program("psql")
                .args(["--command", "SELECT 1", "--dbname"])
                .arg(self.dsn())
                .output()
                .ok()
                .filter(|output| output.status.success())
        });
    }

    /// One of its programs, run by an ordinary user.
    fn program(&self, name: &str) -> Command {
        let mut command = Command::new(self.programs.join(name));
        command.current_dir(self.folder.path()).env("LC_ALL", "C.UTF-8").env("PGTZ", "UTC");
        if is_root() {
            command.uid(NOBODY).gid(NOBODY);
        }
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether this process is root's.
fn is_root() -> bool {
    std::os::unix::fs::MetadataExt::uid(&std::fs::metadata("/proc/self").expect("/proc")) == 0
}

/// Runs a command to its end.
fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the program runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}
