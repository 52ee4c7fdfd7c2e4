//! The signals by which an operator or the service manager speaks to a server. Returns what each asks for. Both servers
//! wait for them.

use std::io;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// The signals that a server handles.
#[derive(Debug)]
pub struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    /// Starts to catch the signals.
    ///
    /// # Errors
    /// When the system doesn't let them be caught.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    /// Waits for the next signal.
    pub async fn next(&mut self) -> SignalAction {
        tokio::select! {
            _ = self.hangup.recv() => SignalAction::Reload,
            _ = self.terminate.recv() => SignalAction::End,
            _ = self.interrupt.recv() => SignalAction::End,
            _ = self.upgrade.recv() => SignalAction::Upgrade,
        }
    }

    /// Waits for a signal to end. Ignores other signals.
    pub async fn end(&mut self) {
        while self.next().await != SignalAction::End {}
    }
}

/// The action that a signal requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalAction {
    /// Read the files again.
    Reload,
    /// Start a process that takes over.
    Upgrade,
    /// Drain and end.
    End,
}
