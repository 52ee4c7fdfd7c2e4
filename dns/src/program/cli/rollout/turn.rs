//! Who runs a rollout, where a fleet has a store. Takes the store, returns whether this process is the one, and what
//! the one before it had noted. Called by [`super::run`] before and after each look.
//!
//! Without a store nobody is asked: a step replaces only the document that it was decided by.

use std::time::Instant;

use bailiwick_rules::fleet::lease::{Contender, Turn};
use bailiwick_rules::rollout::record::Record;
use bailiwick_rules::time::{Millis, Timestamp};

use super::desk::Desk;
use crate::state::fleet::Swapped;
use crate::system::clock::Clock;
use crate::system::random;

/// The shortest span of a lease: some time more than the two requests to NATS of a look may take.
const SPAN: Millis = Millis(15_000);

/// This process, as one of those that would run a rollout.
pub(super) struct Runner {
    contender: Contender,
    key: String,
    /// When this began, by both clocks: what measures spans mustn't be set back.
    begun: (Instant, Timestamp),
    /// The entry that the next one replaces.
    after: u64,
}

/// Whether this process runs the rollout now.
pub(super) enum Runs {
    /// It does. Another one has noted this, if another did before.
    This(Option<Record>),
    /// Another one does.
    Another(String),
}

impl Runner {
    /// For a rollout, by one who looks every `every`.
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
            after: 0,
        }
    }

    /// Whether it is this process's turn.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) fn look(&mut self, desk: &Desk) -> Result<Runs, Vec<String>> {
        let Some(store) = desk.store() else { return Ok(Runs::This(None)) };
        let passed = u64::try_from(self.begun.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.contender.look(store.lease(&self.key)?, self.begun.1.after(Millis(passed))) {
            Turn::Theirs(holder) => Ok(Runs::Another(holder)),
            Turn::Mine { after, left } => {
                self.after = after;
                Ok(Runs::This(left.flatten()))
            }
        }
    }

    /// Says that this process runs it, and what the next one has to know. Returns whether it still does. A store that
    /// takes no lease is told of, and keeps nothing from going on.
    pub(super) fn renew(&self, desk: &Desk, record: &Record) -> bool {
        let Some(store) = desk.store() else { return true };
        match store.put_lease(&self.key, &self.contender.lease(record.brief()), self.after) {
            Ok(Swapped::Done) => true,
            Ok(Swapped::Behind) => false,
            Ok(Swapped::Unknown(why)) => self.goes_on_without(&[why]),
            Err(errors) => self.goes_on_without(&errors),
        }
    }

    fn goes_on_without(&self, errors: &[String]) -> bool {
        eprintln!("warning: others can't see that it is run here ({}: {})", self.key, errors.join("; "));
        true
    }

    /// Leaves it to others, if it is this process's.
    pub(super) fn leave(&mut self, desk: &Desk, record: &Record) {
        let Some(store) = desk.store() else { return };
        // Whoever is asked next finds it out in any case, after the lease's span.
        if let Ok(Runs::This(None)) = self.look(desk) {
            let _ = store.put_lease(&self.key, &self.contender.free(record.brief()), self.after);
        }
    }
}
