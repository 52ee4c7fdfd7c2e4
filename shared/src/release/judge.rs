//! Gives numbers to what endpoints run, so that equal things have equal numbers. Takes the readings of all endpoints,
//! returns for each region what steering compares. Called by the owner of health in the DNS node, and where the reports
//! of several nodes are combined.

use super::distance::distance;
use super::reading::{Reading, engine};
use crate::health::{ReleaseHealth, Said};
use crate::rules::{Canary, Release};
use crate::table::{RegionIndex, ReleaseIndex, Table};

/// A reading of one endpoint: what the endpoint said of the release of one model.
#[derive(Clone, PartialEq, Debug)]
pub struct Known {
    /// The region.
    pub region: RegionIndex,
    /// The endpoint's position there.
    pub endpoint: usize,
    /// The release.
    pub release: ReleaseIndex,
    /// What the endpoint said.
    pub reading: Reading,
}

/// What is known of the releases of each region. The outer list has one entry for each region of the table; an entry is
/// empty if nothing is known of its region. Within a region the order is by release, then that of `known`.
#[must_use]
pub fn health(table: &Table, known: &[Known]) -> Vec<Vec<ReleaseHealth>> {
    let mut by_region = vec![Vec::new(); table.regions().len()];
    for (index, release) in table.releases().iter().enumerate() {
        let of_release: Vec<&Known> = known.iter().filter(|one| one.release.get() == index).collect();
        let canaries = parts(&of_release, release.rule.tolerance);
        for (one, canary) in of_release.iter().zip(canaries) {
            let Some(region) = by_region.get_mut(one.region.get()) else { continue };
            let call = table.call_of(one.region, one.endpoint, one.release);
            let said = said(&release.rule, &of_release, one, call, canary);
            region.push(ReleaseHealth { release: index, endpoint: one.endpoint, said });
        }
    }
    by_region
}

/// What an endpoint said of each aspect, in the order of [`crate::health::Aspect::ALL`]. `call` is the name by which
/// this endpoint is asked for the model. An endpoint that answers with the same name says nothing by it, as each
/// endpoint may have another name.
fn said(rule: &Release, all: &[&Known], one: &Known, call: Option<&str>, canary: Option<u32>) -> [Said; 5] {
    let reading = &one.reading;
    let model = |reading: &Reading| reading.model.as_deref().map(str::to_owned);
    let answered = model(reading);
    let is_echo = answered.as_deref() == call;
    let root = |reading: &Reading| reading.root.as_deref().map(str::to_owned);
    let fingerprint = |reading: &Reading| engine(reading.fingerprint.as_deref()).map(str::to_owned);
    let pinned = |is_it: Option<bool>| match is_it {
        Some(true) => Said::Pinned,
        Some(false) => Said::Other,
        None => Said::Unknown,
    };
    let text = |pin: &Option<crate::rules::Glob>, text: Option<&str>, version: Said| match pin {
        Some(glob) => pinned(text.map(|text| glob.matches(text))),
        None => version,
    };
    let model_version = if is_echo { Said::Unknown } else { number(all, reading, model) };
    [
        text(&rule.model, answered.as_deref(), model_version),
        text(&rule.root, reading.root.as_deref(), number(all, reading, root)),
        match rule.max_model_len {
            Some(pin) => pinned(reading.max_model_len.map(|length| length == pin)),
            None => number(all, reading, |reading| reading.max_model_len),
        },
        text(&rule.fingerprint, reading.fingerprint.as_deref(), number(all, reading, fingerprint)),
        match &rule.canary {
            Some(pin) => pinned(is_near(pin, reading.canary.as_ref(), rule.tolerance)),
            None => canary.map_or(Said::Unknown, Said::Version),
        },
    ]
}

/// Whether a canary is near enough to the pinned one; `None` if the two can't be compared.
fn is_near(pin: &Canary, canary: Option<&Canary>, tolerance: f64) -> Option<bool> {
    distance(pin, canary?).map(|apart| apart <= tolerance)
}

/// The version number of a value: its position among all different values, sorted. Equal values get equal numbers.
#[allow(clippy::cast_possible_truncation)] // no more than there are endpoints
fn number<T: Ord>(all: &[&Known], reading: &Reading, of: impl Fn(&Reading) -> Option<T>) -> Said {
    let Some(value) = of(reading) else { return Said::Unknown };
    let mut values: Vec<T> = all.iter().filter_map(|one| of(&one.reading)).collect();
    values.sort_unstable();
    values.dedup();
    values.binary_search(&value).map_or(Said::Unknown, |at| Said::Version(at as u32))
}

