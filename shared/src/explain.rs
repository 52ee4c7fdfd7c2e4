//! Takes a steering (the decision for one client), returns its explanation for people and programs. Called by the
//! command line, the API and the edge, so all of them use the same words.

use core::fmt::Write;
use std::collections::BTreeMap;

use crate::geo::{self, CountryCode};
use crate::health::{Aspect, ReplicaSet};
use crate::id::{JurisdictionId, RegionId, ReplicaId, ServiceId};
use crate::rules::Ratio;
use crate::steer::first_token::{self, Expected, FirstTokens};
use crate::steer::{
    Ask, Conditions, FenceBy, JurisdictionSource, Ranked, Ranking, Reason, Standing, Steering, behind, decide,
    differing_endpoints, rank_for, stand,
};
use crate::table::{RegionIndex, Table};
use crate::time::Timestamp;

/// An explanation: as JSON by `serde`, as text by [`Explanation::to_text`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Explanation {
    /// The revision of the rules.
    pub revision: u64,
    /// The service that the request is for.
    pub service: ServiceId,
    /// The client's place.
    pub client: ExplainedClient,
    /// `tenant` if the tenant's own `process_in` gives the fence; absent otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fence_by: Option<&'static str>,
    /// The fence: the regions that residency allows, best first.
    pub fence: Vec<RegionId>,
    /// The regions offered, best first.
    pub ordered: Vec<ExplainedRegion>,
    /// The regions of the fence that aren't offered.
    pub withheld: Vec<ExplainedWithheld>,
    /// Whether regions are offered although all of the fence is withheld.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub revived: bool,
    /// Whether the freshest region is offered although every region that could serve lags.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub stale: bool,
    /// Whether regions are offered although they run another release, because no other region could be.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub skewed: bool,
    /// The earliest end of an override or cool-down that influenced the decision.
    pub valid_until: Option<Timestamp>,
    /// By record type, the region whose addresses DNS answers, where that isn't the first of `ordered`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub by_type: BTreeMap<&'static str, RegionId>,
    /// Where clients of this fence are moved because of load, and which part of them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub shed: Vec<ExplainedShare>,
    /// The region whose addresses DNS answers this client, if the client is moved because of load.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub moved_to: Option<RegionId>,
    #[serde(skip)]
    given_by: Option<FenceBy>,
    #[serde(skip)]
    hub_outside: bool,
}

/// The client's jurisdictions, and how they were found.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedClient {
    /// The client's country; null: unknown.
    pub country: Option<CountryCode>,
    /// The client's jurisdictions.
    pub jurisdictions: Vec<JurisdictionId>,
    /// How the jurisdictions were found.
    pub source: JurisdictionSource,
    /// What the law of the EU and the EEA says about the client's country, where people often err. It is the end of a
    /// sentence that begins with the country's code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub territory: Option<&'static str>,
}

/// A region that is offered.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedRegion {
    /// The region's name.
    pub region: RegionId,
    /// The tier of `process_in` in which the region lies, from 0.
    pub tier: usize,
    /// The distance to the client in kilometres.
    pub km: Option<u32>,
    /// The expected network time in milliseconds, where regions are ordered by the time to the first token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub way_ms: Option<u32>,
    /// The median time to the first token observed in the region, in milliseconds, in the same case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u32>,
    /// Its copies of replicas that are too far behind, if the region is offered as the freshest. A replica is knowledge
    /// that regions hold copies of.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<ExplainedLag>,
}

/// A copy of a replica that is too far behind.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ExplainedLag {
    /// The name of the replica.
    pub replica: ReplicaId,
    /// How far the copy is behind, such as `75s`; absent if that isn't known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
}

/// Clients that are moved because of load.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedShare {
    /// The region that serves them if they aren't moved.
    pub from: RegionId,
    /// The region that they are moved to.
    pub to: RegionId,
    /// The part of the clients that is moved, from 0 to 1.
    pub share: f64,
}

/// A region of the fence that isn't offered.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct ExplainedWithheld {
    /// The region's name.
    pub region: RegionId,
    /// Why it isn't offered.
    pub reason: Reason,
    /// Its copies of replicas that are too far behind, if that is the reason.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<ExplainedLag>,
    /// Which aspects of the release differ there, if that is the reason and the model is known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<&'static str>,
}

