//! The running server. Takes the sockets that were bound and the files that were loaded, returns a [`Running`] server,
//! which answers until it ends or gives its sockets to another process. `serve` holds the only instance, and calls its
//! functions in this order:
//!
//! 1. [`Running::start`] starts to answer. While an old process still answers, both read the same sockets.
//! 2. [`Running::replace_old`] ends the old process, if there is one.
//! 3. [`Running::await_successors`] lets new processes take over.
//! 4. [`Running::hand_over`], if a new process took over; otherwise [`Running::forget`] and [`Running::end`].
//!
//! QUIC is different: its packets belong to connections, and two processes on one socket would get packets of each
//! other's connections. So a new process serves QUIC only after the old one has stopped.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bailiwick_host::process::service_manager::ServiceManager;
use bailiwick_host::process::signals::Signals;
use bailiwick_host::process::takeover::{self, Handover, OldProcess, Program, Successor};
use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::file_reload::{Renew, Renewal};
use bailiwick_host::system::files::{Mode, replace};
use serde::Serialize;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{info, warn};

use super::http::{Http, ServedHttp};
use super::reload::Changeable;
use super::{LAST_WORK, PreparedServer};
use crate::net::listeners::{Absent, Addresses, Certificates, Listeners, QuicSockets};
use crate::net::rate_limit::Limiter;
use crate::net::streams::Gate;
use crate::program::aggregate;
use crate::program::api::Api;
use crate::program::config::Config;
use crate::program::metrics::Metrics;
use crate::program::responder::Responder;
use crate::state::bundles::Bundles;
use crate::state::fleet;
use crate::state::owner::Handle;
use crate::state::probe::Secrets;
use crate::state::startup::StartedState;
use crate::state::watch::Feed;

/// How long the server waits at its end for queries in progress.
const DRAIN: Duration = Duration::from_secs(2);
/// For how long open connections are still served after another process has taken over. They end earlier if their
/// clients close them or are idle.
const LINGER: Duration = Duration::from_secs(30);

/// A server that answers.
pub(super) struct Running {
    /// What a reload of the configuration can change.
    pub(super) changeable: Changeable,
    /// Watches the files of the rules, zones, keys and the GeoIP database, and reads them again.
    pub(super) feed: Feed,
    /// Watches the files of certificates and tokens, and reads them again.
    pub(super) renewal: Renewal,
    listeners: Listeners,
    http: Option<ServedHttp>,
    certificates: Certificates,
    pub(super) addresses: Addresses,
    pub(super) node: String,
    /// The sockets and the lock to give to a process that takes over.
    handover: Option<Handover>,
    /// The process that this one replaces, and the QUIC sockets, which can be served only after that.
    old: Option<(OldProcess, QuicSockets)>,
    /// Whether a takeover is under way. Meanwhile the API refuses changes, because the new process might not get them.
    is_handing_over: Arc<AtomicBool>,
    /// Whether a process that takes over can find this one, by a socket in the state directory.
    is_found: bool,
    /// The addresses that no interface has. They are watched as long as this is held.
    _absent: Arc<Absent>,
}

