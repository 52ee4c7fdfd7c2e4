//! Checks decisions against a second, plain reading of the rules document. Takes the document's JSON, a table (the
//! compiled document) and the conditions of a moment; returns every decision that names a region outside of its fence,
//! which is the regions that may process the client. Called by the DNS node whenever rules or health change, for the
//! page at `/ui/`.
//!
//! The table is compiled once and steers everything. If the compilation had a fault, every decision would follow it,
//! and nothing would look wrong. [`Book`] shares no code with the compilation, except the lists of countries: it reads
//! the JSON as a person would.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::geo::{self, CountryCode, CountrySet, built_in_set};
use crate::steer::{Client, Conditions, FenceBy, PathClass, Ranking, decide, rank, stand};
use crate::table::{RegionIndex, ServiceIndex, Table, TenantIndex};

/// The most violations that are listed; more are counted.
const MOST_LISTED: usize = 100;

/// The part of a document that says which regions may process which clients.
#[derive(Clone, Debug, Default)]
pub struct Book {
    /// By name. Elsewhere a jurisdiction is its position here.
    jurisdictions: Vec<(String, CountrySet)>,
    services: BTreeMap<String, Service>,
    /// By region: the jurisdictions in which it lies wholly.
    regions: BTreeMap<String, BTreeSet<usize>>,
    tenants: BTreeMap<String, Tenant>,
}

/// The regions and residency rules of a service.
#[derive(Clone, Debug, Default)]
struct Service {
    regions: BTreeSet<String>,
    rules: Vec<Rule>,
}

/// A residency rule.
#[derive(Clone, Debug)]
struct Rule {
    clients: Names,
    is_for_unknown: bool,
    process_in: Names,
}

/// What a tenant may use, and its own fence or the residency that it declares.
#[derive(Clone, Debug, Default)]
struct Tenant {
    services: BTreeSet<String>,
    declared: Option<BTreeSet<usize>>,
    process_in: Option<Names>,
}

/// Some jurisdictions, or all (`*`).
#[derive(Clone, Debug, Default)]
struct Names {
    has_all: bool,
    jurisdictions: BTreeSet<usize>,
}

/// Whether clients may be sent to a region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allows {
    /// The rule for their jurisdictions allows it.
    Yes,
    /// Only a tenant's own fence does.
    OfTenants,
    /// Nothing does.
    No,
}

/// The result of a check.
#[derive(Clone, Debug, Default, PartialEq, serde::Serialize)]
pub struct Audit {
    /// Services of the rules.
    pub services: usize,
    /// Countries, and clients that nobody can place.
    pub countries: usize,
    /// Tenants of the rules.
    pub tenants: usize,
    /// Decisions that were checked, of a country or tenant for a service.
    pub decisions: usize,
    /// Answers of DNS that were checked.
    pub answers: usize,
    /// Decisions of tenants that were left out, because there are too many.
    pub left_out: usize,
    /// How many violations there are.
    pub violations: usize,
    /// The first of them.
    pub listed: Vec<Violation>,
}

/// A region outside of the fence of who may be sent there.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Violation {
    /// The service.
    pub service: String,
    /// Whose: a country, `unknown`, a tenant, or `DNS` for an answer that DNS gives.
    pub client: String,
    /// The region.
    pub region: String,
}

