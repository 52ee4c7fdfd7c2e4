//! The properties of canaries, over simulated models: noise alone isn't reported as skew (another release), a changed
//! model is.

use core::cell::Cell;

use super::{EndpointReading, Reading, health};
use crate::health::{Aspect, AspectValue};
use crate::release::distance;
use crate::rules::{Canary, Position, Token};
use crate::table::{RegionIndex, ReleaseIndex, Table};
use crate::testing::Random;

/// How many tokens a simulated model knows.
const VOCABULARY: usize = 50;

/// A normally distributed number.
#[allow(clippy::cast_precision_loss)] // a part of 2^53
fn normal(random: &mut Random) -> f64 {
    let mut uniform = || ((random.bits() >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    let (radius, angle) = (uniform(), uniform());
    (-2.0 * radius.ln()).sqrt() * (core::f64::consts::TAU * angle).cos()
}

/// A simulated model. Its scores (logits) of the next token are derived from `weights`, and moved by `change`.
#[derive(Clone, Copy)]
struct Model {
    weights: u64,
    /// The seed of a change, such as a quantisation, and by how much the change moves each score.
    change: (u64, f64),
}

impl Model {
    /// The answers to all prompts. `noise` says by how much batches and the kind of GPU move each score.
    fn canary(self, noise: f64, random: &mut Random) -> Canary {
        let prompts = (0..Canary::PROMPTS as u64).map(|prompt| {
            let mut text = prompt;
            (0..Canary::POSITIONS).map(|_| self.position(&mut text, noise, random)).collect()
        });
        Canary { prompts: prompts.collect() }
    }

    /// The next position after `text`. Its likeliest token is then added to `text`.
    fn position(self, text: &mut u64, noise: f64, random: &mut Random) -> Position {
        let mut by_weights = Random::new(self.weights ^ text.wrapping_mul(0x9e37_79b9));
        let mut by_change = Random::new(self.change.0 ^ text.wrapping_mul(0x85eb_ca6b));
        let mut scores: Vec<(usize, f64)> = (0..VOCABULARY)
            .map(|token| {
                let moved = self.change.1 * normal(&mut by_change) + noise * normal(random);
                (token, 2.5 * normal(&mut by_weights) + moved)
            })
            .collect();
        let sum = scores.iter().map(|(_, score)| score.exp()).sum::<f64>().ln();
        scores.sort_by(|a, b| b.1.total_cmp(&a.1));
        *text = text.wrapping_mul(31).wrapping_add(1 + scores[0].0 as u64);
        let token = |(token, score): &(usize, f64)| Token::new(token.to_string().as_bytes(), score - sum);
        Position(scores.iter().take(Canary::TOKENS).filter_map(token).collect())
    }
}

/// How many of `cases` pairs are further apart than `tolerance`. A pair is a model and the same model with a change,
/// both read under noise. A pair that can't be compared doesn't count.
fn detected(cases: u64, change: f64, noise: f64, tolerance: f64) -> u64 {
    let is_found = |case: &u64| {
        let mut random = Random::new(*case);
        let model = Model { weights: random.bits(), change: (0, 0.0) };
        let changed = Model { change: (random.bits(), change), ..model };
        let (one, other) = (model.canary(noise, &mut random), changed.canary(noise, &mut random));
        distance(&one, &other).is_some_and(|apart| apart > tolerance)
    };
    (0..cases).filter(is_found).count() as u64
}

#[test]
fn noise_is_no_skew_and_a_changed_model_is() {
    const CASES: u64 = 300;
    let tolerance = 0.1;
    println!("{CASES} pairs each, at a tolerance of {tolerance} nats");
    for (change, noise) in [
        (0.0, 0.0),
        (0.0, 0.01),
        (0.0, 0.03),
        (0.0, 0.05),
        (0.05, 0.03),
        (0.1, 0.03),
        (0.2, 0.03),
        (0.3, 0.03),
        (0.5, 0.03),
    ] {
        let count = detected(CASES, change, noise, tolerance);
        println!("change {change}, noise {noise}: {count} found");
        match (change, noise) {
            (0.0, _) => assert_eq!(count, 0, "noise {noise} is reported as skew"),
            (change, _) if change >= 0.3 => assert!(count >= CASES * 99 / 100, "of change {change} {count} found"),
            _ => {}
        }
    }
    println!("at 0.06: change 0.1 {}, none {}", detected(CASES, 0.1, 0.03, 0.06), detected(CASES, 0.0, 0.03, 0.06));
    let apart = |case: u64| {
        let mut random = Random::new(case);
        let (one, other) = (random.bits(), random.bits());
        let canary = |weights, random: &mut Random| Model { weights, change: (0, 0.0) }.canary(0.03, random);
        distance(&canary(one, &mut random), &canary(other, &mut random)).is_some_and(|apart| apart > tolerance)
    };
    assert!((0..CASES).all(apart), "other weights are always found");
}

fn table() -> Table {
    let region = |name: &str| {
        format!(
            r#""{name}": {{ "countries": ["DE"], "endpoints": {{ "e": {{ "url": "https://{name}.example/v1" }} }} }}"#
        )
    };
    let regions = (0..5).map(|n| region(&format!("r{n}"))).collect::<Vec<_>>().join(", ");
    let json =
        format!(r#"{{ "version": 1, "revision": 1, "releases": {{ "chat": {{}} }}, "regions": {{ {regions} }} }}"#);
    Table::compile(json.as_bytes()).unwrap_or_else(|errors| panic!("{errors:?}"))
}

#[test]
fn the_same_model_has_one_number_in_all_regions_and_the_order_of_regions_does_not_matter() {
    const CASES: u64 = 60;
    let (table, compared) = (table(), Cell::new(0));
    for case in 0..CASES {
        let mut random = Random::new(case);
        let models = [(); 2].map(|()| Model { weights: random.bits(), change: (0, 0.0) });
        let which: Vec<usize> = (0..5).map(|_| random.below(2)).collect();
        let canaries: Vec<Canary> = which.iter().map(|one| models[*one].canary(0.03, &mut random)).collect();
        let values = |order: &[usize]| {
            let readings: Vec<EndpointReading> = order
                .iter()
                .zip(0..)
                .map(|(at, region)| EndpointReading {
                    region: RegionIndex(region),
                    endpoint: 0,
                    release: ReleaseIndex(0),
                    reading: Reading { canary: Some(canaries[*at].clone()), ..Reading::default() },
                })
                .collect();
            let values = health(&table, &readings).concat().into_iter().map(|health| health.value(Aspect::Canary));
            values.collect::<Vec<AspectValue>>()
        };
        let (forward, backward) = (values(&[0, 1, 2, 3, 4]), values(&[4, 3, 2, 1, 0]));
        for a in 0..5 {
            for b in 0..5 {
                compared.set(compared.get() + 1);
                assert_eq!(forward[a] == forward[b], which[a] == which[b], "case {case}: {which:?} {forward:?}");
                assert_eq!(forward[a] == forward[b], backward[4 - a] == backward[4 - b], "case {case}");
            }
        }
    }
    println!("{} pairs of regions compared", compared.get());
}

#[test]
fn random_bytes_are_read_or_not_and_never_break_the_reader() {
    use proptest::prelude::*;
    let cases = Cell::new(0_u64);
    let json = prop::collection::vec(
        prop::sample::select(vec![
            "{",
            "}",
            "[",
            "]",
            ",",
            ":",
            "\"choices\"",
            "\"logprobs\"",
            "\"content\"",
            "\"top_logprobs\"",
            "\"token\"",
            "\"logprob\"",
            "\"bytes\"",
            "\"data\"",
            "\"id\"",
            "\"root\"",
            "\"max_model_len\"",
            "\"m\"",
            "-1",
            "-1e999",
            "1e308",
            "null",
            "NaN",
            "256",
            "true",
            "\"\\u0000\"",
        ]),
        0..60,
    );
    let config = ProptestConfig::with_cases(2_000);
    proptest!(config, |(pieces in json, bytes in prop::collection::vec(any::<u8>(), 0..200))| {
        cases.set(cases.get() + 1);
        let text = pieces.concat();
        for bytes in [text.as_bytes(), &bytes] {
            let _ = super::models(bytes, "m");
            let mut round = super::Round::default();
            for report in super::completion(bytes).into_iter().cycle().take(Canary::PROMPTS) {
                round.tell(report);
            }
            let reading = round.reading();
            prop_assert!(reading.is_like(&reading.clone(), 0.1));
        }
    });
    println!("{} answers", cases.get());
}
