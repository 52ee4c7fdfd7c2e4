//! Reads a scenario. Takes JSON, returns a [`Scenario`] or every mistake in it. Called by `bailiwick simulate`.

use crate::geo;
use crate::id::RegionId;
use crate::json::{Node, Reader, Violation, nearest};
use crate::load::{Demand, demand_in};
use crate::table::{RegionIndex, Table};
use crate::time::Millis;

/// The longest time that is simulated, and the most steps.
const LONGEST: Millis = Millis(7 * 24 * 3_600_000);
const MAX_STEPS: u64 = 200_000;

/// What happens in a simulation.
#[derive(Clone, PartialEq, Debug)]
pub struct Scenario {
    /// What the scenario shows, for people.
    pub title: String,
    /// The simulated time. It begins at 00:00 UTC.
    pub length: Millis,
    /// The length of one step.
    pub step: Millis,
    /// How many clients the demand stands for.
    pub clients: u64,
    /// The requests in flight at the peak of each country, by service.
    pub demand: Demand,
    /// The demand at the quietest hour, as a part of the peak, from 0 to 1.
    pub night: f64,
    /// The failures of regions.
    pub events: Vec<Event>,
    /// How long it takes until a region's failure or return is known.
    pub detect: Millis,
    /// How often loads are read.
    pub readings: Millis,
    /// How old a reading is when it arrives.
    pub delay: Millis,
    /// The part of the clients, from 0 to 1, whose resolvers keep an answer longer than its TTL says.
    pub overstay: f64,
    /// How long these resolvers keep an answer.
    pub overstay_for: Millis,
    /// What happens to a region that is offered too much.
    pub collapse: Option<Collapse>,
}

/// A region that fails.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// The region.
    pub region: RegionIndex,
    /// When it fails, counted from the beginning.
    pub at: Millis,
    /// How long it is down.
    pub lasts: Millis,
}

/// When a region collapses.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Collapse {
    /// At which load; 1 is full.
    pub load: f64,
    /// After how long at that load.
    pub after: Millis,
    /// How long until it serves again.
    pub lasts: Millis,
}

/// Reads a scenario about a table's services and regions. The member `rules` is accepted but not read; the caller reads
/// it.
///
/// # Errors
/// Every mistake, with its JSON pointer.
pub fn read_scenario(table: &Table, bytes: &[u8]) -> Result<Scenario, Vec<Violation>> {
    let node = Node::parse(bytes).map_err(|violation| vec![violation])?;
    let mut violations = Vec::new();
    let scenario = scenario(&mut Reader::new(&mut violations), &node, table);
    scenario.filter(|_| violations.is_empty()).ok_or(violations)
}

fn scenario(reader: &mut Reader<'_>, node: &Node, table: &Table) -> Option<Scenario> {
    let mut fields = reader.object(node)?;
    fields.optional("$schema", |_, _| Some(()));
    fields.optional("rules", |_, _| Some(()));
    let title = fields.optional("title", |reader, node| reader.string(node).map(str::to_owned));
    let hour = Millis(3_600_000);
    let length = fields.optional("length", |reader, node| span(reader, node, Millis(60_000), LONGEST));
    let step =
        fields.optional("step", |reader, node| span(reader, node, Millis(1_000), hour)).unwrap_or(Millis(10_000));
    let length = length.unwrap_or(Millis(24 * 3_600_000));
    if length.0 / step.0.max(1) > MAX_STEPS {
        fields
            .fail::<()>(format!("takes more than {MAX_STEPS} steps; write a longer \"step\", or a shorter \"length\""));
    }
    let clients = fields.optional("clients", |reader, node| reader.integer(node, 1..=1_000_000_000_000));
    let demand = fields
        .required("demand", "requests at once by service and country", |reader, node| demand_in(reader, node, table));
    let night = fields.optional("night", part);
    let events = fields.optional("events", |reader, node| reader.list(node, |reader, node| event(reader, node, table)));
    let detect = fields.optional("detect", |reader, node| span(reader, node, Millis(0), hour));
    let readings = fields.optional("readings", |reader, node| span(reader, node, Millis(1_000), hour));
    let delay = fields.optional("delay", |reader, node| span(reader, node, Millis(0), hour));
    let overstay = fields.optional("overstay", part);
    let overstay_for = fields.optional("overstay_for", |reader, node| span(reader, node, Millis(1_000), LONGEST));
    let collapse = fields.optional("collapse", collapse);
    fields.finish();
    Some(Scenario {
        title: title.unwrap_or_default(),
        length,
        step,
        clients: clients.unwrap_or(1_000_000),
        demand: demand?,
        night: night.unwrap_or(0.3),
        events: events.unwrap_or_default(),
        detect: detect.unwrap_or(Millis(15_000)),
        readings: readings.unwrap_or(Millis(10_000)),
        delay: delay.unwrap_or(Millis(5_000)),
        overstay: overstay.unwrap_or(0.1),
        overstay_for: overstay_for.unwrap_or(Millis(600_000)),
        collapse,
    })
}

fn span(reader: &mut Reader<'_>, node: &Node, low: Millis, high: Millis) -> Option<Millis> {
    let text = reader.string(node)?;
    let span = Millis::parse(text).filter(|span| (low..=high).contains(span));
    span.or_else(|| reader.fail(format!("is {text:?}; write a duration from \"{low}\" to \"{high}\", such as \"90s\"")))
}

