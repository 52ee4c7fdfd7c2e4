//! Processes that end with their handle.

use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use crate::wait;

/// A running program; dropped, it is killed and reaped.
#[derive(Debug)]
pub struct Process {
    child: Child,
}

impl Process {
    /// Starts `command` without standard input.
    ///
    /// # Panics
    /// If it can't be started.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).spawn();
        Self { child: child.unwrap_or_else(|error| panic!("{command:?}: {error}; run scripts/setup")) }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by name, such as `HUP`.
    pub fn signal(&self, name: &str) {
        run("kill", ["-s", name, &self.child.id().to_string()]);
    }

    /// Its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait::until("the process ends", || self.ended())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs a program to its end.
///
/// # Panics
/// If it can't be started: the message says what to install.
pub fn run<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> Output {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}; run scripts/setup"))
}

/// Standard output of a program that succeeded, as text.
///
/// # Panics
/// If it failed.
pub fn text_of<S: AsRef<OsStr>>(program: &str, arguments: impl IntoIterator<Item = S>) -> String {
    let output = run(program, arguments);
    let reported = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{program} failed: {reported}{}", String::from_utf8_lossy(&output.stderr));
    reported
}

/// A file of the tools' cache that the step of `scripts/setup` brings; where it is missing, this says so.
///
/// # Panics
/// If it is missing in CI.
#[must_use]
pub fn cached(file: &str, step: &str) -> Option<PathBuf> {
    let set = |name| std::env::var_os(name).map(PathBuf::from);
    let cache = set("BAILIWICK_CACHE").unwrap_or_else(|| {
        let caches = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache")));
        caches.unwrap_or_default().join("bailiwick")
    });
    let path = cache.join(file);
    if path.exists() {
        return Some(path);
    }
    println!("skipped: no {}; install python3 with venv, then scripts/setup {step}", path.display());
    assert!(std::env::var("CI").as_deref() != Ok("true"), "{} is missing", path.display());
    None
}

/// The Python that has the clients from PyPI (`scripts/setup python`); where it is missing, this says so.
///
/// # Panics
/// If it is missing in CI.
#[must_use]
pub fn pypi_python() -> Option<PathBuf> {
    cached("python/bin/python", "python")
}
