//! Handles SIGUSR2: starts the program again, from the file that this process was started from. The new process takes
//! over from this one.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tracing::{error, info};

/// How this process was started.
pub struct Upgrade {
    program: Option<PathBuf>,
    arguments: Vec<OsString>,
    /// The command by which an operator starts the new process.
    by_hand: &'static str,
}

impl Upgrade {
    /// Notes how this process was started. Has to be called at the start, while the program's file still has its name.
    /// `by_hand` is the command by which an operator starts the new process if this process can't.
    #[must_use]
    pub fn prepare(by_hand: &'static str) -> Self {
        let arguments = with_takeover(std::env::args_os().skip(1));
        Self { program: std::env::current_exe().ok(), arguments, by_hand }
    }

    /// Starts the new process. It takes over once it is ready. If it ends before, this process continues to serve.
    pub fn start(&self) {
        let Some(program) = self.program.clone() else {
            error!("SIGUSR2: the system doesn't tell where this program is; start `{}` by hand", self.by_hand);
            return;
        };
        // These variables of the service manager are meant for this process only, so the new one doesn't get them.
        let mut command = Command::new(&program);
        command.args(&self.arguments).stdin(Stdio::null());
        ["WATCHDOG_PID", "LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]
            .iter()
            .for_each(|name| _ = command.env_remove(name));
        match command.spawn() {
            Ok(mut child) => {
                info!(pid = child.id(), "SIGUSR2: a new process was started and takes over once it is ready");
                // If the new process ends first, it has to be waited for, or it would stay as a zombie.
                let reap = move || match child.wait() {
                    Ok(status) => error!("the new process ended with {status}; this one goes on serving"),
                    Err(error) => error!(%error, "the new process can't be waited for"),
                };
                let _ = std::thread::Builder::new().name("successor".to_owned()).spawn(reap);
            }
            Err(error) => error!("SIGUSR2: {} can't be started ({error}); this process goes on", program.display()),
        }
    }
}

/// The arguments with `--takeover`, exactly once.
fn with_takeover(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let takeover = OsString::from("--takeover");
    arguments.filter(|argument| *argument != takeover).chain([takeover.clone()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_successor_is_asked_once_to_take_over() {
        let arguments = ["serve", "--takeover", "--config", "b.toml"].map(OsString::from);
        assert_eq!(with_takeover(arguments.into_iter()), ["serve", "--config", "b.toml", "--takeover"]);
    }
}
