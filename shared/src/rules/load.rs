//! The fields of the rules that say how full a region may get, and how its clients may be moved. Read by
//! [`super::read`]; used by `load`, which plans with them. A fence is the list of the regions that may process a
//! client's data.

use core::fmt;

use schemars::JsonSchema;

use crate::time::Millis;

/// A ratio in millionths, such as a load of 0.7 or a share of 5 %. A whole number, so that native code and Wasm agree
/// to the bit.
///
/// ```
/// use bailiwick_rules::rules::Ratio;
/// assert_eq!(Ratio::parse_percent("5%"), Some(Ratio(50_000)));
/// assert_eq!(Ratio(345_678).to_string(), "34.6 %");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Ratio(pub u32);

impl Ratio {
    /// The whole.
    pub const ONE: Self = Self(1_000_000);

    /// Reads a number of the rules from 0 to 1.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked
    pub fn from_number(number: f64) -> Option<Self> {
        (0.0..=1.0).contains(&number).then(|| Self(libm::round(number * 1e6) as u32))
    }

    /// Reads a load, which may lie above 1: up to 100.
    #[must_use]
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // the range was checked
    pub fn from_load(number: f64) -> Option<Self> {
        (0.0..=100.0).contains(&number).then(|| Self(libm::round(number * 1e6) as u32))
    }

    /// Reads whole per cent from 1 to 100, such as `5%`.
    #[must_use]
    pub fn parse_percent(text: &str) -> Option<Self> {
        let number: u32 = text.strip_suffix('%')?.parse().ok()?;
        (1..=100).contains(&number).then_some(Self(number * 10_000))
    }

    /// This part of an amount, rounded down.
    #[must_use]
    pub fn of(self, amount: u64) -> u64 {
        let part = u128::from(amount) * u128::from(self.0) / u128::from(Self::ONE.0);
        u64::try_from(part).unwrap_or(u64::MAX)
    }

    /// What part of `whole` the amount is, rounded down; the largest ratio for a whole of nothing.
    #[must_use]
    pub fn between(amount: u64, whole: u64) -> Self {
        let ratio = (u128::from(amount) * u128::from(Self::ONE.0)).checked_div(u128::from(whole));
        Self(ratio.and_then(|ratio| u32::try_from(ratio).ok()).unwrap_or(if amount == 0 { 0 } else { u32::MAX }))
    }
}

/// In per cent, to the nearest tenth.
impl fmt::Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = (u64::from(self.0) + 500) / 1_000;
        match tenths % 10 {
            0 => f.pad(&format!("{} %", tenths / 10)),
            rest => f.pad(&format!("{}.{rest} %", tenths / 10)),
        }
    }
}

/// How full a region may get before its clients are moved, and how many it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug, JsonSchema)]
#[schemars(deny_unknown_fields, default)]
pub struct RegionLoad {
    /// Below this load, from 0 to 1, a region gives no clients away. It takes the clients of others up to here.
    #[schemars(with = "f64", range(min = 0, max = 1))]
    pub low: Ratio,
    /// The load, from 0 to 1, above which it doesn't get while others of the fence have room.
    #[schemars(with = "f64", range(min = 0, max = 1))]
    pub high: Ratio,
    /// How many requests it serves at once, for a region whose endpoints don't say it: by default the sum of their
    /// `capacity`.
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub capacity: Option<u32>,
    /// How many requests at once its own clients send at their peak: those to whom it is the nearest.
    #[schemars(range(min = 0, max = 1_000_000_000))]
    pub demand: Option<u32>,
    /// How long a region that comes back takes to get all of its clients again.
    pub warmup: Millis,
}

impl Default for RegionLoad {
    fn default() -> Self {
        Self { low: Ratio(700_000), high: Ratio(900_000), capacity: None, demand: None, warmup: Millis(60_000) }
    }
}

/// Whether clients of a service may be moved to another region of their fence because of load.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Shed {
    /// They may.
    #[default]
    Spill,
    /// They stay where distance and health put them.
    Never,
}

