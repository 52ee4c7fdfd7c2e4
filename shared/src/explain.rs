//! A steering told to people and programs, in the same words everywhere: the command line, the API and the edge.

use core::fmt::Write;

use crate::geo::CountryCode;
use crate::id::{JurisdictionId, RegionId, ServiceId};
use crate::steer::{Ask, Conditions, Ranked, Ranking, Reason, Source, Standing, Steering, decide, rank, stand};
use crate::table::Table;
use crate::time::Timestamp;

/// An explanation: as JSON by `serde`, as text by [`Explanation::to_text`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Explanation {
    /// The rules document followed.
    pub revision: u64,
    /// The service asked for.
    pub service: ServiceId,
    /// Where the client stands.
    pub client: ExplainedClient,
    /// The regions residency allows, best first.
    pub fence: Vec<RegionId>,
    /// The regions offered, best first.
    pub ordered: Vec<ExplainedRegion>,
    /// The regions of the fence that aren't offered.
    pub withheld: Vec<ExplainedWithheld>,
    /// Whether all of the fence was withheld and is offered all the same.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub revived: bool,
    /// When an override or cool-down that played a part ends.
    pub valid_until: Option<Timestamp>,
    #[serde(skip)]
    rule: Option<usize>,
    #[serde(skip)]
    hub_outside: bool,
}

/// Where a client stands and how that was learnt.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedClient {
    /// Its country.
    pub country: Option<CountryCode>,
    /// Its jurisdictions.
    pub jurisdictions: Vec<JurisdictionId>,
    /// How they were learnt.
    pub source: Source,
}

/// A region that is offered.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedRegion {
    /// Its name.
    pub region: RegionId,
    /// The tier of `process_in` it lies in, from 0.
    pub tier: usize,
    /// Kilometres to the client.
    pub km: Option<u32>,
}

/// A region that isn't.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedWithheld {
    /// Its name.
    pub region: RegionId,
    /// Why.
    pub reason: Reason,
}

/// Steers and explains at once.
#[must_use]
pub fn explain(table: &Table, ask: &Ask<'_>, conditions: &Conditions<'_>) -> Explanation {
    let standing = stand(table, &ask.client);
    let ranking = rank(table, ask.service, &standing, ask.path_class);
    let steering = decide(table, &ranking, ask.model, conditions);
    of(table, ask, &standing, &ranking, &steering)
}

fn of(table: &Table, ask: &Ask<'_>, standing: &Standing, ranking: &Ranking, steering: &Steering) -> Explanation {
    let name = |ranked: &Ranked| table.region(ranked.fenced.region).id.clone();
    Explanation {
        revision: table.revision().number,
        service: table.service(ask.service).id.clone(),
        client: ExplainedClient {
            country: standing.country,
            jurisdictions: standing.jurisdictions.iter().map(|&index| table.jurisdiction(index).clone()).collect(),
            source: standing.source,
        },
        fence: ranking.order.iter().map(name).collect(),
        ordered: steering
            .ordered
            .iter()
            .map(|ranked| ExplainedRegion { region: name(ranked), tier: ranked.fenced.tier, km: ranked.km })
            .collect(),
        withheld: steering
            .withheld
            .iter()
            .map(|withheld| ExplainedWithheld { region: name(&withheld.ranked), reason: withheld.reason })
            .collect(),
        revived: steering.revived,
        valid_until: steering.valid_until,
        rule: ranking.rule,
        hub_outside: ranking.only == Some(None) && !ranking.order.is_empty(),
    }
}

impl Explanation {
    /// The decision step by step, for a person; lines end with `\n`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        writeln!(out, "service    {}, rules revision {}", self.service, self.revision)?;
        writeln!(out, "client     {}", self.client_sentence())?;
        match self.rule {
            None => writeln!(out, "residency  no rule takes this client: the fence is empty")?,
            Some(rule) => writeln!(out, "residency  rule {rule} takes this client")?,
        }
        writeln!(out, "fence      {}", names_or_nothing(self.fence.iter()))?;
        for withheld in &self.withheld {
            writeln!(out, "withheld   {}: {}", withheld.region, sentence(withheld.reason))?;
        }
        if self.revived {
            writeln!(
                out,
                "revived    everything in the fence is down: it is offered all the same (when_all_down: serve-fence)"
            )?;
        }
        for (position, region) in self.ordered.iter().enumerate() {
            let km = region.km.map(|km| format!(", {km} km away")).unwrap_or_default();
            writeln!(out, "order {:>3}  {} (tier {}{km})", position + 1, region.region, region.tier)?;
        }
        if self.ordered.is_empty() {
            let why = if self.hub_outside {
                "the hub lies outside the fence"
            } else if self.fence.is_empty() {
                "residency allows no region; nothing outside the fence is ever offered"
            } else {
                "every region of the fence is withheld; nothing outside the fence is ever offered"
            };
            writeln!(out, "answer     none: {why}")?;
        } else {
            writeln!(out, "answer     {}", self.ordered[0].region)?;
        }
        match self.valid_until {
            Some(until) => writeln!(out, "valid      until {until}"),
            None => writeln!(out, "valid      until rules or health change"),
        }
    }

    fn client_sentence(&self) -> String {
        let country = self.client.country.map_or("an unknown country".to_owned(), |country| country.to_string());
        let jurisdictions = names_or_nothing(self.client.jurisdictions.iter());
        match self.client.source {
            Source::Tenant => format!("{country}; jurisdictions {jurisdictions}, as its tenant declares"),
            Source::Network => format!("{country}, as \"networks\" says; jurisdictions: {jurisdictions}"),
            Source::Geography => format!("{country}, by geography; jurisdictions: {jurisdictions}"),
            Source::Unknown => "unknown: no country could be learnt".to_owned(),
        }
    }
}

fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::NotHome => "not_home (the pattern keeps this client at one region)",
        Reason::Forced => "forced (an override says down)",
        Reason::Down => "down (its monitors say so)",
        Reason::NoModel => "no_model (no endpoint has the model)",
        Reason::Cooling => "cooling (its endpoints asked for a rest)",
    }
}

fn names_or_nothing<T: core::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}
