//! A command that goes on while a test looks at what it does. Takes its words, returns what it has said.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bailiwick_tests::node::binary;

/// How long a command may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// A command that runs until it is done, or until this is dropped.
pub(crate) struct Driver {
    child: Child,
    output: PathBuf,
}

impl Drop for Driver {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Driver {
    /// Starts a command, whose output goes to a file.
    pub(crate) fn start(words: &[&str], output: PathBuf) -> Self {
        let file = std::fs::File::create(&output).expect("a file");
        let child = Command::new(binary())
            .args(words)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("bailiwick runs");
        Self { child, output }
    }

    /// What it has said so far.
    pub(crate) fn said(&self) -> String {
        std::fs::read_to_string(&self.output).expect("a file")
    }

    /// Waits until it ends: whether it went well, and all that it said.
    pub(crate) fn end(mut self) -> (bool, String) {
        let begun = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("a status") {
                return (status.success(), self.said());
            }
            assert!(begun.elapsed() < PATIENCE, "it doesn't end: {}", self.said());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
