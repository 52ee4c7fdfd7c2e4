//! Finds what a new rules document changes for clients. Takes the old and the new table and the options; returns the
//! impact, and the gates (limits for a change) that stay shut. Called by all commands of `bailiwick rules` that compare
//! documents. If it takes long, the progress is shown on a terminal. A fence is the list of the regions that may
//! process a client's data.

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bailiwick_host::locate::geoip::{Places, Registered};
use bailiwick_rules::fleet::gates::{Accepted, Gates, Shut, shut, shut_unknown};
use bailiwick_rules::fleet::impact::{Impact, Queries};
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::rules_store::{Base, RulesStore};
use crate::program::cli::node::NodeArgs;
use crate::program::config::Config;
use crate::program::impact::{impact, impact_by_country};
use crate::state::load::{compile_rules, read_geoip};

/// After this time the progress is shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where clients are found.
#[derive(Debug, Args)]
pub(super) struct PlaceArgs {
    /// Find clients in this GeoIP database instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    geoip: Option<PathBuf>,
}

/// What whoever types it accepts.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct AcceptArgs {
    /// Accept that so many move, whatever max_moved says.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    accept_moved: Option<Ratio>,
    /// Accept that so many lose their region, whatever max_denied says.
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    accept_denied: Option<Ratio>,
    /// Accept that a fence keeps so few regions, whatever min_regions says.
    #[arg(long, value_name = "COUNT")]
    accept_regions: Option<u32>,
}

/// Reads an option in per cent.
pub(super) fn percent(text: &str) -> Result<Ratio, String> {
    Ratio::parse_percent(text).ok_or_else(|| "write whole per cent from 1% to 100%".to_owned())
}

impl AcceptArgs {
    /// The options as the gates take them.
    fn to_accepted(self, is_approved: bool) -> Accepted {
        let Self { accept_moved: moved, accept_denied: denied, accept_regions: regions } = self;
        Accepted { moved, denied, regions, is_approved }
    }
}

impl PlaceArgs {
    /// The GeoIP database that the option names, or else the configuration. With `--api`, the configuration may be
    /// missing. Then there is no database.
    ///
    /// # Errors
    /// If the database or the configuration can't be read.
    pub(super) fn places(&self, node: &NodeArgs) -> Result<Arc<Places>, Vec<String>> {
        let (file, registered) = match &self.geoip {
            Some(file) => (Some(file.clone()), Registered::default()),
            None if node.api.is_some() && !node.config.exists() => (None, Registered::default()),
            // The configuration of a publisher may have nothing but the section on NATS.
            None if matches!(Config::read_fleet_in_nats(&node.config), Ok(Some(_)))
                && Config::read(&node.config).is_err() =>
            {
                (None, Registered::default())
            }
            None => {
                let config = Config::read(&node.config).map_err(texts)?;
                (config.geoip, config.registered)
            }
        };
        read_geoip(file.as_deref(), registered).map_err(texts)
    }
}

/// Whether the places of clients are known. Without a GeoIP database, there is only one place, for all clients whose
/// country is unknown.
pub(super) fn are_known(places: &Places) -> bool {
    places.all().len() > 1
}

/// Errors as texts.
pub(super) fn texts<E: ToString>(faults: impl IntoIterator<Item = E>) -> Vec<String> {
    faults.into_iter().map(|fault| fault.to_string()).collect()
}

/// What a new document changes.
pub(super) struct Change {
    /// The change for clients, as far as it is known.
    pub(super) impact: Impact,
    /// Whether the number of clients that the change concerns is known. If not, `impact` only says which fences change.
    pub(super) is_known: bool,
}

impl Change {
    /// The change for clients at all places of a GeoIP database.
    pub(super) fn find(old: &Table, new: &Table, places: &Places, queries: Option<&Queries>, now: Timestamp) -> Self {
        let mut progress = Progress::new();
        let mut show = |done, all| progress.show(done, all);
        let impact = impact(old, new, places, queries, now, &mut show);
        progress.finish();
        Self { impact, is_known: are_known(places) }
    }

    /// The change without a GeoIP database: for each country, whether its clients' fences differ.
    pub(super) fn of_fences(old: &Table, new: &Table, now: Timestamp) -> Self {
        Self { impact: impact_by_country(old, new, now), is_known: false }
    }

    /// The change from the document in service to a new document, for clients at the places that the options name.
    /// Without `places`, or if these options name no GeoIP database, the result only says which fences change.
    ///
    /// # Errors
    /// If either document has mistakes, or the database can't be read.
    pub(super) fn of(
        store: &RulesStore,
        base: &Base,
        bytes: &[u8],
        places: Option<(&PlaceArgs, &NodeArgs)>,
        now: Timestamp,
        warnings: &mut Vec<String>,
    ) -> Result<Self, Vec<String>> {
        let old = compile_rules(base.document.bytes.clone(), "the rules in service").map_err(texts)?;
        let new = compile_rules(bytes.to_vec(), "the new rules").map_err(texts)?;
        let Some((places, node)) = places else { return Ok(Self::of_fences(&old.table, &new.table, now)) };
        let places = places.places(node)?;
        if !are_known(&places) {
            let warning = "how many clients it concerns isn't known, as no GeoIP database is named; name one by \
                --geoip, or say --no-impact";
            warnings.push(warning.to_owned());
            return Ok(Self::of_fences(&old.table, &new.table, now));
        }
        let queries = store.queries().unwrap_or_else(|errors| {
            warnings.extend(errors.iter().map(|error| format!("no queries weigh: {error}")));
            None
        });
        Ok(Self::find(&old.table, &new.table, &places, queries.as_ref(), now))
    }

    /// The gates that stay shut.
    pub(super) fn shut(&self, gates: &Gates, accepted: AcceptArgs, is_approved: bool) -> Vec<Shut> {
        let accepted = accepted.to_accepted(is_approved);
        if self.is_known { shut(&self.impact, gates, &accepted) } else { shut_unknown(gates, &accepted) }
    }
}

/// Shows the progress of the comparison on one line of a terminal.
struct Progress {
    begun: Instant,
    is_terminal: bool,
    is_shown: bool,
}

impl Progress {
    fn new() -> Self {
        Self { begun: Instant::now(), is_terminal: std::io::stderr().is_terminal(), is_shown: false }
    }

    /// Shows how many services are compared, once that takes long.
    fn show(&mut self, done: usize, all: usize) {
        if self.is_terminal && self.begun.elapsed() >= PATIENCE {
            self.is_shown = true;
            let _ = write!(std::io::stderr(), "\r{done} of {all} services compared\x1b[K");
        }
    }

    /// Removes the line.
    fn finish(&self) {
        if self.is_shown {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}
