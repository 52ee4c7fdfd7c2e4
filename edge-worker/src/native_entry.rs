//! The native gateway's entry: a server of its own around `runtime`. Takes a configuration, serves until a signal ends
//! it or a new process takes over. Called by `main`.
//!
//! Each thread is an isolate (`isolate`): it accepts connections of its own, and keeps every request on itself.
//! `config` is `edge.toml`, `connection` one connection with its limits (`watch`), `request` what `runtime` is told
//! unless `refused` refuses it, and `metrics` the operator's page.

pub mod config;
mod connection;
mod counts;
mod isolate;
mod log;
mod metrics;
mod place;
mod proxy_protocol;
mod refused;
mod reloaded;
mod request;
mod settings;
mod tasks;
mod transport;
mod watch;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use bailiwick_host::process::service_manager::ServiceManager;
use bailiwick_host::process::signals::{SignalAction, Signals};
use bailiwick_host::process::takeover::{self, Handover, OldProcess, Program, Successor};
use bailiwick_host::process::upgrade::Upgrade;
use bailiwick_host::sockets::bind::{BindError, Ipv6Only, listen};
use bailiwick_host::sockets::inherited::{HandedSocket, Inherited, Role};
use bailiwick_host::system::file_reload::Renewal;
use bailiwick_host::system::files::read_file;
use bailiwick_host::system::open_files;
use bailiwick_host::system::tasks::Tasks;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch as tokio_watch};

use config::Config;
use counts::Counts;
use isolate::Thread;
use metrics::Sources;
use reloaded::Reloaded;
use request::Locator;
use settings::Settings;

use crate::platform::{Env, console, now};

/// The command that starts a process which takes over, for messages.
const BY_HAND: &str = "bailiwick-edge serve --takeover";

/// Reads every file that a configuration names, and says what they are.
///
/// # Errors
/// Every fault.
pub fn check(config: &Config) -> Result<Vec<String>, Vec<String>> {
    let reloaded = Reloaded::read(config).map_err(|faults| strings(&faults));
    let rules = config.rules.as_deref().map(check_rules).transpose();
    let (reloaded, rules) = match (reloaded, rules) {
        (Ok(reloaded), Ok(rules)) => (reloaded, rules),
        (reloaded, rules) => {
            return Err(reloaded.err().into_iter().chain(rules.err()).flatten().collect());
        }
    };
    let mut told: Vec<String> = rules.into_iter().collect();
    told.extend(reloaded.times().map(|(name, _, at)| format!("{name}: {at}")));
    told.extend(reloaded.certificate.and_then(|certificate| certificate.warning(now())));
    Ok(told)
}

fn check_rules(path: &Path) -> Result<String, Vec<String>> {
    let wrong = |told: String| format!("{}: {told}", path.display());
    let unreadable = |error| vec![wrong(format!("can't be read ({error}); mend its path or mode"))];
    let bytes = read_file(path).map_err(unreadable)?;
    let table = bailiwick_rules::table::Table::compile(&bytes);
    let table = table.map_err(|faults| faults.iter().map(|fault| wrong(fault.to_string())).collect::<Vec<_>>())?;
    Ok(wrong(format!("revision {}", table.revision().number)))
}

#[expect(clippy::needless_pass_by_value, reason = "`map_err` gives it")]
fn of_system(error: io::Error) -> Vec<String> {
    vec![format!("the system refuses what a server needs: {error}")]
}

fn strings<E: ToString>(errors: &[E]) -> Vec<String> {
    errors.iter().map(ToString::to_string).collect()
}

/// Serves until SIGTERM or SIGINT. Then requests in progress are answered. With `takes_over`, the process that serves
/// with the same `state_dir` gives its sockets first, and ends once this one serves.
///
/// # Errors
/// Every reason why it can't serve.
pub fn serve(config: &Config, takes_over: bool) -> Result<(), Vec<String>> {
    // This fails if a provider is already installed, which does no harm.
    let _ = rustls::crypto::ring::default_provider().install_default();
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        console::error(&json!({ "event": "panic", "at": place }).to_string());
    }));
    log::begin();
    open_files::raise_limit();
    let reloaded = Reloaded::read(config).map_err(|faults| strings(&faults))?;
    let main = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(of_system)?;
    let upgrade = Upgrade::prepare(BY_HAND);
    let sockets = Sockets::bind(config, takes_over)?;
    main.block_on(async {
        let signals = Signals::catch().map_err(of_system)?;
        let running = Running::start(config, reloaded, sockets)?;
        running.until_the_end(signals, &upgrade).await;
        Ok(())
    })
}

