//! Which differences between the arms of a rollout were still possible at one look. A look is one evaluation of what
//! was counted so far. The arms are the sessions with the old and with the new thing. For each check this is a range, a
//! confidence interval. Takes the ranges by check, returns them by the measures' names, because the rules may get other
//! checks later. Called by [`super::record`], which keeps them, and by the report of `bailiwick rollout`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::check::Check;

/// A range of differences or ratios that are still possible.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Range {
    /// The least.
    pub low: f64,
    /// The greatest; absent if there is no bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub high: Option<f64>,
}

/// The range of each check; `None` for a check that can't be measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Possible {
    /// By the measure's name in the rules.
    ByMeasure(BTreeMap<String, Option<Range>>),
    /// In the order that the checks of the rules had then, as earlier versions of this program wrote it.
    InOrder(Vec<Option<Range>>),
}

impl Possible {
    /// The ranges of these checks.
    pub(super) fn of(checks: &[Check], range: impl Fn(Check) -> Option<Range>) -> Self {
        Self::ByMeasure(checks.iter().map(|check| (check.measure.as_str().to_owned(), range(*check))).collect())
    }

    /// The ranges by the measure's name. `checks` are the checks of the present rules. They are needed only for a look
    /// without names, whose ranges are matched with the checks by position. If the numbers differ, nobody knows which
    /// range belongs to which check, so none is returned. If a check was replaced by another one and the number is the
    /// same, that can't be noticed: the range then stands under the wrong name.
    #[must_use]
    pub fn by_measure(&self, checks: &[Check]) -> BTreeMap<&str, Option<Range>> {
        match self {
            Self::ByMeasure(ranges) => ranges.iter().map(|(name, range)| (name.as_str(), *range)).collect(),
            Self::InOrder(ranges) if ranges.len() == checks.len() => {
                checks.iter().map(|check| check.measure.as_str()).zip(ranges.iter().copied()).collect()
            }
            Self::InOrder(_) => BTreeMap::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::rollout::{Margin, Measure};

    fn check(measure: Measure) -> Check {
        Check { measure, margin: Margin::Difference(0.01), is_critical: false, is_by_length: true }
    }

    fn range(low: f64) -> Option<Range> {
        Some(Range { low, high: None })
    }

    #[test]
    fn a_range_keeps_its_measure_when_a_check_is_added_before_it() {
        let (length, errors) = (check(Measure::Length), check(Measure::Errors));
        let kept = Possible::of(&[length], |_| range(0.25));
        let kept: Possible = serde_json::from_value(json!(kept)).unwrap();
        for now in [&[length][..], &[errors, length], &[errors], &[]] {
            assert_eq!(kept.by_measure(now), [("finish_length", range(0.25))].into());
        }
    }

    #[test]
    fn a_list_of_an_earlier_version_is_read_while_the_checks_are_as_many() {
        let kept: Possible = serde_json::from_value(json!([null, { "low": 0.5, "high": 1.0 }])).unwrap();
        let (length, errors, refusals) = (check(Measure::Length), check(Measure::Errors), check(Measure::Refusals));
        let of_length = Some(Range { low: 0.5, high: Some(1.0) });
        let named = [("error_rate", None), ("finish_length", of_length)].into();
        assert_eq!(kept.by_measure(&[errors, length]), named);
        assert!(kept.by_measure(&[errors, length, refusals]).is_empty());
    }
}
