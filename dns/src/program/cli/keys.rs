//! `bailiwick keys`: takes a signed zone of the configuration. Makes a key, does the next step of a key rollover, lists
//! the keys, or prints the DS record for the parent zone.

mod list;
mod steps;

use std::path::PathBuf;

use bailiwick_rules::time::{Millis, Timestamp};
use clap::{Args, Subcommand, ValueEnum};

use crate::dnssec::key::{Algorithm, DigestType};
use crate::program::config::zone_name;
use crate::program::config::{Config, SignedZone};
use crate::program::report::Report;
use crate::protocol::name::Name;
use crate::state::load::{Fault, read_rules, read_zones};
use crate::state::store::Store;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Make the first key of a zone. It signs the zone as soon as a node has it.
    ///
    /// The key and a state file are written to the directory that [dnssec."zone"] of the configuration names, for their
    /// owner alone. Give the directory to every node before you bring the DS to the parent. A zone that has a key gets
    /// the next one by `bailiwick keys roll`.
    #[command(after_help = "Examples:
  bailiwick keys generate --zone ai.example.com
  bailiwick keys generate --zone ai.example.com --algorithm 15 --config /etc/bailiwick/bailiwick.toml")]
    Generate(GenerateArgs),
    /// Tell each key's state, and what comes next.
    #[command(after_help = "Examples:
  bailiwick keys list
  bailiwick keys list --zone ai.example.com --json | jq -r '.[].keys_sha256'")]
    List(ListArgs),
    /// Replace a zone's key, in two steps, between which its DS is replaced at the parent.
    ///
    /// The first step publishes a new key beside the old one. Once every resolver must know of it (`bailiwick keys
    /// list` says when), bring its DS to the parent. When all of the parent's servers have it, the second step,
    /// --ds-seen, lets the new key sign; the old one leaves by itself when nobody can need it any more. After each step
    /// give the directory to every node. A step that comes too early is refused, and told when to try again.
    #[command(after_help = "Examples:
  bailiwick keys roll --zone ai.example.com              publishes a new key
  bailiwick keys ds --zone ai.example.com                its DS, once it is ready for the parent
  bailiwick keys roll --zone ai.example.com --ds-seen    lets it sign")]
    Roll(RollArgs),
    /// Print the DS record that belongs at the parent now: of the new key while one is rolled to.
    ///
    /// Exit code 1 while it would be too early to bring it there.
    #[command(after_help = "Examples:
  bailiwick keys ds --zone ai.example.com
  bailiwick keys ds --zone ai.example.com --digest 4
  dig +short DS ai.example.com                           what the parent has")]
    Ds(DsArgs),
}

/// Which zone the command is about.
#[derive(Debug, Args)]
pub(crate) struct ZoneArgs {
    /// The zone; may be left out where the configuration has one signed zone alone.
    #[arg(long, value_name = "NAME", value_parser = zone_name)]
    zone: Option<Name>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
}

/// Options of `bailiwick keys generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// What it signs by. All later keys of the zone have the same.
    #[arg(long, value_enum, default_value_t)]
    algorithm: AlgorithmArg,
}

/// Options of `bailiwick keys list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    /// The zone; by default all signed ones.
    #[arg(long, value_name = "NAME", value_parser = zone_name)]
    zone: Option<Name>,
    /// The configuration.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
    /// Print it as JSON: [{"zone", "directory", "keys_sha256", "keys": [{"tag", "algorithm", "file", "state", …}],
    /// "next"}].
    #[arg(long)]
    json: bool,
}

/// Options of `bailiwick keys roll`.
#[derive(Debug, Args)]
pub(crate) struct RollArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// The second step: all of the parent's servers have the new key's DS, and you have looked.
    #[arg(long)]
    ds_seen: bool,
}

