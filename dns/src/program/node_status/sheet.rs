//! One table of what a node says: its heads and rows. Made by [`super`]; printed as text, or shown by `bailiwick top`.

use std::fmt::Write;

use bailiwick_rules::health::Status;
use bailiwick_rules::overview::columns;

/// A table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Sheet {
    /// What it tells of, in one word.
    pub(crate) name: &'static str,
    /// The head of each column.
    pub(crate) heads: Vec<String>,
    /// The rows.
    pub(crate) rows: Vec<Row>,
}

/// A row of a table.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The status that gives the row its colour, and is the word of one of its cells. Unknown: it has no colour.
    pub(crate) status: Status,
    /// A cell for each column.
    pub(crate) cells: Vec<String>,
}

impl Row {
    /// A row without a colour.
    pub(crate) fn plain<const N: usize>(cells: [String; N]) -> Self {
        Self { status: Status::Unknown, cells: cells.into() }
    }
}

impl Sheet {
    /// A table of these heads and rows.
    pub(crate) fn new<const N: usize>(
        name: &'static str,
        heads: [&str; N],
        rows: impl IntoIterator<Item = Row>,
    ) -> Self {
        Self { name, heads: heads.map(str::to_owned).into(), rows: rows.into_iter().collect() }
    }

    /// The table as text; lines end with `\n`. `paint` gives a status its colour.
    pub(crate) fn to_text(&self, text: &mut String, paint: &dyn Fn(Status, &str) -> String) {
        let lines: Vec<&[String]> =
            std::iter::once(&self.heads[..]).chain(self.rows.iter().map(|row| &row.cells[..])).collect();
        let mut table = String::new();
        columns(&lines, &mut table);
        // Painted once the columns are as wide as they are to be: colours have no width.
        for (line, row) in table.lines().zip(std::iter::once(None).chain(self.rows.iter().map(Some))) {
            let word = row.map(|row| (row.status, format!(" {} ", row.status)));
            let word = word.filter(|(status, _)| *status != Status::Unknown);
            let painted = word.map(|(status, word)| line.replacen(&word, &paint(status, &word), 1));
            let _ = writeln!(text, "{}", painted.as_deref().unwrap_or(line));
        }
    }
}
