//! What a signed report of a rollout says, as lines of text. Called by `bailiwick rollout verify`.

use crate::program::cli::seal::VerifiedReport;
use crate::program::cli::verify::word;
use crate::program::report::Report;

pub(super) fn told(verified: &VerifiedReport) -> Report {
    Report::fine(text_of(verified))
}

fn text_of(VerifiedReport { kid, report, has_page }: &VerifiedReport) -> String {
    let ended = match word(&report["ended"]) {
        ended if ended == "-" => "under way".to_owned(),
        ended => ended,
    };
    let steps = report["steps"].as_array().map_or(0, Vec::len);
    let page = if *has_page { ", and so is the page around it" } else { "" };
    format!(
        "valid      signed by {kid}{page}\nrollout    {} of {}: {ended}\nsigned at  {}\nrules      revision {}, sha256 \
         {}\nsteps      {steps}\n",
        word(&report["rollout"]),
        word(&report["service"]),
        word(&report["at"]),
        word(&report["revision"]),
        word(&report["rules_sha256"])
    )
}
