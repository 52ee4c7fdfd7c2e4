//! Lists all fences of a rule book. A fence is the regions that may process a client. Takes a table, returns each
//! client's fence: by tenant, and by country for clients that have no tenant or whose tenant declares no residency.
//! Called by `explain --all`, the API and the edge.
//!
//! A fence depends neither on health nor on models nor on the time, so the list follows from the document alone.

use core::fmt::Write;

use crate::geo::{self, CountryCode};
use crate::id::{JurisdictionId, RegionId, ServiceId, TenantId};
use crate::steer::{
    Client, Conditions, FenceBy, JurisdictionSource, PathClass, Ranked, Ranking, Standing, decide, rank, stand,
};
use crate::table::{JurisdictionIndex, ServiceIndex, Table, TenantIndex};

/// How many countries a line of text names before it counts the rest.
const MAX_LISTED: usize = 6;

/// Every fence: as JSON by `serde`, as text by [`Overview::to_text`].
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Overview {
    /// The revision of the rules.
    pub revision: u64,
    /// Every jurisdiction with its countries.
    pub jurisdictions: Vec<Territory>,
    /// Every fence, by service, then by tenant, then by clients.
    pub fences: Vec<Row>,
}

/// A jurisdiction and its countries.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Territory {
    /// The jurisdiction's name.
    pub name: JurisdictionId,
    /// The document's description of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The jurisdiction's countries, by code.
    pub countries: Vec<CountryCode>,
}

/// The fence of some clients of a service.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct Row {
    /// The service.
    pub service: ServiceId,
    /// The tenant; absent if the service has no tenants.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<TenantId>,
    /// Which clients.
    #[serde(flatten)]
    pub clients: Clients,
    /// What gives the clients their fence: `tenant` (the tenant's own `process_in`), `rule`, or null if no rule
    /// matches.
    pub fence_by: Option<&'static str>,
    /// The position of the residency rule, if a rule gives the fence.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<usize>,
    /// The fence in the order for a client without a location: standby regions last, then by tier, then in the order of
    /// the document.
    pub fence: Vec<FencedRegion>,
    /// Whether the hub of `hub-and-spoke` lies in the fence; if it doesn't, requests of hub paths are denied.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub_in_fence: Option<bool>,
    #[serde(skip)]
    ranking: Ranking,
}

/// Which clients a fence is for.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "clients", rename_all = "lowercase")]
pub enum Clients {
    /// All clients of the tenant, wherever they are.
    All,
    /// All clients of the tenant, by the residency that it declares.
    Declared {
        /// The jurisdictions that the tenant declares.
        jurisdictions: Vec<JurisdictionId>,
    },
    /// Clients in some countries.
    Geography {
        /// The jurisdictions in which these countries lie; all of these countries lie in the same ones.
        jurisdictions: Vec<JurisdictionId>,
        /// The countries, by code.
        countries: Vec<CountryCode>,
    },
    /// Clients whose country is unknown.
    Unknown,
}

/// A region of a fence.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
pub struct FencedRegion {
    /// The region's name.
    pub region: RegionId,
    /// The tier of `process_in` in which the region lies, from 0.
    pub tier: usize,
    /// Whether the region comes after every region that isn't standby.
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    pub standby: bool,
}

/// The fences of one service or of all, for one tenant or for all.
#[must_use]
pub fn overview(table: &Table, service: Option<ServiceIndex>, tenant: Option<TenantIndex>) -> Overview {
    let classes = classes(table);
    let mut fences = Vec::new();
    for (index, _) in table.services().iter().enumerate() {
        let index = ServiceIndex::new(index);
        if service.is_none_or(|only| only == index) {
            add_service(table, index, tenant, &classes, &mut fences);
        }
    }
    Overview { revision: table.revision().number, jurisdictions: territories(table).collect(), fences }
}

/// Every jurisdiction with its countries.
pub fn territories(table: &Table) -> impl Iterator<Item = Territory> {
    let territory = |(name, set, description): (&JurisdictionId, &geo::CountrySet, Option<&str>)| Territory {
        name: name.clone(),
        description: description.map(str::to_owned),
        countries: set.iter().collect(),
    };
    table.jurisdictions().map(territory)
}

