//! Makes numbers of what endpoints run, so that steering can compare them quickly: endpoints that run the same have the
//! same numbers. A release is the model, engine and settings that should run under a model's name; an aspect is one
//! property of it, such as the engine's version. Takes the readings (answers) of all endpoints, returns a
//! [`ReleaseHealth`] for each. Called by the owner of health in the DNS node, and where the reports of several nodes
//! are combined.

use super::distance::distance;
use super::reading::{Reading, engine};
use crate::health::{AspectValue, ReleaseHealth};
use crate::rules::{Canary, Release};
use crate::table::{RegionIndex, ReleaseIndex, Table};

/// A reading of one endpoint: what the endpoint said of the release of one model.
#[derive(Clone, PartialEq, Debug)]
pub struct EndpointReading {
    /// The region.
    pub region: RegionIndex,
    /// The endpoint's position there.
    pub endpoint: usize,
    /// The release.
    pub release: ReleaseIndex,
    /// What the endpoint said.
    pub reading: Reading,
}

/// Compares all readings. The outer list has one entry for each region of the table; an entry is empty if there is no
/// reading of its region. Within a region the order is by release, then that of `readings`.
#[must_use]
pub fn health(table: &Table, readings: &[EndpointReading]) -> Vec<Vec<ReleaseHealth>> {
    let mut by_region = vec![Vec::new(); table.regions().len()];
    for (index, release) in table.releases().iter().enumerate() {
        let of_release: Vec<&EndpointReading> = readings.iter().filter(|entry| entry.release.get() == index).collect();
        let canaries = canary_numbers(&of_release, release.rule.tolerance);
        for (entry, canary) in of_release.iter().zip(canaries) {
            let Some(region) = by_region.get_mut(entry.region.get()) else { continue };
            let call = table.call_of(entry.region, entry.endpoint, entry.release);
            let values = aspect_values(&release.rule, &of_release, &entry.reading, call, canary);
            region.push(ReleaseHealth { release: index, endpoint: entry.endpoint, values });
        }
    }
    by_region
}

/// The value of each aspect at one endpoint, in the order of [`crate::health::Aspect::ALL`]. `call` is the name by
/// which this endpoint is asked for the model. An endpoint that answers with the same name says nothing by it, as each
/// endpoint may have another name.
fn aspect_values(
    rule: &Release,
    all: &[&EndpointReading],
    reading: &Reading,
    call: Option<&str>,
    canary: Option<u32>,
) -> [AspectValue; 5] {
    let model = |reading: &Reading| reading.model.as_deref().map(str::to_owned);
    let answered = model(reading);
    let is_echo = answered.as_deref() == call;
    let root = |reading: &Reading| reading.root.as_deref().map(str::to_owned);
    let fingerprint = |reading: &Reading| engine(reading.fingerprint.as_deref()).map(str::to_owned);
    let pinned = |is_it: Option<bool>| match is_it {
        Some(true) => AspectValue::MatchesPin,
        Some(false) => AspectValue::DiffersFromPin,
        None => AspectValue::Unknown,
    };
    let text = |pin: &Option<crate::rules::Glob>, text: Option<&str>, version: AspectValue| match pin {
        Some(glob) => pinned(text.map(|text| glob.matches(text))),
        None => version,
    };
    let model_version = if is_echo { AspectValue::Unknown } else { number(all, reading, model) };
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
            None => canary.map_or(AspectValue::Unknown, AspectValue::Version),
        },
    ]
}

/// Whether a canary is near enough to the pinned one; `None` if the two can't be compared.
fn is_near(pin: &Canary, canary: Option<&Canary>, tolerance: f64) -> Option<bool> {
    distance(pin, canary?).map(|apart| apart <= tolerance)
}

