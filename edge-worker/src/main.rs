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
    use std::io::Write as _;
    use std::net::SocketAddr;
    use std::path::PathBuf;
    use std::process::ExitCode;

    use bailiwick_edge::native_entry::config::Config;
    use bailiwick_edge::native_entry::{check, serve};
    use clap::{CommandFactory, Parser, Subcommand};
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
        /// Serve requests over HTTP/1.1 and HTTP/2 until SIGTERM or SIGINT.
        ///
        /// Variables and secrets are those of the Worker, and come from the environment or from edge.toml: RULES_URLS
        /// and HEALTH_URLS name the APIs of DNS nodes; RECEIPT_KEY, STATE_KEY and each "secret" of the rules hold
        /// secrets.
        ///
        /// SIGHUP reads certificate, GeoIP database and secrets again, as a change of their files does. SIGUSR2 starts
        /// the program anew, to take over. A second SIGTERM ends it at once.
        Serve(Serve),
        /// Read edge.toml and every file it names, and say what is wrong.
        Check {
            /// The configuration.
            #[arg(long, value_name = "FILE", default_value = "edge.toml")]
            config: PathBuf,
        },
        /// Print completions for a shell.
        Completions {
            /// The shell.
            shell: clap_complete::Shell,
        },
        /// Print the manual page in roff, of a command if one is named.
        ///
        /// `bailiwick-edge man serve | man -l -` shows it.
        Man {
            /// The command.
            command: Option<String>,
        },
    }

    #[derive(Debug, clap::Args)]
    struct Serve {
        /// The configuration. Without one, options and the environment say all.
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// Where it listens [default: 127.0.0.1:8787]. Port 0 is any free port; the line `serving` of the log says
        /// which.
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Vec<SocketAddr>,
        /// How many threads serve. Each is an isolate: it fetches rules and health, and counts, for itself [default: as
        /// many as cores].
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
        threads: Option<u16>,
        /// A network whose proxies are believed what they say of a client: its address (CF-Connecting-IP) and its place
        /// (bailiwick-cf). May be given more than once. Without one, a client is where it connects from.
        #[arg(long, value_name = "NETWORK")]
        trust: Vec<IpNet>,
        /// A file with the rules, if no RULES_URLS gives them. Read again when they are due.
        #[arg(long, value_name = "FILE")]
        rules: Option<PathBuf>,
        /// Take the place of the process that serves with the same state_dir, without a gap.
        #[arg(long)]
        takeover: bool,
    }

    impl Serve {
        /// The configuration with the options, which count more.
        fn config(self) -> Result<Config, String> {
            let mut config = self.config.as_deref().map(Config::read).transpose()?.unwrap_or_default();
            if !self.listen.is_empty() {
                config.listen = self.listen;
            }
            if !self.trust.is_empty() {
                config.proxy.trust = self.trust;
            }
            config.threads = self.threads.unwrap_or(config.threads);
            config.rules = self.rules.or(config.rules);
            Ok(config)
        }
    }

    /// Runs the program. The exit code is 0 if all went well, 1 if it can't serve or something is wrong, and 2 if the
    /// command line is.
    pub(super) fn run() -> ExitCode {
        let done = match Arguments::parse().command {
            Command::Serve(options) => {
                let takes_over = options.takeover;
                options.config().map_err(|error| vec![error]).and_then(|config| serve(&config, takes_over))
            }
            Command::Check { config } => {
                let read = Config::read(&config).map_err(|error| vec![error]);
                read.and_then(|config| check(&config)).map(|told| {
                    told.into_iter().for_each(|line| print(&line));
                    print("ok");
                })
            }
            Command::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Arguments::command(), "bailiwick-edge", &mut script);
                print(&String::from_utf8_lossy(&script));
                Ok(())
            }
            Command::Man { command } => {
                manual(command.as_deref()).map(|page| print(&page)).map_err(|error| vec![error])
            }
        };
        match done {
            Ok(()) => ExitCode::SUCCESS,
            Err(errors) => {
                for error in errors {
                    eprintln!("error: {}", error.trim_end());
                }
                ExitCode::FAILURE
            }
        }
    }

    /// The manual page of the program, or of one command.
    fn manual(command: Option<&str>) -> Result<String, String> {
        let mut program = Arguments::command();
        program.build();
        let named = match command {
            None => program,
            Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
                let known: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
                format!("there is no command \"{name}\"; there are {}", known.join(", "))
            })?,
        };
        let mut page = Vec::new();
        clap_mangen::Man::new(named).render(&mut page).map_err(|error| error.to_string())?;
        Ok(String::from_utf8_lossy(&page).into_owned())
    }

    /// Prints a line. Whoever reads it may have gone.
    fn print(line: &str) {
        let _ = writeln!(std::io::stdout(), "{line}");
    }
}
