//! `bailiwick keys list`: takes the state files of zones' keys; returns a table or JSON of all keys with their times,
//! and the next step for each zone.

use bailiwick_rules::time::Timestamp;
use serde::Serialize;

use super::{ListArgs, ZoneArgs, read_config};
use crate::dnssec::directory::{read_keys, read_state};
use crate::dnssec::state::{KeyState, Stage, State};
use crate::program::config::SignedZone;
use crate::program::report::Report;
use crate::state::load::Fault;

#[derive(Debug, Serialize)]
struct Zone {
    zone: String,
    directory: String,
    keys_sha256: String,
    keys: Vec<Key>,
    next: String,
}

#[derive(Debug, Serialize)]
struct Key {
    tag: u16,
    algorithm: u8,
    file: String,
    state: &'static str,
    published: Timestamp,
    ready: Timestamp,
    active: Option<Timestamp>,
    retired: Option<Timestamp>,
    remove: Option<Timestamp>,
}

/// Lists the keys of the signed zones, and the next step for each zone.
pub(super) fn list(args: &ListArgs, now: Timestamp) -> Result<Report, Vec<Fault>> {
    let config = read_config(&args.config)?;
    let wanted = ZoneArgs { zone: args.zone.clone(), config: args.config.clone() };
    let zones = match wanted.zone {
        None if config.dnssec.len() > 1 => config.dnssec,
        _ => vec![wanted.choose(&config).map_err(|message| vec![Fault::of_file(&args.config, message)])?],
    };
    let (mut listed, mut errors) = (Vec::new(), Vec::new());
    for zone in &zones {
        match look(zone, now) {
            Ok(zone) => listed.push(zone),
            Err(faults) => errors.extend(faults.iter().map(ToString::to_string)),
        }
    }
    let output = if args.json {
        serde_json::to_string_pretty(&listed).unwrap_or_default() + "\n"
    } else {
        listed.iter().map(Zone::text).collect::<Vec<_>>().join("\n")
    };
    Ok(Report { output, errors, ..Report::default() })
}

/// Reads the keys of a zone and their states.
fn look(zone: &SignedZone, now: Timestamp) -> Result<Zone, Vec<Fault>> {
    let keys = read_keys(std::slice::from_ref(zone), now, &mut |_| ())?;
    // `read_keys` has refused a zone without a state file. The file is missing here only if it was removed since.
    let state = read_state(zone, &mut |_| ())?
        .ok_or_else(|| vec![Fault::of_file(&zone.directory, "lost its state file just now; list it again")])?;
    Ok(Zone {
        zone: zone.origin.to_string(),
        directory: zone.directory.display().to_string(),
        keys_sha256: keys.iter().map(|keys| keys.key_set(now).digest().to_owned()).collect(),
        keys: state.keys.iter().map(|key| Key::new(key, now)).collect(),
        next: next(&state, now),
    })
}

/// The next step of a zone's keys, as a sentence.
fn next(state: &State, now: Timestamp) -> String {
    let leaving = state.keys.iter().find_map(|key| match key.stage {
        Stage::Retired { remove, .. } if remove > now => Some((key.tag, remove)),
        _ => None,
    });
    match (state.successor(), state.active(), leaving) {
        (Some(new), _, _) if new.ready > now => {
            format!("from {} on, bring the DS of key {} to the parent", new.ready, new.tag)
        }
        (Some(new), _, _) => format!(
            "bring the DS of key {} to the parent in place of the old one (`bailiwick keys ds`); once all its servers \
             have it, `bailiwick keys roll --ds-seen`",
            new.tag
        ),
        (None, Some(active), _) if active.ready > now => {
            format!("from {} on, bring the DS of key {} to the parent", active.ready, active.tag)
        }
        (None, _, Some((tag, remove))) => format!("key {tag} leaves by itself at {remove}"),
        (None, Some(active), None) => format!("nothing, with the DS of key {} at the parent", active.tag),
        (None, None, None) => String::new(),
    }
}

impl Key {
    /// The row of a key.
    fn new(key: &KeyState, now: Timestamp) -> Self {
        let (state, active, retired, remove) = match key.stage {
            Stage::Published => ("published", None, None, None),
            Stage::Active { since } => ("active", Some(since), None, None),
            Stage::Retired { active, since, remove } => {
                let state = if key.is_removed(now) { "removed" } else { "retired" };
                (state, Some(active), Some(since), Some(remove))
            }
        };
        Self {
            tag: key.tag,
            algorithm: key.algorithm.number(),
            file: key.file.clone(),
            state,
            published: key.published,
            ready: key.ready,
            active,
            retired,
            remove,
        }
    }

    /// Since when the key has its state.
    fn since(&self) -> Timestamp {
        let removed = self.remove.filter(|_| self.state == "removed");
        removed.or(self.retired).or(self.active).unwrap_or(self.published)
    }
}

impl Zone {
    /// The keys of a zone as a table.
    fn text(&self) -> String {
        let head = ["TAG", "ALGORITHM", "STATE", "SINCE", "FILE"].map(str::to_owned);
        let row = |key: &Key| {
            [
                key.tag.to_string(),
                key.algorithm.to_string(),
                key.state.to_owned(),
                key.since().to_string(),
                key.file.clone(),
            ]
        };
        let rows: Vec<[String; 5]> = [head].into_iter().chain(self.keys.iter().map(row)).collect();
        let mut widths = [0; 5];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.len().max(*width);
            }
        }
        let mut text = format!("{}  {}\n", self.zone, self.directory);
        for row in &rows {
            let cells: Vec<String> = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
            text += &format!("  {}\n", cells.join("  ").trim_end());
        }
        text + &format!("  next: {}\n  sha256: {}\n", self.next, self.keys_sha256)
    }
}