/// Steers a request and explains the decision.
#[must_use]
pub fn explain(table: &Table, ask: &Ask<'_>, conditions: &Conditions<'_>) -> Explanation {
    let standing = stand(table, &ask.client);
    let ranking = rank_for(table, ask, &standing);
    let steering = decide(table, &ranking, ask.model, conditions);
    of(table, (ask, conditions), &standing, &ranking, &steering)
}

/// Explains the decision of the edge, which may order regions by the time to the first token.
#[must_use]
pub fn explain_at_edge(
    table: &Table,
    ask: &Ask<'_>,
    conditions: &Conditions<'_>,
    observed: &FirstTokens,
) -> Explanation {
    let standing = stand(table, &ask.client);
    let ranking = rank_for(table, ask, &standing);
    let mut steering = decide(table, &ranking, ask.model, conditions);
    observed.order(table, ask, &ranking, &mut steering);
    let mut explanation = of(table, (ask, conditions), &standing, &ranking, &steering);
    if first_token::applies(table, ask, &ranking) {
        for (region, ranked) in explanation.ordered.iter_mut().zip(&steering.ordered) {
            let expected = observed.expected(ask.service, ranked);
            region.way_ms = expected.map(Expected::way_ms);
            region.first_token_ms = expected.map(|expected| expected.median_ms);
        }
    }
    explanation
}

/// Puts together the explanation of one decision.
fn of(
    table: &Table,
    (ask, conditions): (&Ask<'_>, &Conditions<'_>),
    standing: &Standing,
    ranking: &Ranking,
    steering: &Steering,
) -> Explanation {
    let lags = |is_wanted: bool, region: RegionIndex| {
        let needs = if is_wanted { ranking.needs } else { ReplicaSet::EMPTY };
        let explained = |(replica, lag): crate::steer::Behind| ExplainedLag {
            replica: table.replica(replica).id.clone(),
            lag: lag.map(|lag| lag.to_string()),
        };
        behind(needs, region, conditions).into_iter().map(explained).collect::<Vec<_>>()
    };
    let name = |ranked: &Ranked| table.region(ranked.fenced.region).id.clone();
    Explanation {
        revision: table.revision().number,
        service: table.service(ask.service).id.clone(),
        client: ExplainedClient {
            country: standing.country,
            jurisdictions: standing.jurisdictions.iter().map(|&index| table.jurisdiction(index).clone()).collect(),
            source: standing.source,
            territory: standing.country.and_then(geo::territory).map(|territory| territory.why),
        },
        fence_by: ranking.fence_by.filter(|by| *by == FenceBy::Tenant).map(FenceBy::as_str),
        fence: ranking.order.iter().map(name).collect(),
        ordered: steering
            .ordered
            .iter()
            .map(|ranked| ExplainedRegion {
                region: name(ranked),
                tier: ranked.fenced.tier,
                km: ranked.km,
                way_ms: None,
                first_token_ms: None,
                behind: lags(steering.stale, ranked.fenced.region),
            })
            .collect(),
        withheld: steering
            .withheld
            .iter()
            .map(|withheld| ExplainedWithheld {
                region: name(&withheld.ranked),
                reason: withheld.reason,
                behind: lags(withheld.reason == Reason::Lagging, withheld.ranked.fenced.region),
                differs: match withheld.reason {
                    Reason::Skew => differs(table, (ask, conditions), ranking, withheld.ranked.fenced.region),
                    _ => Vec::new(),
                },
            })
            .collect(),
        revived: steering.revived,
        stale: steering.stale,
        skewed: steering.skewed,
        valid_until: steering.valid_until,
        by_type: BTreeMap::new(),
        shed: Vec::new(),
        moved_to: None,
        given_by: ranking.fence_by,
        hub_outside: ranking.only == Some(None) && !ranking.order.is_empty(),
    }
}

/// Which aspects of the requested model's release differ in a region, each once.
fn differs(
    table: &Table,
    (ask, conditions): (&Ask<'_>, &Conditions<'_>),
    ranking: &Ranking,
    region: RegionIndex,
) -> Vec<&'static str> {
    let Some(release) = ask.model.and_then(|model| table.release_of(model)) else { return Vec::new() };
    let differing_endpoints = differing_endpoints(table, &ranking.regions(), release, conditions);
    let of_region: Vec<Aspect> = differing_endpoints
        .into_iter()
        .filter(|differing| differing.region == region)
        .flat_map(|differing| differing.aspects)
        .collect();
    Aspect::ALL.into_iter().filter(|aspect| of_region.contains(aspect)).map(Aspect::as_str).collect()
}

