//! What a signed report of a drill says, as lines of text, and whether anything was outside of its fence. Called by
//! `bailiwick drill verify`.

use crate::program::cli::seal::VerifiedReport;
use crate::program::cli::verify::word;
use crate::program::report::Report;

pub(super) fn told(verified: &VerifiedReport) -> Report {
    let is_unwell = verified.report["outside"].as_u64().is_none_or(|outside| outside > 0);
    Report { is_unwell, ..Report::fine(text_of(verified)) }
}

fn text_of(VerifiedReport { kid, report, has_page }: &VerifiedReport) -> String {
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