/// The sockets, and the process that had them before.
struct Sockets {
    edge: Vec<std::net::TcpListener>,
    metrics: Option<std::net::TcpListener>,
    lock: Option<Arc<std::fs::File>>,
    old: Option<OldProcess>,
}

impl Sockets {
    fn bind(config: &Config, takes_over: bool) -> Result<Self, Vec<String>> {
        let mut inherited = takeover::of_systemd();
        let (mut lock, mut old) = (None, None);
        match (&config.state_dir, takes_over) {
            (None, true) => {
                return Err(vec!["--takeover finds the process that serves by its state_dir: set it".to_owned()]);
            }
            (Some(state_dir), true) => match takeover::take(Program::Edge, state_dir) {
                Ok(Some(received)) => {
                    inherited.append(received.inherited);
                    (lock, old) = (received.lock, Some(received.old_process));
                }
                Ok(None) => {}
                Err(error) => {
                    return Err(vec![format!(
                        "the process that serves gives no sockets ({error}); it goes on serving"
                    )]);
                }
            },
            (_, false) => {}
        }
        let lock = lock.or_else(|| config.state_dir.as_deref().and_then(takeover::lock));
        if let (Some(state_dir), None) = (&config.state_dir, &lock) {
            let place = state_dir.display();
            let told =
                "another process has it, or it can't be written; serve with --takeover, or name another state_dir";
            return Err(vec![format!("{place}: {told}")]);
        }
        let mut errors = Vec::new();
        let edge = config.listen.iter().filter_map(|address| bound(Role::Edge, *address, &mut inherited, &mut errors));
        let edge: Vec<_> = edge.collect();
        let metrics = config.metrics.map(|metrics| bound(Role::Api, metrics.listen, &mut inherited, &mut errors));
        inherited.close_rest();
        if errors.is_empty() { Ok(Self { edge, metrics: metrics.flatten(), lock, old }) } else { Err(errors) }
    }

    /// Copies of all sockets, for a process that takes over.
    fn copies(&self) -> io::Result<Vec<HandedSocket>> {
        let edge = self.edge.iter().map(|listener| HandedSocket::copy(Role::Edge, listener));
        edge.chain(self.metrics.iter().map(|listener| HandedSocket::copy(Role::Api, listener))).collect()
    }
}

fn bound(
    role: Role,
    address: SocketAddr,
    inherited: &mut Inherited,
    errors: &mut Vec<String>,
) -> Option<std::net::TcpListener> {
    let listener = listen(role, address, &Ipv6Only::Fixed(false), inherited);
    listener.map_err(|error| errors.push(BindError { address, protocol: "TCP", error }.to_string())).ok()
}

/// The threads, and what the process does beside them.
struct Running {
    threads: Vec<JoinHandle<io::Result<()>>>,
    ending: tokio_watch::Sender<bool>,
    /// Whether another process serves in this one's place.
    replaced: tokio_watch::Sender<bool>,
    renewal: Renewal,
    successors: mpsc::UnboundedReceiver<Successor>,
    state_dir: Option<std::path::PathBuf>,
}

