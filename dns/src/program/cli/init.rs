//! `bailiwick init`: takes a directory, and writes a commented configuration with rules and a zone, which pass
//! `bailiwick check` and can be served. Overwrites existing files only with `--force`.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bailiwick_rules::rules::json_schema_text;
use clap::{Args, ValueEnum};

use super::hash_key::random_key;
use crate::program::report::Report;

const CONFIG: &str = include_str!("init/bailiwick.toml");
const RULES: &str = include_str!("init/rules.json");
const ZONE: &str = include_str!("init/ai.example.com.zone");

/// Options of `bailiwick init`.
#[derive(Debug, Args)]
pub(crate) struct InitArgs {
    /// Where to write; made if it doesn't exist.
    #[arg(value_name = "DIR", default_value = ".")]
    directory: PathBuf,
    /// What serves your clients: it decides where DNS sends them, and what else is written.
    #[arg(long, value_enum, default_value_t)]
    shape: Shape,
    /// Overwrite files that are there.
    #[arg(long)]
    force: bool,
}

/// The ways to run it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Shape {
    /// A Worker on Cloudflare: DNS names its regional hostnames, the Worker enforces.
    Cloudflare,
    /// Gateways of your own in every region: DNS gives their addresses, the same Worker runs on them and enforces.
    Gateways,
    /// DNS gives the regions' own addresses: nearest and alive. Nobody enforces residency.
    #[default]
    DnsOnly,
}

impl Shape {
    /// A sentence about where clients arrive, and what to replace in the files.
    fn about(self) -> &'static str {
        match self {
            Self::Cloudflare => {
                "clients go to Cloudflare, where the Worker enforces; replace the CNAMEs by your regional hostnames"
            }
            Self::Gateways => "clients go to your gateways, where the Worker enforces; replace the addresses by theirs",
            Self::DnsOnly => {
                "clients go straight to the regions, and nobody enforces residency; --shape cloudflare or gateways \
                 puts the Worker between"
            }
        }
    }

    /// The rules document. What DNS answers for a region depends on where its clients should arrive.
    fn rules(self) -> String {
        match self {
            Self::Gateways | Self::DnsOnly => RULES.to_owned(),
            Self::Cloudflare => {
                let mut rules = String::new();
                let mut region = "";
                for line in RULES.lines() {
                    let name = line.trim().split('"').nth(1).unwrap_or_default();
                    if line.starts_with("    \"") {
                        region = name;
                    }
                    match name {
                        "answers" => {
                            rules += &format!("      \"answers\": {{ \"CNAME\": [\"{region}.edge.example.net\"] }},\n");
                        }
                        _ => rules += &format!("{line}\n"),
                    }
                }
                rules
            }
        }
    }

    fn config(self) -> String {
        match self {
            Self::DnsOnly => CONFIG.to_owned(),
            Self::Cloudflare | Self::Gateways => CONFIG.replace("# worker_token_files", "worker_token_files"),
        }
    }

    /// A sentence about what to do after editing the files.
    fn next(self) -> &'static str {
        match self {
            Self::Cloudflare => "then deploy the Worker: docs/quick-start.md, \"A Worker on Cloudflare\"",
            Self::Gateways => "then run a gateway in each region: docs/quick-start.md, \"Gateways of your own\"",
            Self::DnsOnly => "then delegate the zone: docs/quick-start.md, \"DNS alone\"",
        }
    }
}

/// A file to write.
struct Page {
    name: &'static str,
    text: String,
    mode: u32,
    about: &'static str,
}

pub(crate) fn run(args: &InitArgs) -> Report {
    match write(&args.directory, args.shape, args.force) {
        Ok(output) => Report::fine(output),
        Err(errors) => Report::failed(errors),
    }
}