impl Book {
    /// Reads a document from which a table was compiled. A part that it can't read allows nothing.
    #[must_use]
    pub fn read(document: &[u8]) -> Self {
        let document: Value = serde_json::from_slice(document).unwrap_or_default();
        let jurisdictions = entries(&document["jurisdictions"])
            .map(|(name, jurisdiction)| (name.clone(), countries(jurisdiction)))
            .collect();
        let mut book = Self { jurisdictions, ..Self::default() };
        let positions: BTreeMap<String, usize> =
            book.jurisdictions.iter().enumerate().map(|(at, (name, _))| (name.clone(), at)).collect();
        let names = |value: &Value| {
            // A tier of `process_in` is a name or a list of names.
            let listed: Vec<String> = value.as_array().into_iter().flatten().flat_map(texts).collect();
            let jurisdictions = listed.iter().filter_map(|name| positions.get(name).copied()).collect();
            Names { has_all: listed.iter().any(|name| name == "*"), jurisdictions }
        };
        for (name, region) in entries(&document["regions"]) {
            let within = book.holding(&texts(&region["countries"]), &positions);
            book.regions.insert(name.clone(), within);
        }
        for (name, service) in entries(&document["services"]) {
            let rules = service["residency"].as_array().into_iter().flatten();
            let rules = rules.map(|rule| Rule {
                clients: names(&rule["clients"]),
                is_for_unknown: texts(&rule["clients"]).iter().any(|client| client == "unknown"),
                process_in: names(&rule["process_in"]),
            });
            let rules = rules.collect();
            book.services
                .insert(name.clone(), Service { regions: texts(&service["regions"]).into_iter().collect(), rules });
        }
        for (name, tenant) in entries(&document["tenants"]) {
            let declared = texts(&tenant["residency"]);
            let declared_at = declared.iter().filter_map(|name| positions.get(name).copied()).collect();
            let tenant = Tenant {
                services: texts(&tenant["services"]).into_iter().collect(),
                declared: (!declared.is_empty()).then_some(declared_at),
                process_in: (!tenant["process_in"].is_null()).then(|| names(&tenant["process_in"])),
            };
            book.tenants.insert(name.clone(), tenant);
        }
        book
    }

    /// The jurisdictions that hold all of these places, which are countries or jurisdictions.
    fn holding(&self, places: &[String], positions: &BTreeMap<String, usize>) -> BTreeSet<usize> {
        let holds = |within: &CountrySet| {
            let is_within = |place: &String| match (place.as_str(), CountryCode::parse(place)) {
                ("*", _) => false,
                (_, Some(country)) => within.contains(country),
                (name, None) => positions.get(name).is_some_and(|at| self.jurisdictions[*at].1.is_subset(within)),
            };
            !places.is_empty() && places.iter().all(is_within)
        };
        let all = self.jurisdictions.iter().enumerate();
        all.filter(|(_, (_, within))| holds(within)).map(|(at, _)| at).collect()
    }

    /// The rule for clients of these jurisdictions; `None`: for clients that nobody can place.
    fn rule(&self, service: &str, jurisdictions: Option<&BTreeSet<usize>>) -> Option<usize> {
        let takes = |rule: &Rule| match jurisdictions {
            None => rule.is_for_unknown,
            Some(its) => rule.clients.has_all || !rule.clients.jurisdictions.is_disjoint(its),
        };
        self.services.get(service)?.rules.iter().position(takes)
    }

    /// The jurisdictions of a country.
    fn jurisdictions_of(&self, country: CountryCode) -> BTreeSet<usize> {
        let all = self.jurisdictions.iter().enumerate();
        all.filter(|(_, (_, set))| set.contains(country)).map(|(at, _)| at).collect()
    }

    /// Whether a service has a region, and it lies in one of these jurisdictions.
    fn lies_in(&self, service: &str, process_in: &Names, region: &str) -> bool {
        let is_within = || self.regions.get(region).is_some_and(|its| !its.is_disjoint(&process_in.jurisdictions));
        self.services.get(service).is_some_and(|service| service.regions.contains(region))
            && (process_in.has_all || is_within())
    }

    /// Whether clients that this rule of a service takes may be sent to a region.
    fn allows(&self, service: &str, rule: Option<usize>, region: &str) -> bool {
        let rule = rule.and_then(|rule| self.services.get(service)?.rules.get(rule));
        rule.is_some_and(|rule| self.lies_in(service, &rule.process_in, region))
    }