impl Running {
    fn start(config: &Config, reloaded: Reloaded, sockets: Sockets) -> Result<Self, Vec<String>> {
        let copies = sockets.copies().map_err(of_system)?;
        let Sockets { edge, metrics, lock, old } = sockets;
        let addresses: Vec<String> =
            edge.iter().filter_map(|listener| Some(listener.local_addr().ok()?.to_string())).collect();
        let metrics_at = metrics.as_ref().and_then(|listener| listener.local_addr().ok());
        let renewal = Renewal::start(reloaded.all(), &Tasks::default()).map_err(of_system)?;
        let threads = match usize::from(config.threads) {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            threads => threads,
        };
        let settings = Arc::new(settings(config, &reloaded, threads)?);
        let (counts, (ending, is_ending)) = (Arc::<Counts>::default(), tokio_watch::channel(false));
        let (mut all, mut asking) = (Vec::new(), Vec::new());
        for _ in 0..threads {
            let (ask, asked) = mpsc::channel(4);
            let listeners = edge.iter().map(std::net::TcpListener::try_clone).collect::<io::Result<Vec<_>>>();
            let thread = Thread {
                listeners: listeners.map_err(of_system)?,
                settings: Arc::clone(&settings),
                counts: Arc::clone(&counts),
                is_ending: is_ending.clone(),
                asked,
            };
            let started = std::thread::Builder::new().name("edge".to_owned()).spawn(move || isolate::run(thread));
            all.push(started.map_err(of_system)?);
            asking.push(ask);
        }
        let sources = Arc::new(Sources { threads: asking, counts, reloaded });
        let (replaced, is_replaced) = tokio_watch::channel(false);
        if let Some(listener) = metrics {
            let listener = TcpListener::from_std(listener).map_err(of_system)?;
            tokio::spawn(metrics::serve(listener, sources, is_replaced));
        }
        if let Some(Err(error)) = old.map(OldProcess::replace) {
            // Both answer alike until the old one ends.
            let told = json!({ "event": "takeover_unconfirmed", "error": error.to_string() });
            console::warn(&told.to_string());
        }
        let (announcing, successors) = mpsc::unbounded_channel();
        if let (Some(state_dir), Some(lock)) = (&config.state_dir, lock) {
            await_successors(state_dir, Handover { sockets: copies, lock }, announcing);
        }
        let told = json!({
            "event": "serving", "address": addresses.first(), "addresses": addresses, "threads": threads,
            "tls": config.tls.is_some(), "metrics": metrics_at.map(|at| at.to_string()),
        });
        console::info(&told.to_string());
        Ok(Self { threads: all, ending, replaced, renewal, successors, state_dir: config.state_dir.clone() })
    }

    /// Serves until a signal, or until another process has taken over, then answers what is in progress.
    async fn until_the_end(mut self, mut signals: Signals, upgrade: &Upgrade) {
        let manager = Arc::new(ServiceManager::of_environment());
        manager.notify("READY=1");
        let successor = loop {
            tokio::select! {
                action = signals.next() => match action {
                    SignalAction::Reload => self.renewal.reload(),
                    SignalAction::Upgrade => upgrade.start(),
                    SignalAction::End => break None,
                },
                Some(successor) = self.successors.recv() => break Some(successor),
            }
        };
        match &successor {
            Some(successor) => {
                manager.notify(&format!("MAINPID={}", successor.pid));
                self.replaced.send_replace(true);
            }
            None => {
                manager.notify("STOPPING=1");
                if let Some(state_dir) = &self.state_dir {
                    takeover::forget(state_dir);
                }
            }
        }
        console::info(&json!({ "event": "draining" }).to_string());
        self.ending.send_replace(true);
        if let Some(successor) = successor {
            let _ = successor.yielded.send(());
        }
        // A second signal doesn't wait.
        tokio::spawn(async move {
            signals.end().await;
            std::process::exit(1);
        });
        let threads = self.threads;
        let _ = tokio::task::spawn_blocking(move || threads.into_iter().for_each(|thread| _ = thread.join())).await;
    }
}

/// Lets other processes take over from now on.
fn await_successors(state_dir: &Path, handover: Handover, announcing: mpsc::UnboundedSender<Successor>) {
    if let Err(error) = takeover::listen(Program::Edge, state_dir, handover, |_| {}, announcing) {
        // The process before this one may have ended, so this one has to serve.
        console::warn(&json!({ "event": "takeover_impossible", "error": error.to_string() }).to_string());
    }
}

fn settings(config: &Config, reloaded: &Reloaded, threads: usize) -> Result<Settings, Vec<String>> {
    let acceptor = reloaded.certificate.as_ref().map(|certificate| certificate.acceptor(&[b"h2", b"http/1.1"]));
    if let Some(warning) = reloaded.certificate.as_ref().and_then(|certificate| certificate.warning(now())) {
        console::warn(&json!({ "event": "certificate", "warning": warning }).to_string());
    }
    Ok(Settings {
        env: Env::of(config.rules.clone(), config.variables.clone(), Arc::clone(&reloaded.secrets)),
        locator: Locator {
            trusted: config.proxy.trust.clone(),
            header: config.proxy.address,
            database: reloaded.database.clone(),
        },
        limits: config.limits.clone(),
        tls: acceptor.transpose().map_err(|error| vec![format!("TLS can't be served: {error}")])?,
        speaks_proxy_protocol: config.proxy.protocol,
        threads,
    })
}
