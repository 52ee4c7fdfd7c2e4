//! A connection to NATS, a message broker. Takes the settings, returns a [`Bus`] that connects again by itself, or why
//! no server can be used. Called by nodes that follow the rules in NATS, and by commands that publish there.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::{self, Context};
use async_nats::{Auth, AuthError, Client, ConnectError, ConnectErrorKind, ConnectOptions, Event};
use bailiwick_host::system::random;
use tokio::sync::watch;
use tokio::time::timeout;

use super::nkey::NKey;
use crate::text::cause::innermost;

/// How long one server has to answer when a connection begins.
const CONNECT: Duration = Duration::from_secs(3);
/// How long a request may take.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How often a silent connection is tried out. One that doesn't answer twice is given up.
const PING: Duration = Duration::from_secs(5);
/// The longest pause between two rounds of attempts to connect.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long after an answer a refusal may arrive of a message that was sent before it.
const REFUSAL: Duration = Duration::from_millis(500);
/// A request that fails may have failed because of a refusal that is no older than this.
const RECENT: Duration = Duration::from_secs(10);
/// The longest text of a server that is quoted in a message.
const LONGEST_TEXT: usize = 300;

/// The `[fleet.nats]` section.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Nats {
    /// The URLs of the servers: `tls://nats1.example.com:4222`.
    pub servers: Vec<String>,
    /// The certificate authorities of the servers; without it, the system's.
    pub ca_file: Option<PathBuf>,
    /// The certificate that this program shows, and its key.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// The file of the NKey's seed.
    pub nkey_file: Option<PathBuf>,
}

/// A connection.
#[derive(Debug, Clone)]
pub(crate) struct Bus {
    pub(super) client: Client,
    pub(super) jetstream: Context,
    state: watch::Receiver<ConnectionState>,
    /// How many copies of the data NATS keeps.
    pub(super) replicas: usize,
}

/// The state of the connection, as its events report it.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionState {
    /// How many times a connection came about.
    pub(super) connections: u64,
    /// Whether there is one.
    pub(super) is_connected: bool,
    /// What a server refused last, and when.
    pub(super) refusal: Option<(Instant, String)>,
    /// Whether the key has changed since, so that answers would come to another user's inboxes.
    has_new_key: bool,
}

impl Bus {
    /// Connects. Certificates and keys are read again at each connection.
    ///
    /// # Errors
    /// Why no server can be used, and how to mend that.
    pub(crate) async fn connect(nats: &Nats, name: &str) -> Result<Self, String> {
        let (tell, state) =
            watch::channel(ConnectionState { connections: 1, is_connected: true, ..ConnectionState::default() });
        let tell = Arc::new(tell);
        let options = options(nats, name, Arc::clone(&tell))?.event_callback(move |event| {
            let tell = Arc::clone(&tell);
            async move { tell.send_modify(|state| state.note(&event)) }
        });
        let client = options.connect(&nats.servers[..]).await.map_err(|error| unreachable(&error, nats))?;
        let mut jetstream = jetstream::new(client.clone());
        jetstream.set_timeout(PATIENCE);
        // One server can hold one copy only.
        let replicas = if nats.servers.len() < 3 { 1 } else { 3 };
        Ok(Self { client, jetstream, state, replicas })
    }

    /// The name of the server that this is connected to.
    pub(super) fn server(&self) -> String {
        self.client.server_info().server_name
    }

    /// Tries out whether this user may send what a node reports, and may be asked and answer. What is sent is empty,
    /// and passed over by all who listen.
    ///
    /// # Errors
    /// What the server refuses.
    pub(super) async fn may_report(&self, node: &str) -> Result<(), String> {
        for subject in ["bw.obs", "bw.told"] {
            let sent = self.client.publish(format!("{subject}.{node}"), Vec::new().into()).await;
            sent.map_err(|error| self.why(&error.to_string()))?;
        }
        let questions = self.client.subscribe("bw.ask.*").await;
        let _questions = questions.map_err(|error| self.why(&error.to_string()))?;
        // A server answers in order, so that it has looked at the above once it answers this.
        self.head().await?;
        let mut state = self.state.clone();
        match timeout(REFUSAL, state.wait_for(|state| state.refusal.is_some())).await {
            Ok(_) => Err(self.why("this user may not report or answer as this node")),
            Err(_) => Ok(()),
        }
    }

    /// Gives every change of the connection from now on.
    pub(super) fn follow(&self) -> watch::Receiver<ConnectionState> {
        self.state.clone()
    }