/// The version number of a value: its position among all different values, sorted. Equal values get equal numbers.
#[allow(clippy::cast_possible_truncation)] // no more than there are endpoints
fn number<T: Ord>(all: &[&EndpointReading], reading: &Reading, of: impl Fn(&Reading) -> Option<T>) -> AspectValue {
    let Some(value) = of(reading) else { return AspectValue::Unknown };
    let mut values: Vec<T> = all.iter().filter_map(|entry| of(&entry.reading)).collect();
    values.sort_unstable();
    values.dedup();
    values.binary_search(&value).map_or(AspectValue::Unknown, |at| AspectValue::Version(at as u32))
}

/// The version number of each canary. A canary gets the number of the first canary that it is near to, so that not
/// every pair has to be compared. `None` for a canary that can't be compared with any other.
fn canary_numbers(all: &[&EndpointReading], tolerance: f64) -> Vec<Option<u32>> {
    // For each number: its first canary, and whether that canary could be compared with any other.
    let mut firsts: Vec<(&Canary, bool)> = Vec::new();
    let mut numbers: Vec<Option<(usize, bool)>> = Vec::with_capacity(all.len());
    for entry in all {
        let Some(canary) = &entry.reading.canary else {
            numbers.push(None);
            continue;
        };
        let (mut equal, mut is_compared) = (None, false);
        for (number, (first, is_first_compared)) in firsts.iter_mut().enumerate() {
            let Some(apart) = distance(first, canary) else { continue };
            (*is_first_compared, is_compared) = (true, true);
            if apart <= tolerance {
                equal = Some(number);
                break;
            }
        }
        let number = equal.unwrap_or_else(|| {
            firsts.push((canary, is_compared));
            firsts.len() - 1
        });
        numbers.push(Some((number, is_compared)));
    }
    let number = |entry: Option<(usize, bool)>| {
        let (number, is_compared) = entry?;
        let is_known = is_compared || firsts.get(number).is_some_and(|(_, is_compared)| *is_compared);
        u32::try_from(number).ok().filter(|_| is_known)
    };
    numbers.into_iter().map(number).collect()
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

    fn all(release: &str, readings: [Reading; 3]) -> Vec<[AspectValue; 5]> {
        let places = [(0, 0), (0, 1), (1, 0)];
        let known: Vec<EndpointReading> = places
            .into_iter()
            .zip(readings)
            .map(|((region, endpoint), reading)| EndpointReading {
                region: RegionIndex(region),
                endpoint,
                release: ReleaseIndex(0),
                reading,
            })
            .collect();
        health(&table(release), &known).concat().into_iter().map(|health| health.values).collect()
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
        let (v0, v1) = (AspectValue::Version(0), AspectValue::Version(1));
        assert_eq!(
            all("{}", readings.clone()),
            [
                [AspectValue::Unknown, v0, v0, v1, AspectValue::Unknown],
                [v1, v0, v1, v1, AspectValue::Unknown],
                [AspectValue::Unknown, v1, v0, v0, AspectValue::Unknown]
            ],
            "an endpoint that repeats the name it was asked by says nothing"
        );
        let pins = r#"{ "model": "llama", "root": "x/*", "max_model_len": 8, "fingerprint": "vllm-0.11.*-1" }"#;
        let (yes, no) = (AspectValue::MatchesPin, AspectValue::DiffersFromPin);
        assert_eq!(
            all(pins, readings),
            [
                [yes, yes, yes, yes, AspectValue::Unknown],
                [no, yes, no, no, AspectValue::Unknown],
                [yes, no, yes, no, AspectValue::Unknown]
            ]
        );
        assert_eq!(
            all(pins, [Reading::default(), Reading::default(), Reading::default()]),
            [[AspectValue::Unknown; 5]; 3]
        );
    }

    #[test]
    fn every_aspect_has_its_place() {
        let values = [
            AspectValue::MatchesPin,
            AspectValue::DiffersFromPin,
            AspectValue::Version(1),
            AspectValue::Version(2),
            AspectValue::Unknown,
        ];
        let health = ReleaseHealth { release: 0, endpoint: 0, values };
        assert_eq!(Aspect::ALL.map(|aspect| health.value(aspect)), values);
    }
}
