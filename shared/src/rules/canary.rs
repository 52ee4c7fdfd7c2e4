//! The record of a canary: the likeliest tokens with which a model begins its answers to fixed prompts. Reads and
//! writes it as one short text, for the rules and for reports. `release` makes records from answers and compares two of
//! them.

use core::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// The version of the prompts and of the text form. A record of another version can't be read, so it is never compared.
const VERSION: u8 = 1;
/// The longest text of a record, in bytes.
const LONGEST: usize = 1_024;

/// The likeliest tokens at each position of the answers to all prompts, in the prompts' order.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Canary {
    /// The positions of the answer to each prompt; empty for a prompt that wasn't answered.
    pub prompts: Vec<Vec<Position>>,
}

/// The likeliest tokens at one position of an answer. The first is the one that the model chose.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Default)]
pub struct Position(pub Vec<Token>);

/// A token and how likely it was.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Token {
    /// A hash of its text.
    pub hash: u16,
    /// Its negative log probability, in thousandths of a nat; at most [`Token::LEAST`].
    pub cost: u16,
}

impl Token {
    /// The greatest cost. It also stands for tokens of which is only known that they are very unlikely.
    pub const LEAST: u16 = 20_000;

    /// A token with a log probability in nats. A value outside of the possible range is moved to the nearest possible
    /// value. `None` if it is no number.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // within 0 and LEAST
    pub fn new(text: &[u8], logprob: f64) -> Option<Self> {
        if logprob.is_nan() {
            return None;
        }
        // FNV-1a, folded to 16 bits: two tokens of one list hardly ever have the same hash.
        let hash = text.iter().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193));
        let cost = libm::round((-logprob * 1_000.0).clamp(0.0, f64::from(Self::LEAST)));
        Some(Self { hash: (hash ^ (hash >> 16)) as u16, cost: cost as u16 })
    }

    /// The log probability, in nats.
    #[must_use]
    pub fn logprob(self) -> f64 {
        -f64::from(self.cost) / 1_000.0
    }
}

impl Canary {
    /// How many prompts a record has at most.
    pub const PROMPTS: usize = 4;
    /// How many positions of each answer it has at most.
    pub const POSITIONS: usize = 4;
    /// How many tokens of each position it has at most.
    pub const TOKENS: usize = 5;

    /// Reads the text of a record.
    ///
    /// ```
    /// use bailiwick_rules::rules::{Canary, Position, Token};
    /// let likeliest = Position(vec![Token::new(b" blue", -0.25).unwrap()]);
    /// let canary = Canary { prompts: vec![vec![likeliest], vec![]] };
    /// assert_eq!(Canary::parse(&canary.to_string()), Some(canary));
    /// assert!(Canary::parse("anything").is_none());
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let mut bytes = bytes.into_iter();
        let mut next = || bytes.next();
        let count = |byte: Option<u8>, most: usize| byte.map(usize::from).filter(|count| *count <= most);
        if next()? != VERSION {
            return None;
        }
        let mut prompts = Vec::new();
        for _ in 0..count(next(), Self::PROMPTS)? {
            let mut positions = Vec::new();
            for _ in 0..count(next(), Self::POSITIONS)? {
                let mut tokens = Vec::new();
                for _ in 0..count(next(), Self::TOKENS)? {
                    let hash = u16::from_be_bytes([next()?, next()?]);
                    let cost = u16::from_be_bytes([next()?, next()?]);
                    tokens.push(Token { hash, cost: Some(cost).filter(|cost| *cost <= Token::LEAST)? });
                }
                positions.push(Position(tokens));
            }
            prompts.push(positions);
        }
        next().is_none().then_some(Self { prompts })
    }
}

impl fmt::Display for Canary {
    /// The text of the record: base64url. What is beyond the greatest counts is left out.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        #[allow(clippy::cast_possible_truncation)] // all counts are small
        fn counted<T>(bytes: &mut Vec<u8>, items: &[T], most: usize) -> usize {
            let count = items.len().min(most);
            bytes.push(count as u8);
            count
        }
        let mut bytes = vec![VERSION];
        let prompts = counted(&mut bytes, &self.prompts, Self::PROMPTS);
        for prompt in self.prompts.iter().take(prompts) {
            let positions = counted(&mut bytes, prompt, Self::POSITIONS);
            for Position(tokens) in prompt.iter().take(positions) {
                let count = counted(&mut bytes, tokens, Self::TOKENS);
                for token in tokens.iter().take(count) {
                    bytes.extend(token.hash.to_be_bytes());
                    bytes.extend(token.cost.min(Token::LEAST).to_be_bytes());
                }
            }
        }
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_that_no_log_probability_is_are_moved_or_refused() {
        let cost = |logprob| Token::new(b"a", logprob).map(|token| token.cost);
        assert_eq!([cost(0.0), cost(1e-7), cost(-0.0005), cost(-1.5)], [Some(0), Some(0), Some(1), Some(1_500)]);
        assert_eq!(
            [cost(-9_999.0), cost(f64::NEG_INFINITY), cost(f64::INFINITY)],
            [Some(20_000), Some(20_000), Some(0)]
        );
        assert_eq!(cost(f64::NAN), None);
    }

    #[test]
    fn every_record_is_read_as_it_was_written_and_no_text_breaks_the_reader() {
        let cases = core::cell::Cell::new(0_u64);
        let token = (any::<u16>(), 0..=Token::LEAST).prop_map(|(hash, cost)| Token { hash, cost });
        let position = prop::collection::vec(token, 0..=Canary::TOKENS).prop_map(Position);
        let prompt = prop::collection::vec(position, 0..=Canary::POSITIONS);
        let prompts = prop::collection::vec(prompt, 0..=Canary::PROMPTS);
        let config = ProptestConfig::with_cases(2_000);
        let bytes = prop::collection::vec(any::<u8>(), 0..80);
        proptest!(config, |(prompts in prompts, bytes in bytes, cut in 0..400_usize)| {
            cases.set(cases.get() + 1);
            let canary = Canary { prompts };
            let text = canary.to_string();
            prop_assert!(text.len() <= LONGEST, "{}", text.len());
            prop_assert_eq!(Canary::parse(&text), Some(canary));
            if let Some(cut) = text.get(..cut).filter(|cut| cut.len() < text.len()) {
                prop_assert_eq!(Canary::parse(cut), None);
            }
            let _ = Canary::parse(&URL_SAFE_NO_PAD.encode(&bytes));
            let _ = Canary::parse(&String::from_utf8_lossy(&bytes));
        });
        println!("{} records", cases.get());
        let full = vec![vec![Position(vec![Token { hash: 1, cost: 2 }; 5]); 4]; 4];
        assert_eq!(Canary { prompts: full }.to_string().len(), 456);
    }
}