    /// Waits until the key has changed, so that another [`Bus`] is needed.
    pub(super) async fn is_outdated(&self) {
        let mut state = self.state.clone();
        if state.wait_for(|state| state.has_new_key).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Whether there is a connection now.
    pub(super) fn is_connected(&self) -> bool {
        self.state.borrow().is_connected
    }

    /// Whether a server has just refused something.
    pub(super) fn was_refused(&self) -> bool {
        self.state.borrow().refusal.as_ref().is_some_and(|(at, _)| at.elapsed() <= RECENT)
    }

    /// Why a request failed: what the server refused meanwhile, or else `error`.
    pub(super) fn why(&self, error: &str) -> String {
        let state = self.state.borrow();
        match &state.refusal {
            _ if !state.is_connected => "no NATS server can be reached".to_owned(),
            // What was refused long ago has nothing to do with this.
            Some((at, refusal)) if at.elapsed() <= RECENT => {
                format!("{refusal}; has this user the permissions of `bailiwick fleet nats-config`?")
            }
            _ => error.to_owned(),
        }
    }
}

impl ConnectionState {
    /// Notes an event of the connection.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Connected => {
                (self.connections, self.is_connected, self.refusal) = (self.connections + 1, true, None);
            }
            Event::Disconnected | Event::Closed => self.is_connected = false,
            Event::ServerError(error) => {
                let text = error.to_string();
                let text = text.chars().filter(|c| !c.is_control()).take(LONGEST_TEXT).collect();
                self.refusal = Some((Instant::now(), text));
            }
            _ => {}
        }
    }
}

/// How to connect: with which key, certificates and names. `tell` gets changes of the connection.
fn options(nats: &Nats, name: &str, tell: Arc<watch::Sender<ConnectionState>>) -> Result<ConnectOptions, String> {
    // This fails if a provider is already installed, which does no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut options = match &nats.nkey_file {
        None => ConnectOptions::new(),
        Some(file) => {
            // Who reads what others are answered could learn what they ask: each user has its own inboxes.
            let public = NKey::read(file)?.public();
            let inbox = format!("_INBOX.{public}");
            let file = file.clone();
            ConnectOptions::with_auth_callback(move |nonce| {
                let (file, public, tell) = (file.clone(), public.clone(), Arc::clone(&tell));
                async move {
                    let auth = authenticate(file, nonce).await.map_err(AuthError::new)?;
                    if auth.nkey.as_ref() != Some(&public) {
                        tell.send_modify(|state| state.has_new_key = true);
                    }
                    Ok(auth)
                }
            })
            .custom_inbox_prefix(inbox)
        }
    };
    if let Some(file) = &nats.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &nats.certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    let servers = nats.servers.len();
    Ok(options
        .name(name)
        .require_tls(nats.servers.iter().any(|server| server.starts_with("tls:")))
        .no_echo()
        // What servers tell of each other may be of use in their own network only. All are listed.
        .ignore_discovered_servers()
        .connection_timeout(CONNECT)
        .request_timeout(Some(PATIENCE))
        .ping_interval(PING)
        .reconnect_delay_callback(move |attempts| pause(attempts, servers)))
}

/// Signs the server's challenge with the key in a file. The file is read for each connection, so that a new key needs
/// no restart.
async fn authenticate(file: PathBuf, nonce: Vec<u8>) -> Result<Auth, String> {
    // A disk may hang.
    let read = tokio::task::spawn_blocking(move || NKey::read(&file)).await;
    let key = read.map_err(|error| error.to_string())??;
    let mut auth = Auth::new();
    auth.signature = Some(key.sign(&nonce)?);
    auth.nkey = Some(key.public());
    Ok(auth)
}

/// The pause before an attempt to connect: short while other servers weren't tried, then from 1 s to 30 s. Nodes that
/// lost the same server don't come back at the same moment.
fn pause(attempts: usize, servers: usize) -> Duration {
    let rounds = u32::try_from(attempts / servers.max(1)).unwrap_or(u32::MAX);
    let longest = match rounds {
        0 => Duration::from_millis(500),
        _ => Duration::from_secs(1 << rounds.min(5)).min(LONGEST_PAUSE),
    };
    longest.mul_f64(0.5 + 0.5 * random::part())
}

/// The message if NATS can't be reached.
fn unreachable(error: &ConnectError, nats: &Nats) -> String {
    let cause = innermost(error).to_string();
    match error.kind() {
        ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
            format!("NATS refuses this user ({cause}); does its configuration name the public half of nkey_file?")
        }
        ConnectErrorKind::Tls => format!("TLS with NATS fails ({cause}); check ca_file, cert_file and key_file"),
        ConnectErrorKind::ServerParse => format!("a URL of servers can't be used ({cause})"),
        ConnectErrorKind::TimedOut => format!("no NATS server answers within {} s", CONNECT.as_secs()),
        _ => format!("none of {} can be reached ({cause}); is NATS running there?", nats.servers.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_half_a_minute_once_all_servers_were_tried() {
        for attempts in 0..3 {
            assert!(pause(attempts, 3) <= Duration::from_millis(500));
        }
        for (attempts, longest) in [(3, 2), (6, 4), (9, 8), (15, 30), (3_000, 30)] {
            let (pause, longest) = (pause(attempts, 3), Duration::from_secs(longest));
            assert!(pause <= longest && pause >= longest / 2, "{attempts}: {pause:?}");
        }
    }
}
