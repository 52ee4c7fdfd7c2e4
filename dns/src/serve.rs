//! `bailiwick serve`: a configuration enters, a server that answers, reloads and drains runs until a signal ends it.

mod http;
mod live;
mod log_format;
mod logs;
mod reload;
mod service_manager;
mod takeover;
mod upgrade;

use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tracing::{info, warn};

use crate::certificate::Certificate;
use crate::cli::{ServeArgs, Told};
use crate::clock::Clock;
use crate::config::{Config, Encrypted};
use crate::cookie_files;
use crate::feed::Feed;
use crate::listeners::{Absent, Addresses, Certificates, Listeners, QuicSockets, Sockets};
use crate::metrics::Metrics;
use crate::owner::Handle;
use crate::probe::Secrets;
use crate::rate_limit::Limiter;
use crate::renewal::{Renew, Renewal};
use crate::sources::Sources;
use crate::start::{Started, check, start};
use crate::streams::Gate;
use crate::wire::Settings;
use http::{Http, ServedHttp};
use live::Live;
use reload::Changeable;
use service_manager::ServiceManager;
use takeover::{Estate, OldProcess, Successor, Taken};
use upgrade::Upgrade;

/// How long queries in flight are waited for at the end.
const DRAIN: Duration = Duration::from_secs(2);
/// How long API requests in flight are waited for after that.
const DRAIN_API: Duration = Duration::from_secs(1);
/// For how long connections go on after another process has taken over, unless their clients leave or are idle before.
const LINGER: Duration = Duration::from_secs(30);
/// For how long the end waits for what is read, compiled, signed or written just then. Nobody needs it any more but for what is written, which
/// is short, and whole or not there.
const LAST_WORK: Duration = Duration::from_secs(1);

/// The exit code after a fault of this program.
const FAULT: u8 = 70;

/// Serves until a signal ends it.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let logs = match logs::begin(args.log.as_deref(), args.log_format) {
        Ok(logs) => logs,
        Err(error) => return say(Told::error(error)),
    };
    let code = match catch_unwind(AssertUnwindSafe(|| run_to_end(args))) {
        Ok(Ok(())) => None,
        Ok(Err(errors)) => Some(Told::failed(errors)),
        Err(_) => {
            logs.finish();
            say(Told::error("a fault of this program ended it, see the log; please report it"));
            return ExitCode::from(FAULT);
        }
    };
    logs.finish();
    code.map_or(ExitCode::SUCCESS, say)
}

fn run_to_end(args: &ServeArgs) -> Result<(), Vec<String>> {
    let config = Config::read(&args.config).map_err(strings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| vec![format!("the system gives no threads: {error}")])?;
    let served = runtime.block_on(serve(config, args));
    runtime.shutdown_timeout(LAST_WORK);
    served
}

/// Prints what there is to say and gives the exit code; a reader that stalls keeps the end waiting for [`LAST_WORK`] only.
fn say(told: Told) -> ExitCode {
    let code = told.code();
    let (done, printed) = mpsc::channel();
    let print = move || {
        told.print();
        let _ = done.send(());
    };
    if std::thread::Builder::new().spawn(print).is_ok() {
        let _ = printed.recv_timeout(LAST_WORK);
    }
    ExitCode::from(code)
}

fn strings<E: ToString>(errors: impl IntoIterator<Item = E>) -> Vec<String> {
    errors.into_iter().map(|error| error.to_string()).collect()
}

async fn serve(mut config: Config, args: &ServeArgs) -> Result<(), Vec<String>> {
    let mut signals = Signals::catch().map_err(|error| vec![format!("signals can't be caught: {error}")])?;
    let (upgrade, clock) = (Upgrade::prepare(), Clock::system());
    let begun = tokio::select! {
        begun = begin(&config, args.takeover, &clock) => begun?,
        () = signals.end() => return Ok(()),
    };
    let mut running = Running::start(&config, begun, clock)?;
    running.replace_old().await?;
    announce(&running.changeable.handle, &running.node, &running.addresses, running.api_address());
    if let Some(file) = &args.ready_file {
        running.ready().write(file)?;
    }
    let manager = Arc::new(ServiceManager::of_environment());
    manager.tell("READY=1");
    manager.watch(Arc::clone(running.changeable.handle.tasks()));
    let mut successors = running.await_successors(&config);
    let successor = loop {
        let word = tokio::select! {
            word = signals.next() => word,
            Some(successor) = successors.recv() => break Some(successor),
        };
        match word {
            Word::Reload => {
                info!("SIGHUP: reading the configuration and all files that it names again");
                running.feed.reload();
                running.renewal.reload();
                config = running.changeable.reload(&args.config, config);
            }
            Word::Upgrade => upgrade.start(),
            Word::End => break None,
        }
    };
    match successor {
        Some(successor) => running.hand_over(&successor, &manager, &mut signals).await,
        None => {
            manager.tell("STOPPING=1");
            running.forget(&config);
            running.end().await;
            if let Some(file) = &args.ready_file {
                let _ = std::fs::remove_file(file);
            }
        }
    }
    info!("ended");
    Ok(())
}

