//! A question about steering: where would a client's request be served? Takes names and an address from the command
//! line or a query string; returns the arguments of `steer`. Called by `bailiwick explain` and the API.

use std::net::IpAddr;

use bailiwick_host::locate::client::client_at;
use bailiwick_host::locate::geoip::Places;
use bailiwick_rules::geo::{CountryCode, is_like_code, non_country};
use bailiwick_rules::health::ReplicaSet;
use bailiwick_rules::overview::{Overview, overview};
use bailiwick_rules::steer::{Ask, Client, PathClass, by_path};
use bailiwick_rules::table::{ServiceIndex, Table, Tenant, TenantIndex};
use bailiwick_rules::time::Timestamp;
use clap::Args;

use crate::text::nearest::suggestion;

/// What is asked, as the command line and the API take it.
#[derive(Debug, Clone, Default, Args, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Question {
    /// The service, by its name in the rules. May be left out where there is one only, or the tenant may use one only.
    #[arg(long, required_unless_present_any = ["tenant", "all"])]
    pub(crate) service: Option<String>,
    /// The client's address, or `unknown` for one that nobody can place.
    #[arg(long, value_name = "IP|unknown", required_unless_present_any = ["country", "tenant", "all"],
        conflicts_with = "country")]
    pub(crate) client: Option<String>,
    /// The client's country instead of its address, such as DE.
    #[arg(long)]
    pub(crate) country: Option<String>,
    /// The tenant, by its name in the rules. DNS knows none, the edge does. One that says where it belongs needs no
    /// client.
    #[arg(long)]
    pub(crate) tenant: Option<String>,
    /// Tell every fence instead, by service, tenant and clients; --service and --tenant choose some of them.
    #[arg(long, conflicts_with_all = ["client", "country", "model", "path", "down", "at"])]
    #[serde(default)]
    pub(crate) all: bool,
    /// The model asked for.
    #[arg(long)]
    pub(crate) model: Option<String>,
    /// The request's path, such as /v1/fine_tuning/jobs: it decides whether `hub.paths` apply, and which replicas the
    /// request needs.
    #[arg(long)]
    pub(crate) path: Option<String>,
    /// Suppose that this region is down. May be given more than once, or several with commas between them.
    #[arg(long, value_name = "REGION", value_delimiter = ',')]
    #[serde(default, deserialize_with = "separated")]
    pub(crate) down: Vec<String>,
    /// Suppose that it is this time, such as 2026-12-01T06:00:00Z; by default it is now.
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
}

/// Reads the regions of a query string, which are separated by commas.
fn separated<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let text: String = serde::Deserialize::deserialize(deserializer)?;
    Ok(text.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect())
}

/// A question whose names were all found in the rules.
pub(crate) struct ResolvedQuestion<'q> {
    /// The request to steer.
    pub(crate) ask: Ask<'q>,
    /// The indexes of the regions that are supposed to be down.
    pub(crate) down: Vec<usize>,
    /// The time that the answer is for.
    pub(crate) at: Timestamp,
    /// Notes on what the person who asks may have overlooked.
    pub(crate) notes: Vec<String>,
}