impl Running {
    /// Starts all threads and tasks of the server. Clients are answered from now on; over QUIC they are, if there is an
    /// old process, only after [`Running::replace_old`].
    pub(super) fn start(config: &Config, prepared: PreparedServer, clock: Clock) -> Result<Self, Vec<String>> {
        let PreparedServer { mut sockets, certificates, http, started, secrets, settings, lock, old } = prepared;
        let StartedState { handle, feed } = started;
        let gate = Gate::new(config.tcp);
        let limiter = config.rate_limit.clone().map(|limit| Arc::new(Limiter::new(limit)));
        let renewed = certificates.all().map(|certificate| certificate as Arc<dyn Renew>);
        let renewal = Renewal::start(renewed.chain(http.iter().flat_map(Http::renewed)).collect(), handle.tasks())
            .map_err(|error| vec![format!("the system gives no thread: {error}")])?;
        let metrics = Arc::new(Metrics::of(Arc::clone(&gate), limiter.clone(), renewal.files()));
        let mut addresses = sockets.addresses();
        let copies = sockets.copies().and_then(|copies| {
            let of_api = http.as_ref().map(Http::copy).transpose()?;
            Ok(copies.into_iter().chain(of_api).collect())
        });
        let copies = copies.map_err(|error| vec![format!("the sockets can't be copied: {error}")])?;
        let handover = config.state_dir.as_ref().and(lock).map(|lock| Handover { sockets: copies, lock });
        addresses.ipv6_only = config.ipv6_only;
        let old = old.map(|old| (old, sockets.take_quic()));
        let responder = Arc::new(Responder::new(handle.clone(), Arc::clone(&metrics), settings, limiter, clock));
        let listeners = sockets
            .serve(&responder, &gate, &certificates, handle.tasks())
            .map_err(|error| vec![format!("the sockets can't be served: {error}")])?;
        let node = node_name(config);
        let is_handing_over = Arc::new(AtomicBool::new(false));
        let absent = Absent::watch(addresses.all().chain(http.as_ref().map(Http::address)));
        let bundles = Bundles::open(config.state_dir.as_deref());
        let serve_http = |http: Http| {
            let (flag, absent) = (Arc::clone(&is_handing_over), Arc::clone(&absent));
            http.serve(
                (handle.clone(), bundles.clone(), secrets.clone()),
                metrics,
                node.clone(),
                Arc::new(config.fleet.clone()),
                flag,
                absent,
            )
        };
        fleet::restore(&config.fleet, &handle);
        let http = http.map(serve_http).transpose().map_err(|error| vec![error])?;
        if let (Some(http), Some(state_dir)) = (&http, &config.state_dir) {
            http.api.restore_traffic(state_dir);
            http.api.drills.records.restore(state_dir);
        }
        begin_fleet(config, &node, http.as_ref().map(|http| &http.api), (&bundles, &secrets), &handle)?;
        let changeable = Changeable { responder, gate, handle, secrets };
        Ok(Self {
            changeable,
            feed,
            renewal,
            listeners,
            http,
            certificates,
            addresses,
            node,
            handover,
            old,
            is_handing_over,
            is_found: false,
            _absent: absent,
        })
    }

    /// Ends the process that served before, if there is one, now that this one answers.
    pub(super) async fn replace_old(&mut self) -> Result<(), Vec<String>> {
        let Some((old, quic)) = self.old.take() else { return Ok(()) };
        let replaced = tokio::task::spawn_blocking(move || old.replace()).await;
        match replaced {
            Ok(Ok(())) => info!("took over: the process that served before reads nothing more"),
            // The old process was about to end. If it doesn't end, both processes give the same answers, which does no
            // harm.
            Ok(Err(error)) => warn!(%error, "the process that served before doesn't say that it has stopped"),
            Err(error) => warn!(%error, "a fault of this program; please report it"),
        }
        let Some(certificate) = &self.certificates.doq else { return Ok(()) };
        let begun =
            self.listeners.begin_quic(quic, &self.changeable.responder, certificate, self.changeable.handle.tasks());
        begun.map_err(|error| vec![format!("QUIC can't be served: {error}")])
    }

    /// Lets other processes take over from now on. The receiver gets a process that has done so.
    pub(super) fn await_successors(&mut self, config: &Config) -> UnboundedReceiver<Successor> {
        let (successors, ready) = unbounded_channel();
        let (Some(state_dir), Some(handover)) = (&config.state_dir, self.handover.take()) else { return ready };
        let (handle, flag) = (self.changeable.handle.clone(), Arc::clone(&self.is_handing_over));
        let api = self.http.as_ref().map(|http| Arc::clone(&http.api));
        let on_request = move |has_begun| {
            flag.store(has_begun, Ordering::Relaxed);
            if has_begun {
                // The new process reads what is written to the state directory.
                api.iter().for_each(|api| api.keep_traffic());
                handle.finish_keeping(LAST_WORK);
            }
        };
        let listening = takeover::listen(Program::Dns, state_dir, handover, on_request, successors);
        self.is_found = listening.is_ok();
        if let Err(error) = listening {
            let state_dir = state_dir.display();
            warn!("no process can take over from this one ({error}): a socket can't be made in {state_dir}");
        }
        ready
    }