/// A server that answers.
struct Running {
    changeable: Changeable,
    feed: Feed,
    renewal: Renewal,
    listeners: Listeners,
    http: Option<ServedHttp>,
    certificates: Certificates,
    addresses: Addresses,
    node: String,
    /// What another process would be given.
    estate: Option<Estate>,
    /// The process that is to be replaced by this one, and what can be served only after that.
    old: Option<(OldProcess, QuicSockets)>,
    is_handing_over: Arc<AtomicBool>,
    /// Whether a process that takes over finds this one.
    is_found: bool,
    /// Looks after them as long as it is held.
    _absent: Arc<Absent>,
}

impl Running {
    fn start(config: &Config, begun: Begun, clock: Clock) -> Result<Self, Vec<String>> {
        let Begun { mut sockets, certificates, http, started: Started { handle, feed }, settings, lock, old } = begun;
        let gate = Gate::new(config.tcp);
        let limiter = config.rate_limit.clone().map(|limit| Arc::new(Limiter::new(limit)));
        let renewed = certificates.all().map(|certificate| certificate as Arc<dyn Renew>);
        let renewal = Renewal::start(renewed.chain(http.iter().flat_map(Http::renewed)).collect(), handle.tasks())
            .map_err(|error| vec![format!("the system gives no thread: {error}")])?;
        let metrics = Arc::new(Metrics::of(Arc::clone(&gate), limiter.clone(), renewal.fares()));
        let mut addresses = sockets.addresses();
        let copies = sockets.copies().and_then(|copies| {
            let of_api = http.as_ref().map(Http::copy).transpose()?;
            Ok(copies.into_iter().chain(of_api).collect())
        });
        let copies = copies.map_err(|error| vec![format!("the sockets can't be copied: {error}")])?;
        let estate = config.state_dir.as_ref().and(lock).map(|lock| Estate { sockets: copies, lock });
        addresses.ipv6_only = config.ipv6_only;
        let old = old.map(|old| (old, sockets.take_quic()));
        let responder = Arc::new(Live::new(handle.clone(), Arc::clone(&metrics), settings, limiter, clock));
        let listeners = sockets
            .serve(&responder, &gate, &certificates, handle.tasks())
            .map_err(|error| vec![format!("the sockets can't be served: {error}")])?;
        let node = config.node.clone().unwrap_or_else(host_name);
        let is_handing_over = Arc::new(AtomicBool::new(false));
        let absent = Absent::watch(addresses.all().chain(http.as_ref().map(Http::address)));
        let served = |http: Http| {
            let (flag, absent) = (Arc::clone(&is_handing_over), Arc::clone(&absent));
            http.serve(handle.clone(), metrics, node.clone(), flag, absent)
        };
        let http = http.map(served);
        let changeable = Changeable { responder, gate, handle };
        Ok(Self {
            changeable,
            feed,
            renewal,
            listeners,
            http,
            certificates,
            addresses,
            node,
            estate,
            old,
            is_handing_over,
            is_found: false,
            _absent: absent,
        })
    }

    /// Ends the process that served before, if there is one, now that this one answers.
    async fn replace_old(&mut self) -> Result<(), Vec<String>> {
        let Some((old, quic)) = self.old.take() else { return Ok(()) };
        let replaced = tokio::task::spawn_blocking(move || old.replace()).await;
        match replaced {
            Ok(Ok(())) => info!("took over: the process that served before reads nothing more"),
            // It was about to end; if it wasn't, two answer the same, which does no harm.
            Ok(Err(error)) => warn!(%error, "the process that served before doesn't say that it has stopped"),
            Err(error) => warn!(%error, "a fault of this program; please report it"),
        }
        let Some(certificate) = &self.certificates.doq else { return Ok(()) };
        let begun =
            self.listeners.begin_quic(quic, &self.changeable.responder, certificate, self.changeable.handle.tasks());
        begun.map_err(|error| vec![format!("QUIC can't be served: {error}")])
    }