/// Countries that lie in the same jurisdictions.
struct CountryClass {
    jurisdictions: Vec<JurisdictionIndex>,
    countries: Vec<CountryCode>,
}

/// All countries, grouped by the jurisdictions in which they lie.
fn classes(table: &Table) -> Vec<CountryClass> {
    let mut classes: Vec<CountryClass> = Vec::new();
    for country in geo::countries() {
        let jurisdictions = table.jurisdictions_of(country);
        match classes.iter_mut().find(|class| class.jurisdictions == jurisdictions) {
            Some(class) => class.countries.push(country),
            None => classes.push(CountryClass { jurisdictions, countries: vec![country] }),
        }
    }
    // Countries that lie in no jurisdiction come last, as in the order in which rules are usually written.
    classes.sort_by_key(|class| class.jurisdictions.is_empty());
    classes
}

/// Adds the rows of a service: for each tenant, or for all clients if the service has no tenants.
fn add_service(
    table: &Table,
    index: ServiceIndex,
    only: Option<TenantIndex>,
    classes: &[CountryClass],
    rows: &mut Vec<Row>,
) {
    let of_geography = |tenant: Option<TenantIndex>, rows: &mut Vec<Row>| {
        for class in classes {
            let names = class.jurisdictions.iter().map(|&index| table.jurisdiction(index).clone()).collect();
            let clients = Clients::Geography { jurisdictions: names, countries: class.countries.clone() };
            let standing =
                Standing { jurisdictions: class.jurisdictions.clone(), ..nowhere(JurisdictionSource::Geography) };
            rows.push(row(table, index, tenant, clients, &standing));
        }
        rows.push(row(table, index, tenant, Clients::Unknown, &nowhere(JurisdictionSource::Unknown)));
    };
    if !table.service(index).requires_key {
        if only.is_none() {
            of_geography(None, rows);
        }
        return;
    }
    for (position, tenant) in table.tenants().iter().enumerate() {
        let place = TenantIndex::new(position);
        if !tenant.services.contains(&index) || only.is_some_and(|only| only != place) {
            continue;
        }
        let declared = || tenant.residency.iter().map(|&index| table.jurisdiction(index).clone()).collect();
        let clients = match (tenant.has_fence(), tenant.residency.is_empty()) {
            (true, _) => Clients::All,
            (false, false) => Clients::Declared { jurisdictions: declared() },
            (false, true) => {
                of_geography(Some(place), rows);
                continue;
            }
        };
        let standing = stand(table, &Client { tenant: Some(place), ..Client::default() });
        rows.push(row(table, index, Some(place), clients, &standing));
    }
}

/// The standing of a client whose place is unknown.
fn nowhere(source: JurisdictionSource) -> Standing {
    Standing { country: None, jurisdictions: Vec::new(), source, location: None, fenced: None }
}

/// The fence for some clients of a service.
fn row(table: &Table, index: ServiceIndex, tenant: Option<TenantIndex>, clients: Clients, standing: &Standing) -> Row {
    let service = table.service(index);
    let ranking = rank(table, index, standing, PathClass::Inference);
    let fenced = |ranked: &Ranked| {
        let region = table.region(ranked.fenced.region);
        FencedRegion { region: region.id.clone(), tier: ranked.fenced.tier, standby: region.standby }
    };
    let fence: Vec<FencedRegion> = ranking.order.iter().map(fenced).collect();
    Row {
        service: service.id.clone(),
        tenant: tenant.map(|tenant| table.tenant(tenant).id.clone()),
        clients,
        fence_by: ranking.fence_by.map(FenceBy::as_str),
        rule: if let Some(FenceBy::Rule(rule)) = ranking.fence_by { Some(rule) } else { None },
        hub_in_fence: service.hub.as_ref().map(|hub| fence.iter().any(|fenced| fenced.region == hub.region)),
        fence,
        ranking,
    }
}

