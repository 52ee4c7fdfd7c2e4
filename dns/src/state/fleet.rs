//! How this node follows its fleet. Takes the settings of `[fleet]`, starts the tasks that get rules and health from
//! peers (the APIs of other nodes) or from NATS, offers these to the owner, and keeps a history of the rules. Started
//! by `serve`.
//!
//! `bailiwick_rules::fleet` decides what to do about an answer. Nothing here ever takes rules out of service: if a peer
//! or a store is silent, behind or lying, the last good document stays in service.

mod bundles;
mod client;
mod first;
mod nats;
mod offer;
mod others;
mod peers;
mod record;
pub(crate) mod turns;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use bailiwick_host::system::files::{Fault, Mode as FileMode, read_file, replace};
use bailiwick_host::system::state_dir;
use bailiwick_host::system::tasks::supervise;
use bailiwick_rules::fleet::follow::Trust;
use bailiwick_rules::fleet::gates::Gates;
use bailiwick_rules::fleet::head::Stage;
use bailiwick_rules::fleet::stages::Care;
use bailiwick_rules::receipt::PublicKey;
use bailiwick_rules::time::Millis;
use ring::signature::{ED25519, UnparsedPublicKey};

use crate::state::bundles::Bundles;
use crate::state::fleet_status::Peer;
use crate::state::load::compile_rules;
use crate::state::owner::Handle;
use crate::state::store::Store;
use bundles::Places;
use client::Client;
use nats::Objects;

pub(crate) use client::HEAD;
pub use nats::Nats;
pub(crate) use nats::{
    Answers, Bus, Claims, HeadEntry, NKey, Question, SwapOutcome, check_nats, is_name, no_bucket, no_head, no_version,
};
pub(crate) use others::ask_others;
pub(crate) use record::note;

/// Where this node gets its rules from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mode {
    /// From its own files.
    #[default]
    Files,
    /// From the peers: the highest valid revision that any of them has.
    Peers,
    /// From NATS.
    Nats,
}

impl Mode {
    /// All modes, each with its word in the configuration and in texts.
    pub(crate) const ALL: [(Self, &'static str); 3] =
        [(Self::Files, "files"), (Self::Peers, "peers"), (Self::Nats, "nats")];

    /// The mode's word in the configuration and in texts.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Files => "files",
            Self::Peers => "peers",
            Self::Nats => "nats",
        }
    }
}

/// The `[fleet]` section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Where this node gets its rules from.
    pub mode: Mode,
    /// The URLs of the other nodes' APIs.
    pub peers: Vec<String>,
    /// The file of the token that is sent to the peers.
    pub peers_token_file: Option<PathBuf>,
    /// The file of the certificate authorities that are trusted for peers. Without a file, the system's are trusted.
    pub peers_ca_file: Option<PathBuf>,
    /// How NATS is reached, in mode `nats`.
    pub nats: Option<Nats>,
    /// The time between two requests to a peer, or between two health reports over NATS.
    pub poll: Millis,
    /// Whether this node sends the aggregate of the rules. `None`: if it is the writer, or no other node can, or NATS
    /// lets it take its turn.
    pub sends_aggregate: Option<bool>,
    /// Whether `PUT /v1/rules` publishes rules on this node.
    pub writer: bool,
    /// The public keys of those who may publish. If there are none, rules need no signature.
    pub trusted_publishers: Vec<PublicKey>,
    /// The stage of this node: a new revision is served by the nodes of one stage after the other.
    pub stage: Stage,
    /// The limits of what a change may do, before somebody has to accept it, if the change is published on this node.
    pub gates: Gates,
    /// How carefully such a change goes from stage to stage.
    pub care: Care,
    /// The rules document to begin with, if neither peers nor NATS have a higher revision.
    pub seed: Option<PathBuf>,
    /// The state directory of a node that follows others.
    pub state_dir: Option<PathBuf>,
}

/// The largest health report of another node that is read, in bytes.
const LARGEST_REPORT: usize = 4 << 20;
/// How often peers are asked if nothing else is configured.
pub(crate) const POLL: Millis = Millis(2_000);

impl Default for Settings {
    fn default() -> Self {
        Self {
            mode: Mode::Files,
            peers: Vec::new(),
            peers_token_file: None,
            peers_ca_file: None,
            nats: None,
            poll: POLL,
            sends_aggregate: None,
            writer: false,
            trusted_publishers: Vec::new(),
            stage: Stage::Rest,
            gates: Gates::default(),
            care: Care::default(),
            seed: None,
            state_dir: None,
        }
    }
}

