//! `bailiwick drill verify`: takes a signed report, or a page with one, and public keys; tells what was signed, or why
//! it isn't believed.

use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::program::cli::receipt::keys;
use crate::program::cli::seal::{VerifiedReport, unseal};
use crate::program::report::Report;
use crate::state::load::read_text;

/// Options of `bailiwick drill verify`.
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
    let keys = keys(&args.jwks, &mut std::io::stdin()).map_err(|told| vec![told])?;
    let text = read_text(&args.file).map_err(|error| vec![format!("{name}: can't be read ({error})")])?;
    let opened = unseal(&text, &keys).map_err(|why| vec![format!("{name}: {why}")])?;
    if !opened.report["drill"].is_string() {
        return Err(vec![format!(
            "{name}: it was signed, but is no report of a drill; try `bailiwick rollout verify`"
        )]);
    }
    let is_unwell = opened.report["outside"].as_u64().is_none_or(|outside| outside > 0);
    let text = if args.json { format!("{:#}\n", opened.report) } else { text_of(&opened) };
    Ok(Report { is_unwell, ..Report::fine(text) })
}

fn text_of(VerifiedReport { kid, report, has_page }: &VerifiedReport) -> String {
    // Words of the report are data: none of them may steer a terminal.
    let word = |value: &Value| match value {
        Value::String(text) => text.chars().filter(|one| !one.is_control()).collect(),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    };
    let page = if *has_page { ", and so is the page around it" } else { "" };
    let checked = &report["checked"];
    let receipts = &report["receipts"];
    let receipts = match receipts.is_null() {
        true => "none were given".to_owned(),
        false => format!(
            "{} of {} outside, {} aren't valid",
            word(&receipts["outside"]),
            word(&receipts["checked"]),
            word(&receipts["invalid"])
        ),
    };
    format!(
        "valid      signed by {kid}{page}\ndrill      {} of {}: {}\nbegan      {}\nrules      revision {}, sha256 {}\n\
         outside    {} in all: {} of {} answers of DNS, {} of {} requests\nreceipts   {receipts}\n",
        word(&report["drill"]),
        word(&report["region"]),
        word(&report["outcome"]),
        word(&report["began"]),
        word(&report["revision"]),
        word(&report["rules_sha256"]),
        word(&report["outside"]),
        word(&checked["dns_outside"]),
        word(&checked["dns"]),
        word(&checked["edge_outside"]),
        word(&checked["edge"]),
    )
}
