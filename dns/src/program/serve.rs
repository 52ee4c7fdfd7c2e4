//! `bailiwick serve`: takes a configuration, and runs a server that answers queries until a signal ends it. On a signal
//! the server reads its files again, or lets a new process take over.

mod args;
mod http;
mod reload;
mod running;

use std::fs::File;
use std::net::SocketAddr;
use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bailiwick_host::certificate::Certificate;
use bailiwick_host::process::service_manager::ServiceManager;
use bailiwick_host::process::signals::{SignalAction, Signals};
use bailiwick_host::process::takeover::{self, OldProcess, Program, ReceivedState};
use bailiwick_host::process::upgrade::Upgrade;
use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::open_files;
use tracing::{info, warn};

use crate::net::cookie_files;
use crate::net::listeners::{Addresses, Certificates, Sockets};
use crate::program::config::{Config, Encrypted};
use crate::program::logs;
use crate::program::report::Report;
use crate::response::wire::Settings;
use crate::state::fleet;
use crate::state::load::Sources;
use crate::state::owner::Handle;
use crate::state::probe::Secrets;
use crate::state::startup::{StartedState, check, start};
pub(super) use args::ServeArgs;
use http::Http;
use running::Running;
pub(crate) use running::node_name;

/// How long the program waits at its end for work that is still running: reading, compiling, signing or writing. Only
/// writing still matters. Writing takes little time, and a file is written completely or not at all.
const LAST_WORK: Duration = Duration::from_secs(1);

/// The exit code after a fault of this program.
const FAULT: u8 = 70;

/// Serves until a signal ends it.
pub(crate) fn run(args: &ServeArgs) -> ExitCode {
    let logs = match logs::begin(args.log.as_deref(), args.log_format) {
        Ok(logs) => logs,
        Err(error) => return print_report(Report::error(error)),
    };
    let code = match catch_unwind(AssertUnwindSafe(|| run_to_end(args))) {
        Ok(Ok(())) => None,
        Ok(Err(errors)) => Some(Report::failed(errors)),
        Err(_) => {
            logs.finish();
            print_report(Report::error("a fault of this program ended it, see the log; please report it"));
            return ExitCode::from(FAULT);
        }
    };
    logs.finish();
    code.map_or(ExitCode::SUCCESS, print_report)
}

/// Reads the configuration, and serves until the server ends.
fn run_to_end(args: &ServeArgs) -> Result<(), Vec<String>> {
    let config = Config::read(&args.config).map_err(strings)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| vec![format!("the system gives no threads: {error}")])?;
    let served = runtime.block_on(serve(config, args));
    runtime.shutdown_timeout(LAST_WORK);
    served
}

