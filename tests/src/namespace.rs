//! A private network on this machine: a Linux network namespace whose only interface is its loopback. Name servers can
//! use port 53 there, and no packet leaves. Used by tests of whole delegations.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

/// A namespace. It lives as long as the process `keeper`, which does nothing, and ends when this is dropped.
#[derive(Debug)]
pub struct Namespace {
    keeper: Child,
    enter: Vec<String>,
}

impl Namespace {
    /// Makes one: as root, else by a user namespace; `None` where the machine forbids both.
    #[must_use]
    pub fn new() -> Option<Self> {
        [&["--net"][..], &["--map-root-user", "--net"]].into_iter().find_map(Self::with)
    }

    /// Makes another one, with the rights of this one.
    #[must_use]
    pub fn another(&self) -> Option<Self> {
        let (keeper, mut enter) = Self::keep(self.command("unshare"), &["--net"])?;
        let own = self.enter.iter().filter(|word| ["--user", "--preserve-credentials"].contains(&word.as_str()));
        enter.extend(own.cloned());
        Some(Self { keeper, enter })
    }

    /// The process that keeps the namespace alive.
    #[must_use]
    pub fn keeper(&self) -> u32 {
        self.keeper.id()
    }

    fn with(options: &[&str]) -> Option<Self> {
        let (keeper, mut enter) = Self::keep(Command::new("unshare"), options)?;
        if options.contains(&"--map-root-user") {
            enter.extend(["--user".to_owned(), "--preserve-credentials".to_owned()]);
        }
        Some(Self { keeper, enter })
    }

    /// Starts the process that keeps a namespace alive, and says how to enter it.
    fn keep(mut command: Command, options: &[&str]) -> Option<(Child, Vec<String>)> {
        // The process ends after ten minutes, in case the test is killed and nothing is dropped.
        let script = "ip link set lo up && echo ready && exec sleep 600";
        command
            .args(options)
            .args(["sh", "-c", script])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut keeper = command.spawn().ok()?;
        let mut line = String::new();
        let ready = keeper.stdout.take().map(|out| BufReader::new(out).read_line(&mut line));
        if !matches!(ready, Some(Ok(1..))) {
            let _ = keeper.wait();
            return None;
        }
        let enter = vec!["--target".to_owned(), keeper.id().to_string(), "--net".to_owned()];
        Some((keeper, enter))
    }

    /// A command that will run inside.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(&self.enter).arg("--").arg(program);
        command
    }

    /// Standard output of a program run inside, as text.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn text_of(&self, program: &str, arguments: &[&str]) -> String {
        let output = self.command(program).args(arguments).stdin(Stdio::null()).output();
        let output = output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup"));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}
