//! Brings the bundles (named sets of files for applications) that the rules pin to this node. Takes each change of the
//! rules, fetches versions that this node lacks from NATS or from peers, and puts them into [`Bundles`], which checks
//! them. Started by [`super::start`].

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::random;
use bailiwick_host::system::tasks::Ended;
use bailiwick_rules::bundle::{LARGEST_PACK, Version};
use bailiwick_rules::id::BundleId;
use bailiwick_rules::table::Revision;
use futures_util::{StreamExt, stream};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::Settings;
use super::client::Client;
use super::nats::Objects;
use crate::state::bundles::Bundles;
use crate::state::owner::Handle;

/// The first pause before a version that couldn't be fetched is tried again.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// How many versions are fetched at once, so that a peer that hangs doesn't delay all. Each is in memory meanwhile.
const AT_ONCE: usize = 4;
/// The longest such pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Where bundles are fetched from.
#[derive(Debug, Clone)]
pub(super) struct Places {
    /// The store in NATS, in mode `nats`.
    pub(super) objects: Option<Objects>,
    /// The peers, if there are any.
    pub(super) peers: Option<Arc<Client>>,
}

/// Follows the rules for as long as the program runs.
pub(super) async fn run(bundles: Bundles, places: Places, settings: Arc<Settings>, handle: Handle) -> Ended {
    let (mut status, mut changes) = (handle.follow_status(), bundles.follow());
    let mut failures = 0;
    loop {
        let revision = handle.snapshot().table().revision();
        let (own, snapshot) = (bundles.clone(), handle.snapshot_owned());
        let Ok(missing) = tokio::task::spawn_blocking(move || own.settle(snapshot.table())).await else {
            return Ended::Failed;
        };
        // Versions that are pinned or pushed from now on are looked at in the next turn.
        changes.borrow_and_update();
        let mut is_any_lacking = false;
        let fetched = stream::iter(missing).map(async |(name, version)| {
            let done = places.fetch(&bundles, &settings, &handle, (&name, version)).await;
            (name, version, done)
        });
        let mut fetched = pin!(fetched.buffer_unordered(AT_ONCE));
        while let Some((name, version, done)) = fetched.next().await {
            match done {
                Ok(()) => tracing::info!(
                    json.event = "bundle_fetched", bundle = %name, %version, "bundle {name} {version} is here"
                ),
                Err(why) => {
                    is_any_lacking = true;
                    if bundles.note_trouble(&name, version, why.clone()) {
                        tracing::warn!(
                            json.event = "bundle_missing", bundle = %name, %version, json.reason = why,
                            "version {version} of bundle {name} is pinned, and isn't on this node: {why}"
                        );
                    }
                }
            }
        }
        failures = if is_any_lacking { failures + 1 } else { 0 };
        let again = is_any_lacking.then(|| Instant::now() + pause(failures - 1));
        tokio::select! {
            () = other_rules(&handle, &mut status, revision) => failures = 0,
            changed = changes.changed() => if changed.is_err() { return Ended::OnRequest },
            () = at(again) => {}
        }
    }
}

impl Places {
    /// Fetches a version from NATS, or else from the first peer that has it.
    ///
    /// # Errors
    /// Why the version couldn't be fetched from any place.
    async fn fetch(
        &self,
        bundles: &Bundles,
        settings: &Settings,
        handle: &Handle,
        (name, version): (&BundleId, Version),
    ) -> Result<(), String> {
        let mut whys = Vec::new();
        let keep = |pack: Vec<u8>| {
            let (bundles, snapshot, now, name) = (bundles.clone(), handle.snapshot_owned(), handle.now(), name.clone());
            let put = move || bundles.put((&name, Some(version)), &pack, snapshot.table(), now);
            async move { tokio::task::spawn_blocking(put).await.map_err(|error| error.to_string()) }
        };
        if let Some(objects) = &self.objects {
            match objects.fetch(name, version).await {
                Ok(pack) => match keep(pack).await? {
                    Ok(_) => return Ok(()),
                    Err(refused) => whys.push(format!("NATS: {refused}")),
                },
                Err(why) => whys.push(format!("NATS: {why}")),
            }
        }
        if let Some(client) = &self.peers {
            for url in &settings.peers {
                match client.pack(url, name, version, LARGEST_PACK).await {
                    Ok(pack) => match keep(pack).await? {
                        Ok(_) => return Ok(()),
                        Err(refused) => whys.push(format!("{url}: {refused}")),
                    },
                    Err(why) => whys.push(format!("{url}: {why}")),
                }
            }
        }
        match whys[..] {
            [] => Err(format!("push it here: bailiwick bundle push FOLDER --name {name}")),
            _ => Err(whys.join("; ")),
        }
    }
}

/// Waits until other rules are in service.
async fn other_rules(handle: &Handle, status: &mut watch::Receiver<Arc<crate::state::owner::Status>>, own: Revision) {
    while handle.snapshot().table().revision() == own {
        if status.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time).await,
        None => std::future::pending().await,
    }
}

/// The pause before the next try: from 1 s, doubled with each earlier failure, to 30 s, and shortened by up to half at
/// random.
fn pause(failures: u32) -> Duration {
    FIRST_PAUSE.saturating_mul(1 << failures.min(5)).min(LONGEST_PAUSE).mul_f64(0.5 + 0.5 * random::part())
}