    /// Whether clients of a tenant may be sent to a region, if they are of these jurisdictions.
    fn allows_tenant(&self, tenant: &Tenant, service: &str, its: Option<&BTreeSet<usize>>, region: &str) -> bool {
        let is_within = match &tenant.process_in {
            Some(process_in) => self.lies_in(service, process_in, region),
            None => self.allows(service, self.rule(service, tenant.declared.as_ref().or(its)), region),
        };
        is_within && tenant.services.contains(service)
    }

    /// Whether clients from this country may be sent to a region; `None`: clients that nobody can place.
    #[must_use]
    pub fn allows_country(&self, service: &str, country: Option<CountryCode>, region: &str) -> bool {
        let its = country.map(|country| self.jurisdictions_of(country));
        self.allows(service, self.rule(service, its.as_ref()), region)
    }
}

impl Book {
    /// Whether clients of these jurisdictions may be sent to a region. `clients` is a label of observations:
    /// jurisdictions joined by `+`, `none` or `unknown`. Observations don't say which tenant sent a request.
    #[must_use]
    pub fn allows_clients(&self, service: &str, clients: &str, region: &str) -> Allows {
        let at = |name: &str| self.jurisdictions.iter().position(|(one, _)| one == name);
        let its = match clients {
            "unknown" => None,
            "none" => Some(BTreeSet::new()),
            // A name that the document doesn't have allows nothing.
            joined => joined.split('+').map(at).collect::<Option<BTreeSet<usize>>>(),
        };
        let is_placed = clients == "unknown" || its.is_some();
        if is_placed && self.allows(service, self.rule(service, its.as_ref()), region) {
            return Allows::Yes;
        }
        let by_tenant = |tenant: &Tenant| {
            let its_fence = tenant.process_in.as_ref();
            tenant.services.contains(service) && its_fence.is_some_and(|fence| self.lies_in(service, fence, region))
        };
        if self.tenants.values().any(by_tenant) { Allows::OfTenants } else { Allows::No }
    }
}

impl Audit {
    fn add(&mut self, service: &str, client: &str, region: &str) {
        self.violations += 1;
        if self.listed.len() < MOST_LISTED {
            let [service, client, region] = [service, client, region].map(str::to_owned);
            self.listed.push(Violation { service, client, region });
        }
    }

    /// Checks an answer that DNS gives to clients of a ranking.
    pub fn check_answer(
        &mut self,
        book: &Book,
        table: &Table,
        (service, ranking): (ServiceIndex, &Ranking),
        region: RegionIndex,
    ) {
        let (service, region) = (table.service(service).id.as_str(), table.region(region).id.as_str());
        let rule = if let Some(FenceBy::Rule(rule)) = ranking.fence_by { Some(rule) } else { None };
        self.answers += 1;
        if !book.allows(service, rule, region) {
            self.add(service, "DNS", region);
        }
    }
}

/// Checks the decision of every service for every country, for clients that nobody can place, and for at most
/// `most_tenants` pairs of service and tenant. The whole fence counts, not only the regions offered now.
#[must_use]
pub fn audit(table: &Table, book: &Book, conditions: &Conditions<'_>, most_tenants: usize) -> Audit {
    let mut audit = Audit { services: table.services().len(), tenants: table.tenants().len(), ..Audit::default() };
    let countries: Vec<Option<CountryCode>> = geo::countries().map(Some).chain([None]).collect();
    audit.countries = countries.len();
    let jurisdictions: Vec<Option<BTreeSet<usize>>> =
        countries.iter().map(|country| country.map(|country| book.jurisdictions_of(country))).collect();
    for index in (0..table.services().len()).map(ServiceIndex::new) {
        let service = table.service(index).id.as_str();
        // Countries of the same jurisdictions have the same fence; only its order differs.
        let mut fences: BTreeMap<Vec<usize>, BTreeSet<RegionIndex>> = BTreeMap::new();
        for (country, its) in countries.iter().zip(&jurisdictions) {
            let standing = stand(table, &Client { country: *country, ..Client::default() });
            let mut key: Vec<usize> = standing.jurisdictions.iter().map(|jurisdiction| jurisdiction.get()).collect();
            key.push(usize::from(country.is_none()));
            let fence = fences.entry(key).or_insert_with(|| {
                let ranking = rank(table, index, &standing, PathClass::Inference);
                regions_of(table, &ranking, conditions)
            });
            let rule = book.rule(service, its.as_ref());
            audit.decisions += 1;
            for region in fence.iter().map(|region| table.region(*region).id.as_str()) {
                if !book.allows(service, rule, region) {
                    audit.add(service, country.as_ref().map_or("unknown", CountryCode::as_str), region);
                }
            }
        }
    }
    audit_tenants(table, book, conditions, most_tenants, &mut audit);
    audit
}