impl Overview {
    /// The fences as a table of text, for a person. Each line ends with `\n`.
    #[must_use]
    pub fn to_text(&self) -> String {
        let mut lines = vec![["service", "tenant", "clients", "by", "fence"].map(str::to_owned)];
        for row in &self.fences {
            let tenant = row.tenant.as_ref().map_or("-".to_owned(), ToString::to_string);
            lines.push([row.service.to_string(), tenant, row.clients.sentence(), row.given_by(), row.fence_sentence()]);
        }
        let mut text = format!("rules revision {}\n\n", self.revision);
        columns(&lines, &mut text);
        if !self.jurisdictions.is_empty() {
            text.push('\n');
            let mut lines = vec![["jurisdiction", "countries"].map(str::to_owned)];
            for jurisdiction in &self.jurisdictions {
                let codes: Vec<&str> = jurisdiction.countries.iter().map(CountryCode::as_str).collect();
                let about = jurisdiction.description.as_ref().map(|text| format!(" ({text})")).unwrap_or_default();
                lines.push([jurisdiction.name.to_string(), format!("{}: {}{about}", codes.len(), codes.join(" "))]);
            }
            columns(&lines, &mut text);
        }
        text
    }
}

impl Clients {
    /// The clients in words, for a person.
    #[must_use]
    pub fn sentence(&self) -> String {
        match self {
            Self::All => "all, wherever they are".to_owned(),
            Self::Declared { jurisdictions } => format!("all, as it declares {}", joined(jurisdictions)),
            Self::Geography { jurisdictions, countries } => {
                let mut codes: Vec<&str> = countries.iter().take(MAX_LISTED).map(CountryCode::as_str).collect();
                let more = format!("and {} more", countries.len().saturating_sub(MAX_LISTED));
                if countries.len() > MAX_LISTED {
                    codes.push(&more);
                }
                let names = if jurisdictions.is_empty() { "no jurisdiction".to_owned() } else { joined(jurisdictions) };
                format!("of {names}: {}", codes.join(" "))
            }
            Self::Unknown => "unknown".to_owned(),
        }
    }
}

impl Row {
    /// What gives the fence, in words for a person.
    #[must_use]
    pub fn given_by(&self) -> String {
        match (self.fence_by, self.rule) {
            (_, Some(rule)) => format!("rule {rule}"),
            (Some(_), None) => "process_in".to_owned(),
            (None, None) => "no rule".to_owned(),
        }
    }

    /// The regions that are offered under these conditions to a client without a location and a model, in the form of
    /// [`Row::fence_sentence`].
    #[must_use]
    pub fn offered_sentence(&self, table: &Table, conditions: &Conditions<'_>) -> String {
        let steering = decide(table, &self.ranking, None, conditions);
        let offered = steering.ordered.iter().map(|ranked| table.region(ranked.fenced.region).id.as_str());
        let offered: Vec<&FencedRegion> =
            offered.filter_map(|id| self.fence.iter().find(|fenced| fenced.region.as_str() == id)).collect();
        match (self.fence.is_empty(), offered.is_empty(), steering.revived) {
            (true, ..) => "nothing: denied".to_owned(),
            (_, true, _) => "nothing: all are withheld".to_owned(),
            (.., true) => format!("{} (all are down, served all the same)", tiers(&offered)),
            (.., false) => tiers(&offered),
        }
    }

    /// The fence in words, for a person.
    #[must_use]
    pub fn fence_sentence(&self) -> String {
        let mut text = tiers(&self.fence.iter().collect::<Vec<_>>());
        if self.fence.is_empty() {
            text += "nothing: denied";
        }
        if self.hub_in_fence == Some(false) {
            text += " (its hub lies outside: hub paths are denied)";
        }
        text
    }
}

/// The names of regions: commas between those of one tier, `>` before the regions that come after them.
fn tiers(regions: &[&FencedRegion]) -> String {
    let mut text = String::new();
    let mut last: Option<&FencedRegion> = None;
    for fenced in regions {
        text += match last {
            None => "",
            Some(last) if (last.standby, last.tier) == (fenced.standby, fenced.tier) => ", ",
            Some(_) => " > ",
        };
        text += fenced.region.as_str();
        last = Some(fenced);
    }
    text
}

