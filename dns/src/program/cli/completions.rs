//! `bailiwick completions`: takes a shell, returns its completion script. The script doesn't contain the names of the
//! rules. To get these names, it runs `bailiwick names`, which reads the rules that the command line so far names, or
//! those of `bailiwick.toml` in the current directory.

use std::path::{Path, PathBuf};

use clap::{Args, Command, ValueEnum};
use clap_complete::Shell;

use crate::program::config::Config;
use crate::program::report::Report;
use crate::state::load;

/// The options whose values are names, with the kind of names.
const OPTIONS: [(&str, Kind); 3] = [("service", Kind::Services), ("tenant", Kind::Tenants), ("down", Kind::Regions)];
/// The commands whose argument is a region or an endpoint.
const PLACES: [&str; 2] = ["drain", "undrain"];
/// The commands of `bailiwick shift`. Their argument is a region.
const SHIFTS: [&str; 2] = ["away", "back"];

/// Options of `bailiwick names`, which scripts ask.
#[derive(Debug, Args)]
pub(crate) struct NamesArgs {
    kind: Kind,
    /// The command line so far; its --config or --rules says which rules.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    words: Vec<String>,
}

/// Names of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Regions, and endpoints as REGION/ENDPOINT.
    Places,
    Regions,
    Services,
    Tenants,
}

impl Kind {
    /// The word for `bailiwick names`.
    fn word(self) -> &'static str {
        match self {
            Self::Places => "places",
            Self::Regions => "regions",
            Self::Services => "services",
            Self::Tenants => "tenants",
        }
    }
}

/// Prints one name on each line. If the rules can't be read, it prints nothing, because errors would disturb the
/// completion in the shell.
pub(super) fn names(args: &NamesArgs) -> Report {
    let rules = match named(&args.words, "--rules") {
        Some(rules) => Some(rules),
        None => {
            let config = named(&args.words, "--config").unwrap_or_else(|| PathBuf::from("bailiwick.toml"));
            Config::read(&config).ok().map(|config| config.rules_file().to_owned())
        }
    };
    let Some(rules) = rules.and_then(|file| load::read_rules(Path::new(&file)).ok()) else { return Report::default() };
    let table = &rules.table;
    let mut names: Vec<String> = Vec::new();
    match args.kind {
        Kind::Services => names.extend(table.services().iter().map(|service| service.id.to_string())),
        Kind::Tenants => names.extend(table.tenants().iter().map(|tenant| tenant.id.to_string())),
        Kind::Regions | Kind::Places => {
            for region in table.regions() {
                names.push(region.id.to_string());
                let endpoints = region.endpoints.iter().filter(|_| args.kind == Kind::Places);
                names.extend(endpoints.map(|(id, _)| format!("{}/{id}", region.id)));
            }
        }
    }
    Report::fine(names.iter().map(|name| format!("{name}\n")).collect::<String>())
}

/// The file that an option names among the words typed so far.
fn named(words: &[String], option: &str) -> Option<PathBuf> {
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == option {
            return words.next().map(PathBuf::from);
        }
        if let Some(file) = word.strip_prefix(option).and_then(|rest| rest.strip_prefix('=')) {
            return Some(PathBuf::from(file));
        }
    }
    None
}

/// The script of a shell.
pub(super) fn script(shell: Shell, mut command: Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "bailiwick", &mut script);
    let script = String::from_utf8_lossy(&script).into_owned();
    match shell {
        Shell::Bash => bash(script),
        Shell::Zsh => zsh(&script),
        Shell::Fish => script + &fish(),
        _ => script,
    }
}

