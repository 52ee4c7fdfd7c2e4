//! The program `bailiwick-edge`: the edge as a server of its own. Takes a command line and the environment, serves
//! until a signal ends it.

// A request allocates some two hundred times.
#[cfg(not(target_arch = "wasm32"))]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[cfg(not(target_arch = "wasm32"))]
fn main() -> std::process::ExitCode {
    command_line::run()
}

// The Worker is the library alone.
#[cfg(target_arch = "wasm32")]
fn main() {}

#[cfg(not(target_arch = "wasm32"))]
mod command_line {
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::process::ExitCode;

    use bailiwick_edge::native_entry::{Settings, serve};
    use clap::{Parser, Subcommand};
    use ipnet::IpNet;

    /// Steers AI traffic between regions by one rule book, and passes each request on to an endpoint that residency
    /// allows.
    #[derive(Debug, Parser)]
    #[command(version)]
    struct Arguments {
        #[command(subcommand)]
        command: Command,
    }

    #[derive(Debug, Subcommand)]
    enum Command {
        /// Serve requests over HTTP/1.1 and HTTP/2 without TLS, until SIGTERM or SIGINT.
        ///
        /// Variables and secrets are those of the Worker, and come from the environment: RULES_URLS and HEALTH_URLS
        /// name the APIs of DNS nodes, RECEIPT_KEY, STATE_KEY and each "secret" of the rules hold secrets.
        Serve(Serve),
    }

    #[derive(Debug, clap::Args)]
    struct Serve {
        /// Where it listens. Port 0 is any free port; the first line of the log says which.
        #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8787")]
        listen: SocketAddr,
        /// How many threads serve. Each is an isolate: it fetches rules and health, and counts, for itself [default: as
        /// many as cores].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: Option<u16>,
        /// A network whose proxies are believed what they say of a client: its address (CF-Connecting-IP) and its place
        /// (bailiwick-cf). May be given more than once. Without one, a client is where it connects from, and its
        /// country isn't known.
        #[arg(long, value_name = "NETWORK")]
        trust: Vec<IpNet>,
        /// A file with the rules, if no RULES_URLS gives them. Read again when they are due.
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
    }

    /// Runs the program. The exit code is 0 after a signal, 1 if it can't serve, and 2 if the command line is wrong.
    pub(super) fn run() -> ExitCode {
        let Command::Serve(Serve { listen, threads, trust, rules }) = Arguments::parse().command;
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = threads.map_or_else(cores, usize::from);
        match serve(listen, threads, &Settings { trusted: trust, rules }) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("error: {listen} can't be served: {error}; name another with --listen");
                ExitCode::FAILURE
            }
        }
    }
}