/// Which half moves clients because of load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum ShedAt {
    /// The edge, within seconds. DNS keeps to distance and health.
    Edge,
    /// DNS, as TTLs run out, by networks: a /24 or a /48 moves as a whole.
    Dns,
}

/// By what the regions of one residency tier are ordered, for clients that the edge steers. DNS orders by distance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "kebab-case")]
pub enum Order {
    /// By distance to the client.
    #[default]
    Distance,
    /// By the expected time to the first token: 1 ms for each 100 km, and the median that Workers observed in the
    /// region in the last minutes. A region comes before a nearer one if that is a fifth shorter at least. One of which
    /// nothing is known keeps its place by distance. With `active-active` and `hub-and-spoke` only.
    FirstToken,
}

/// How fast shares of clients may change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slew {
    /// The part of a region's clients.
    pub share: Ratio,
    /// The time in which that part may be moved.
    pub per: Millis,
}

impl Default for Slew {
    fn default() -> Self {
        Self { share: Ratio(50_000), per: Millis(10_000) }
    }
}

impl Slew {
    /// Reads a share and a time, such as `5%/10s`: 1 to 100 per cent in 1 s to 1 h.
    ///
    /// ```
    /// use bailiwick_rules::rules::Slew;
    /// assert_eq!(Slew::parse("5%/10s"), Some(Slew::default()));
    /// assert_eq!(Slew::parse("5%"), None);
    /// ```
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (share, per) = text.split_once('/')?;
        let per = Millis::parse(per).filter(|per| (1_000..=3_600_000).contains(&per.0))?;
        Some(Self { share: Ratio::parse_percent(share)?, per })
    }

    /// The largest change of a share in a span, rounded up so that short spans add up to some change.
    #[must_use]
    pub fn step(self, span: Millis) -> Ratio {
        let step = (u128::from(self.share.0) * u128::from(span.0)).div_ceil(u128::from(self.per.0.max(1)));
        Ratio(u32::try_from(step).unwrap_or(u32::MAX).min(Ratio::ONE.0))
    }
}

impl fmt::Display for Slew {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}%/{}", self.share.0 / 10_000, self.per)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratios_are_exact_and_never_overflow() {
        assert_eq!(Ratio::from_number(0.7), Some(Ratio(700_000)));
        for bad in [-0.1, 1.000_001, f64::NAN, f64::INFINITY] {
            assert_eq!(Ratio::from_number(bad), None, "{bad}");
        }
        assert_eq!(Ratio(u32::MAX).of(u64::MAX), u64::MAX);
        assert_eq!(Ratio(333_333).of(3_000_000), 999_999);
        assert_eq!((Ratio::between(0, 0), Ratio::between(1, 0)), (Ratio(0), Ratio(u32::MAX)));
        assert_eq!(Ratio::between(7, 10), Ratio(700_000));
        assert_eq!((Ratio(1_400_000).to_string(), Ratio(999).to_string()), ("140 %".to_owned(), "0.1 %".to_owned()));
    }

    #[test]
    fn a_slew_is_a_share_in_a_time() {
        for good in ["1%/1s", "5%/10s", "100%/1h"] {
            assert_eq!(Slew::parse(good).unwrap().to_string(), good);
        }
        for bad in ["", "5", "5%", "5/10s", "0%/10s", "101%/10s", "5%/10", "5%/0s", "5%/2h", "5.5%/10s", "-5%/10s"] {
            assert_eq!(Slew::parse(bad), None, "{bad}");
        }
        let slew = Slew::default();
        assert_eq!(slew.step(Millis(10_000)), Ratio(50_000));
        assert_eq!(slew.step(Millis(1)), Ratio(5));
        assert_eq!((slew.step(Millis(0)), slew.step(Millis(u64::MAX))), (Ratio(0), Ratio::ONE));
        assert_eq!(
            Slew::parse("1%/1h").unwrap().step(Millis(1)),
            Ratio(1),
            "the step is never zero, because the share would never change"
        );
    }
}