/// The version number of each canary. A canary gets the number of the first canary that it is near to, so that not
/// every pair has to be compared. `None` for a canary that can't be compared with any other.
fn parts(all: &[&Known], tolerance: f64) -> Vec<Option<u32>> {
    // For each number: its first canary, and whether that canary could be compared with any other.
    let mut firsts: Vec<(&Canary, bool)> = Vec::new();
    let mut parts: Vec<Option<(usize, bool)>> = Vec::with_capacity(all.len());
    for one in all {
        let Some(canary) = &one.reading.canary else {
            parts.push(None);
            continue;
        };
        let (mut found, mut is_compared) = (None, false);
        for (number, (first, is_first_compared)) in firsts.iter_mut().enumerate() {
            let Some(apart) = distance(first, canary) else { continue };
            (*is_first_compared, is_compared) = (true, true);
            if apart <= tolerance {
                found = Some(number);
                break;
            }
        }
        let number = found.unwrap_or_else(|| {
            firsts.push((canary, is_compared));
            firsts.len() - 1
        });
        parts.push(Some((number, is_compared)));
    }
    let number = |part: Option<(usize, bool)>| {
        let (number, is_compared) = part?;
        let is_known = is_compared || firsts.get(number).is_some_and(|(_, is_compared)| *is_compared);
        u32::try_from(number).ok().filter(|_| is_known)
    };
    parts.into_iter().map(number).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Aspect;

    fn table(release: &str) -> Table {
        let endpoint = |name: &str| {
            format!(r#""{name}": {{ "url": "https://{name}.example/v1", "models": {{ "chat": "llama" }} }}"#)
        };
        let json = format!(
            r#"{{ "version": 1, "revision": 1, "releases": {{ "chat": {release} }}, "regions": {{
                "a": {{ "countries": ["DE"], "endpoints": {{ {}, {} }} }},
                "b": {{ "countries": ["FR"], "endpoints": {{ {} }} }} }} }}"#,
            endpoint("a1"),
            endpoint("a2"),
            endpoint("b1")
        );
        Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
    }

    fn all(release: &str, readings: [Reading; 3]) -> Vec<[Said; 5]> {
        let places = [(0, 0), (0, 1), (1, 0)];
        let known: Vec<Known> = places
            .into_iter()
            .zip(readings)
            .map(|((region, endpoint), reading)| Known {
                region: RegionIndex(region),
                endpoint,
                release: ReleaseIndex(0),
                reading,
            })
            .collect();
        health(&table(release), &known).concat().into_iter().map(|one| one.said).collect()
    }

    #[test]
    fn what_is_pinned_is_compared_with_the_pin_and_the_rest_with_each_other() {
        let of = |model: &str, root: &str, length, fingerprint: &str| Reading {
            model: Some(model.into()),
            root: Some(root.into()),
            max_model_len: Some(length),
            fingerprint: Some(fingerprint.into()),
            canary: None,
        };
        let readings = [
            of("llama", "x/llama-fp8", 8, "vllm-0.11.0-H100-tp8-bf16-1"),
            of("llama-q4", "x/llama-fp8", 9, "vllm-0.11.0-A100-tp4-bf16-2"),
            of("llama", "y/llama", 8, "vllm-0.10.0-H100-tp8-bf16-1"),
        ];
        let (v0, v1) = (Said::Version(0), Said::Version(1));
        assert_eq!(
            all("{}", readings.clone()),
            [
                [Said::Unknown, v0, v0, v1, Said::Unknown],
                [v1, v0, v1, v1, Said::Unknown],
                [Said::Unknown, v1, v0, v0, Said::Unknown]
            ],
            "an endpoint that repeats the name it was asked by says nothing"
        );
        let pins = r#"{ "model": "llama", "root": "x/*", "max_model_len": 8, "fingerprint": "vllm-0.11.*-1" }"#;
        let (yes, no) = (Said::Pinned, Said::Other);
        assert_eq!(
            all(pins, readings),
            [[yes, yes, yes, yes, Said::Unknown], [no, yes, no, no, Said::Unknown], [yes, no, yes, no, Said::Unknown]]
        );
        assert_eq!(all(pins, [Reading::default(), Reading::default(), Reading::default()]), [[Said::Unknown; 5]; 3]);
    }

    #[test]
    fn every_aspect_has_its_place() {
        let said = [Said::Pinned, Said::Other, Said::Version(1), Said::Version(2), Said::Unknown];
        let health = ReleaseHealth { release: 0, endpoint: 0, said };
        assert_eq!(Aspect::ALL.map(|aspect| health.of(aspect)), said);
    }
}
