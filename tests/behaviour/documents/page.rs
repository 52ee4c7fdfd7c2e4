//! Reads the Markdown files of the project: prose, links, headings and fenced blocks.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use bailiwick_tests::geo::root;

/// Folders that hold files of others, or made ones.
const NOT_OURS: [&str; 4] = ["node_modules", "target", ".git", "build"];

/// A fenced block.
pub(super) struct Block {
    /// What is written behind the fence, such as `json`.
    pub(super) language: String,
    /// The line on which it begins.
    pub(super) line: usize,
    /// What stands between the fences.
    pub(super) text: String,
}

/// A Markdown file.
pub(super) struct Page {
    /// From the repository's root, such as `docs/rules.md`.
    pub(super) path: String,
    /// Lines outside of fenced blocks.
    prose: Vec<String>,
    /// Its fenced blocks.
    pub(super) blocks: Vec<Block>,
}

/// Every Markdown file of the project, by path.
pub(super) fn pages() -> Vec<Page> {
    let mut found = Vec::new();
    collect(&root(), &mut found);
    found.sort();
    found.iter().map(|path| Page::read(path)).collect()
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        if path.is_dir() {
            if !NOT_OURS.iter().any(|other| name == *other) {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

impl Page {
    fn read(path: &Path) -> Self {
        let text = std::fs::read_to_string(path).expect("a page in UTF-8");
        let (mut prose, mut blocks, mut open) = (Vec::new(), Vec::new(), None::<Block>);
        for (number, line) in (1..).zip(text.lines()) {
            match (&mut open, line.trim_start().strip_prefix("```")) {
                (None, Some(language)) => {
                    open = Some(Block { language: language.to_owned(), line: number, text: String::new() });
                }
                (Some(_), Some(_)) => blocks.extend(open.take()),
                (Some(block), None) => block.text.extend([line, "\n"]),
                (None, None) => prose.push(line.to_owned()),
            }
        }
        assert!(open.is_none(), "{}: a fenced block has no end", path.display());
        let path = path.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
        Self { path, prose, blocks }
    }

    fn text(&self) -> String {
        self.prose.iter().map(|line| format!("{line}\n")).collect()
    }

    /// Anchors as GitHub and mdBook make them of headings.
    pub(super) fn anchors(&self) -> BTreeSet<String> {
        let headings = self.prose.iter().filter_map(|line| line.strip_prefix('#'));
        headings.map(|line| anchor(line.trim_start_matches('#').trim())).collect()
    }

    /// Where inline links lead. What stands in backticks is no link.
    pub(super) fn links(&self) -> Vec<String> {
        let text = self.text();
        let outside: String = text.split('`').step_by(2).collect();
        let targets = outside.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
        targets.map(|(target, _)| target.split_whitespace().collect()).collect()
    }

    /// What stands in backticks.
    pub(super) fn codes(&self) -> Vec<String> {
        self.text().split('`').skip(1).step_by(2).map(str::to_owned).collect()
    }

    /// Rows of tables, joined.
    pub(super) fn rows(&self) -> String {
        self.prose.iter().map(String::as_str).filter(|line| line.starts_with('|')).collect()
    }

    /// The path from the root of a file that this page names relative to itself.
    pub(super) fn beside(&self, file: &str) -> String {
        let mut parts: Vec<&str> = self.path.split('/').collect();
        parts.pop();
        for part in Path::new(file).components() {
            match part {
                Component::ParentDir => {
                    parts.pop();
                }
                Component::Normal(name) => parts.push(name.to_str().expect("a name in UTF-8")),
                _ => {}
            }
        }
        parts.join("/")
    }
}

fn anchor(heading: &str) -> String {
    let lower = heading.to_lowercase();
    let kept = lower.chars().filter(|letter| letter.is_alphanumeric() || [' ', '-', '_'].contains(letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}