    /// Waits for processes that take over from now on.
    fn await_successors(&mut self, config: &Config) -> UnboundedReceiver<Successor> {
        let (successors, ready) = unbounded_channel();
        let (Some(state_dir), Some(estate)) = (&config.state_dir, self.estate.take()) else { return ready };
        let (handle, flag) = (self.changeable.handle.clone(), Arc::clone(&self.is_handing_over));
        let is_asked = move |asked| {
            flag.store(asked, Ordering::Relaxed);
            if asked {
                // The new process reads what is kept.
                handle.finish_keeping(LAST_WORK);
            }
        };
        let listening = takeover::listen(state_dir, estate, is_asked, successors);
        self.is_found = listening.is_ok();
        if let Err(error) = listening {
            let state_dir = state_dir.display();
            warn!("no process can take over from this one ({error}): a socket can't be made in {state_dir}");
        }
        ready
    }

    fn api_address(&self) -> Option<SocketAddr> {
        self.http.as_ref().map(|http| http.address)
    }

    fn ready(&self) -> Ready<'_> {
        let Addresses { dns, dot, doq, doh, .. } = self.addresses.clone();
        Ready { dns, dot, doq, doh, api: self.api_address(), node: &self.node, pid: std::process::id() }
    }

    /// Leaves the sockets to another process and ends once the connections have.
    async fn hand_over(mut self, successor: &Successor, manager: &ServiceManager, signals: &mut Signals) {
        self.changeable.handle.finish_keeping(LAST_WORK);
        self.changeable.handle.stop_keeping();
        self.listeners.yield_sockets().await;
        manager.tell(&format!("MAINPID={}", successor.pid));
        if let Some(http) = self.http {
            let _ = http.stop.send(true);
            let _ = tokio::time::timeout(DRAIN_API, http.task).await;
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

    /// Takes the way to this process away, unless the state directory is another's.
    fn forget(&self, config: &Config) {
        if let Some(state_dir) = config.state_dir.as_deref().filter(|_| self.is_found) {
            takeover::forget(state_dir);
        }
    }

    /// Answers what is in flight and ends.
    async fn end(self) {
        end(self.listeners, self.http).await;
        let handle = self.changeable.handle;
        let _ = tokio::task::spawn_blocking(move || handle.finish_keeping(LAST_WORK)).await;
    }
}

/// What was bound and loaded.
struct Begun {
    sockets: Sockets,
    certificates: Certificates,
    http: Option<Http>,
    started: Started,
    settings: Settings,
    /// The lock of the state directory; without it, it is another process's.
    lock: Option<Arc<File>>,
    /// The process to be replaced.
    old: Option<OldProcess>,
}

/// Binds every address and loads every file, so that all that is wrong is told at once.
async fn begin(config: &Config, is_takeover: bool, clock: &Clock) -> Result<Begun, Vec<String>> {
    raise_limit_of_files();
    let mut errors = Vec::new();
    let mut inherited = takeover::of_systemd();
    let (mut lock, mut old) = (None, None);
    if is_takeover && let Some(taken) = take_over(config).await? {
        inherited.append(taken.inherited);
        (lock, old) = (taken.lock, Some(taken.way));
    }
    let lock = lock.or_else(|| config.state_dir.as_deref().and_then(takeover::lock));
    let settings = settings(config).map_err(|failed| errors.extend(failed)).ok();
    let certificates = certificates(config).map_err(|failed| errors.extend(failed)).ok();
    let sockets = Sockets::bind_with(&addresses(config), &mut inherited);
    let sockets = sockets.map_err(|failed| errors.extend(strings(failed))).ok();
    let http = match &config.api {
        None => Some(None),
        Some(api) => Http::bind(api, &mut inherited).map_err(|failed| errors.extend(failed)).ok().map(Some),
    };
    inherited.close_rest();
    let sources = sources(config, lock.clone());
    let (Some(sockets), Some(certificates), Some(http), Some(settings)) = (sockets, certificates, http, settings)
    else {
        // Without an address there is nothing to probe for, but the files' errors are told all the same.
        errors.extend(check(&sources, clock.now()).err().map(strings).unwrap_or_default());
        return Err(errors);
    };
    let started = start(sources, Secrets::default(), clock.clone()).await.map_err(strings)?;
    started.handle.snapshot().world().mint().limit(config.signing);
    Ok(Begun { sockets, certificates, http, started, settings, lock, old })
}

/// Asks the process that serves for its sockets.
async fn take_over(config: &Config) -> Result<Option<Taken>, Vec<String>> {
    let Some(state_dir) = config.state_dir.clone() else {
        return Err(vec![
            "--takeover finds the process that serves by its state_dir: set it in the configuration".to_owned(),
        ]);
    };
    let taken = tokio::task::spawn_blocking(move || takeover::take(&state_dir)).await;
    match taken.map_err(std::io::Error::other).flatten() {
        Ok(None) => {
            info!("nobody serves with this state_dir: beginning as ever");
            Ok(None)
        }
        Ok(taken) => Ok(taken),
        Err(error) => Err(vec![format!("the process that serves gives no sockets ({error}); it goes on serving")]),
    }
}

fn sources(config: &Config, lock: Option<Arc<File>>) -> Sources {
    Sources {
        rules: config.rules.clone(),
        geoip: config.geoip.clone(),
        registered: config.registered,
        zones: config.zones.iter().map(|zone| (zone.origin.clone(), zone.file.clone())).collect(),
        dnssec: config.dnssec.clone(),
        state_dir: config.state_dir.clone(),
        lock,
        shrink: config.shrink,
    }
}

/// Connections are files: this process may have as many as the system lets it.
fn raise_limit_of_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised =
        getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| setrlimit(Resource::RLIMIT_NOFILE, most, most));
    if let Err(error) = raised {
        warn!(%error, "the limit of open files can't be raised");
    }
}

