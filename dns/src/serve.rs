//! `bailiwick serve`: a configuration enters, a server that answers, reloads and drains runs until a signal ends it.

mod http;
mod live;
mod logs;
mod service_manager;

use std::net::SocketAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::certificate::Certificate;
use crate::cli::{ServeArgs, Told};
use crate::clock::Clock;
use crate::config::{Config, Encrypted};
use crate::cookie_files;
use crate::listeners::{Addresses, Certificates, Listeners, Sockets};
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
use service_manager::ServiceManager;

/// How long queries in flight are waited for at the end.
const DRAIN: Duration = Duration::from_secs(2);
/// How long API requests in flight are waited for after that.
const DRAIN_API: Duration = Duration::from_secs(1);
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
    let served = runtime.block_on(serve(config, args.ready_file.as_deref()));
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

async fn serve(config: Config, ready_file: Option<&Path>) -> Result<(), Vec<String>> {
    let mut signals = Signals::catch().map_err(|error| vec![format!("signals can't be caught: {error}")])?;
    let clock = Clock::system();
    let begun = tokio::select! {
        begun = begin(&config, &clock) => begun?,
        () = signals.end() => return Ok(()),
    };
    let Begun { sockets, certificates, http, started: Started { handle, feed }, settings } = begun;

    let gate = Gate::new(config.tcp);
    let limiter = config.rate_limit.clone().map(|limit| Arc::new(Limiter::new(limit)));
    let renewed = certificates.all().map(|certificate| certificate as Arc<dyn Renew>);
    let renewal = Renewal::start(renewed.chain(http.iter().flat_map(Http::renewed)).collect(), handle.tasks())
        .map_err(|error| vec![format!("the system gives no thread: {error}")])?;
    let metrics = Arc::new(Metrics::of(Arc::clone(&gate), limiter.clone(), renewal.fares()));
    let addresses = sockets.addresses();
    let responder = Arc::new(Live::new(handle.clone(), Arc::clone(&metrics), settings, limiter, clock));
    let listeners = sockets
        .serve(&responder, &gate, &certificates, handle.tasks())
        .map_err(|error| vec![format!("the sockets can't be served: {error}")])?;
    let node = config.node.clone().unwrap_or_else(host_name);
    let http = http.map(|http| http.serve(handle.clone(), metrics, node.clone()));

    let api = http.as_ref().map(|http| http.address);
    announce(&handle, &node, &addresses, api);
    if let Some(file) = ready_file {
        let Addresses { dns, dot, doq, doh, .. } = addresses;
        Ready { dns, dot, doq, doh, api, node: &node, pid: std::process::id() }.write(file)?;
    }
    let manager = Arc::new(ServiceManager::of_environment());
    manager.tell("READY=1");
    manager.watch(Arc::clone(handle.tasks()));
    while signals.next().await == Word::Reload {
        info!("SIGHUP: reading rules, zones, keys, GeoIP database, certificates, token and cookie secrets again");
        feed.reload();
        renewal.reload();
        renew_cookies(&responder, &config);
    }
    manager.tell("STOPPING=1");
    end(listeners, http).await;
    let keeping = tokio::task::spawn_blocking(move || handle.finish_keeping(LAST_WORK));
    let _ = keeping.await;
    if let Some(file) = ready_file {
        let _ = std::fs::remove_file(file);
    }
    info!("ended");
    Ok(())
}

/// What was bound and loaded.
struct Begun {
    sockets: Sockets,
    certificates: Certificates,
    http: Option<Http>,
    started: Started,
    settings: Settings,
}

/// Binds every address and loads every file, so that all that is wrong is told at once.
async fn begin(config: &Config, clock: &Clock) -> Result<Begun, Vec<String>> {
    raise_limit_of_files();
    let mut errors = Vec::new();
    let settings = settings(config).map_err(|failed| errors.extend(failed)).ok();
    let certificates = certificates(config).map_err(|failed| errors.extend(failed)).ok();
    let sockets = Sockets::bind(&addresses(config)).map_err(|failed| errors.extend(strings(failed))).ok();
    let http = match &config.api {
        None => Some(None),
        Some(api) => Http::bind(api).await.map_err(|failed| errors.extend(failed)).ok().map(Some),
    };
    let sources = Sources {
        rules: config.rules.clone(),
        geoip: config.geoip.clone(),
        registered: config.registered,
        zones: config.zones.iter().map(|zone| (zone.origin.clone(), zone.file.clone())).collect(),
        dnssec: config.dnssec.clone(),
        state_dir: config.state_dir.clone(),
        shrink: config.shrink,
    };
    let (Some(sockets), Some(certificates), Some(http), Some(settings)) = (sockets, certificates, http, settings)
    else {
        // Without an address there is nothing to probe for, but the files' errors are told all the same.
        errors.extend(check(&sources, clock.now()).err().map(strings).unwrap_or_default());
        return Err(errors);
    };
    let started = start(sources, Secrets::default(), clock.clone()).await.map_err(strings)?;
    started.handle.snapshot().world().mint().limit(config.signing);
    Ok(Begun { sockets, certificates, http, started, settings })
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
    let dns = config.listen.clone();
    Addresses { dns, threads: config.threads, dot: of(&config.dot), doq: of(&config.doq), doh: of(&config.doh) }
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

/// Takes cookie secrets that were rolled over (RFC 9018 §5); a random one stays, and so do the old ones if a new file can't be used.
fn renew_cookies(responder: &Live, config: &Config) {
    if config.cookies.secret_files.is_empty() {
        return;
    }
    match settings(config) {
        Ok(settings) => responder.set(settings),
        Err(faults) => faults.iter().for_each(|fault| warn!("cookie secrets stay as they were: {fault}")),
    }
}

fn announce(handle: &Handle, node: &str, addresses: &Addresses, api: Option<SocketAddr>) {
    for warning in handle.status().warnings.iter() {
        warn!("{warning}");
    }
    let list = |addresses: &[SocketAddr]| match addresses {
        [] => "none".to_owned(),
        some => some.iter().map(ToString::to_string).collect::<Vec<_>>().join(","),
    };
    let Addresses { dns, dot, doq, doh, threads } = addresses;
    let api = api.map_or("none".to_owned(), |api| api.to_string());
    let revision = handle.snapshot().table().revision();
    let threads = threads.map_or(0, NonZero::get);
    info!(node, dns = list(dns), threads, dot = list(dot), doq = list(doq), doh = list(doh), api, %revision, "serving");
}

async fn end(listeners: Listeners, http: Option<ServedHttp>) {
    info!("draining: answering what is in flight");
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
}

impl Signals {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) -> Word {
        tokio::select! {
            _ = self.hangup.recv() => Word::Reload,
            _ = self.terminate.recv() => Word::End,
            _ = self.interrupt.recv() => Word::End,
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
    /// Drain and end.
    End,
}

fn host_name() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_else(|| "unnamed".to_owned())
}
