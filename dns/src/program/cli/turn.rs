//! Who runs a rollout or scheduled drills, where a fleet has a store. Takes the store, returns whether this process is
//! the one, and what the one before it had noted. Called by `rollout run` and `drill run` before and after each look.
//!
//! Without a store nobody is asked: a step of a rollout replaces only the document that it was decided by, and nodes
//! refuse a second drill.

use std::marker::PhantomData;
use std::time::Instant;

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::random;
use bailiwick_rules::fleet::lease::{Contender, Turn};
use bailiwick_rules::time::{Millis, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::rules::rules_store::Buckets;
use crate::state::fleet::SwapOutcome;

/// The shortest span of a lease: some time more than the two requests to NATS of a look may take.
const SPAN: Millis = Millis(15_000);

/// This process, as one of those that would do it. `N` is what the next one has to know.
pub(super) struct Runner<N> {
    contender: Contender,
    key: String,
    /// When this process began, by both clocks: spans are measured by the one that is never set back.
    begun: (Instant, Timestamp),
    /// The number of the lease's entry in the store. This process renews the lease only if the entry is still the
    /// newest.
    last_entry: u64,
    note: PhantomData<N>,
}

/// Whether this process does it now.
pub(super) enum Runs<N> {
    /// It does. Another one has noted this, if another did before.
    This(Option<N>),
    /// Another one does.
    Another(String),
}

impl<N: Serialize + DeserializeOwned> Runner<N> {
    /// For what stands under this key, by one who looks every `every`.
    pub(super) fn new(key: &str, every: Millis) -> Self {
        let host = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok());
        let (process, host) = (std::process::id(), host.as_deref().unwrap_or("an unnamed host"));
        // Two containers may have one name, and the same process id in each.
        let me = format!("process {process} of {host} ({:08x})", random::bits() >> 32);
        let span = Millis(every.0.saturating_mul(3)).max(SPAN);
        Self {
            contender: Contender::new(me, span),
            // A dot has a meaning in a key, and no name has an equals sign.
            key: format!("run.{}", key.replace('.', "=")),
            begun: (Instant::now(), Clock::system().now()),
            last_entry: 0,
            note: PhantomData,
        }
    }

    /// Whether it is this process's turn.
    ///
    /// # Errors
    /// When the store can't be asked.
    pub(super) fn look(&mut self, store: Option<&Buckets>) -> Result<Runs<N>, Vec<String>> {
        let Some(store) = store else { return Ok(Runs::This(None)) };
        let passed = u64::try_from(self.begun.0.elapsed().as_millis()).unwrap_or(u64::MAX);
        match self.contender.look(store.lease(&self.key)?, self.begun.1.after(Millis(passed))) {
            Turn::Theirs(holder) => Ok(Runs::Another(holder)),
            Turn::Mine { after, left } => {
                self.last_entry = after;
                Ok(Runs::This(left.flatten()))
            }
        }
    }

    /// Says that this process runs it, and what the next one has to know. Returns whether it still does. A store that
    /// takes no lease is told of, and keeps nothing from going on.
    pub(super) fn renew(&self, store: Option<&Buckets>, note: N) -> bool {
        let Some(store) = store else { return true };
        match store.put_lease(&self.key, &self.contender.lease(note), self.last_entry) {
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

    /// Leaves it to others, if it is this process's.
    pub(super) fn leave(&mut self, store: Option<&Buckets>, note: N) {
        let Some(store) = store else { return };
        // Whoever is asked next finds it out in any case, after the lease's span.
        if let Ok(Runs::This(None)) = self.look(Some(store)) {
            let _ = store.put_lease(&self.key, &self.contender.free(note), self.last_entry);
        }
    }
}