fn part(reader: &mut Reader<'_>, node: &Node) -> Option<f64> {
    let number = reader.number(node)?;
    if (0.0..=1.0).contains(&number) {
        Some(number)
    } else {
        reader.fail(format!("is {number}; write a part from 0 to 1"))
    }
}

fn event(reader: &mut Reader<'_>, node: &Node, table: &Table) -> Option<Event> {
    let mut fields = reader.object(node)?;
    let region = fields.required("region", "the region that dies", |reader, node| {
        let name = reader.string(node)?;
        table.region_named(name).filter(|_| RegionId::parse(name).is_some()).or_else(|| {
            let names: Vec<&str> = table.regions().iter().map(|region| region.id.as_str()).collect();
            let hint = nearest(name, &names).map(|name| format!("; did you mean {name:?}?")).unwrap_or_default();
            reader.fail(format!("is {name:?}, which is no region of the rules{hint}"))
        })
    });
    let at = fields.required("at", "when, such as \"19h\" after the beginning", |reader, node| {
        span(reader, node, Millis(0), LONGEST)
    });
    let lasts = fields
        .required("for", "for how long, such as \"2h\"", |reader, node| span(reader, node, Millis(1_000), LONGEST));
    fields.finish();
    Some(Event { region: region?, at: at?, lasts: lasts? })
}

fn collapse(reader: &mut Reader<'_>, node: &Node) -> Option<Collapse> {
    let mut fields = reader.object(node)?;
    let load = fields.required("load", "at which load a region collapses, such as 1.3", |reader, node| {
        let load = reader.number(node)?;
        if (1.0..=100.0).contains(&load) {
            Some(load)
        } else {
            reader.fail(format!("is {load}; write a load from 1 to 100"))
        }
    });
    let after = fields
        .required("after", "after how long, such as \"1m\"", |reader, node| span(reader, node, Millis(0), LONGEST));
    let lasts = fields.required("for", "for how long it is gone, such as \"5m\"", |reader, node| {
        span(reader, node, Millis(1_000), LONGEST)
    });
    fields.finish();
    Some(Collapse { load: load?, after: after?, lasts: lasts? })
}

impl Scenario {
    /// A country's demand at a time of the day, as a part of its peak. By the country's solar time, the demand is
    /// lowest at 4 in the morning and highest at 4 in the afternoon.
    #[must_use]
    pub fn daylight(&self, country: Option<geo::CountryCode>, at: Millis) -> f64 {
        let utc = at.0 as f64 / 3_600_000.0;
        let longitude = country.and_then(geo::centroid).map_or(0.0, geo::Coordinates::longitude);
        let angle = (utc + longitude / 15.0 - 16.0) / 24.0 * core::f64::consts::TAU;
        self.night + (1.0 - self.night) * (0.5 + 0.5 * libm::cos(angle))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::geo::CountryCode;

    fn table() -> Table {
        Table::compile(
            br#"{ "version": 1, "revision": 1, "regions": { "fra": { "countries": ["DE"] } },
                  "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                          "residency": [{ "clients": ["*"], "process_in": ["*"] }] } } }"#,
        )
        .unwrap()
    }

    #[test]
    fn demand_follows_the_sun() {
        let scenario = read_scenario(&table(), br#"{ "demand": { "chat": { "DE": 1 } }, "night": 0.2 }"#).unwrap();
        let at = |code, hour: u64| scenario.daylight(CountryCode::parse(code), Millis(hour * 3_600_000));
        assert!(at("GB", 16) > 0.98 && at("GB", 4) < 0.22, "{} {}", at("GB", 16), at("GB", 4));
        assert!(at("JP", 7) > 0.98 && at("US", 22) > 0.95, "{} {}", at("JP", 7), at("US", 22));
    }

    #[test]
    fn every_mistake_is_reported_with_its_place() {
        let text =
            br#"{ "lengths": "1h", "step": "0s", "night": 2, "events": [{ "region": "fro", "at": "1x", "fro": "2h" }],
                         "collapse": { "load": 0.5, "after": "1m" }, "demand": { "chta": {} } }"#;
        let reported: Vec<String> =
            read_scenario(&table(), text).unwrap_err().iter().map(ToString::to_string).collect();
        for expected in [
            "/lengths: is not a known key here; did you mean \"length\"",
            "/step: is \"0s\"; write a duration from \"1s\" to \"1h\"",
            "/night: is 2; write a part",
            "/events/0/region: is \"fro\", which is no region of the rules; did you mean \"fra\"?",
            "/events/0/at: is \"1x\"",
            "/events/0/for: is missing",
            "/events/0/fro: is not a known key",
            "/collapse/load: is 0.5",
            "/collapse/for: is missing",
            "/demand/chta: is no service",
        ] {
            assert!(reported.iter().any(|one| one.starts_with(expected)), "{expected}: {reported:#?}");
        }
        let endless = br#"{ "length": "168h", "step": "1s", "demand": {} }"#;
        assert!(read_scenario(&table(), endless).unwrap_err()[0].message.contains("200000 steps"));
        assert!(read_scenario(&table(), b"[]").is_err() && read_scenario(&table(), b"{}").is_err());
    }
}