fn addresses(config: &Config) -> Addresses {
    let of = |section: &Option<Encrypted>| section.as_ref().map(|section| section.listen.clone()).unwrap_or_default();
    let (dns, ipv6_only) = (config.listen.clone(), config.ipv6_only);
    let (dot, doq, doh) = (of(&config.dot), of(&config.doq), of(&config.doh));
    Addresses { dns, threads: config.threads, dot, doq, doh, ipv6_only }
}

/// Reads the certificates of all encrypted transports.
fn certificates(config: &Config) -> Result<Certificates, Vec<String>> {
    let mut errors = Vec::new();
    let mut read = |section: &Option<Encrypted>| {
        let read = section.as_ref().map(|section| Certificate::read(&section.tls)).transpose();
        read.unwrap_or_else(|faults| {
            errors.extend(strings(faults));
            None
        })
    };
    let certificates = Certificates { dot: read(&config.dot), doq: read(&config.doq), doh: read(&config.doh) };
    if errors.is_empty() { Ok(certificates) } else { Err(errors) }
}

/// What the configuration says that shows in responses.
fn settings(config: &Config) -> Result<Settings, Vec<String>> {
    let cookies = cookie_files::read(&config.cookies).map_err(strings)?;
    Ok(Settings { identity: config.identity.clone(), cookies, idle: config.tcp.idle, responses: config.responses })
}

fn announce(handle: &Handle, node: &str, addresses: &Addresses, api: Option<SocketAddr>) {
    for warning in handle.status().warnings.iter() {
        warn!(json.event = "warning", "{warning}");
    }
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "none".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let Addresses { dns, dot, doq, doh, threads, .. } = addresses;
    let api = api.map_or("none".to_owned(), |api| api.to_string());
    let revision = handle.snapshot().table().revision();
    let threads = threads.map_or(0, NonZero::get);
    info!(json.event = "serving", node, dns = list(dns), threads, dot = list(dot), doq = list(doq), doh = list(doh), api, %revision, "serving");
}

async fn end(listeners: Listeners, http: Option<ServedHttp>) {
    info!(json.event = "draining", "draining: answering what is in flight");
    if let Some(http) = &http {
        http.api.draining.store(true, Ordering::Relaxed);
    }
    listeners.drain(DRAIN).await;
    if let Some(http) = http {
        let _ = http.stop.send(true);
        let _ = tokio::time::timeout(DRAIN_API, http.task).await;
    }
}

/// What `--ready-file` tells.
#[derive(Serialize)]
struct Ready<'a> {
    dns: Vec<SocketAddr>,
    dot: Vec<SocketAddr>,
    doq: Vec<SocketAddr>,
    doh: Vec<SocketAddr>,
    api: Option<SocketAddr>,
    node: &'a str,
    pid: u32,
}

impl Ready<'_> {
    /// Whoever waits for the file sees all of it or none.
    fn write(&self, file: &Path) -> Result<(), Vec<String>> {
        let fail =
            |error: String| vec![format!("{}: can't be written ({error}); name another --ready-file", file.display())];
        let text = serde_json::to_string(self).map_err(|error| fail(error.to_string()))?;
        let mut name = file.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let new = file.with_file_name(name);
        std::fs::write(&new, text + "\n")
            .and_then(|()| std::fs::rename(&new, file))
            .map_err(|error| fail(error.to_string()))
    }
}

/// The signals this program heeds.
struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
    upgrade: Signal,
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            upgrade: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Word {
        tokio::select! {
            _ = self.hangup.recv() => Word::Reload,
            _ = self.terminate.recv() => Word::End,
            _ = self.interrupt.recv() => Word::End,
            _ = self.upgrade.recv() => Word::Upgrade,
        }
    }

    /// Waits for the end; until then there is nothing to reload.
    async fn end(&mut self) {
        while self.next().await != Word::End {}
    }
}

/// What a signal says.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// Read the files again.
    Reload,
    /// Start a process that takes over.
    Upgrade,
    /// Drain and end.
    End,
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unnamed".to_owned())
}
