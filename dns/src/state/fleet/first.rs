//! The first document of a node that follows others and has none. Takes the settings and perhaps a document to begin
//! with (the seed), returns the valid document with the highest revision of all that the peers and NATS offer. Called
//! by [`super::begin`].

use std::time::Duration;

use bailiwick_rules::fleet::follow;
use futures_util::future::{join, join_all};

use super::client::Client;
use super::offer::First;
use super::{Settings, nats, peers};

/// How often peers and NATS are asked before the node gives up.
const ATTEMPTS: u32 = 10;
/// The pause between two such rounds.
const PAUSE: Duration = Duration::from_secs(1);

/// Of the peers' documents, the document in NATS and the seed, the one with the highest revision. If NATS has an older
/// revision than the fleet, because it was restored from a backup, it isn't used as long as a peer answers.
///
/// # Errors
/// Why no peer and no store gave a document.
pub(super) async fn first(settings: &Settings, node: &str, seed: Option<First>) -> Result<First, Vec<String>> {
    let client = Client::new(settings)?;
    let mut stored = seed;
    let mut troubles = Vec::new();
    for attempt in 0..ATTEMPTS {
        if attempt > 0 {
            tokio::time::sleep(PAUSE).await;
        }
        let of_peers = join_all(settings.peers.iter().map(|peer| peers::first_of(peer, settings, &client)));
        let (of_store, of_peers) = join(store(settings, node), of_peers).await;
        let store_trouble = match of_store {
            Some(Ok(first)) if stored.as_ref().is_none_or(|seed| seed.0 < first.0) => {
                stored = Some(first);
                None
            }
            Some(Err(why)) => Some(format!("NATS: {why}")),
            _ => None,
        };
        let revisions: Vec<Option<u64>> =
            of_peers.iter().map(|answer| answer.as_ref().ok().map(|(revision, ..)| *revision)).collect();
        let chosen = match follow::first(stored.as_ref().map(|(revision, ..)| *revision), &revisions) {
            follow::First::Peer(place) => of_peers.into_iter().nth(place).and_then(Result::ok),
            follow::First::Store => stored.take(),
            follow::First::Nobody => {
                let failed =
                    settings.peers.iter().zip(of_peers).filter_map(|(peer, answer)| Some((peer, answer.err()?)));
                troubles = failed.map(|(peer, why)| format!("{peer}: {why}")).chain(store_trouble).collect();
                None
            }
        };
        if let Some(first) = chosen {
            return Ok(first);
        }
    }
    troubles.push(match settings.nats {
        Some(_) => {
            "this node has no rules yet, and neither NATS nor a peer gave any; publish the first ones with `bailiwick \
             rules restore`, or name a first document with rules = \"rules.json\""
                .to_owned()
        }
        None => {
            "this node has no rules yet, and no peer gave any; start a peer that has them, or name a first document \
             with rules = \"rules.json\""
                .to_owned()
        }
    });
    Err(troubles)
}

/// The document in NATS, if rules come from there.
async fn store(settings: &Settings, node: &str) -> Option<Result<First, String>> {
    Some(nats::first(settings, settings.nats.as_ref()?, node).await)
}