fn joined(names: &[JurisdictionId]) -> String {
    names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

/// Cells below one another, each column as wide as its widest cell; the last is never padded.
pub fn columns<L: AsRef<[String]>>(lines: &[L], out: &mut String) {
    let cells = |line: &L| line.as_ref().iter().map(|cell| cell.chars().count()).collect::<Vec<_>>();
    let mut widths: Vec<usize> = Vec::new();
    for counts in lines.iter().map(cells) {
        widths.resize(widths.len().max(counts.len()), 0);
        widths.iter_mut().zip(counts).for_each(|(width, count)| *width = count.max(*width));
    }
    for line in lines {
        let Some((last, cells)) = line.as_ref().split_last() else { continue };
        for (cell, width) in cells.iter().zip(&widths) {
            // Writing to a String cannot fail.
            let _ = write!(out, "{cell:<width$}  ");
        }
        let _ = writeln!(out, "{last}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{ "version": 1, "revision": 7,
        "jurisdictions": { "eu": { "include": ["EU"] },
                           "uk": { "countries": ["GB"], "description": "Great Britain and Northern Ireland" } },
        "regions": { "fra": { "countries": ["DE"] }, "lon": { "countries": ["GB"] }, "nyc": { "countries": ["US"] },
                     "spare": { "countries": ["uk"], "standby": true } },
        "services": {
            "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "lon", "nyc", "spare"],
                      "residency": [ { "clients": ["uk"], "process_in": ["uk", "eu"] }, { "clients": ["*"],
                          "process_in": ["*"] } ] },
            "open": { "hosts": ["open.example"], "pattern": "hub-and-spoke", "regions": ["fra", "nyc"],
                      "hub": { "region": "nyc", "paths": ["/files"] },
                      "residency": [ { "clients": ["eu"], "process_in": ["eu"] }, { "clients": ["unknown"],
                          "process_in": ["*"] } ] } },
        "tenants": {
            "acme": { "key_sha256": ["0000000000000000000000000000000000000000000000000000000000000001"],
                      "residency": "uk", "services": ["chat"] },
            "clinic": { "key_sha256": ["0000000000000000000000000000000000000000000000000000000000000002"],
                        "residency": "uk", "process_in": ["uk"], "services": ["chat"] },
            "globe": { "key_sha256": ["0000000000000000000000000000000000000000000000000000000000000003"],
                "services": ["chat"] } } }"#;

    #[test]
    fn every_fence_stands_in_the_table() {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let text = overview(&table, None, None).to_text();
        let lines: Vec<&str> = text.lines().collect();
        let expected = [
            "rules revision 7",
            "",
            "service  tenant  clients                                          by          fence",
            "chat     acme    all, as it declares uk                           rule 0      lon > fra > spare",
            "chat     clinic  all, wherever they are                           process_in  lon > spare",
            "chat     globe   of eu: AT AX BE BG CY CZ and 28 more             rule 1      fra, lon, nyc > spare",
            "chat     globe   of uk: GB                                        rule 0      lon > fra > spare",
            "chat     globe   of no jurisdiction: AD AE AF AG AI AL and 209 more  rule 1      fra, lon, nyc > spare",
            "chat     globe   unknown                                          no rule     nothing: denied",
        ];
        assert_eq!(lines[..2], expected[..2]);
        let squeezed = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        for (line, expected) in lines[2..].iter().zip(&expected[2..]) {
            assert_eq!(squeezed(line), squeezed(expected));
        }
        let unknown = lines.iter().find(|line| line.starts_with("open") && line.contains("unknown")).unwrap();
        assert!(unknown.ends_with("rule 1      fra, nyc"), "{unknown}");
        assert!(text.contains("fra (its hub lies outside: hub paths are denied)"), "{text}");
        assert!(text.contains("uk            1: GB (Great Britain and Northern Ireland)\n"), "{text}");
    }

    #[test]
    fn the_json_has_the_documented_fields() {
        let table = Table::compile(RULES.as_bytes()).unwrap();
        let clinic = table.tenant_named("clinic");
        let json = serde_json::to_value(overview(&table, None, clinic)).unwrap();
        let expected = serde_json::json!([{
            "service": "chat", "tenant": "clinic", "clients": "all", "fence_by": "tenant",
            "fence": [{ "region": "lon", "tier": 0 }, { "region": "spare", "tier": 0, "standby": true }],
        }]);
        assert_eq!(json["fences"], expected);
        assert_eq!(json["jurisdictions"][1]["countries"], serde_json::json!(["GB"]));
        let open = overview(&table, table.service_named("open"), None);
        let json = serde_json::to_value(&open.fences[0]).unwrap();
        assert_eq!(
            (&json["clients"], &json["rule"], &json["hub_in_fence"]),
            (&"geography".into(), &0.into(), &false.into())
        );
    }
}
