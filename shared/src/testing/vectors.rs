//! Runs test vectors. Takes a file of `tests/vectors/*.json`, which has rules and cases: a request, its conditions, and
//! the expected explanation of the steering. Returns what differs. Called by tests, natively and in the Worker's Wasm.
//!
//! Both run the same files, so that they are known to decide alike.

use core::net::IpAddr;

use serde_json::Value;

use crate::explain::explain;
use crate::geo::{Coordinates, CountryCode};
use crate::health::{Forced, RegionHealth, Status};
use crate::id::EndpointId;
use crate::release::EndpointReading;
use crate::report::ReleaseReport;
use crate::steer::{Ask, Client, Conditions, Cooling, Local, PathClass};
use crate::table::{RegionIndex, ReleaseIndex, ServiceIndex, Table};
use crate::time::Timestamp;

/// Runs every case of a vector file. Returns the number of cases, or what differs.
///
/// # Errors
/// A sentence that names the first case that is malformed or whose steering isn't the expected one.
pub fn run(text: &str) -> Result<usize, String> {
    let vectors: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let table = table_of(&vectors)?;
    let cases = cases_of(&vectors)?;
    for case in cases {
        let name = case["name"].as_str().ok_or("a case has no name")?;
        let actual = explained(&table, case).map_err(|problem| format!("{name}: {problem}"))?;
        if actual != case["expect"] {
            return Err(format!("{name}:\n  expected {}\n  actual   {actual}", case["expect"]));
        }
    }
    Ok(cases.len())
}

/// Returns the same file with every expectation replaced by the actual result. It helps to write new cases; read the
/// result before you keep it.
///
/// # Errors
/// As [`run`].
pub fn bless(text: &str) -> Result<String, String> {
    let mut vectors: Value = serde_json::from_str(text).map_err(|error| error.to_string())?;
    let table = table_of(&vectors)?;
    let blessed: Result<Vec<Value>, String> = cases_of(&vectors)?.iter().map(|case| explained(&table, case)).collect();
    for (index, expectation) in blessed?.into_iter().enumerate() {
        vectors["cases"][index]["expect"] = expectation;
    }
    serde_json::to_string_pretty(&vectors).map(|text| text + "\n").map_err(|error| error.to_string())
}

fn table_of(vectors: &Value) -> Result<Table, String> {
    Table::compile(vectors["rules"].to_string().as_bytes()).map_err(|violations| {
        let lines: Vec<String> = violations.iter().map(ToString::to_string).collect();
        lines.join("\n")
    })
}

fn cases_of(vectors: &Value) -> Result<&Vec<Value>, String> {
    vectors["cases"].as_array().filter(|cases| !cases.is_empty()).ok_or_else(|| "there are no cases".to_owned())
}

fn explained(table: &Table, case: &Value) -> Result<Value, String> {
    let ask = ask_of(table, &case["ask"])?;
    let now = case["now"].as_str().and_then(Timestamp::parse).ok_or("\"now\" is no time")?;
    let mut health = health_of(table, &case["health"]["regions"])?;
    let releases = crate::release::health(table, &runs_of(table, &case["runs"])?);
    health.iter_mut().zip(releases).for_each(|(region, releases)| region.releases = releases);
    let local = local_of(table, &case["cooling"])?;
    let reported = explain(table, &ask, &Conditions { health: &health, local: &local, now });
    serde_json::to_value(reported).map_err(|error| error.to_string())
}

