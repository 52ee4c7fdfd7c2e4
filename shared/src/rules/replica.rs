//! The fields of the rules about replicas of knowledge, such as a search index of which regions hold copies: how far a
//! region's copy may be behind, and where a node reads how far it is behind. Read by [`super::read`]; used by
//! `replica`, which makes a reading from an answer, and by the DNS node, which sends the requests.

use schemars::JsonSchema;

use super::{HttpProbe, Series};
use crate::health::Lag;
use crate::time::Millis;

/// Knowledge that regions hold copies of, such as a vector index or a database. A region whose copy is too far behind
/// is withheld from what needs it.
#[derive(Clone, Debug, PartialEq, JsonSchema)]
#[schemars(deny_unknown_fields)]
pub struct Replica {
    /// How far a copy may be behind: a duration, or a number of bytes or operations. Absent: only versions matter.
    #[schemars(default, with = "Option<super::schema::LagAsWritten>")]
    pub max_lag: Option<Lag>,
    /// At or below this a region that was withheld comes back; half of `max_lag` by default.
    #[schemars(default, with = "Option<super::schema::LagAsWritten>")]
    pub resume: Option<Lag>,
    /// What counts while nobody can read how far a copy is behind, or which version it has.
    #[schemars(default)]
    pub unknown: WhenUnknown,
    /// Readings in a row above `max_lag` that withhold a region, or that fail until it counts as unknown.
    #[schemars(default = "super::schema::three", range(min = 1, max = 1000))]
    pub down_thresh: u32,
    /// Readings in a row at or below `resume` that bring a region back.
    #[schemars(default = "super::schema::three", range(min = 1, max = 1000))]
    pub up_thresh: u32,
    /// `version`: a region whose copy has another version than `version` says, or than most regions of the fence have,
    /// is withheld, so that two versions are never mixed.
    #[schemars(default)]
    pub group: Option<GroupBy>,
    /// The version that counts; by default that of most regions of the fence. Only with `group`.
    #[schemars(default)]
    pub version: Option<String>,
    /// When every region of a fence lags, the one that is least behind is offered all the same, and answers say how far
    /// it is.
    #[schemars(default)]
    pub keep_freshest: bool,
}

/// What counts while nobody can read how far a copy is behind, or which version it has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum WhenUnknown {
    /// The region is withheld.
    #[default]
    Withhold,
    /// The last that was read stands.
    Ignore,
}

/// What regions are grouped by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum GroupBy {
    /// The version of their copies.
    Version,
}

/// A region's copy of a replica.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RegionReplica {
    /// Whether the region holds the original, as the rules say. The answer may say so too.
    pub is_leader: bool,
    /// Where it is read how far the copy is behind. `None` for a leader that nobody asks.
    pub source: Option<Box<ReplicaSource>>,
}

/// Where it is read how far a copy is behind.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplicaSource {
    /// What is asked for and how the answer is read.
    pub reads: ReplicaReads,
    /// What is fetched; for a store, the base of its API.
    pub http: HttpProbe,
    /// Time between the starts of two readings.
    pub interval: Millis,
    /// How long one reading may take.
    pub timeout: Millis,
}

/// How an answer is read.
#[derive(Clone, Debug, PartialEq)]
pub enum ReplicaReads {
    /// JSON, by pointers.
    Json(JsonReads),
    /// A metrics page in Prometheus's text format.
    Prometheus {
        /// The series.
        series: Series,
        /// What its number means.
        unit: LagUnit,
    },
    /// Qdrant: the update queue of a collection whose shards are all active.
    Qdrant {
        /// The collection.
        collection: String,
    },
    /// Patroni: the lag of a member of its cluster.
    Patroni {
        /// The member that stands in the region.
        member: String,
    },
    /// Elasticsearch's cross-cluster replication: the operations that a follower index lacks.
    Elasticsearch {
        /// The follower index.
        index: String,
    },
    /// Weaviate: the objects that wait to be indexed.
    Weaviate {
        /// The collection; `None`: all.
        collection: Option<String>,
    },
}

impl ReplicaReads {
    /// Its `as` in the rules.
    #[must_use]
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Json(json) => json.lag.as_ref().map_or("version", |(_, unit)| unit.as_str()),
            Self::Prometheus { .. } => "prometheus",
            Self::Qdrant { .. } => "qdrant",
            Self::Patroni { .. } => "patroni",
            Self::Elasticsearch { .. } => "elasticsearch-ccr",
            Self::Weaviate { .. } => "weaviate",
        }
    }

    /// What its lag is measured in; `None` if it reads a version only.
    #[must_use]
    pub fn unit(&self) -> Option<LagUnit> {
        match self {
            Self::Json(json) => json.lag.as_ref().map(|(_, unit)| *unit),
            Self::Prometheus { unit, .. } => Some(*unit),
            Self::Patroni { .. } => Some(LagUnit::Bytes),
            Self::Qdrant { .. } | Self::Elasticsearch { .. } | Self::Weaviate { .. } => Some(LagUnit::Count),
        }
    }

    /// Whether it reads a version.
    #[must_use]
    pub fn has_version(&self) -> bool {
        matches!(self, Self::Json(json) if json.version.is_some())
    }
}

/// Where things stand in a JSON answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonReads {
    /// How far the copy is behind, and what the number means. `None`: only the version is read.
    pub lag: Option<(JsonPointer, LagUnit)>,
    /// The time that a `timestamp` is compared with; by default the node's clock.
    pub now: Option<JsonPointer>,
    /// Whether this is the leader.
    pub leader: Option<JsonPointer>,
    /// The version of the copy.
    pub version: Option<JsonPointer>,
}

/// What the number of a reading means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum LagUnit {
    /// The time of the newest thing that was applied: RFC 3339, or seconds, milliseconds, microseconds or nanoseconds
    /// since 1970.
    Timestamp,
    /// Seconds behind.
    Seconds,
    /// Bytes behind.
    Bytes,
    /// Operations, objects or rows behind.
    Count,
}

impl LagUnit {
    /// The word for it in the rules.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Timestamp => "timestamp",
            Self::Seconds => "seconds",
            Self::Bytes => "bytes",
            Self::Count => "count",
        }
    }

    /// Whether a lag in this unit can be compared with `limit`.
    #[must_use]
    pub fn fits(self, limit: Lag) -> bool {
        matches!(
            (self, limit),
            (Self::Timestamp | Self::Seconds, Lag::Time(_)) | (Self::Bytes | Self::Count, Lag::Amount(_))
        )
    }
}

/// A JSON pointer (RFC 6901).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JsonPointer(Box<str>);

impl JsonPointer {
    /// The longest pointer, in bytes.
    const LONGEST: usize = 256;

    /// Reads a pointer: empty, or steps that each begin with `/`, in which `~` is written `~0` and `/` `~1`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_escaped = |step: &str| step.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
        let is_pointer = text.is_empty() || text.starts_with('/');
        let fits = text.len() <= Self::LONGEST && !text.chars().any(char::is_control);
        (is_pointer && fits && is_escaped(text)).then(|| Self(text.into()))
    }

    /// The pointer as written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