/// The files to write for a shape.
fn pages(shape: Shape) -> Result<Vec<Page>, String> {
    let page = |name, text: &str, about| Page { name, text: text.to_owned(), mode: 0o644, about };
    let secret = |name, text: String, about| Page { name, text, mode: 0o600, about };
    let mut pages = vec![
        page("bailiwick.toml", &shape.config(), "this node: addresses, files, zones, API"),
        page("rules.json", &shape.rules(), "the rules, shared with the edge: regions, services, residency"),
        page("rules.schema.json", &json_schema_text(), "their JSON Schema, for your editor"),
        page("ai.example.com.zone", ZONE, "the zone's static records"),
        secret("api.token", format!("{}\n", random_key()?), "the API's bearer token for writes"),
    ];
    if shape == Shape::DnsOnly {
        return Ok(pages);
    }
    let (reader, seal) = (random_key()?, random_key()?);
    pages.push(secret(
        "worker.token",
        format!("{reader}\n"),
        "the token by which the Worker reads rules and health, and no more",
    ));
    pages.push(match shape {
        Shape::Gateways => {
            let urls = "RULES_URLS=https://ns1.ai.example.com:8053/v1/rules\n\
                        HEALTH_URLS=https://ns1.ai.example.com:8053/v1/health\n";
            let text = format!("{urls}RULES_TOKEN={reader}\nHEALTH_TOKEN={reader}\nSTATE_KEY={seal}\n");
            secret(
                "gateway.env",
                text + "# FRA_KEY=\n# LON_KEY=\n# IAD_KEY=\n",
                "the environment of every gateway; add the endpoints' keys",
            )
        }
        Shape::Cloudflare | Shape::DnsOnly => {
            let text = serde_json::json!({ "RULES_TOKEN": reader, "HEALTH_TOKEN": reader, "STATE_KEY": seal });
            secret("worker.secrets.json", format!("{text:#}\n"), "for `wrangler secret bulk`; add the endpoints' keys")
        }
    });
    Ok(pages)
}

/// Writes the example files into a directory. Without `force`, no file is overwritten.
fn write(directory: &Path, shape: Shape, force: bool) -> Result<String, Vec<String>> {
    let pages = pages(shape).map_err(|error| vec![error])?;
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
    let dig = match shape {
        Shape::Cloudflare => "CNAME",
        Shape::Gateways | Shape::DnsOnly => "A",
    };
    output += &format!(
        "\n{}\n\nNext:\n{enter}  bailiwick check\n  bailiwick explain --service chat --country DE\n  bailiwick \
         serve\n  \
         dig @127.0.0.1 -p 5300 chat.ai.example.com {dig} +subnet=198.51.100.7\n{}\n",
        shape.about(),
        shape.next()
    );
    Ok(output)
}

impl Page {
    /// Writes the file.
    fn write(&self, file: &Path, force: bool) -> std::io::Result<()> {
        if force {
            // The old file is removed, not truncated, so that the new file gets the mode of this page.
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
    use crate::program::cli::check;

    #[test]
    fn the_start_of_every_shape_has_neither_errors_nor_warnings() {
        let directory = tempfile::tempdir().unwrap();
        for shape in [Shape::Cloudflare, Shape::Gateways, Shape::DnsOnly] {
            let into = directory.path().join(format!("new/{shape:?}"));
            let output = write(&into, shape, false).unwrap();
            assert!(output.contains("bailiwick serve") && output.contains(shape.about()), "{output}");
            let findings = check::configured(&into.join("bailiwick.toml"));
            assert_eq!((findings.errors, findings.warnings), (Vec::new(), Vec::new()), "{shape:?}");
            let mode = |name: &str| fs::metadata(into.join(name)).ok().map(|file| file.permissions().mode() & 0o777);
            assert_eq!(mode("api.token"), Some(0o600));
            let secret =
                |name: &str, is_there: bool| assert_eq!(mode(name), is_there.then_some(0o600), "{shape:?}: {name}");
            secret("worker.token", shape != Shape::DnsOnly);
            secret("gateway.env", shape == Shape::Gateways);
            secret("worker.secrets.json", shape == Shape::Cloudflare);
        }
    }

    #[test]
    fn on_cloudflare_dns_names_regional_hostnames_and_never_an_address_beside_the_worker() {
        let rules: serde_json::Value = serde_json::from_str(&Shape::Cloudflare.rules()).unwrap();
        for (name, region) in rules["regions"].as_object().unwrap() {
            assert_eq!(region["answers"], serde_json::json!({ "CNAME": [format!("{name}.edge.example.net")] }));
            assert!(region["endpoints"].is_object(), "the rest stands as it was");
        }
    }

    #[test]
    fn nothing_is_overwritten_unless_told_so() {
        let directory = tempfile::tempdir().unwrap();
        let rules = directory.path().join("rules.json");
        fs::write(&rules, "mine").unwrap();
        let errors = write(directory.path(), Shape::DnsOnly, false).unwrap_err();
        assert!(errors.len() == 1 && errors[0].contains("rules.json: is there already"), "{errors:?}");
        assert!(!directory.path().join("bailiwick.toml").exists(), "all or nothing");
        assert_eq!(fs::read_to_string(&rules).unwrap(), "mine");
        write(directory.path(), Shape::DnsOnly, true).unwrap();
        assert_eq!(fs::read_to_string(&rules).unwrap(), RULES);
    }
}
