//! Measures what an answer costs this server beside others. Takes a command line, writes a table, JSON and a chart.
//! `scripts/bench/dns` builds and runs it.
//!
//! [`world`] holds what is served, and [`workload`] what is asked. [`peers`] writes the configurations of the servers,
//! and [`server`] runs them. [`load`] sends the queries. [`rounds`], [`bursts`] and [`flood`] measure, each in its
//! [`turn`]. [`report`] and [`chart`] show the results.

mod batch;
mod bursts;
mod chart;
mod check;
mod cores;
mod echo;
mod flood;
mod load;
mod mmdb;
mod options;
mod peers;
mod proc;
mod quic;
mod report;
mod rounds;
mod server;
mod shedding;
mod stats;
mod streams;
mod turn;
mod viewers;
mod workload;
mod world;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_tests::geo;
use bailiwick_tests::net::free_port;
use serde_json::json;
use tempfile::TempDir;

use cores::Cores;
use options::Options;
use peers::Peer;
use report::{About, Report};
use rounds::Plan;
use server::{Common, Server};
use workload::{Draw, Kind, Workload};

/// From so many names on, memory is told by the name; it is what a zone of [`FEW`] doesn't take.
const MANY: u32 = 100_000;
const FEW: u32 = 10;
/// What a datagram takes of a receive buffer, in octets, and some room: its own are few, the kernel's account of it
/// isn't.
const DATAGRAM: usize = 1280;