impl Explanation {
    /// Adds that parts of these clients are moved from the first region of the fence. `moves` gives the regions to
    /// which they are moved, and the shares.
    pub fn add_shed(&mut self, table: &Table, moves: &[(RegionIndex, Ratio)]) {
        let Some(from) = self.fence.first().cloned() else { return };
        let share = |(to, share): &(RegionIndex, Ratio)| ExplainedShare {
            from: from.clone(),
            to: table.region(*to).id.clone(),
            share: f64::from(share.0) / f64::from(Ratio::ONE.0),
        };
        self.shed = moves.iter().filter(|(_, share)| *share > Ratio(0)).map(share).collect();
    }

    /// The decision step by step, as text for a person. Each line ends with `\n`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = self.write_text(&mut text);
        text
    }

    /// Writes the explanation as lines for a terminal.
    fn write_text(&self, out: &mut String) -> core::fmt::Result {
        writeln!(out, "service    {}, rules revision {}", self.service, self.revision)?;
        writeln!(out, "client     {}", self.client_sentence())?;
        if let (Some(country), Some(why)) = (self.client.country, self.client.territory) {
            writeln!(out, "territory  {country} {why}")?;
        }
        match self.given_by {
            None => writeln!(out, "residency  no rule takes this client: the fence is empty; {}", self.mend())?,
            Some(FenceBy::Rule(rule)) => writeln!(out, "residency  rule {rule} takes this client")?,
            Some(FenceBy::Tenant) => {
                writeln!(out, "residency  its tenant's own process_in is the fence, whatever the rules say")?;
            }
        }
        writeln!(out, "fence      {}", names_or_nothing(self.fence.iter()))?;
        self.write_withheld(out)?;
        if self.revived {
            writeln!(
                out,
                "revived    everything in the fence is down: it is offered all the same (when_all_down: serve-fence)"
            )?;
        }
        for (position, region) in self.ordered.iter().enumerate() {
            let km = region.km.map(|km| format!(", {km} km away")).unwrap_or_default();
            let expected = region.way_ms.zip(region.first_token_ms);
            let ms = expected.map(|(way, first)| format!(", {way} ms + {first} ms to the first token"));
            let ms = ms.unwrap_or_default();
            writeln!(out, "order {:>3}  {} (tier {}{km}{ms})", position + 1, region.region, region.tier)?;
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
        for share in &self.shed {
            let percent = share.share * 100.0;
            writeln!(out, "load       {percent:.1} % of these clients go from {} to {}", share.from, share.to)?;
        }
        if let Some(to) = &self.moved_to {
            writeln!(out, "moved      this client is one of them: DNS answers {to}")?;
        }
        match self.valid_until {
            Some(until) => writeln!(out, "valid      until {until}"),
            None => writeln!(out, "valid      until rules or health change"),
        }
    }

    /// Writes the regions that aren't offered, and a region that is offered although it lags or runs another release.
    fn write_withheld(&self, out: &mut String) -> core::fmt::Result {
        for withheld in &self.withheld {
            let behind = behind_sentence(&withheld.behind);
            let differs = match withheld.differs[..] {
                [] => String::new(),
                _ => format!(": {}", withheld.differs.join(", ")),
            };
            writeln!(out, "withheld   {}: {}{behind}{differs}", withheld.region, sentence(withheld.reason))?;
        }
        if self.skewed {
            let why = "no other region of the fence is left";
            writeln!(out, "skewed     what runs another release is offered all the same: {why}")?;
        }
        if let Some(first) = self.ordered.first().filter(|_| self.stale) {
            let behind = behind_sentence(&first.behind);
            writeln!(
                out,
                "stale      {} is the freshest and offered all the same (keep_freshest){behind}",
                first.region
            )?;
        }
        Ok(())
    }

    /// Which residency rule would match the client, as a sentence.
    fn mend(&self) -> String {
        let clients = match (self.client.source, &self.client.jurisdictions[..]) {
            (JurisdictionSource::Unknown, _) => "\"unknown\"".to_owned(),
            (_, []) => "\"*\"".to_owned(),
            (_, [value, ..]) => format!("{value:?} or \"*\""),
        };
        format!("a rule of the service with {clients} among its \"clients\" would")
    }

    /// Where the client is, and how that was found.
    fn client_sentence(&self) -> String {
        let country = self.client.country.map_or("an unknown country".to_owned(), |country| country.to_string());
        let jurisdictions = names_or_nothing(self.client.jurisdictions.iter());
        match self.client.source {
            JurisdictionSource::Tenant => format!("{country}; jurisdictions {jurisdictions}, as its tenant declares"),
            JurisdictionSource::Network => format!("{country}, as \"networks\" says; jurisdictions: {jurisdictions}"),
            JurisdictionSource::Geography => format!("{country}, by geography; jurisdictions: {jurisdictions}"),
            JurisdictionSource::Unknown => "unknown: no country could be learnt".to_owned(),
        }
    }
}