/// Checks tenants that have their own fence or declare where they belong. The document says which do, not the table: a
/// table may have lost just that.
fn audit_tenants(table: &Table, book: &Book, conditions: &Conditions<'_>, most: usize, audit: &mut Audit) {
    let (mut checked, unknown) = (0, Tenant::default());
    let places = || geo::countries().map(Some).chain([None]);
    let indexes = (0..table.services().len()).map(ServiceIndex::new);
    let indexes: BTreeMap<&str, ServiceIndex> =
        indexes.map(|index| (table.service(index).id.as_str(), index)).collect();
    for (position, tenant) in table.tenants().iter().enumerate() {
        let (name, index) = (tenant.id.as_str(), TenantIndex::new(position));
        let written = book.tenants.get(name).unwrap_or(&unknown);
        let of_document = (written.process_in.is_some(), written.declared.is_some());
        let of_table = (tenant.has_fence(), !tenant.residency.is_empty());
        // Those that do neither are steered by country, which was checked.
        if of_document == (false, false) && of_table == (false, false) {
            continue;
        }
        // A fence of its own doesn't depend on where a client is, unless one of both knows of none.
        let countries: Vec<Option<CountryCode>> = if of_document == of_table { vec![None] } else { places().collect() };
        let served = tenant.services.iter().map(|service| table.service(*service).id.as_str());
        let services: BTreeSet<&str> = written.services.iter().map(String::as_str).chain(served).collect();
        for (service, at) in services.iter().filter_map(|service| Some((*service, *indexes.get(service)?))) {
            if checked == most {
                audit.left_out += 1;
                continue;
            }
            checked += 1;
            for country in &countries {
                audit.decisions += 1;
                let its = country.map(|country| book.jurisdictions_of(country));
                let standing = stand(table, &Client { tenant: Some(index), country: *country, ..Client::default() });
                let ranking = rank(table, at, &standing, PathClass::Inference);
                for region in regions_of(table, &ranking, conditions) {
                    let region = table.region(region).id.as_str();
                    if !book.allows_tenant(written, service, its.as_ref(), region) {
                        audit.add(service, name, region);
                    }
                }
            }
        }
    }
}

/// All regions that clients may be sent to: those of the fence, and those that are offered now.
fn regions_of(table: &Table, ranking: &Ranking, conditions: &Conditions<'_>) -> BTreeSet<RegionIndex> {
    let steering = decide(table, ranking, None, conditions);
    let offered = steering.ordered.iter().map(|ranked| ranked.fenced.region);
    ranking.regions().into_iter().chain(offered).collect()
}

fn entries(object: &Value) -> impl Iterator<Item = (&String, &Value)> {
    object.as_object().into_iter().flatten()
}

/// A text, or the texts of a list.
fn texts(value: &Value) -> Vec<String> {
    let listed = value.as_array().into_iter().flatten();
    listed.chain(value.is_string().then_some(value)).filter_map(|element| element.as_str().map(str::to_owned)).collect()
}

