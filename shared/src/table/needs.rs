//! Replicas of knowledge, and the requests that need them, compiled. A replica is a body of knowledge, such as a search
//! index, and regions hold copies of it. Takes what the rules say, returns it with positions instead of names. Called
//! by [`super::Table::compile`].

use std::collections::BTreeMap;

use super::ReplicaIndex;
use super::territories::position;
use crate::health::{LagLimits, ReplicaSet};
use crate::id::ReplicaId;
use crate::rules::{self, GroupBy, ReplicaSource, WhenUnknown};

/// A replica of knowledge, compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct Replica {
    /// Its name.
    pub id: ReplicaId,
    /// How its readings are judged.
    pub limits: LagLimits,
    /// Whether regions of one fence have to have the same version.
    pub is_grouped: bool,
    /// The version that the copies have to have; `None` means the version of most of them.
    pub version: Option<String>,
    /// Whether the region that is least behind is offered when the copies of all regions lag.
    pub keep_freshest: bool,
}

impl Replica {
    /// Compiles the rule of a replica.
    pub(super) fn new((id, replica): (ReplicaId, rules::Replica)) -> Self {
        let limits = LagLimits {
            max: replica.max_lag,
            resume: replica.resume,
            down: replica.down_thresh,
            up: replica.up_thresh,
            withholds_unknown: replica.unknown == WhenUnknown::Withhold,
        };
        Self {
            id,
            limits,
            is_grouped: replica.group == Some(GroupBy::Version),
            version: replica.version,
            keep_freshest: replica.keep_freshest,
        }
    }
}

/// A region's copy of a replica, compiled.
#[derive(Clone, PartialEq, Debug)]
pub struct RegionReplica {
    /// The replica of which this is a copy.
    pub replica: ReplicaIndex,
    /// Whether the rules say that this copy is the original. The original is never withheld for its lag.
    pub is_leader: bool,
    /// Where the node reads how far the copy is behind; `None` for a leader without a source.
    pub source: Option<Box<ReplicaSource>>,
}

/// A region's copies, by name.
pub(super) fn of_region(copies: BTreeMap<ReplicaId, rules::RegionReplica>, replicas: &[Replica]) -> Vec<RegionReplica> {
    let copy = |(id, copy): (ReplicaId, rules::RegionReplica)| {
        let replica = position(replicas, |replica| replica.id == id).map(ReplicaIndex::new)?;
        Some(RegionReplica { replica, is_leader: copy.is_leader, source: copy.source })
    };
    copies.into_iter().filter_map(copy).collect()
}

/// The replicas that the requests of a service need.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Needs {
    /// The replicas that every request needs.
    pub(super) everywhere: ReplicaSet,
    /// The listed paths except `/`, each with the replicas that its requests need.
    paths: Vec<(String, ReplicaSet)>,
    /// The replicas that requests of all other paths need.
    others: ReplicaSet,
}

impl Needs {
    pub(super) fn new(needs: &BTreeMap<String, Vec<ReplicaId>>, replicas: &[Replica]) -> Option<Box<Self>> {
        if needs.is_empty() {
            return None;
        }
        let set = |ids: &Vec<ReplicaId>| {
            let positions = ids.iter().filter_map(|id| position(replicas, |replica| replica.id == *id));
            positions.fold(ReplicaSet::EMPTY, ReplicaSet::with)
        };
        let others = needs.get("/").map_or(ReplicaSet::EMPTY, set);
        let paths: Vec<(String, ReplicaSet)> =
            needs.iter().filter(|(path, _)| *path != "/").map(|(path, ids)| (path.clone(), set(ids))).collect();
        let everywhere = paths.iter().fold(others, |all, (_, needs)| all.and(*needs));
        Some(Box::new(Self { everywhere, paths, others }))
    }

    /// The replicas that a request of `path` needs. The longest listed path counts whose segments `path` begins with.
    pub(super) fn of(&self, path: &str) -> ReplicaSet {
        let holds =
            |listed: &str| path.strip_prefix(listed).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        let listed = self.paths.iter().filter(|(listed, _)| holds(listed)).max_by_key(|(listed, _)| listed.len());
        listed.map_or(self.others, |(_, set)| *set)
    }
}
