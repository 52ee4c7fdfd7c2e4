//! `bailiwick init`: a directory enters, a commented start that checks and serves leaves. Nothing that is there is overwritten unless told so.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bailiwick_rules::rules::json_schema_text;
use clap::Args;

use super::hash_key::random_key;
use super::told::Told;

const CONFIG: &str = include_str!("init/bailiwick.toml");
const RULES: &str = include_str!("init/rules.json");
const ZONE: &str = include_str!("init/ai.example.com.zone");

/// Options of `bailiwick init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write; made if it doesn't exist.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,
}

/// A file to write.
struct Page {
    name: &'static str,
    text: String,
    mode: u32,
    about: &'static str,
}

pub(crate) fn run(args: &InitArgs) -> Told {
    match write(&args.directory, args.force) {
        Ok(output) => Told::fine(output),
        Err(errors) => Told::failed(errors),
    }
}

fn write(directory: &Path, force: bool) -> Result<String, Vec<String>> {
    let token = random_key().map_err(|error| vec![error])?;
    let page = |name, text: &str, about| Page { name, text: text.to_owned(), mode: 0o644, about };
    let pages = [
        page("bailiwick.toml", CONFIG, "this node: addresses, files, zones, API"),
        page("rules.json", RULES, "the rules, shared with the edge: regions, services, residency"),
        page("rules.schema.json", &json_schema_text(), "their JSON Schema, for your editor"),
        page("ai.example.com.zone", ZONE, "the zone's static records"),
        Page { name: "api.token", text: format!("{token}\n"), mode: 0o600, about: "the API's bearer token for writes" },
    ];
    fs::create_dir_all(directory)
        .map_err(|error| vec![format!("{}: can't be made ({error}); choose another directory", directory.display())])?;
    if !force {
        let there = |page: &&Page| directory.join(page.name).symlink_metadata().is_ok();
        let there: Vec<String> = pages
            .iter()
            .filter(there)
            .map(|page| {
                let file = directory.join(page.name);
                format!("{}: is there already; choose another directory, or overwrite it with --force", file.display())
            })
            .collect();
        if !there.is_empty() {
            return Err(there);
        }
    }
    let mut output = String::new();
    for page in &pages {
        let file = directory.join(page.name);
        page.write(&file, force).map_err(|error| vec![format!("{}: can't be written ({error})", file.display())])?;
        output += &format!("{:<40} {}\n", file.display().to_string(), page.about);
    }
    let enter = if directory == Path::new(".") { String::new() } else { format!("  cd {}\n", directory.display()) };
    output += &format!(
        "\nNext:\n{enter}  bailiwick check\n  bailiwick explain --service chat --country DE\n  bailiwick serve\n  \
         dig @127.0.0.1 -p 5300 chat.ai.example.com +subnet=198.51.100.7\n"
    );
    Ok(output)
}

impl Page {
    fn write(&self, file: &Path, force: bool) -> std::io::Result<()> {
        if force {
            // Removed rather than truncated: its mode is to be the new one's.
            fs::remove_file(file)
                .or_else(|error| if error.kind() == ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        let mut created = OpenOptions::new().write(true).create_new(true).mode(self.mode).open(file)?;
        created.write_all(self.text.as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::cli::check;

    #[test]
    fn the_start_has_neither_errors_nor_warnings() {
        let directory = tempfile::tempdir().unwrap();
        let output = write(&directory.path().join("new/dir"), false).unwrap();
        assert!(output.contains("bailiwick serve"));
        let findings = check::configured(&directory.path().join("new/dir/bailiwick.toml"));
        assert_eq!((findings.errors, findings.warnings), (Vec::new(), Vec::new()));
        let mode = fs::metadata(directory.path().join("new/dir/api.token")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_overwritten_unless_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("rules.json");
        fs::write(&rules, "mine").unwrap();
        let errors = write(directory.path(), false).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("rules.json: is there already"), "{errors:?}");
        assert!(!directory.path().join("bailiwick.toml").exists(), "all or nothing");
        assert_eq!(fs::read_to_string(&rules).unwrap(), "mine");
        write(directory.path(), true).unwrap();
        assert_eq!(fs::read_to_string(&rules).unwrap(), RULES);
    }
}
