//! Asks the APIs of all other nodes for the same path, once. Takes the settings and the path, returns each node's
//! answer. Called to add up numbers over a fleet.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::iter;
use tokio::time::{Instant, timeout_at};

use super::Settings;
use super::client::Client;

/// How many nodes are asked at once. The number is limited because answers may be large.
const AT_ONCE: usize = 64;
/// How long all nodes together may take. The command `bailiwick` waits ten seconds for the node that asks.
const PATIENCE: Duration = Duration::from_secs(7);

/// Asks each peer for this path. `each` gets the name of the peer with its answer, or with the reason why it gave no
/// answer of at most `most` bytes, one by one as they arrive.
///
/// # Errors
/// When TLS can't be set up.
pub(crate) async fn ask_others(
    settings: &Settings,
    path: &str,
    most: usize,
    mut each: impl FnMut(&str, Result<Vec<u8>, String>),
) -> Result<(), Vec<String>> {
    let client = Arc::new(Client::new(settings)?);
    let deadline = Instant::now() + PATIENCE;
    let requests = settings.peers.iter().cloned().map(|peer| {
        let (client, path) = (Arc::clone(&client), path.to_owned());
        async move {
            let answer = match timeout_at(deadline, client.json(&peer, &path, most)).await {
                Ok(Ok(bytes)) if bytes.len() > most => Err(format!("it answers with more than {} MiB", most >> 20)),
                Ok(answer) => answer,
                Err(_) => Err(format!("no whole answer within {} s", PATIENCE.as_secs())),
            };
            (peer, answer)
        }
    });
    let mut answers = iter(requests).buffer_unordered(AT_ONCE);
    while let Some((peer, answer)) = answers.next().await {
        each(&peer, answer);
    }
    Ok(())
}