fn ask_of<'a>(table: &Table, ask: &'a Value) -> Result<Ask<'a>, String> {
    let service: ServiceIndex =
        ask["service"].as_str().and_then(|name| table.service_named(name)).ok_or("no such service")?;
    let tenant = match &ask["tenant"] {
        Value::Null => None,
        name => Some(name.as_str().and_then(|name| table.tenant_named(name)).ok_or("no such tenant")?),
    };
    let address: Option<IpAddr> = match &ask["address"] {
        Value::Null => None,
        text => Some(text.as_str().and_then(|text| text.parse().ok()).ok_or("\"address\" is no address")?),
    };
    let location = match &ask["location"] {
        Value::Null => None,
        place => Coordinates::from_degrees(
            place["latitude"].as_f64().ok_or("no latitude")?,
            place["longitude"].as_f64().ok_or("no longitude")?,
        ),
    };
    Ok(Ask {
        service,
        client: Client { tenant, address, country: ask["country"].as_str().and_then(CountryCode::parse), location },
        model: ask["model"].as_str(),
        path_class: match ask["path_class"].as_str() {
            None | Some("inference") => PathClass::Inference,
            Some("hub") => PathClass::Hub,
            Some(other) => return Err(format!("no such path class: {other}")),
        },
        needs: None,
    })
}

fn health_of(table: &Table, regions: &Value) -> Result<Vec<RegionHealth>, String> {
    let status = |value: &Value| match value {
        Value::Null => Ok(Status::Unknown),
        other => serde_json::from_value(other.clone()).map_err(|error| error.to_string()),
    };
    let region_health = |region: &crate::table::Region| {
        let reported = &regions[region.id.as_str()];
        let forced = |reported: &Value| match reported {
            Value::Null => Ok(None),
            forced => Ok::<_, String>(Some(Forced {
                status: status(&forced["status"])?,
                until: forced["until"].as_str().and_then(Timestamp::parse).ok_or("\"until\" is no time")?,
                reason: "vector".to_owned(),
            })),
        };
        let of_endpoints = &reported["endpoint_overrides"];
        let forced_endpoints = region.endpoints.iter().map(|(name, _)| forced(&of_endpoints[name.as_str()]));
        let endpoints = region.endpoints.iter().map(|(name, _)| status(&reported["endpoints"][name.as_str()]));
        Ok::<_, String>(RegionHealth {
            probed: status(&reported["probed"])?,
            forced: forced(&reported["override"])?,
            forced_endpoints: match of_endpoints {
                Value::Null => Vec::new(),
                _ => forced_endpoints.collect::<Result<_, _>>()?,
            },
            endpoints: endpoints.collect::<Result<_, _>>()?,
            ..RegionHealth::default()
        })
    };
    table.regions().iter().map(region_health).collect()
}

/// What endpoints said that they run. `runs` has it by region, endpoint and model.
fn runs_of(table: &Table, runs: &Value) -> Result<Vec<EndpointReading>, String> {
    let mut known = Vec::new();
    for (region, of_region) in (0..).zip(table.regions()) {
        for (endpoint, (id, _)) in of_region.endpoints.iter().enumerate() {
            for (release, of) in (0..).zip(table.releases()) {
                let report = &runs[of_region.id.as_str()][id.as_str()][&of.model];
                if !report.is_null() {
                    let report: ReleaseReport =
                        serde_json::from_value(report.clone()).map_err(|error| error.to_string())?;
                    let (region, release) = (RegionIndex(region), ReleaseIndex(release));
                    known.push(EndpointReading { region, endpoint, release, reading: report.reading() });
                }
            }
        }
    }
    Ok(known)
}

fn local_of(table: &Table, cooling: &Value) -> Result<Local, String> {
    let cool_down = |entry: &Value| {
        Some(Cooling {
            region: table.region_named(entry["region"].as_str()?)?,
            endpoint: EndpointId::parse(entry["endpoint"].as_str()?)?,
            model: entry["model"].as_str().map(str::to_owned),
            until: Timestamp::parse(entry["until"].as_str()?)?,
        })
    };
    let entries = cooling.as_array().map_or(&[][..], Vec::as_slice);
    let read: Option<Vec<Cooling>> = entries.iter().map(cool_down).collect();
    Ok(Local { cooling: read.ok_or("a cool-down is malformed")? })
}