impl Settings {
    /// Whether rules come from other nodes or NATS. Then the state directory holds the only file of the rules.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.mode != Mode::Files
    }

    /// Whether the node is part of a fleet at all.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.follows() || !self.peers.is_empty()
    }

    /// The path of the last good rules, from which a node that follows others reads its rules.
    #[must_use]
    pub fn rules_in(state_dir: &Path) -> PathBuf {
        Store::rules_in(state_dir)
    }

    /// The publishers that this node trusts.
    pub(crate) fn trust(&self) -> Trust<'_> {
        Trust { publishers: &self.trusted_publishers, verify }
    }
}

/// Verifies an Ed25519 signature.
pub(crate) fn verify(key: &PublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key.0).verify(message, signature).is_ok()
}

/// Restores the head of the document in service from the state directory. A head is the publisher's signed statement of
/// who published a document, why and for which stage. This has to happen before other nodes ask for the document,
/// because a document without a head counts as one for all stages.
pub(crate) fn restore(settings: &Settings, handle: &Handle) {
    if let Some(state_dir) = &settings.state_dir {
        record::restore(state_dir, handle);
    }
}

/// Starts to follow the fleet, and to fetch the bundles (sets of files for applications) that the rules pin. Without a
/// configured fleet, only bundles are fetched. `answers` answers questions that arrive over NATS. `claims` get each
/// connection to NATS.
///
/// # Errors
/// When TLS can't be set up, or the file of authorities can't be used.
pub(crate) fn start(
    settings: &Settings,
    node: &str,
    answers: Option<Answers>,
    bundles: &Bundles,
    claims: &Claims,
    handle: &Handle,
) -> Result<(), Vec<String>> {
    let settings = Arc::new(settings.clone());
    let objects = settings.nats.as_ref().map(|_| Objects::default());
    start_bundles(&settings, bundles, objects.clone(), handle)?;
    if !settings.is_used() {
        return Ok(());
    }
    if settings.state_dir.is_some() {
        record::start(handle);
    }
    if let (Some(nats), Some(objects)) = (&settings.nats, objects) {
        nats::start(&settings, nats, (node, answers), (&objects, claims), handle);
        return Ok(());
    }
    let client = Arc::new(Client::new(&settings)?);
    let peer = |url: &String| Peer { url: url.clone(), ..Peer::default() };
    handle.fleet().with(|view| view.peers = settings.peers.iter().map(peer).collect());
    peers::start(&settings, &client, handle);
    Ok(())
}

/// Starts to fetch the bundles that the rules pin.
///
/// # Errors
/// When TLS can't be set up.
fn start_bundles(
    settings: &Arc<Settings>,
    bundles: &Bundles,
    objects: Option<Objects>,
    handle: &Handle,
) -> Result<(), Vec<String>> {
    let peers = if settings.peers.is_empty() { None } else { Some(Arc::new(Client::new(settings)?)) };
    let (places, bundles, settings) = (Places { objects, peers }, bundles.clone(), Arc::clone(settings));
    let (pulse, handle) = (handle.tasks().waiting("bundles"), handle.clone());
    let run = move || bundles::run(bundles.clone(), places.clone(), Arc::clone(&settings), handle.clone());
    // The task ends with the program.
    tokio::spawn(supervise(pulse, run));
    Ok(())
}

/// Puts a first document into the state directory of a node that follows others, if it has none. This is the highest
/// revision of those that peers, NATS and the seed have.
///
/// # Errors
/// When there is no document, or it can't be written.
pub(crate) async fn begin(settings: &Settings, node: &str) -> Result<(), Vec<String>> {
    if settings.nats.is_some() && !nats::is_name(node) {
        return Err(vec![format!(
            "\"{node}\" can't be a node's name in NATS; set node to one of letters, digits, \"-\", \"_\" and dots \
             between"
        )]);
    }
    let Some(state_dir) = settings.state_dir.as_deref() else { return Ok(()) };
    let file = Store::rules_in(state_dir);
    if file.exists() {
        return Ok(());
    }
    let seed = settings.seed.as_deref().map(read_seed).transpose().map_err(|faults| texts(&faults))?;
    let (revision, bytes, head) = first::first(settings, node, seed).await?;
    let result = state_dir::make(state_dir)
        .and_then(|()| Store::write_history(state_dir, revision, &bytes, head.as_ref()))
        .and_then(|()| replace(&file, &bytes, FileMode::Private));
    result.map_err(|error| vec![format!("{}: can't be written ({error}); mend state_dir", file.display())])
}

fn read_seed(file: &Path) -> Result<offer::First, Vec<Fault>> {
    let bytes = read_file(file).map_err(|error| vec![crate::state::load::unreadable(file, &error)])?;
    let rules = compile_rules(bytes.clone(), &file.display().to_string())?;
    Ok((rules.table.revision().number, bytes, None))
}

fn texts(faults: &[Fault]) -> Vec<String> {
    faults.iter().map(ToString::to_string).collect()
}
