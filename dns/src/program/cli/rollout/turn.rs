//! Decides which of several processes runs a rollout, in a fleet with NATS. The process that runs it holds a lease: an
//! entry in NATS that it renews. Takes the store, returns whether this process may run the rollout, and the record that
//! the process before it left. Called by [`super::run`] before and after each look.
//!
//! Without NATS every process runs it. That does no harm, because a step replaces only the document by which it was
//! decided.

use std::time::Instant;

use bailiwick_rules::fleet::lease::{Contender, Turn};
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::time::{Millis, Timestamp};

use super::progress_store::ProgressStore;
use crate::state::fleet::SwapOutcome;
use crate::system::clock::Clock;
use crate::system::random;

/// The shortest span of a lease: some time more than the two requests to NATS of a look may take.
const SPAN: Millis = Millis(15_000);

/// This process, which wants to run a rollout.
pub(super) struct Runner {
    contender: Contender,
    key: String,
    /// When this process began, by both clocks: spans are measured by the one that is never set back.
    begun: (Instant, Timestamp),
    /// The number of the lease's entry in the store. This process renews the lease only if the entry is still the
    /// newest.
    last_entry: u64,
}

/// Whether this process runs the rollout now.
pub(super) enum Runs {
    /// This process runs it. The record is what another process left, if another one ran it before.
    This(Option<Record>),
    /// Another process runs it: the name of that process.
    Another(String),
}

impl Runner {
    /// A runner of a rollout that looks once in every `every`.
    pub(super) fn new(rollout: &str, every: Millis) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let (process, host) = (std::process::id(), host.as_deref().unwrap_or("an unnamed host"));
        // Two containers may have one name, and the same process id in each.
        let me = format!("process {process} of {host} ({:08x})", random::bits() >> 32);
        let span = Millis(every.0.saturating_mul(3)).max(SPAN);
        Self {
            contender: Contender::new(me, span),
            // A dot has a meaning in a key, and no name has an equals sign.
            key: format!("run.{}", rollout.replace('.', "=")),
            begun: (Instant::now(), Clock::system().now()),
            last_entry: 0,
        }
    }

    /// Whether it is this process's turn.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) fn look(&mut self, store: &ProgressStore) -> Result<Runs, Vec<String>> {
        let Some(store) = store.store() else { return Ok(Runs::This(None)) };
        let passed = u64::try_from(self.begun.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.contender.look(store.lease(&self.key)?, self.begun.1.after(Millis(passed))) {
            Turn::Theirs(holder) => Ok(Runs::Another(holder)),
            Turn::Mine { after, left } => {
                self.last_entry = after;
                Ok(Runs::This(left.flatten()))
            }
        }
    }

    /// Renews the lease, and leaves the record there for the next process. Returns whether this process still runs the
    /// rollout. If the store can't be written, a warning is printed, and this process goes on.
    pub(super) fn renew(&self, store: &ProgressStore, record: &Record) -> bool {
        let Some(store) = store.store() else { return true };
        match store.put_lease(&self.key, &self.contender.lease(record.brief()), self.last_entry) {
            Ok(SwapOutcome::Done) => true,
            Ok(SwapOutcome::Behind) => false,
            Ok(SwapOutcome::Unknown(why)) => self.goes_on_without(&[why]),
            Err(errors) => self.goes_on_without(&errors),
        }
    }

    /// Warns that the lease can't be written. Returns that this process goes on.
    fn goes_on_without(&self, errors: &[String]) -> bool {
        eprintln!("warning: others can't see that it is run here ({}: {})", self.key, errors.join("; "));
        true
    }

    /// Gives the lease up, if this process has it.
    pub(super) fn leave(&mut self, store: &ProgressStore, record: &Record) {
        let Some(buckets) = store.store() else { return };
        // If this fails, the next process waits until the lease's span is over.
        if let Ok(Runs::This(None)) = self.look(store) {
            let _ = buckets.put_lease(&self.key, &self.contender.free(record.brief()), self.last_entry);
        }
    }
}
