//! Sums up the results of an eval by region. Takes the outcomes of a region, returns a [`Summary`]; takes all
//! summaries, returns a table for a terminal. Called by `bailiwick eval run`.

use bailiwick_rules::eval::Outcome;

/// The results of a region.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Summary {
    /// Its name.
    pub(super) region: String,
    /// Answers that were asked for.
    pub(super) asked: usize,
    /// The answers that are right.
    pub(super) right: usize,
    /// The answers that are wrong.
    pub(super) wrong: usize,
    /// The answers that have a score, right and wrong ones included.
    pub(super) scored: usize,
    /// Their mean score.
    pub(super) mean: Option<f64>,
    /// The median of the times, in milliseconds, and the 95th percentile.
    pub(super) times: Option<[u64; 2]>,
}

impl Summary {
    /// Sums up the outcomes of a region. `asked` is the number of answers that the run asks for.
    pub(super) fn of<'a>(region: &str, asked: usize, outcomes: impl Iterator<Item = &'a Outcome>) -> Self {
        let outcomes: Vec<&Outcome> = outcomes.collect();
        let scores: Vec<f64> = outcomes.iter().filter_map(|outcome| outcome.score).collect();
        let mut times: Vec<u64> =
            outcomes.iter().filter(|outcome| outcome.score.is_some()).map(|outcome| outcome.ms).collect();
        times.sort_unstable();
        let quantile = |percent: usize| times.get((times.len() * percent / 100).min(times.len().saturating_sub(1)));
        let count = |right: bool| outcomes.iter().filter(|outcome| outcome.right == Some(right)).count();
        Self {
            region: region.to_owned(),
            asked,
            right: count(true),
            wrong: count(false),
            scored: scores.len(),
            mean: (!scores.is_empty()).then(|| bailiwick_rules::eval::scores::mean(&scores)),
            times: quantile(50).zip(quantile(95)).map(|(median, late)| [*median, *late]),
        }
    }

    /// Answers that are missing.
    pub(super) fn unanswered(&self) -> usize {
        self.asked.saturating_sub(self.scored)
    }

    /// The columns.
    pub(super) fn cells(&self) -> [String; 8] {
        let number = |value: Option<u64>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
        [
            self.region.clone(),
            self.asked.to_string(),
            self.right.to_string(),
            self.wrong.to_string(),
            self.mean.map_or_else(|| "–".to_owned(), |mean| format!("{mean:.4}")),
            self.unanswered().to_string(),
            number(self.times.map(|[median, _]| median)),
            number(self.times.map(|[_, late]| late)),
        ]
    }
}

/// The names of the columns.
pub(super) const COLUMNS: [&str; 8] = ["region", "asked", "right", "wrong", "score", "no answer", "ms", "ms, p95"];

/// A table for a terminal.
pub(super) fn text(summaries: &[Summary]) -> String {
    let rows: Vec<[String; 8]> = summaries.iter().map(Summary::cells).collect();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain(COLUMNS.get(column).map(|name| name.len())).max().unwrap_or(0)
    };
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded = cells.enumerate().map(|(column, cell)| match column {
            0 => format!("{cell:<0$}", width(column)),
            _ => format!("{cell:>0$}", width(column)),
        });
        padded.collect::<Vec<_>>().join("  ") + "\n"
    };
    let head = line(&mut COLUMNS.into_iter());
    head + &rows.iter().map(|row| line(&mut row.iter().map(String::as_str))).collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_answer_is_neither_right_nor_wrong() {
        let outcome = |right: Option<bool>, score: Option<f64>, ms| Outcome { right, score, ms, ..Outcome::default() };
        let all = [
            outcome(Some(true), Some(1.0), 10),
            outcome(Some(false), Some(0.0), 30),
            outcome(None, Some(0.5), 20),
            outcome(None, None, 9_999),
        ];
        let found = Summary::of("eu-paris", 5, all.iter());
        assert_eq!((found.right, found.wrong, found.scored, found.unanswered()), (1, 1, 3, 2));
        assert_eq!((found.mean, found.times), (Some(0.5), Some([20, 30])));
        let table = text(&[found, Summary::of("x", 1, [].into_iter())]);
        let expected = "region    asked  right  wrong   score  no answer  ms  ms, p95\n\
                        eu-paris      5      1      1  0.5000          2  20       30\n\
                        x             1      0      0       –          1   –        –\n";
        assert_eq!(table, expected);
    }
}
