//! Estimates how many tokens a request will take. Takes the bytes of its body, and how far earlier estimates were off;
//! returns a number of tokens. Called by the edge before it sends a request.

use std::collections::HashMap;

use crate::rules::Ratio;

/// How many bytes make one token, before anything is known about a model.
const BYTES_PER_TOKEN: u64 = 4;
/// The most pairs of model and tenant whose ratio is remembered; beyond it, all are forgotten. Where an endpoint takes
/// any model, clients can name any number of models.
const MAX: usize = 1_024;
/// With each observation, a ratio moves one eighth of the way to the observed ratio.
const INERTIA: i64 = 8;
/// The bounds of a ratio, in millionths: 0.001 for a picture in base64, of which few tokens are made; 4 for one token
/// per byte.
const LEAST: i64 = 1_000;
const MOST: i64 = 4_000_000;

/// The ratio of the real number of a prompt's tokens to a quarter of its bytes, by model and tenant.
#[derive(Clone, Debug, Default)]
pub struct Ratios {
    by: HashMap<(String, u32), Ratio>,
}

/// The estimated tokens of a body with this many bytes: a quarter of the bytes, times a ratio.
#[must_use]
pub fn estimated_tokens(bytes: u64, ratio: Ratio) -> u64 {
    ratio.of(bytes.div_ceil(BYTES_PER_TOKEN))
}

impl Ratios {
    /// The ratio of a model and tenant; 1 if none was observed yet. `tenant` is any number that tells tenants apart.
    #[must_use]
    pub fn of(&self, model: &str, tenant: u32) -> Ratio {
        // The name is copied, because a map with pairs as keys can't be asked with a borrowed string. A request names
        // one model only, so this costs little.
        self.by.get(&(model.to_owned(), tenant)).copied().unwrap_or(Ratio::ONE)
    }

    /// Learns from a body of this many bytes whose prompt had this many tokens.
    pub fn learn(&mut self, model: &str, tenant: u32, bytes: u64, tokens: u64) {
        if bytes == 0 || tokens == 0 {
            return;
        }
        let observed = i64::from(Ratio::between(tokens, bytes.div_ceil(BYTES_PER_TOKEN)).0).clamp(LEAST, MOST);
        let key = (model.to_owned(), tenant);
        if self.by.len() >= MAX && !self.by.contains_key(&key) {
            self.by.clear();
        }
        let ratio = self.by.entry(key).or_insert(Ratio(u32::try_from(observed).unwrap_or(Ratio::ONE.0)));
        let old = i64::from(ratio.0);
        // The step is rounded away from zero, so that the ratio reaches the observed one in the end.
        let step = observed - old;
        let step = step / INERTIA + step.signum() * i64::from(step % INERTIA != 0);
        ratio.0 = u32::try_from(old + step).unwrap_or(Ratio::ONE.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_estimate_follows_what_prompts_really_had() {
        let mut ratios = Ratios::default();
        assert_eq!(estimated_tokens(4_001, ratios.of("m", 1)), 1_001);
        ratios.learn("m", 1, 4_000, 2_000);
        assert_eq!(estimated_tokens(4_000, ratios.of("m", 1)), 2_000, "the first observation counts whole");
        for _ in 0..60 {
            ratios.learn("m", 1, 4_000, 500);
        }
        assert_eq!(estimated_tokens(4_000, ratios.of("m", 1)), 500);
        assert_eq!(
            (ratios.of("m", 2), ratios.of("n", 1)),
            (Ratio::ONE, Ratio::ONE),
            "other pairs have their own ratio"
        );
    }

    #[test]
    fn absurd_observations_are_bounded_and_so_is_memory() {
        let mut ratios = Ratios::default();
        for (bytes, tokens) in [(1, u64::MAX), (u64::MAX, 1), (0, 5), (5, 0), (u64::MAX, u64::MAX)] {
            ratios.learn("m", 1, bytes, tokens);
            assert!((LEAST..=MOST).contains(&i64::from(ratios.of("m", 1).0)));
        }
        for tenant in 0..5_000 {
            ratios.learn("m", tenant, 100, 10);
        }
        assert!(ratios.by.len() <= MAX);
        assert_eq!(estimated_tokens(u64::MAX, Ratio(u32::MAX)), u64::MAX);
    }
}
