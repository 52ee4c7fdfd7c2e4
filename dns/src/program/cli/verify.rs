//! Verifies signed reports. Takes a signed report, or a page with one, and public keys; returns what was signed, or why
//! it isn't believed. Called by `bailiwick rollout verify` and `bailiwick drill verify`, which put it into words.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::receipt::keys;
use super::seal::{VerifiedReport, unseal};
use crate::program::report::Report;
use crate::state::load::read_text;

/// Options of `verify`.
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

/// Verifies a report of `subject`, `drill` or `rollout`, which is also the field with its name. `told` says what a
/// valid one says, and whether that is good.
pub(super) fn verify(
    args: &VerifyArgs,
    subject: &str,
    told: impl FnOnce(&VerifiedReport) -> Report,
) -> Result<Report, Vec<String>> {
    let name = args.file.display();
    let keys = keys(&args.jwks, &mut std::io::stdin()).map_err(|problem| vec![problem])?;
    let text = read_text(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let verified = unseal(&text, &keys).map_err(|why| vec![format!("{name}: {why}")])?;
    if !verified.report[subject].is_string() {
        let other = if subject == "drill" { "rollout" } else { "drill" };
        return Err(vec![format!(
            "{name}: it was signed, but is no report of a {subject}; try `bailiwick {other} verify`"
        )]);
    }
    let told = told(&verified);
    Ok(if args.json { Report { output: format!("{:#}\n", verified.report), ..told } } else { told })
}

/// A field of a report as a word. Words of the report are data: none of them may steer a terminal.
pub(super) fn word(value: &Value) -> String {
    match value {
        Value::String(text) => text.chars().filter(|character| !character.is_control()).collect(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}
