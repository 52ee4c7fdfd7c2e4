//! How far two canaries are apart. A canary is a record of the likeliest tokens of a model's answers to fixed prompts.
//! Takes two records, returns the mean difference of their log probabilities. Called where readings are compared.
//!
//! Two positions can be compared only if both models have written the same text before them: the first position of each
//! answer, and each further position as long as both models chose the same tokens. The difference of a token is
//! weighted by how likely the token is, so that the noise of unlikely tokens doesn't hide the rest.

use crate::rules::{Canary, Position, Token};

/// How many positions have to be comparable, over all prompts together.
const LEAST_POSITIONS: u32 = 3;

/// The mean difference, in nats; `None` if too little can be compared.
///
/// ```
/// use bailiwick_rules::release::distance;
/// use bailiwick_rules::rules::{Canary, Position, Token};
/// let canary = |logprob: f64| {
///     let prompt = vec![Position(vec![Token::new(b"blue", logprob).unwrap()])];
///     Canary { prompts: vec![prompt; 4] }
/// };
/// assert_eq!(distance(&canary(-0.5), &canary(-0.5)), Some(0.0));
/// assert!((distance(&canary(-0.5), &canary(-0.75)).unwrap() - 0.25).abs() < 1e-9);
/// assert_eq!(distance(&canary(-0.5), &Canary::default()), None);
/// ```
#[must_use]
pub fn distance(a: &Canary, b: &Canary) -> Option<f64> {
    let (mut sum, mut count) = (0.0, 0_u32);
    for (a, b) in a.prompts.iter().zip(&b.prompts) {
        for (a, b) in a.iter().zip(b) {
            let Some(apart) = apart(a, b) else { break };
            (sum, count) = (sum + apart, count + 1);
            let chosen = |position: &Position| position.0.first().map(|token| token.hash);
            if chosen(a) != chosen(b) {
                break;
            }
        }
    }
    (count >= LEAST_POSITIONS).then(|| sum / f64::from(count))
}

/// The weighted difference at one position, in nats; `None` if either side lists no token.
fn apart(a: &Position, b: &Position) -> Option<f64> {
    let (floor_a, floor_b) = (floor(a)?, floor(b)?);
    let logprob_in = |position: &Position, hash: u16| {
        position.0.iter().find(|token| token.hash == hash).map(|token| token.logprob())
    };
    let (mut sum, mut weights) = (0.0, 0.0);
    let mut add = |weight: f64, difference: f64| (sum, weights) = (sum + weight * difference, weights + weight);
    for token in &a.0 {
        let here = token.logprob();
        // `b` doesn't list this token. So the token is at most as likely as the least likely one that `b` lists.
        let there = logprob_in(b, token.hash).unwrap_or(here.min(floor_b));
        add(f64::midpoint(libm::exp(here), libm::exp(there)), (here - there).abs());
    }
    for token in b.0.iter().filter(|token| logprob_in(a, token.hash).is_none()) {
        let (there, here) = (token.logprob(), token.logprob().min(floor_a));
        add(f64::midpoint(libm::exp(here), libm::exp(there)), (here - there).abs());
    }
    // If all tokens are very unlikely, their weights round to zero.
    (weights > 0.0).then(|| sum / weights)
}

/// The log probability of the least likely token that is listed.
fn floor(position: &Position) -> Option<f64> {
    position.0.iter().map(|token: &Token| token.cost).max().map(|cost| -f64::from(cost) / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn position(tokens: &[(&str, f64)]) -> Position {
        Position(tokens.iter().map(|(text, logprob)| Token::new(text.as_bytes(), *logprob).unwrap()).collect())
    }

    fn all(prompt: &[Position]) -> Canary {
        Canary { prompts: vec![prompt.to_vec(); 4] }
    }

    #[test]
    fn nothing_is_compared_behind_the_first_token_that_differs() {
        let (same, other) = (position(&[("a", -0.7), ("b", -0.7)]), position(&[("b", -0.7), ("a", -0.7)]));
        let (this, that) = (position(&[("x", -0.1)]), position(&[("y", -3.0)]));
        assert_eq!(distance(&all(&[same.clone(), this.clone()]), &all(&[other, that.clone()])), Some(0.0));
        let further = distance(&all(&[same.clone(), this]), &all(&[same, that])).unwrap();
        assert!(further > 0.5, "{further}");
    }

    #[test]
    fn a_token_that_fell_out_of_the_list_counts_by_what_is_known() {
        let five = |fifth: &'static str| position(&[("a", -0.5), ("b", -2.0), ("c", -3.0), ("d", -4.0), (fifth, -5.0)]);
        assert_eq!(
            distance(&all(&[five("e")]), &all(&[five("f")])),
            Some(0.0),
            "each fifth token may be as likely on the other side"
        );
        let far = position(&[("x", -0.5), ("y", -2.0)]);
        assert!(distance(&all(&[five("e")]), &all(&[far])).unwrap() > 2.0);
    }

    #[test]
    fn too_little_to_compare_is_no_distance() {
        let one = position(&[("a", -0.5)]);
        let canary = Canary { prompts: vec![vec![one.clone()], vec![one.clone()], vec![], vec![]] };
        assert_eq!(distance(&canary, &canary), None);
        assert_eq!(distance(&all(&[position(&[])]), &all(&[one])), None);
        let certain = Canary { prompts: vec![vec![position(&[("a", 0.0)])]; 4] };
        assert_eq!(distance(&certain, &certain), Some(0.0));
    }
}
