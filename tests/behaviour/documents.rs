//! The documents hold together: links lead somewhere, the book has every page, examples are read by the program.

mod page;

use std::collections::BTreeMap;

use bailiwick_dns::program::config::Config;
use bailiwick_rules::table::Table;
use bailiwick_tests::geo::root;
use bailiwick_tests::node::bailiwick;

use page::{Page, pages};

fn page<'p>(pages: &'p [Page], path: &str) -> &'p Page {
    pages.iter().find(|page| page.path == path).unwrap_or_else(|| panic!("{path} is missing"))
}

#[test]
fn every_relative_link_leads_to_a_file_and_an_anchor() {
    let pages = pages();
    let anchors: BTreeMap<_, _> = pages.iter().map(|page| (page.path.as_str(), page.anchors())).collect();
    let mut broken = Vec::new();
    let mut seen = 0;
    for page in &pages {
        for link in page.links() {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (file, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.path.clone() } else { page.beside(file) };
            if !root().join(&target).exists() {
                broken.push(format!("{}: {link}: no such file", page.path));
            } else if !anchor.is_empty() && !anchors.get(target.as_str()).is_some_and(|known| known.contains(anchor)) {
                broken.push(format!("{}: {link}: no such heading", page.path));
            }
        }
    }
    assert!(seen > 50, "only {seen} links were found");
    assert_eq!(broken, [""; 0]);
}

#[test]
fn the_book_has_every_page_once_and_no_other() {
    let pages = pages();
    let summary = page(&pages, "docs/SUMMARY.md");
    let mut listed: Vec<String> = summary.links().iter().map(|link| summary.beside(link)).collect();
    listed.sort();
    let in_book = |page: &&Page| page.path.starts_with("docs/") && page.path != summary.path;
    let there: Vec<String> = pages.iter().filter(in_book).map(|page| page.path.clone()).collect();
    assert_eq!(listed, there);
    let overview = page(&pages, "docs/README.md").links();
    let absent = |path: &&String| {
        let name = path.trim_start_matches("docs/");
        name != "README.md" && !overview.iter().any(|link| link == name)
    };
    assert_eq!(there.iter().filter(absent).collect::<Vec<_>>(), [""; 0], "docs/README.md lists every page");
}

#[test]
fn every_whole_rules_document_compiles_without_a_mistake() {
    let mut compiled = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "json") {
            if block.text.contains("\"version\"") && !block.text.contains('…') {
                let at = format!("{}:{}", page.path, block.line);
                Table::compile(block.text.as_bytes()).unwrap_or_else(|mistakes| panic!("{at}: {mistakes:?}"));
                compiled += 1;
            }
        }
    }
    assert!(compiled >= 2, "only {compiled} were found: README.md and docs/rules.md have one each");
}

#[test]
fn every_piece_of_json_is_json() {
    let mut read = 0;
    for page in pages() {
        for block in page.blocks.iter().filter(|block| block.language == "json") {
            // Something left out is written as `…` or `...`; a part of an object has no braces of its own.
            let whole = block.text.replace("{ … }", "{}").replace("[ … ]", "[]").replace(", ...", "");
            let text = if whole.trim_start().starts_with('"') { format!("{{{whole}}}") } else { whole };
            let got: Result<serde_json::Value, _> = serde_json::from_str(&text);
            assert!(got.is_ok(), "{}:{}: {}", page.path, block.line, got.unwrap_err());
            read += 1;
        }
    }
    assert!(read > 15, "only {read} were found");
}

#[test]
fn every_piece_of_configuration_is_read() {
    let mut read = 0;
    for page in pages() {
        // The gateway's own is read by a test beside its reader.
        let is_nodes = |text: &str| !text.starts_with("# edge.toml\n");
        for block in page.blocks.iter().filter(|block| block.language == "toml" && is_nodes(&block.text)) {
            let text = ["listen = ['127.0.0.1:0']\nrules = 'r'\n", &block.text, "\n[zones]\n'ai.example.com' = 'z'\n"];
            let config = Config::parse(&text.concat(), &page.path, root().as_path());
            assert!(config.is_ok(), "line {}: {:?}", block.line, config.unwrap_err());
            read += 1;
        }
    }
    assert!(read > 3, "only {read} were found");
}

/// The commands and options that a line of a shell names, such as `["keys", "roll"]` and `["--zone"]`.
fn called(line: &str) -> Option<(Vec<&str>, Vec<&str>)> {
    let (_, call) = line.split_once("bailiwick ").filter(|(before, _)| before.is_empty() || before.ends_with("$ "))?;
    let call = call.split([';', '|', '&', '#']).next()?;
    let words: Vec<&str> = call.split_whitespace().collect();
    let nested = matches!(
        words.first(),
        Some(&("bundle" | "drill" | "eval" | "fleet" | "keys" | "receipt" | "rollout" | "rules"))
    );
    let commands = words.iter().take(if nested { 2 } else { 1 }).copied().collect();
    let options = words.iter().filter(|word| word.starts_with("--")).map(|word| word.split('=').next().unwrap_or(word));
    Some((commands, options.collect()))
}

#[test]
fn every_command_and_option_that_a_page_calls_exists() {
    let mut tried = 0;
    for page in pages() {
        let shells = page.blocks.iter().filter(|block| ["sh", "console", ""].contains(&block.language.as_str()));
        for (commands, options) in shells.flat_map(|block| block.text.lines().filter_map(called)) {
            let output = bailiwick(commands.iter().copied().chain(["--help"]));
            assert!(output.status.success(), "{}: bailiwick {}", page.path, commands.join(" "));
            let help = String::from_utf8_lossy(&output.stdout);
            for option in options {
                assert!(help.contains(option), "{}: bailiwick {} {option}", page.path, commands.join(" "));
            }
            tried += 1;
        }
    }
    assert!(tried > 20, "only {tried} were found");
}

#[test]
fn the_command_line_page_has_every_command() {
    let pages = pages();
    let listed = page(&pages, "docs/command-line.md").rows();
    let help = bailiwick(["--help"]);
    let help = String::from_utf8_lossy(&help.stdout);
    let (_, commands) = help.split_once("Commands:\n").expect("a list of commands");
    let commands = commands.lines().take_while(|line| !line.is_empty());
    let names: Vec<&str> = commands.filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let names: Vec<&str> = names.into_iter().filter(|name| !name.is_empty() && *name != "help").collect();
    assert!(names.len() > 8, "{names:?}");
    let absent: Vec<&str> = names.into_iter().filter(|name| !listed.contains(&format!("`bailiwick {name}"))).collect();
    assert_eq!(absent, [""; 0]);
}

#[test]
fn every_path_that_a_document_of_the_project_names_exists() {
    let pages = pages();
    let mut named = 0;
    let mut absent = Vec::new();
    for path in ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md", "docs/compliance.md", "docs/performance.md"] {
        for code in page(&pages, path).codes() {
            let code = code.split("::").next().unwrap_or_default();
            let folders = ["dns/", "edge-worker/", "shared/", "tests/", "scripts/", "docs/", "deploy/", ".github/"];
            let is_path = folders.iter().any(|folder| code.starts_with(folder))
                && !code.contains([' ', '*', '…'])
                && !code.starts_with("dns/fuzz/artifacts")
                && !code.starts_with("edge-worker/build");
            if is_path {
                named += 1;
                if !root().join(code.trim_end_matches('/')).exists() {
                    absent.push(format!("{path}: {code}"));
                }
            }
        }
    }
    assert!(named > 80, "only {named} were found");
    assert_eq!(absent, [""; 0]);
}