impl Question {
    /// Looks up every name in the rules, and the client's place.
    ///
    /// # Errors
    /// Every name that the rules don't have, with the name that was probably meant, and every value that can't be read.
    pub(crate) fn understand<'q>(
        &'q self,
        table: &Table,
        places: &Places,
        now: Timestamp,
    ) -> Result<ResolvedQuestion<'q>, Vec<String>> {
        let mut errors = Vec::new();
        let tenant = self.tenant(table).map_err(|error| errors.push(error)).ok().flatten();
        let service = self.service(table, tenant).map_err(|error| errors.push(error)).ok();
        let client = self.client(table, places).map_err(|error| errors.push(error)).ok();
        let at = self.at.as_deref().map_or(Some(now), Timestamp::parse);
        if at.is_none() {
            let text = self.at.as_deref().unwrap_or_default();
            errors.push(format!("at: \"{text}\" is not a time; write it as 2026-12-01T06:00:00Z"));
        }
        let mut down = Vec::new();
        for name in &self.down {
            let regions = table.regions().iter().map(|region| region.id.as_str());
            match table.region_named(name) {
                Some(region) => down.push(region.get()),
                None => errors.push(unknown("region", name, regions)),
            }
        }
        let (Some(service), Some(client), Some(at), true) = (service, client, at, errors.is_empty()) else {
            return Err(errors);
        };
        let client = Client { tenant, ..client };
        let (path_class, needs) = self.path_of(table, service);
        let ask = Ask { service, client, model: self.model.as_deref(), path_class, needs };
        Ok(ResolvedQuestion { ask, down, at, notes: self.notes(table, &ask) })
    }

    /// Every fence (the regions that may process a client), or only the fences of the service and of the tenant that
    /// are named.
    ///
    /// # Errors
    /// Names that the rules don't have, each with the name that was probably meant.
    pub(crate) fn overview(&self, table: &Table) -> Result<Overview, Vec<String>> {
        let mut errors = Vec::new();
        let tenant = self.tenant(table).map_err(|error| errors.push(error)).ok().flatten();
        let service = self.service.as_deref().map(|name| named_service(table, name)).transpose();
        let service = service.map_err(|error| errors.push(error)).ok().flatten();
        if errors.is_empty() { Ok(overview(table, service, tenant)) } else { Err(errors) }
    }

    fn tenant(&self, table: &Table) -> Result<Option<TenantIndex>, String> {
        let Some(name) = &self.tenant else { return Ok(None) };
        let tenants = table.tenants().iter().map(|tenant| tenant.id.as_str());
        table.tenant_named(name).map(Some).ok_or_else(|| unknown("tenant", name, tenants))
    }

    /// The service that is named. If none is named, the only service that the tenant may use, or the rules have.
    fn service(&self, table: &Table, tenant: Option<TenantIndex>) -> Result<ServiceIndex, String> {
        if let Some(name) = &self.service {
            return named_service(table, name);
        }
        let possible: Vec<&str> = match tenant {
            Some(tenant) => {
                table.tenant(tenant).services.iter().map(|&service| table.service(service).id.as_str()).collect()
            }
            None => table.services().iter().map(|service| service.id.as_str()).collect(),
        };
        match possible[..] {
            [only] => named_service(table, only),
            _ => Err(format!("service: is missing; give one of {}, or ask for all fences", possible.join(", "))),
        }
    }

    /// The client that the question is about, by address or country.
    fn client(&self, table: &Table, places: &Places) -> Result<Client, String> {
        match (&self.client, &self.country) {
            (Some(_), Some(_)) => Err("client, country: give one of them, not both".to_owned()),
            // A question for a tenant needs no client: the tenant's own declaration may decide.
            (None, None) if self.tenant.is_some() => Ok(Client::default()),
            (None, None) => Err("client: is missing; give an address, `unknown`, or a country instead".to_owned()),
            (Some(client), None) if client == "unknown" => Ok(Client::default()),
            (Some(client), None) => {
                let address: IpAddr = client.parse().map_err(|_| {
                    format!(
                        "client: \"{client}\" is no address; write one such as 203.0.113.7 or 2001:db8::7, or `unknown`"
                    )
                })?;
                Ok(client_at(table, places, address))
            }
            (None, Some(country)) => {
                let code = country.to_ascii_uppercase();
                match CountryCode::parse(&code) {
                    None if !is_like_code(&code) => Err(format!(
                        "country: \"{country}\" is no ISO 3166-1 code of two letters, such as DE; a client of no known \
                         country is `unknown`"
                    )),
                    // A code that GeoIP databases use for clients without a known country. It asks for such a client.
                    country => Ok(Client { country, ..Client::default() }),
                }
            }
        }
    }

    /// Notes on what the person who asks may have overlooked.
    fn notes(&self, table: &Table, ask: &Ask<'_>) -> Vec<String> {
        let service = table.service(ask.service);
        let mut notes = Vec::new();
        match ask.client.tenant.map(|tenant| table.tenant(tenant)) {
            Some(tenant) if !tenant.services.contains(&ask.service) => notes.push(format!(
                "tenant: {} may not use {}: the edge refuses its requests, wherever they could be served",
                tenant.id, service.id
            )),
            Some(tenant) if self.client.is_none() && self.country.is_none() && by_geography(tenant) => {
                notes.push(format!(
                    "tenant: {} declares neither \"residency\" nor \"process_in\", so where it asks from decides; this \
                     is decided for a \
                     client that nobody can place; ask with a client or a country too",
                    tenant.id
                ));
            }
            None if service.requires_key => notes.push(format!(
                "tenant: {} belongs to tenants: the edge refuses requests without a known key; this is what DNS \
                 decides",
                service.id
            )),
            _ => {}
        }
        if let Some(code) = self.country.as_deref().filter(|_| ask.client.country.is_none()) {
            let about = non_country(&code.to_ascii_uppercase());
            let hint = about.and_then(|code| code.stands_for).map(|hint| format!("; the country is {hint}"));
            let about = about.map_or("is no country's code", |code| code.about);
            notes.push(format!(
                "country: \"{code}\" {about}{}; a client of which a database or front says so is unknown",
                hint.unwrap_or_default()
            ));
        }
        notes
    }

    /// The class of the path, and the replicas that it needs. Without a path, the question is what DNS would answer.
    fn path_of(&self, table: &Table, service: ServiceIndex) -> (PathClass, Option<ReplicaSet>) {
        let Some(path) = self.path.as_deref() else { return (PathClass::Inference, None) };
        let path = path.split('?').next().unwrap_or_default();
        let within = path.strip_prefix("/v1").filter(|rest| rest.is_empty() || rest.starts_with('/')).unwrap_or(path);
        let (class, needs) = by_path(table.service(service), within);
        (class, Some(needs))
    }
}

fn by_geography(tenant: &Tenant) -> bool {
    tenant.residency.is_empty() && !tenant.has_fence()
}

fn unknown<'n>(what: &str, name: &str, known: impl Iterator<Item = &'n str>) -> String {
    format!("{what}: the rules have no {what} \"{name}\"; {}", suggestion(name, known))
}

fn named_service(table: &Table, name: &str) -> Result<ServiceIndex, String> {
    let services = table.services().iter().map(|service| service.id.as_str());
    table.service_named(name).ok_or_else(|| unknown("service", name, services))
}