    pub(super) fn api_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    pub(super) fn ready(&self) -> Ready<'_> {
        let Addresses { dns, dot, doq, doh, .. } = self.addresses.clone();
        Ready { dns, dot, doq, doh, api: self.api_address(), node: &self.node, pid: std::process::id() }
    }

    /// Leaves the sockets to another process. Returns when the open connections have ended, or after [`LINGER`].
    pub(super) async fn hand_over(mut self, successor: &Successor, manager: &ServiceManager, signals: &mut Signals) {
        self.changeable.handle.finish_keeping(LAST_WORK);
        self.changeable.handle.stop_keeping();
        self.listeners.yield_sockets().await;
        manager.notify(&format!("MAINPID={}", successor.pid));
        if let Some(http) = self.http {
            http.api.close();
            http.end().await;
        }
        let _ = successor.yielded.send(());
        info!(
            pid = successor.pid,
            "another process has taken over; connections that are open are answered to their end"
        );
        tokio::select! {
            () = self.listeners.linger(LINGER) => {}
            () = signals.end() => {}
        }
    }

    /// Removes the socket by which other processes find this one, if this process made it.
    pub(super) fn forget(&self, config: &Config) {
        if let Some(state_dir) = config.state_dir.as_deref().filter(|_| self.is_found) {
            takeover::forget(state_dir);
        }
    }

    /// Answers the queries and requests in progress, and ends.
    pub(super) async fn end(self) {
        let api = self.http.as_ref().map(|http| Arc::clone(&http.api));
        end(self.listeners, self.http).await;
        api.iter().for_each(|api| api.keep_traffic());
        let handle = self.changeable.handle;
        let _ = tokio::task::spawn_blocking(move || handle.finish_keeping(LAST_WORK)).await;
    }
}

/// Begins to follow the fleet. If there is an API, also begins to send the aggregate of what Workers post to it.
fn begin_fleet(
    config: &Config,
    node: &str,
    api: Option<&Arc<Api>>,
    (bundles, secrets): (&Bundles, &Secrets),
    handle: &Handle,
) -> Result<(), Vec<String>> {
    let (answers, claims) = (api.map(|api| Arc::clone(api).answers()), fleet::Claims::default());
    fleet::start(&config.fleet, node, answers, bundles, &claims, handle)?;
    api.map_or(Ok(()), |api| aggregate::start(api, secrets, claims))
}

/// Ends the server: answers what is in flight, within a time limit.
async fn end(listeners: Listeners, http: Option<ServedHttp>) {
    info!(json.event = "draining", "draining: answering what is in flight");
    if let Some(http) = &http {
        http.api.draining.store(true, Ordering::Relaxed);
        http.api.close();
    }
    listeners.drain(DRAIN).await;
    if let Some(http) = http {
        http.end().await;
    }
}

/// The content of the file that `--ready-file` names.
#[derive(Serialize)]
pub(super) struct Ready<'a> {
    dns: Vec<SocketAddr>,
    dot: Vec<SocketAddr>,
    doq: Vec<SocketAddr>,
    doh: Vec<SocketAddr>,
    api: Option<SocketAddr>,
    node: &'a str,
    pid: u32,
}

impl Ready<'_> {
    /// Writes the file. It is replaced at once, so that a program that waits for it never reads a part of it.
    pub(super) fn write(&self, file: &Path) -> Result<(), Vec<String>> {
        let fail =
            |error: String| vec![format!("{}: can't be written ({error}); name another --ready-file", file.display())];
        let text = serde_json::to_string(self).map_err(|error| fail(error.to_string()))?;
        replace(file, (text + "\n").as_bytes(), Mode::Public).map_err(|error| fail(error.to_string()))
    }
}

/// The node's name: the configured name, or else the machine's host name.
pub(crate) fn node_name(config: &Config) -> String {
    config.node.clone().unwrap_or_else(host_name)
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unnamed".to_owned())
}
