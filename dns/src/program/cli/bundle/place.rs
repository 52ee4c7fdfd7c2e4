//! The place where bundles are stored: on a node, through its API, or in NATS. Takes packs (a version as one piece of
//! bytes), stores them; returns the bundles and versions that are there. Called by `bailiwick bundle`.

use std::time::Duration;

use bailiwick_rules::bundle::Version;
use bailiwick_rules::id::{BundleId, RegionId};
use reqwest::Method;

use crate::program::api::bundles::ListReport;
use crate::program::api::push::Pushed;
use crate::program::cli::node::{Access, Node, NodeArgs};
use crate::program::cli::rules::rules_store::Buckets;
use crate::program::config::Config;

/// How long a bundle may take to the node or from it.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where bundles are stored.
pub(super) enum BundleStore {
    /// On a node.
    Node(Node),
    /// In NATS.
    Nats(Box<Buckets>),
}

/// Which version is wanted.
pub(super) enum VersionChoice<'a> {
    /// This one.
    Version(Version),
    /// The one that the rules pin, for a region or for those of none.
    Pinned(Option<&'a str>),
}

impl BundleStore {
    /// Finds it by the options: NATS if the configuration's rules come from there and no API is named.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that NATS can't be reached.
    pub(super) fn find(args: &NodeArgs, power: Access) -> Result<Self, Vec<String>> {
        match Config::read_fleet_in_nats(&args.config) {
            Ok(Some(fleet)) if args.api.is_none() => Buckets::open(&fleet).map(|buckets| Self::Nats(Box::new(buckets))),
            Err(errors) if args.api.is_none() => Err(errors.iter().map(ToString::to_string).collect()),
            _ => Node::find(args, power).map(|node| Self::Node(node.patient(PATIENCE))),
        }
    }

    /// Stores a pack.
    ///
    /// # Errors
    /// Why it isn't stored.
    pub(super) fn push(&self, (name, version): (&BundleId, Version), pack: Vec<u8>) -> Result<(), Vec<String>> {
        match self {
            Self::Node(node) => {
                let answer = node.exchange(Method::PUT, &format!("/v1/bundles/{name}"), &[], pack)?.success()?;
                let pushed = serde_json::from_slice::<Pushed>(&answer.body).ok();
                match pushed.is_some_and(|pushed| pushed.version == version) {
                    true => Ok(()),
                    false => Err(vec!["the node stored something else; is it of another version?".to_owned()]),
                }
            }
            Self::Nats(buckets) => buckets.put_bundle(name, version, &pack),
        }
    }

    /// All bundles.
    ///
    /// # Errors
    /// When they can't be read.
    pub(super) fn list(&self) -> Result<ListReport, Vec<String>> {
        match self {
            Self::Node(node) => {
                let answer = node.ask(Method::GET, "/v1/bundles", None)?;
                serde_json::from_value(answer).map_err(|error| {
                    vec![format!("what the node holds can't be understood ({error}); is it of another version?")]
                })
            }
            Self::Nats(buckets) => buckets.list_bundles(),
        }
    }

    /// The version that begins with these digits.
    ///
    /// # Errors
    /// That none does, or several.
    pub(super) fn whole(&self, name: &BundleId, digits: &str) -> Result<Version, Vec<String>> {
        if let Some(version) = Version::parse(digits) {
            return Ok(version);
        }
        let listed = self.list()?;
        let versions = listed.bundles.get(name).into_iter().flat_map(|bundle| &bundle.versions);
        let fitting: Vec<Version> =
            versions.map(|stored| stored.version).filter(|version| version.to_string().starts_with(digits)).collect();
        match fitting[..] {
            [version] => Ok(version),
            [] => Err(vec![format!("{name} has no version {digits}…; `bailiwick bundle list` lists what there is")]),
            _ => Err(vec![format!("{name} has several versions {digits}…; write more digits")]),
        }
    }

    /// The pack of a version, as it comes.
    ///
    /// # Errors
    /// When it isn't there or can't be read.
    pub(super) fn pack(&self, name: &BundleId, chosen: &VersionChoice<'_>) -> Result<Vec<u8>, Vec<String>> {
        match self {
            Self::Node(node) => {
                let which = match chosen {
                    VersionChoice::Version(version) => format!("&version={version}"),
                    VersionChoice::Pinned(None) => String::new(),
                    VersionChoice::Pinned(Some(region)) => match RegionId::parse(region) {
                        Some(region) => format!("&region={region}"),
                        None => return Err(vec![format!("--region: {region:?} is no region's name")]),
                    },
                };
                let path = format!("/v1/bundles/{name}?as=pack{which}");
                Ok(node.exchange(Method::GET, &path, &[], Vec::new())?.success()?.body)
            }
            Self::Nats(buckets) => {
                let version = match chosen {
                    VersionChoice::Version(version) => *version,
                    VersionChoice::Pinned(region) => buckets.pinned_version(name, *region)?,
                };
                buckets.bundle(name, version)
            }
        }
    }
}
