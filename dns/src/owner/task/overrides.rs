//! Overrides that come by the API, and what is written to the state directory: requests of the owner's loop enter, what became of them leaves.

use bailiwick_rules::health::{Forced, Status};
use bailiwick_rules::id::RegionId;

use super::Owner;
use crate::owner::{Failure, Kept, OverrideError};
use crate::probe::Prober;
use crate::store::Store;

impl<P: Prober> Owner<P> {
    pub(super) async fn set_override(&mut self, region: RegionId, forced: Forced) -> Result<Kept, OverrideError> {
        if self.current.world.rules().table.region_named(region.as_str()).is_none() {
            return Err(OverrideError::UnknownRegion(region));
        }
        if forced.status == Status::Unknown {
            return Err(OverrideError::NoStatus);
        }
        if forced.until <= self.clock.now() {
            return Err(OverrideError::Ended(forced.until));
        }
        tracing::warn!(%region, until = %forced.until, reason = forced.reason, "override set: {}", forced.status);
        self.overrides.insert(region, forced);
        self.publish();
        Ok(self.keep_overrides().await)
    }

    pub(super) async fn delete_override(&mut self, region: RegionId) -> Result<Kept, OverrideError> {
        if self.overrides.remove(&region).is_none() {
            return Err(OverrideError::NotForced(region));
        }
        tracing::warn!(%region, "override deleted");
        self.publish();
        Ok(self.keep_overrides().await)
    }

    pub(super) async fn keep_overrides(&mut self) -> Kept {
        let overrides = self.overrides.clone();
        let kept = self.keep(move |store| store.keep_overrides(&overrides)).await;
        self.tell();
        kept
    }

    /// Writes to the state directory, off this thread. What can't be kept is in force all the same: an operator who drains a region while
    /// the disk is full means it.
    pub(super) async fn keep(&mut self, write: impl FnOnce(&Store) -> std::io::Result<()> + Send + 'static) -> Kept {
        let Some(store) = self.store.clone() else {
            return Kept::UntilRestart("no state_dir is configured".to_owned());
        };
        let written = tokio::task::spawn_blocking(move || write(&store)).await;
        match written.unwrap_or_else(|panic| Err(std::io::Error::other(panic))) {
            Ok(()) => {
                self.status.not_persisted = None;
                Kept::Persisted
            }
            Err(error) => {
                let error = format!("can't write to state_dir ({error}); mend its mode or make room");
                tracing::error!("{error}");
                self.status.not_persisted = Some(Failure { at: self.clock.now(), errors: vec![error.clone()] });
                Kept::UntilRestart(error)
            }
        }
    }
}