/// The countries of a jurisdiction.
fn countries(jurisdiction: &Value) -> CountrySet {
    let listed = texts(&jurisdiction["countries"]);
    let mut set: CountrySet = listed.iter().filter_map(|code| CountryCode::parse(code)).collect();
    let excluded: Vec<CountryCode> =
        texts(&jurisdiction["exclude"]).iter().filter_map(|code| CountryCode::parse(code)).collect();
    for built_in in texts(&jurisdiction["include"]).iter().filter_map(|name| built_in_set(name)) {
        set.extend(&built_in.iter().filter(|country| !excluded.contains(country)).collect());
    }
    set
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steer::Local;
    use crate::testing::{Random, conditions, document, limit};
    use crate::time::Timestamp;

    fn rules(process_in: &str) -> String {
        format!(
            r#"{{ "version": 1, "revision": 1,
            "jurisdictions": {{ "eu": {{ "include": ["EU"] }}, "uk": {{ "countries": ["GB"] }} }},
            "regions": {{ "fra": {{ "countries": ["DE"] }}, "lon": {{ "countries": ["GB"] }} }},
            "tenants": {{ "acme": {{ "key_sha256": ["{}"], "services": ["own"], "process_in": ["eu"] }} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active",
                "regions": ["fra", "lon"], "residency": [{{ "clients": ["eu"], "process_in": [{process_in}] }}] }},
                "own": {{ "hosts": ["own.example"], "pattern": "active-active",
                "regions": ["fra", "lon"], "residency": [{{ "clients": ["*"], "process_in": ["uk"] }}] }} }} }}"#,
            "ab".repeat(32)
        )
    }

    fn check(served: &str, written: &str) -> Audit {
        let table = Table::compile(rules(served).as_bytes()).unwrap();
        let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
        audit(&table, &Book::read(rules(written).as_bytes()), &conditions, 10)
    }

    #[test]
    fn a_table_that_allows_more_than_its_document_is_found() {
        let right = check(r#""eu""#, r#""eu""#);
        assert_eq!((right.services, right.tenants, right.violations), (2, 1, 0));
        assert_eq!(right.decisions, 2 * right.countries + 1, "every country of both services, and the tenant");
        let wrong = check(r#""eu", "uk""#, r#""eu""#);
        assert_eq!(
            wrong.violations,
            built_in_set("EU").unwrap().iter().count(),
            "each of the union could be sent to London"
        );
        let first = &wrong.listed[0];
        assert_eq!((first.service.as_str(), first.region.as_str()), ("chat", "lon"), "{first:?}");
    }

    #[test]
    fn an_answer_outside_of_its_fence_is_found() {
        let document = rules(r#""eu""#);
        let (table, book) = (Table::compile(document.as_bytes()).unwrap(), Book::read(document.as_bytes()));
        let country = CountryCode::parse("AT");
        let service = table.service_named("chat").unwrap();
        let ranking =
            rank(&table, service, &stand(&table, &Client { country, ..Client::default() }), PathClass::Inference);
        let mut audit = Audit::default();
        for region in ["fra", "lon", "fra"] {
            audit.check_answer(&book, &table, (service, &ranking), table.region_named(region).unwrap());
        }
        assert_eq!((audit.answers, audit.violations), (3, 1));
        assert_eq!((audit.listed[0].client.as_str(), audit.listed[0].region.as_str()), ("DNS", "lon"));
        assert!(book.allows_country("chat", country, "fra") && !book.allows_country("chat", None, "fra"));
    }

    #[test]
    fn tenants_beyond_the_bound_are_counted_as_left_out() {
        let table = Table::compile(rules(r#""eu""#).as_bytes()).unwrap();
        let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
        let book = Book::read(rules(r#""eu""#).as_bytes());
        let none = audit(&table, &book, &conditions, 0);
        assert_eq!((none.left_out, none.decisions), (1, 2 * none.countries));
        let mut other = book.clone();
        other.tenants.values_mut().for_each(|tenant| tenant.process_in = Some(Names::default()));
        let found = audit(&table, &other, &conditions, 10);
        assert_eq!((found.violations, found.listed[0].client.as_str()), (1, "acme"));
    }

    #[test]
    fn a_table_that_lost_what_its_document_says_of_a_tenant_is_found() {
        let conditions = Conditions { health: &[], local: &Local::default(), now: Timestamp(0) };
        let plain = rules(r#""eu""#).replace(r#"["own"], "process_in": ["eu"]"#, r#"["own"]"#);
        let declaring =
            |where_to: &str| plain.replace(r#"["own"]"#, &format!(r#"["chat"], "residency": "{where_to}""#));
        let none = plain.replace(r#"["own"]"#, r#"["chat"]"#);
        let pairs = [
            // Without its fence, the tenant is steered by country, to London.
            (rules(r#""eu""#), plain.clone()),
            (declaring("uk"), none.clone()),
            // A table may have made it up as well.
            (plain.clone(), rules(r#""eu""#)),
            (none.clone(), declaring("eu")),
        ];
        for (written, served) in pairs {
            assert_ne!(written, served);
            let table = Table::compile(served.as_bytes()).unwrap();
            let found = audit(&table, &Book::read(written.as_bytes()), &conditions, 10);
            assert!(found.violations > 0 && found.listed.iter().all(|one| one.client == "acme"), "{written} {found:?}");
            let same = audit(&table, &Book::read(served.as_bytes()), &conditions, 10);
            assert_eq!(same.violations, 0, "{served}");
        }
    }

    /// How many names and positions a book holds.
    fn size(book: &Book) -> usize {
        let of_rule = |rule: &Rule| rule.clients.jurisdictions.len() + rule.process_in.jurisdictions.len();
        let of_service = |one: &Service| 1 + one.regions.len() + one.rules.iter().map(of_rule).sum::<usize>();
        let names = |names: &Option<Names>| names.as_ref().map_or(0, |names| names.jurisdictions.len());
        let of_tenant = |one: &Tenant| 1 + one.services.len() + names(&one.process_in);
        book.regions.values().map(|its| 1 + its.len()).sum::<usize>()
            + book.services.values().map(of_service).sum::<usize>()
            + book.tenants.values().map(of_tenant).sum::<usize>()
    }

    #[test]
    fn a_book_grows_with_its_document_and_no_faster() {
        let names = |kind: &str, count: usize| -> Vec<String> { (0..count).map(|n| format!("{kind}{n}")).collect() };
        let (regions, services) = (names("r", 40), names("s", 100));
        let each =
            |names: &[String], value: Value| -> Value { names.iter().map(|n| (n.clone(), value.clone())).collect() };
        let service =
            serde_json::json!({ "regions": regions, "residency": [{ "clients": ["*"], "process_in": ["eu"] }] });
        let document = serde_json::json!({
            "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": each(&regions, serde_json::json!({ "countries": ["DE"] })),
            "services": each(&services, service),
            "tenants": each(&names("t", 1_000), serde_json::json!({ "services": services, "process_in": ["eu"] })),
        });
        let book = Book::read(document.to_string().as_bytes());
        let (of_regions, of_services, of_tenants) = (2 * 40, 100 * (1 + 40 + 1), 1_000 * (1 + 100 + 1));
        assert_eq!(size(&book), of_regions + of_services + of_tenants, "not 1,000 × 100 × 40");
        assert!(book.allows_tenant(&book.tenants["t7"], "s9", None, "r39"));
        assert!(!book.allows_tenant(&book.tenants["t7"], "s9", None, "r40"), "no service has it");
    }

    #[test]
    fn no_random_document_is_steered_outside_its_fences() {
        for seed in 0..400 {
            let mut random = Random::new(seed);
            let mut document = document(&mut random);
            limit(&mut Random::new(seed), &mut document);
            let text = document.to_string();
            let table = Table::compile(text.as_bytes()).unwrap();
            let (health, local, now) = conditions(&mut random, &table);
            let conditions = Conditions { health: &health, local: &local, now };
            let found = audit(&table, &Book::read(text.as_bytes()), &conditions, 1_000);
            assert_eq!(found.listed, [], "seed {seed}");
            assert!(found.decisions >= found.services * found.countries, "seed {seed}");
        }
        println!("no random document is steered outside its fences: 400 random cases");
    }
}