fn main() -> ExitCode {
    let options = Options::read();
    let done = match options.echo {
        Some(address) => echo::run(address, options.threads).map(|()| true),
        None => bench(&options),
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Measures, and tells whether all answers were right.
fn bench(options: &Options) -> Result<bool, String> {
    // Several threads say little without one beside them.
    let counts = if options.threads.get() == 1 { vec![1] } else { vec![1, options.threads.get()] };
    let cores = counts.iter().map(|&threads| Cores::divide(threads)).collect::<Result<Vec<_>, _>>()?;
    cores[0].on_generator()?;
    let folder = TempDir::with_prefix("bailiwick-bench-").map_err(|error| format!("no temporary folder: {error}"))?;
    end_by_signal(folder.path().to_owned())?;
    let began_with = proc::machine();
    let placement = placement(&cores);
    say(&placement);

    let peers = chosen(options)?;
    let flat = mmdb::open(&geo::database())?;
    let countries = world::countries();
    let (bytes, networks) = mmdb::convert(&flat, &countries)?;
    let mmdb = folder.path().join("geo.mmdb");
    fs::write(&mmdb, bytes).map_err(|error| format!("{}: {error}", mmdb.display()))?;
    let made = |kind: &Kind| match kind {
        Kind::Static => Ok(Workload::of_static(options.names)),
        Kind::Steered => Workload::of_steered(&flat, &countries),
        Kind::Missing => Ok(Workload::of_missing()),
    };
    let workloads = options.workloads.iter().map(made).collect::<Result<Vec<_>, _>>()?;
    workloads.iter().for_each(introduce);
    say(&format!("the country database has {networks} networks"));
    drop(flat);

    let common = Common { folder: folder.path().to_owned(), mmdb, countries, encrypted: options.streams };
    let mut draw = Draw::new(20_261);
    let servers = started(&peers, &cores, options.names, &common, &workloads, &mut draw)?;
    let window = window(options.window.get());
    let plan = Plan { rounds: options.rounds.get(), length: options.secs, window, rate: options.rate };
    let takes = duration(options, &plan, &servers, &workloads);
    say(&format!("measuring takes about {:.0} min", (takes.as_secs_f64() * 1.1 / 60.0).ceil()));
    let samples = rounds::measure(&servers, &workloads, &plan, &mut draw, |line| say(&line))?;
    let bursts = match counts.len() {
        1 => Vec::new(),
        _ => bursts::measure(&servers, &workloads, &plan, held(), &mut draw, |line| say(&line))?,
    };
    let floods = match options.flood {
        true => flood::measure(&servers, options.names, &plan, &mut draw, |line| say(&line))?,
        false => Vec::new(),
    };
    let streams = if options.streams { streamed(&servers, options, &common)? } else { Vec::new() };
    let about = about(servers, options, &common)?;

    let circumstances = json!({
        "processor": began_with.0, "cores": placement, "load_before": began_with.1, "load_after": proc::machine().1,
        "rounds": plan.rounds, "seconds": options.secs.as_secs_f64(), "window": window, "rate": options.rate,
        "names": options.names, "threads": counts, "networks": networks,
    });
    let report = Report { circumstances, rate: options.rate, about, samples, bursts, floods, streams };
    println!(
        "{} rounds of {} s, medians (least–most); {} names, {window} queries outstanding; CPU times in µs\n\n{}",
        plan.rounds,
        options.secs.as_secs_f64(),
        options.names,
        report.table()
    );
    println!("{}; {placement}; load {:.1} before, {:.1} after", began_with.0, began_with.1, proc::machine().1);
    write(&report, &options.out)?;
    if report.wrong() {
        say("error: there were wrong answers: see the table");
    }
    Ok(!report.wrong())
}

/// Writes the report as JSON, and as a chart.
fn write(report: &Report, folder: &Path) -> Result<(), String> {
    fs::create_dir_all(folder)
        .and_then(|()| fs::write(folder.join("dns.json"), format!("{:#}\n", report.json())))
        .and_then(|()| fs::write(folder.join("dns.svg"), chart::chart(&report.rows())))
        .map_err(|error| format!("{}: {error}", folder.display()))?;
    say(&format!("{}/dns.json and dns.svg hold it too", folder.display()));
    Ok(())
}

/// About how long measuring takes.
fn duration(options: &Options, plan: &Plan, servers: &[Server], workloads: &[Workload]) -> Duration {
    let asked = |workload: &Workload| servers.iter().filter(|server| server.peer.answers(workload.kind)).count();
    let measurements = workloads.iter().map(asked).sum();
    let mut takes = plan.takes(measurements);
    if options.threads.get() > 1 {
        takes += bursts::takes(plan, measurements);
    }
    if options.flood {
        takes += flood::takes(plan, servers);
    }
    takes
}

/// Says what a workload asks.
fn introduce(workload: &Workload) {
    let questions = workload.questions().map_or("without end".to_owned(), |count| count.to_string());
    say(&format!("{}: queries of {} octets, {questions}", workload.kind.name(), workload.length()));
}

/// Which cores serve and which ask, in words.
fn placement(cores: &[Cores]) -> String {
    cores.iter().map(|cores| server::named(&cores.description(), cores.threads)).collect::<Vec<_>>().join("; ")
}

/// A line of progress.
fn say(line: &str) {
    eprintln!("{line}");
}

/// Who is measured, the echo first.
fn chosen(options: &Options) -> Result<Vec<Peer>, String> {
    let own = Peer::Bailiwick(options.bailiwick.clone());
    let mut all = vec![Peer::Echo, own, Peer::Gdnsd, Peer::Nsd, Peer::Knot];
    if options.shedding {
        all.push(Peer::Shedding(options.bailiwick.clone(), shedding::engine()?));
    }
    if options.viewers {
        all.push(Peer::Watched(options.bailiwick.clone(), free_port()));
    }
    if options.streams {
        all.push(Peer::Bind);
        match &options.knot_quic {
            Some(path) => all.push(Peer::KnotQuic(path.clone())),
            None => say("knot-quic is left out: --knot-quic names no Knot that speaks QUIC"),
        }
    }
    all.extend(options.also.iter().map(|(name, command)| Peer::Other { name: name.clone(), command: command.clone() }));
    let names: Vec<&str> = all.iter().map(Peer::name).collect();
    if let Some(unknown) = options.only.iter().find(|only| !names.contains(&only.as_str())) {
        return Err(format!("--only: nobody is called {unknown}; there are {}", names.join(", ")));
    }
    if let Some(twice) = names.iter().enumerate().find_map(|(at, name)| names[..at].contains(name).then_some(name)) {
        return Err(format!("--also: there is a {twice} already; choose another name"));
    }
    let mut chosen = Vec::new();
    for peer in all.into_iter().filter(|peer| options.wants(peer.name())) {
        match peer.missing() {
            None => chosen.push(peer),
            Some(reason) if matches!(peer, Peer::Bailiwick(_)) => return Err(reason),
            Some(reason) => say(&format!("{} is left out: {reason}", peer.name())),
        }
    }
    Ok(chosen)
}

/// Starts every server, and looks whether its answers are right.
fn started(
    peers: &[Peer],
    cores: &[Cores],
    names: u32,
    common: &Common,
    workloads: &[Workload],
    draw: &mut Draw,
) -> Result<Vec<Server>, String> {
    let mut servers = Vec::new();
    for (peer, cores) in peers.iter().flat_map(|peer| cores.iter().map(move |cores| (peer, cores))) {
        let server = Server::start(peer, names, cores, common)?;
        let mut checked = Vec::new();
        let steered = workloads.iter().find(|workload| workload.kind == Kind::Steered);
        if let (Peer::Shedding(..), Some(steered)) = (peer, steered) {
            let took = shedding::wait(server.address, steered, draw).map_err(|error| format!("shedding: {error}"))?;
            say(&format!("clients of every site are moved after {:.1} s", took.as_secs_f64()));
        }
        if let Peer::Watched(_, api) = peer {
            viewers::follow(*api, world::SITES[0].name)?;
            say("a hundred viewers follow its events");
        }
        if !matches!(peer, Peer::Echo) {
            for workload in workloads.iter().filter(|workload| peer.answers(workload.kind)) {
                check::check(server.address, workload, draw).map_err(|error| format!("{}: {error}", peer.name()))?;
                checked.push(format!("{} {}", check::SAMPLE, workload.kind.name()));
            }
        }
        let right = if checked.is_empty() { String::new() } else { format!("; right answers: {}", checked.join(", ")) };
        say(&format!("{} on {} after {:.2} s{right}", server.name(), server.address, server.loaded.as_secs_f64()));
        servers.push(server);
    }
    Ok(servers)
}

/// How many queries a receive buffer holds that a server didn't ask to be larger.
fn held() -> usize {
    let octets = fs::read_to_string("/proc/sys/net/core/rmem_default").ok().and_then(|text| text.trim().parse().ok());
    octets.map_or(1000, |octets: usize| octets / DATAGRAM).max(1)
}

/// How many queries may be outstanding: no more than such a buffer holds, or some would only be lost.
fn window(wanted: usize) -> usize {
    let held = held();
    if held < wanted {
        say(&format!(
            "{held} queries outstanding instead of {wanted}, as a default receive buffer holds no more; for more: \
             sysctl net.core.rmem_default={}",
            wanted * DATAGRAM
        ));
    }
    wanted.min(held)
}

/// Measures every server over every stream that it speaks, in turns.
fn streamed(servers: &[Server], options: &Options, common: &Common) -> Result<Vec<streams::Streamed>, String> {
    streams::questions(options.names, &common.folder)?;
    let workload = Arc::new(Workload::of_static(options.names));
    let mut measured = Vec::new();
    for round in 0..options.rounds.get() {
        for transport in streams::TRANSPORTS {
            let speaks = |server: &&Server| server.peer.speaks().contains(&transport);
            // Several threads would need several generators, which would be another comparison.
            for server in servers.iter().filter(speaks).filter(|server| server.cores.threads == 1) {
                let one = streams::measure(server, transport, &common.folder, &workload, (round, options.secs))?;
                say(&format!("{transport} {}: {:.0} requests/s, {:.1} µs", server.peer.name(), one.rate, one.cpu));
                measured.push(one);
            }
        }
    }
    Ok(measured)
}

/// What is known of the servers besides their answers. Ends them.
#[allow(clippy::cast_precision_loss)] // octets of memory
fn about(servers: Vec<Server>, options: &Options, common: &Common) -> Result<Vec<About>, String> {
    let mut about = Vec::new();
    for server in servers {
        let (peer, loaded, memory) = (server.peer.clone(), server.loaded.as_secs_f64(), server.memory());
        let cores = server.cores.clone();
        drop(server);
        let per_name = if options.names >= MANY && !matches!(peer, Peer::Echo) && cores.threads == 1 {
            let [many, few] = [options.names, FEW].map(|names| {
                let server = Server::start(&peer, names, &cores, common)?;
                server.settle();
                Ok::<_, String>(server.memory() as f64)
            });
            Some((many? - few?) / f64::from(options.names - FEW))
        } else {
            None
        };
        let memory = memory as f64 / f64::from(1 << 20);
        let (server, threads, version) = (peer.name().to_owned(), cores.threads, peer.version());
        about.push(About { server, threads, version, loaded, memory, per_name });
    }
    Ok(about)
}

/// Ends this program with all it started when a signal says so.
fn end_by_signal(folder: PathBuf) -> Result<(), String> {
    use tokio::signal::unix::{SignalKind, signal};
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("the system gives no threads: {error}"))?;
    let caught = {
        let _inside = runtime.enter();
        [(SignalKind::hangup(), 129), (SignalKind::interrupt(), 130), (SignalKind::terminate(), 143)]
            .map(|(kind, code)| signal(kind).map(|caught| (caught, code)))
    };
    let [hangup, interrupt, terminate] =
        caught.map(|caught| caught.map_err(|error| format!("signals can't be caught: {error}")));
    let (mut hangup, mut interrupt, mut terminate) = (hangup?, interrupt?, terminate?);
    std::thread::spawn(move || {
        let code = runtime.block_on(async {
            tokio::select! {
                _ = hangup.0.recv() => hangup.1,
                _ = interrupt.0.recv() => interrupt.1,
                _ = terminate.0.recv() => terminate.1,
            }
        });
        let _no_more = server::end_all();
        let _ = fs::remove_dir_all(folder);
        eprintln!("interrupted");
        std::process::exit(code);
    });
    Ok(())
}