/// Options of `bailiwick keys ds`.
#[derive(Debug, Args)]
pub(crate) struct DsArgs {
    #[command(flatten)]
    zone: ZoneArgs,
    /// How the DS names the key.
    #[arg(long, value_enum, default_value_t)]
    digest: DigestArg,
    /// Print it even though it is too early to bring it to the parent.
    #[arg(long)]
    early: bool,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum AlgorithmArg {
    /// ECDSA on P-256 with SHA-256, which every validator knows.
    #[default]
    #[value(name = "13", alias = "ecdsap256sha256")]
    EcdsaP256Sha256,
    /// Ed25519, which some validators don't know: to those the zone is unsigned.
    #[value(name = "15", alias = "ed25519")]
    Ed25519,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum DigestArg {
    /// SHA-256, which every parent takes.
    #[default]
    #[value(name = "2", alias = "sha256")]
    Sha256,
    /// SHA-384.
    #[value(name = "4", alias = "sha384")]
    Sha384,
}

impl From<AlgorithmArg> for Algorithm {
    fn from(arg: AlgorithmArg) -> Self {
        match arg {
            AlgorithmArg::EcdsaP256Sha256 => Self::EcdsaP256Sha256,
            AlgorithmArg::Ed25519 => Self::Ed25519,
        }
    }
}

impl From<DigestArg> for DigestType {
    fn from(arg: DigestArg) -> Self {
        match arg {
            DigestArg::Sha256 => Self::Sha256,
            DigestArg::Sha384 => Self::Sha384,
        }
    }
}

/// Runs any of the commands.
pub(crate) fn run(command: &KeysCommand, now: Timestamp) -> Report {
    let done = match command {
        KeysCommand::Generate(args) => {
            args.zone.find().and_then(|configured_zone| steps::generate(&configured_zone, args.algorithm.into(), now))
        }
        KeysCommand::List(args) => list::list(args, now),
        KeysCommand::Roll(args) => args.zone.find().and_then(|configured_zone| match args.ds_seen {
            false => steps::begin(&configured_zone, now),
            true => steps::finish(&configured_zone, now),
        }),
        KeysCommand::Ds(args) => args
            .zone
            .find()
            .and_then(|configured_zone| steps::ds(&configured_zone, args.digest.into(), args.early, now)),
    };
    done.unwrap_or_else(Report::failed)
}

/// A signed zone, and the configuration that has it.
struct ConfiguredZone {
    config: Config,
    zone: SignedZone,
    /// The options that name this zone again, for the next command that a message suggests.
    args: String,
}

impl ZoneArgs {
    /// Reads the configuration, and finds the zone that the arguments name.
    fn find(&self) -> Result<ConfiguredZone, Vec<Fault>> {
        let config = read_config(&self.config)?;
        let zone = self.choose(&config).map_err(|message| vec![Fault::of_file(&self.config, message)])?;
        let args = match self.config.as_os_str() == "bailiwick.toml" {
            true => format!("--zone {}", zone.origin),
            false => format!("--zone {} --config {}", zone.origin, self.config.display()),
        };
        Ok(ConfiguredZone { config, zone, args })
    }

    /// The zone that the arguments name, or the only signed zone.
    fn choose(&self, config: &Config) -> Result<SignedZone, String> {
        let signed = || config.dnssec.iter().map(|zone| zone.origin.to_string()).collect::<Vec<_>>().join(", ");
        let section = |zone: &Name| format!("add a section [dnssec.\"{zone}\"] with keys = \"keys/{zone}\"");
        match (&self.zone, &config.dnssec[..]) {
            (Some(wanted), zones) => zones.iter().find(|zone| zone.origin == *wanted).cloned().ok_or_else(|| {
                if config.zones.iter().any(|zone| zone.origin == *wanted) {
                    format!("{wanted} isn't signed; {}", section(wanted))
                } else {
                    format!("{wanted} is no zone of [zones]; name another with --zone, or add it")
                }
            }),
            (None, [zone]) => Ok(zone.clone()),
            (None, []) => match config.zones.first() {
                Some(zone) => Err(format!("no zone is signed; {}", section(&zone.origin))),
                None => Err("has no zones; add one to [zones] first".to_owned()),
            },
            (None, _) => Err(format!("signs several zones; name one with --zone: {}", signed())),
        }
    }
}

fn read_config(file: &std::path::Path) -> Result<Config, Vec<Fault>> {
    Config::read(file).map_err(|errors| errors.into_iter().map(Fault::from).collect())
}

impl ConfiguredZone {
    /// The longest TTL of all records that the zone serves: of its master file, of the configured rules, and of the
    /// rules that were last in service.
    fn longest_ttl(&self) -> Result<Millis, Vec<Fault>> {
        let ConfiguredZone { config, zone, .. } = self;
        let file = config.zones.iter().find(|known| known.origin == zone.origin).map(|known| known.file.clone());
        let sources = read_zones(&[(zone.origin.clone(), file.unwrap_or_default())], &mut |_| ())?;
        let of_records = sources.iter().flat_map(|source| source.records.iter()).map(|record| record.ttl);
        // The TTLs of all services count, because a service's host may move to this zone.
        let configured = read_rules(config.rules_file())?;
        let last_good = config.state_dir.as_deref().and_then(|directory| read_rules(&Store::rules_in(directory)).ok());
        let rules = [Some(configured), last_good].into_iter().flatten();
        let of_rules: Vec<u32> = rules
            .flat_map(|rules| rules.table.services().iter().map(|known| known.ttl.max).collect::<Vec<_>>())
            .collect();
        Ok(Millis(u64::from(of_records.chain(of_rules).max().unwrap_or(0)) * 1000))
    }
}

#[cfg(test)]
mod tests;