/// Why a region isn't offered.
fn sentence(reason: Reason) -> &'static str {
    match reason {
        Reason::NotHome => "not_home (the pattern keeps this client at one region)",
        Reason::Forced => "forced (an override says down)",
        Reason::Down => "down (its monitors say so)",
        Reason::NoModel => "no_model (no endpoint has the model)",
        Reason::Lagging => "lagging (a replica that is needed is too far behind)",
        Reason::Version => "version (a replica that is needed has another version)",
        Reason::Skew => "skew (it runs another release of the model)",
        Reason::Cooling => "cooling (its endpoints asked for a rest)",
    }
}

/// The copies that are too far behind, as the end of a line.
fn behind_sentence(behind: &[ExplainedLag]) -> String {
    let text = |lag: &ExplainedLag| format!("{} {}", lag.replica, lag.lag.as_deref().unwrap_or("unknown"));
    let all: Vec<String> = behind.iter().map(text).collect();
    if all.is_empty() { String::new() } else { format!(": {}", all.join(", ")) }
}

fn names_or_nothing<T: core::fmt::Display>(names: impl Iterator<Item = T>) -> String {
    let names: Vec<String> = names.map(|name| name.to_string()).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{RegionHealth, Status};
    use crate::steer::{Client, Local, PathClass};

    const RULES: &str = r#"{ "version": 1, "revision": 7,
        "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "fra": { "countries": ["DE"] }, "par": { "countries": ["FR"] } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                "residency": [ { "clients": ["eu"], "process_in": ["eu"] } ] } } }"#;

    fn reported(country: Option<&str>, down: &[usize]) -> Explanation {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let client = Client { country: country.and_then(CountryCode::parse), ..Client::default() };
        let service = table.service_named("chat").unwrap();
        let ask = Ask { service, client, model: None, path_class: PathClass::Inference, needs: None };
        let mut health = vec![RegionHealth::default(); 2];
        for &index in down {
            health[index].probed = Status::Down;
        }
        explain(&table, &ask, &Conditions { health: &health, local: &Local::default(), now: Timestamp(0) })
    }

    #[test]
    fn the_text_tells_each_step() {
        assert_eq!(
            reported(Some("DE"), &[0]).to_text(),
            "service    chat, rules revision 7\n\
             client     DE, by geography; jurisdictions: eu\n\
             residency  rule 0 takes this client\n\
             fence      fra, par\n\
             withheld   fra: down (its monitors say so)\n\
             order   1  par (tier 0, 764 km away)\n\
             answer     par\n\
             valid      until rules or health change\n"
        );
        let mut moved = reported(Some("DE"), &[]);
        let table = Table::compile(RULES.as_bytes()).unwrap();
        moved.add_shed(&table, &[(table.region_named("par").unwrap(), Ratio(123_456))]);
        assert!(moved.to_text().contains("answer     fra\nload       12.3 % of these clients go from fra to par\n"));
        let json = serde_json::to_value(&moved).unwrap();
        assert_eq!(json["shed"], serde_json::json!([{ "from": "fra", "to": "par", "share": 0.123_456 }]));
        moved.moved_to = Some(table.region(table.region_named("par").unwrap()).id.clone());
        assert!(moved.to_text().contains("to par\nmoved      this client is one of them: DNS answers par\n"));
        assert_eq!(serde_json::to_value(&moved).unwrap()["moved_to"], "par");
        assert!(reported(None, &[]).to_text().contains("no rule takes this client: the fence is empty"));
        assert!(reported(Some("DE"), &[0, 1]).to_text().contains("revived    everything in the fence is down"));
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let json = serde_json::to_string(&reported(Some("DE"), &[0])).unwrap();
        assert_eq!(
            json,
            concat!(
                r#"{"revision":7,"service":"chat","client":{"country":"DE","jurisdictions":["eu"],"#,
                r#""source":"geography"},"fence":["fra","par"],"ordered":[{"region":"par","tier":0,"km":764}],"#,
                r#""withheld":[{"region":"fra","reason":"down"}],"valid_until":null}"#,
            )
        );
    }
}
