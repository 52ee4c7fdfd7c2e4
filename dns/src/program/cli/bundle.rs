//! `bailiwick bundle`: stores bundles (named sets of files for applications, such as prompts) on a node or in NATS;
//! lists, shows and fetches them. Takes the options of a command, returns its report. Called by the command line. The
//! rules pin a version of a bundle: they say which version is served, unless a rollout is under way.

mod folder;
mod place;

use std::collections::BTreeMap;
use std::path::PathBuf;

use bailiwick_rules::bundle::{LARGEST_PACK, Manifest, Version, pack, unpack};
use bailiwick_rules::id::BundleId;
use clap::{Args, Subcommand};

use crate::program::cli::node::{Access, NodeArgs};
use crate::program::report::Report;
use place::{BundleStore, VersionChoice};

/// What to do with bundles.
#[derive(Debug, Subcommand)]
pub(crate) enum BundleCommand {
    /// Store the files of a folder as a new version of a bundle, and print the version.
    ///
    /// The version is the digest of all paths and contents: the same files always have the same version. Nothing is
    /// served until the rules pin it: \"bundles\": {\"NAME\": {\"version\": \"…\"}}.
    ///
    /// It is pushed to the node's API, by a token that may write, and other nodes fetch it from there once it is
    /// pinned. Where rules come from NATS it is pushed there, with the publisher's file.
    ///
    /// A bundle has at most 1,000 files and 64 MiB. Names are letters, digits and ._-+@=,~. What begins with a dot is
    /// left out. A symbolic link may lead to a file of the folder, and nowhere else.
    #[command(after_help = "Examples:
  bailiwick bundle push prompts/ --name prompts
  bailiwick bundle push prompts/ --name prompts --dry-run                 prints the version, pushes nothing
  bailiwick bundle push prompts/ --name prompts --config publisher.toml   into NATS")]
    Push(PushArgs),
    /// List the bundles, their versions, and which of them the rules pin.
    #[command(after_help = "Examples:
  bailiwick bundle list
  bailiwick bundle list --json | jq -r '.bundles | keys[]'")]
    List(ListArgs),
    /// List the files of a version with their sizes and digests.
    ///
    /// Without a version it is the one that the rules pin, for --region if that is named. A version may be shortened to
    /// its first digits.
    #[command(after_help = "Examples:
  bailiwick bundle show prompts
  bailiwick bundle show prompts --region uk-london
  bailiwick bundle show prompts@3f9a2c")]
    Show(ShowArgs),
    /// Write the files of a version into a new folder.
    ///
    /// Every file is checked by its digest first.
    #[command(after_help = "Examples:
  bailiwick bundle fetch prompts --to prompts
  bailiwick bundle fetch prompts@3f9a2c --to /tmp/before")]
    Fetch(FetchArgs),
}

/// Options of `bailiwick bundle push`.
#[derive(Debug, Args)]
pub(crate) struct PushArgs {
    /// The folder.
    folder: PathBuf,
    /// The name of the bundle.
    #[arg(long, value_name = "NAME", value_parser = name)]
    name: BundleId,
    /// Print the version, and push nothing.
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    node: NodeArgs,
}

