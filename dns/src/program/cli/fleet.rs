//! `bailiwick fleet`: asks a node for what it knows of its fleet, makes keys for publishers, and configures NATS.

mod check;
mod nats_config;

use std::path::{Path, PathBuf};

use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::receipt::PublicKey;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use reqwest::Method;
use ring::signature::{Ed25519KeyPair, KeyPair};

use super::node::{Access, Node};
use super::receipt::new_key;
use super::status::StatusArgs;
use crate::program::fleet_report::FleetReport;
use crate::program::report::Report;
use crate::state::load::read_text;

/// What to do with a fleet.
#[derive(Debug, Subcommand)]
pub(crate) enum FleetCommand {
    /// Tell what a node knows of its fleet: other nodes, revisions, who is missing, what was refused.
    ///
    /// The exit code is 1 if something needs a look.
    #[command(after_help = "Examples:
  bailiwick fleet status
  bailiwick fleet status --json | jq -r '.peers[] | select(.trouble) | .node'")]
    Status(StatusArgs),
    /// Try out what a node's fleet needs, before the node starts: other nodes, or NATS with buckets and permissions.
    ///
    /// The exit code is 1 if something isn't well.
    #[command(after_help = "Example:
  bailiwick fleet check --config /etc/bailiwick/bailiwick.toml")]
    Check(check::CheckArgs),
    /// Make a publisher's key. The private half goes into a file, the public half is printed.
    ///
    /// Nodes that have the public half among their trusted_publishers believe only rules that such a key signed.
    #[command(after_help = "Example:
  bailiwick fleet keygen publisher.key      then trusted_publishers = [\"…\"] on every node")]
    Keygen(KeygenArgs),
    /// Write configurations and keys for NATS: servers, one user for each node, and one for who publishes.
    ///
    /// Each user may write its own keys and subjects only, and only the publisher may write which rules are in force.
    /// Keys that are in the folder already stay, so that a node can be added later. Certificates are yours to bring.
    #[command(after_help = "Example:
  bailiwick fleet nats-config --nodes ns1,ns2,ns3 --servers nats1.example.com,nats2.example.com,nats3.example.com")]
    NatsConfig(nats_config::NatsConfigArgs),
}

/// Options of `bailiwick fleet keygen`.
#[derive(Debug, Args)]
pub(crate) struct KeygenArgs {
    /// The file for the private key. It must not exist.
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

/// Runs either.
pub(crate) fn run(command: &FleetCommand) -> Report {
    match command {
        FleetCommand::Status(args) => status(args).unwrap_or_else(Report::failed),
        FleetCommand::Check(args) => check::check(args).unwrap_or_else(Report::failed),
        FleetCommand::Keygen(args) => keygen(&args.file).unwrap_or_else(Report::error),
        FleetCommand::NatsConfig(args) => nats_config::write(args).unwrap_or_else(Report::error),
    }
}

/// Asks a node what it knows of its fleet.
fn status(args: &StatusArgs) -> Result<Report, Vec<String>> {
    let answer = Node::find(&args.node, Access::Read)?.ask(Method::GET, "/v1/fleet", None)?;
    let json = args.json.then(|| format!("{answer:#}\n"));
    let report: FleetReport = serde_json::from_value(answer).map_err(|error| {
        vec![format!("what the node says of its fleet can't be understood ({error}); is it of another version?")]
    })?;
    let is_unwell = !report.troubles().is_empty();
    Ok(Report { output: json.unwrap_or_else(|| report.to_text()), is_unwell, ..Report::default() })
}

/// Makes a key for publishing, and writes the private half to a file.
fn keygen(file: &Path) -> Result<Report, String> {
    if file.exists() {
        return Err(format!("{}: is there already; name another file, or remove it", file.display()));
    }
    let (public, jwk) = new_key()?;
    replace(file, format!("{jwk}\n").as_bytes(), Mode::Private)
        .map_err(|error| format!("{}: can't be written ({error})", file.display()))?;
    Ok(Report::fine(format!("{}\n", URL_SAFE_NO_PAD.encode(public.0))))
}

/// A publisher's key pair.
pub(crate) struct Publisher {
    pair: Ed25519KeyPair,
    /// The public half.
    pub(crate) public: PublicKey,
}

impl Publisher {
    /// Reads the file that `bailiwick fleet keygen` wrote.
    ///
    /// # Errors
    /// When it can't be read or is no key.
    pub(crate) fn read(file: &Path) -> Result<Self, String> {
        let text = read_text(file).map_err(|error| format!("{}: can't be read ({error})", file.display()))?;
        let jwk: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let seed = jwk["d"].as_str().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
        let seed: Option<[u8; 32]> = seed.and_then(|bytes| bytes.try_into().ok());
        let key = seed.map(|seed| Self::of_seed(&seed)).transpose()?;
        key.filter(|key| PublicKey::from_jwk(&jwk) == Some(key.public))
            .ok_or_else(|| format!("{}: is no publisher's key; `bailiwick fleet keygen` makes one", file.display()))
    }

    fn of_seed(seed: &[u8; 32]) -> Result<Self, String> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| "the key can't be made".to_owned())?;
        let public = pair.public_key().as_ref().try_into().map_err(|_| "the key can't be made".to_owned())?;
        Ok(Self { pair, public: PublicKey(public) })
    }

    /// Signs a head.
    pub(crate) fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_key_signs_what_its_public_half_verifies() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("publisher.key");
        let printed = keygen(&file).unwrap().output;
        let key = Publisher::read(&file).unwrap();
        assert_eq!(printed.trim(), URL_SAFE_NO_PAD.encode(key.public.0));
        assert!(crate::state::fleet::verify(&key.public, b"head", &key.sign(b"head")));
        assert!(!crate::state::fleet::verify(&key.public, b"other", &key.sign(b"head")));
        assert!(keygen(&file).unwrap_err().contains("is there already"), "a key is never overwritten");
        std::fs::write(&file, "{}").unwrap();
        assert!(Publisher::read(&file).err().unwrap().contains("is no publisher's key"));
    }
}
