//! `bailiwick fleet check`: takes a node's configuration, tries out what its fleet needs before the node starts: the
//! other nodes' APIs, or NATS with its buckets and this node's permissions. Returns a line for each.

use bailiwick_host::system::clock::Clock;
use clap::Args;

use crate::program::config::{Config, Fleet};
use crate::program::fleet_report::{FleetReport, clock};
use crate::program::report::Report;
use crate::program::serve::node_name;
use crate::state::fleet::{self, Mode};

/// The longest `/v1/fleet` that is read, in bytes.
const MAX_ANSWER: usize = 8 << 20;

/// Options of `bailiwick fleet check`.
#[derive(Debug, Args)]
pub(crate) struct CheckArgs {
    /// The node's configuration.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: std::path::PathBuf,
}

/// What was tried out: what is well, or what isn't and how to mend it.
type Finding = Result<String, String>;

/// Tries everything out.
pub(super) fn check(args: &CheckArgs) -> Result<Report, Vec<String>> {
    let config = Config::read(&args.config);
    let config = config.map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
    let fleet = &config.fleet;
    if !fleet.is_used() {
        return Ok(Report::fine(
            "this node is in no fleet: its configuration has no [fleet] with peers or mode = \"nats\"\n",
        ));
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let runtime = runtime.map_err(|error| vec![format!("the system gives no event queue: {error}")])?;
    let node = node_name(&config);
    let mut findings = vec![publishers(fleet)];
    runtime.block_on(async {
        findings.extend(peers(fleet).await?);
        if let Some(nats) = &fleet.nats {
            let of_nats = |text: String| format!("NATS: {text}");
            let nats_findings = fleet::check_nats(fleet, nats, &node).await;
            findings.extend(nats_findings.into_iter().map(|finding| finding.map(of_nats).map_err(of_nats)));
        }
        Ok::<(), Vec<String>>(())
    })?;
    let is_unwell = findings.iter().any(Result::is_err);
    let line = |finding: &Finding| match finding {
        Ok(fine) => format!("  {fine}\n"),
        Err(trouble) => format!("! {trouble}\n"),
    };
    let output = format!("{node}  mode {}, stage {}\n", fleet.mode.as_str(), fleet.stage)
        + &findings.iter().map(line).collect::<String>();
    Ok(Report { output, is_unwell, ..Report::default() })
}

/// Whether documents are held by signatures.
fn publishers(fleet: &Fleet) -> Finding {
    match fleet.trusted_publishers.len() {
        0 if fleet.mode == Mode::Files => Ok("rules come from this node's files".to_owned()),
        0 => {
            Ok("no trusted_publishers: whoever writes where the rules come from is believed; `bailiwick fleet keygen` \
                 makes a key"
                .to_owned())
        }
        1 => Ok("rules need the signature of one trusted publisher".to_owned()),
        many => Ok(format!("rules need the signature of one of {many} trusted publishers")),
    }
}

/// What the other nodes answer.
async fn peers(fleet: &Fleet) -> Result<Vec<Finding>, Vec<String>> {
    let (mut findings, clock) = (Vec::new(), Clock::system());
    let tried = fleet::ask_others(fleet, "/v1/fleet", MAX_ANSWER, |peer, answer| {
        let report = answer.and_then(|bytes| {
            serde_json::from_slice::<FleetReport>(&bytes)
                .map_err(|error| format!("/v1/fleet can't be understood ({error}); is it of another version?"))
        });
        findings.push(match report {
            Ok(report) => Ok(answers(peer, &report, report.now.0.saturating_sub(clock.now().0))),
            Err(why) => Err(format!("{peer}: {why}")),
        });
    });
    tried.await?;
    Ok(findings)
}

/// What a peer says of itself.
fn answers(peer: &str, report: &FleetReport, ahead: i64) -> String {
    let clock = clock(ahead).map(|clock| format!("; its clock is {clock}")).unwrap_or_default();
    let FleetReport { node, mode, stage, revision, .. } = report;
    format!("{peer}: {node} answers, mode {mode}, stage {stage}, revision {revision}{clock}")
}