/// Changes the script for bash so that it asks this program for names from the rules.
fn bash(mut script: String) -> String {
    let ask = |kind: Kind| format!("$(bailiwick names {} -- \"${{COMP_WORDS[@]}}\" 2>/dev/null)", kind.word());
    for (option, kind) in OPTIONS {
        let from = format!("--{option})\n                    COMPREPLY=($(compgen -f \"${{cur}}\"))");
        let to =
            format!("--{option})\n                    COMPREPLY=($(compgen -W \"{}\" -- \"${{cur}}\"))", ask(kind));
        script = script.replace(&from, &to);
    }
    for command in PLACES {
        let from = format!("bailiwick__subcmd__{command})\n            opts=\"");
        script = script.replace(&from, &format!("{from}{} ", ask(Kind::Places)));
    }
    for command in SHIFTS {
        let from = format!("bailiwick__subcmd__shift__subcmd__{command})\n            opts=\"");
        script = script.replace(&from, &format!("{from}{} ", ask(Kind::Regions)));
    }
    script
}

/// Changes the script for zsh so that it asks this program for names from the rules.
fn zsh(script: &str) -> String {
    let ask = |kind: Kind| format!("{{compadd -- $(bailiwick names {} -- $words 2>/dev/null)}}", kind.word());
    let mut lines = String::new();
    for line in script.lines() {
        let option = OPTIONS.iter().find(|(option, _)| line.contains(&format!("--{option}=[")));
        let kind = match option {
            Some((_, kind)) => Some(*kind),
            None if line.trim_start().starts_with("':region -- ") => Some(Kind::Regions),
            None => line.trim_start().starts_with("':of -- ").then_some(Kind::Places),
        };
        let line = match kind {
            Some(kind) => line.replace(":_default'", &format!(":{}'", ask(kind))),
            None => line.to_owned(),
        };
        lines += &(line + "\n");
    }
    lines
}

/// The lines to add to the script for fish, which ask this program for names from the rules.
fn fish() -> String {
    let ask = |kind: Kind| format!("-f -a '(bailiwick names {} -- (commandline -opc) 2>/dev/null)'", kind.word());
    let mut lines = String::new();
    for (option, kind) in OPTIONS {
        let when = "__fish_bailiwick_using_subcommand explain";
        lines += &format!("complete -c bailiwick -n \"{when}\" -l {option} -r {}\n", ask(kind));
    }
    for command in PLACES {
        let when = format!("__fish_bailiwick_using_subcommand {command}");
        lines += &format!("complete -c bailiwick -n \"{when}\" {}\n", ask(Kind::Places));
    }
    for command in SHIFTS {
        let when = format!("__fish_bailiwick_using_subcommand shift; and __fish_seen_subcommand_from {command}");
        lines += &format!("complete -c bailiwick -n \"{when}\" {}\n", ask(Kind::Regions));
    }
    lines
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::program::cli::Cli;

    #[test]
    fn every_option_and_argument_that_takes_a_name_asks_for_it() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = script(shell, Cli::command());
            for kind in ["services", "tenants", "regions"] {
                let count = script.matches(&format!("bailiwick names {kind} -- ")).count();
                // `bailiwick receipt` has an option for a tenant too.
                let least = if kind == "regions" { 1 + SHIFTS.len() } else { 1 };
                assert!(count >= least, "{shell}: {kind}");
            }
            assert_eq!(script.matches("bailiwick names places -- ").count(), PLACES.len(), "{shell}");
        }
    }

    #[test]
    fn the_rules_are_those_that_the_command_line_names() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name).display().to_string();
        let rules = r#"{"version": 1, "revision": 1, "regions": {"fra": {"countries": ["DE"],
            "endpoints": {"fra-1": {"url": "https://fra1.example/v1"}}}}}"#;
        std::fs::write(at("r.json"), rules).unwrap();
        std::fs::write(at("b.toml"), "listen = ['127.0.0.1:0']\nrules = 'r.json'\n").unwrap();
        let ask = |kind, words: &[&str]| {
            names(&NamesArgs { kind, words: words.iter().map(|word| (*word).to_owned()).collect() }).output
        };
        assert_eq!(ask(Kind::Places, &["bailiwick", "drain", "--config", &at("b.toml"), ""]), "fra\nfra/fra-1\n");
        assert_eq!(ask(Kind::Regions, &["bailiwick", "explain", &format!("--rules={}", at("r.json"))]), "fra\n");
        assert_eq!(ask(Kind::Regions, &["bailiwick", "drain", "--config", &at("none.toml")]), "", "no errors either");
    }
}