/// Prints the report and returns its exit code. If the reader of the output stalls, waits only for [`LAST_WORK`].
fn print_report(reported: Report) -> ExitCode {
    let code = reported.code();
    let (done, printed) = mpsc::channel();
    let print = move || {
        reported.print();
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

/// Starts the server, and handles signals until the server ends or a new process takes over.
async fn serve(mut config: Config, args: &ServeArgs) -> Result<(), Vec<String>> {
    let mut signals = Signals::catch().map_err(|error| vec![format!("signals can't be caught: {error}")])?;
    let (upgrade, clock) = (Upgrade::prepare("bailiwick serve --takeover"), Clock::system());
    let prepared = tokio::select! {
        prepared = begin(&config, args.takeover, &clock) => prepared?,
        () = signals.end() => return Ok(()),
    };
    let mut running = Running::start(&config, prepared, clock)?;
    running.replace_old().await?;
    announce(&running.changeable.handle, &running.node, &running.addresses, running.api_address());
    if let Some(file) = &args.ready_file {
        running.ready().write(file)?;
    }
    let manager = Arc::new(ServiceManager::of_environment());
    manager.notify("READY=1");
    manager.watch(Arc::clone(running.changeable.handle.tasks()));
    let mut successors = running.await_successors(&config);
    let successor = loop {
        let word = tokio::select! {
            word = signals.next() => word,
            Some(successor) = successors.recv() => break Some(successor),
        };
        match word {
            SignalAction::Reload => {
                info!("SIGHUP: reading the configuration and all files that it names again");
                running.feed.reload();
                running.renewal.reload();
                config = running.changeable.reload(&args.config, config);
            }
            SignalAction::Upgrade => upgrade.start(),
            SignalAction::End => break None,
        }
    };
    match successor {
        Some(successor) => running.hand_over(&successor, &manager, &mut signals).await,
        None => {
            manager.notify("STOPPING=1");
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

/// The sockets and files of a server that is about to answer.
struct PreparedServer {
    sockets: Sockets,
    certificates: Certificates,
    http: Option<Http>,
    started: StartedState,
    secrets: Secrets,
    settings: Settings,
    /// The lock of the state directory; `None` if another process holds the lock.
    lock: Option<Arc<File>>,
    /// The process to be replaced.
    old: Option<OldProcess>,
}

/// Binds every address and loads every file, so that all errors are reported together.
async fn begin(config: &Config, is_takeover: bool, clock: &Clock) -> Result<PreparedServer, Vec<String>> {
    open_files::raise_limit();
    let mut errors = Vec::new();
    let mut inherited = takeover::of_systemd();
    let (mut lock, mut old) = (None, None);
    if is_takeover && let Some(received) = take_over(config).await? {
        inherited.append(received.inherited);
        (lock, old) = (received.lock, Some(received.old_process));
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
        // Without its sockets the server doesn't start, but errors in the files are still reported.
        errors.extend(check(&sources, clock.now()).err().map(strings).unwrap_or_default());
        return Err(errors);
    };
    fleet::begin(&config.fleet, &running::node_name(config)).await?;
    let secrets = Secrets::in_files(config.secrets.clone());
    let started = start(sources, secrets.clone(), clock.clone()).await.map_err(strings)?;
    started.handle.snapshot().world().online_signer().limit(config.signing);
    Ok(PreparedServer { sockets, certificates, http, started, secrets, settings, lock, old })
}

/// Asks the process that serves now for its sockets; `None` if no process serves.
async fn take_over(config: &Config) -> Result<Option<ReceivedState>, Vec<String>> {
    let Some(state_dir) = config.state_dir.clone() else {
        return Err(vec![
            "--takeover finds the process that serves by its state_dir: set it in the configuration".to_owned(),
        ]);
    };
    let received = tokio::task::spawn_blocking(move || takeover::take(Program::Dns, &state_dir)).await;
    match received.map_err(std::io::Error::other).flatten() {
        Ok(None) => {
            info!("nobody serves with this state_dir: beginning as ever");
            Ok(None)
        }
        Ok(received) => Ok(received),
        Err(error) => Err(vec![format!("the process that serves gives no sockets ({error}); it goes on serving")]),
    }
}

/// The files and directories that the node reads its state from.
fn sources(config: &Config, lock: Option<Arc<File>>) -> Sources {
    Sources {
        node: running::node_name(config),
        rules: config.rules.clone(),
        geoip: config.geoip.clone(),
        registered: config.registered,
        zones: config.zones.iter().map(|zone| (zone.origin.clone(), zone.file.clone())).collect(),
        dnssec: config.dnssec.clone(),
        directory: config.directory.clone(),
        state_dir: config.state_dir.clone(),
        lock,
        shrink: config.shrink,
    }
}

/// The addresses of all transports.
fn addresses(config: &Config) -> Addresses {
    let listen_of =
        |section: &Option<Encrypted>| section.as_ref().map(|section| section.listen.clone()).unwrap_or_default();
    let (dns, ipv6_only) = (config.listen.clone(), config.ipv6_only);
    let (dot, doq, doh) = (listen_of(&config.dot), listen_of(&config.doq), listen_of(&config.doh));
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

/// The settings of responses.
fn settings(config: &Config) -> Result<Settings, Vec<String>> {
    let cookies = cookie_files::read(&config.cookies).map_err(strings)?;
    Ok(Settings { identity: config.identity.clone(), cookies, idle: config.tcp.idle, responses: config.responses })
}

/// Logs that the server is ready, with its addresses and warnings.
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
    info!(json.event = "serving", node, dns = list(dns), threads, dot = list(dot), doq = list(doq), doh = list(doh),
        api, %revision, "serving");
}
