//! `bailiwick rollout verify`: takes a signed report of a rollout, or an HTML page that holds one, and public keys;
//! returns what was signed, or why the signature isn't valid.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::program::cli::receipt::keys;
use crate::program::cli::seal::{VerifiedReport, unseal};
use crate::program::report::Report;
use crate::state::load::read_text;

/// Options of `bailiwick rollout verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The signed report, or the page that holds it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The public keys: the gateway's /.well-known/bailiwick/jwks.json, fetched over a connection you trust; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// Print the report that was signed as JSON.
    #[arg(long)]
    json: bool,
}

/// Verifies a report.
pub(super) fn verify(args: &VerifyArgs) -> Result<Report, Vec<String>> {
    let name = args.file.display();
    let keys = keys(&args.jwks, &mut std::io::stdin()).map_err(|problem| vec![problem])?;
    let text = read_text(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let verified = unseal(&text, &keys).map_err(|why| vec![format!("{name}: {why}")])?;
    let text = if args.json { format!("{:#}\n", verified.report) } else { text_of(&verified) };
    Ok(Report::fine(text))
}

/// What a valid report says, as lines of text.
fn text_of(verified: &VerifiedReport) -> String {
    let VerifiedReport { kid, report, has_page } = verified;
    // Words of the report are data: none of them may steer a terminal.
    let word = |name: &str| match &report[name] {
        Value::String(text) => text.chars().filter(|character| !character.is_control()).collect(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let ended = match word("ended") {
        ended if ended == "-" => "under way".to_owned(),
        ended => ended,
    };
    let steps = report["steps"].as_array().map_or(0, Vec::len);
    let page = if *has_page { ", and so is the page around it" } else { "" };
    format!(
        "valid      signed by {kid}{page}\nrollout    {} of {}: {ended}\nsigned at  {}\nrules      revision {}, sha256 \
         {}\nsteps      {steps}\n",
        word("rollout"),
        word("service"),
        word("at"),
        word("revision"),
        word("rules_sha256")
    )
}