/// Options of `bailiwick bundle list`.
#[derive(Debug, Args)]
pub(crate) struct ListArgs {
    #[command(flatten)]
    node: NodeArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Which version.
#[derive(Debug, Args)]
struct VersionArgs {
    /// The bundle, and its version if it isn't the pinned one.
    #[arg(value_name = "NAME[@VERSION]", value_parser = of_version)]
    bundle: (BundleId, Option<String>),
    /// The region whose version it is.
    #[arg(long, value_name = "REGION")]
    region: Option<String>,
    #[command(flatten)]
    node: NodeArgs,
}

/// Options of `bailiwick bundle show`.
#[derive(Debug, Args)]
pub(crate) struct ShowArgs {
    #[command(flatten)]
    which: VersionArgs,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Options of `bailiwick bundle fetch`.
#[derive(Debug, Args)]
pub(crate) struct FetchArgs {
    #[command(flatten)]
    which: VersionArgs,
    /// The folder. It is made; one that is there has to be empty.
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
}

fn name(text: &str) -> Result<BundleId, String> {
    let mend = "write 1 to 63 letters, digits, '-', '_' or '.', beginning with a letter or digit";
    BundleId::parse(text).ok_or_else(|| mend.to_owned())
}

/// Reads `NAME` or `NAME@VERSION`.
fn of_version(text: &str) -> Result<(BundleId, Option<String>), String> {
    let Some((bundle, version)) = text.split_once('@') else { return Ok((name(text)?, None)) };
    let fits = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match (4..=64).contains(&version.len()) && version.bytes().all(fits) {
        true => Ok((name(bundle)?, Some(version.to_owned()))),
        false => Err("write NAME@VERSION with the version's first 4 to 64 digits, in lower case".to_owned()),
    }
}

/// Runs any of them.
pub(super) fn run(command: &BundleCommand) -> Report {
    let done = match command {
        BundleCommand::Push(args) => push(args),
        BundleCommand::List(args) => list(args),
        BundleCommand::Show(args) => show(args),
        BundleCommand::Fetch(args) => fetch(args),
    };
    done.unwrap_or_else(Report::failed)
}

/// Reads a folder, and sends it to the store as a version of a bundle.
fn push(args: &PushArgs) -> Result<Report, Vec<String>> {
    let read = folder::read(&args.folder)?;
    let at = args.folder.display();
    let (manifest, bytes) = pack(&read.contents).map_err(|error| vec![format!("{at}: {error}")])?;
    let version = manifest.version();
    let mut report = Report::fine(format!("{version}\n"));
    if !read.left_out.is_empty() {
        report.warnings.push(format!("left out, as their names begin with a dot: {}", read.left_out.join(", ")));
    }
    if !args.dry_run {
        BundleStore::find(&args.node, Access::Write)?.push((&args.name, version), bytes)?;
    }
    Ok(report)
}

/// Lists the stored bundles, and which versions the rules pin.
fn list(args: &ListArgs) -> Result<Report, Vec<String>> {
    let listed = BundleStore::find(&args.node, Access::Read)?.list()?;
    if args.json {
        let json = serde_json::to_string_pretty(&listed).map_err(|error| vec![error.to_string()])?;
        return Ok(Report::fine(json + "\n"));
    }
    if listed.bundles.is_empty() {
        return Ok(Report::fine("no bundles; `bailiwick bundle push FOLDER --name NAME` makes one\n"));
    }
    let mut text = String::new();
    for (name, bundle) in &listed.bundles {
        text += &format!("{name}\n");
        for stored in &bundle.versions {
            let mut pins = Vec::new();
            if bundle.pinned == Some(stored.version) {
                pins.push("pinned".to_owned());
            }
            let regions = bundle.regions.iter().filter(|(_, version)| **version == stored.version);
            pins.extend(regions.map(|(region, _)| format!("pinned for {region}")));
            if let Some(rollout) = bundle.rollout.as_ref().filter(|rollout| rollout.version == stored.version) {
                let shares = rollout.shares.iter().map(|(region, share)| format!(", {share} % of {region}"));
                pins.push(format!("rollout {}{}", rollout.name, shares.collect::<String>()));
            }
            let files = stored.files.map_or_else(String::new, |files| format!("{files:>5} files"));
            text +=
                format!("  {}  {}  {:>9} bytes{files}  {}", stored.version, stored.came, stored.bytes, pins.join(", "))
                    .trim_end();
            text.push('\n');
        }
        text.extend(bundle.missing.iter().map(|version| format!("  {version}  is pinned and isn't here\n")));
    }
    Ok(Report::fine(text))
}

/// A version that was fetched, with all of its files.
struct FetchedVersion {
    version: Version,
    manifest: Manifest,
    /// By path.
    contents: BTreeMap<String, Vec<u8>>,
}

/// Fetches the version that the options name.
fn chosen(which: &VersionArgs) -> Result<FetchedVersion, Vec<String>> {
    let (name, version) = &which.bundle;
    if version.is_some() && which.region.is_some() {
        return Err(vec!["--region and a version exclude each other; leave one out".to_owned()]);
    }
    let place = BundleStore::find(&which.node, Access::Read)?;
    let chosen = match version {
        Some(digits) => VersionChoice::Version(place.whole(name, digits)?),
        None => VersionChoice::Pinned(which.region.as_deref()),
    };
    let bytes = place.pack(name, &chosen)?;
    let fault = |why: String| vec![format!("what came isn't used: {why}")];
    if bytes.len() > LARGEST_PACK {
        return Err(fault("it is larger than a bundle can be".to_owned()));
    }
    let (manifest, contents) = unpack(&bytes).map_err(|error| fault(error.to_string()))?;
    let version = manifest.version();
    if let VersionChoice::Version(wanted) = chosen
        && wanted != version
    {
        return Err(fault(format!("it is version {version}, which wasn't asked for")));
    }
    let paths = manifest.files().iter().map(|file| file.path.clone());
    let contents = paths.zip(contents.into_iter().map(<[u8]>::to_vec)).collect();
    Ok(FetchedVersion { version, manifest, contents })
}

/// Lists the files of a version.
fn show(args: &ShowArgs) -> Result<Report, Vec<String>> {
    let FetchedVersion { version, manifest, .. } = chosen(&args.which)?;
    let name = &args.which.bundle.0;
    if args.json {
        let json = serde_json::json!({ "bundle": name, "version": version, "bytes": manifest.bytes(),
            "files": manifest.files() });
        return Ok(Report::fine(format!("{json:#}\n")));
    }
    let (files, bytes) = (manifest.files(), manifest.bytes());
    let mut text = format!("{name} {version}\n");
    text.extend(files.iter().map(|file| format!("{}  {:>9}  {}\n", file.sha256, file.bytes, file.path)));
    text += &format!("{} files, {bytes} bytes\n", files.len());
    Ok(Report::fine(text))
}

fn fetch(args: &FetchArgs) -> Result<Report, Vec<String>> {
    folder::check_free(&args.to)?;
    let FetchedVersion { version, manifest, contents } = chosen(&args.which)?;
    folder::write(&args.to, &contents)?;
    let (files, to) = (manifest.files().len(), args.to.display());
    Ok(Report::fine(format!("{} {version}: {files} files in {to}\n", args.which.bundle.0)))
}
