//! Tests of questions in query strings, and of who may ask them.

use super::*;
use bailiwick_rules::rules::KeyDigest;

fn table() -> Table {
    let service = |host: &str| {
        serde_json::json!({ "hosts": [host], "pattern": "hub-and-spoke", "regions": ["fra"],
            "hub": { "region": "fra", "paths": ["/fine_tuning"] },
            "residency": [{ "clients": ["*"], "process_in": ["*"] }] })
    };
    let rules = serde_json::json!({
        "version": 1, "revision": 1, "regions": { "fra": { "countries": ["DE"] } },
        "services": { "chat": service("chat.example"), "open": service("open.example") },
        "tenants": {
            "acme": { "key_sha256": [KeyDigest::of_key("sk-acme").to_string()], "services": ["chat"] },
            "globe": { "key_sha256": [KeyDigest::of_key("sk-globe").to_string()], "services": ["chat"] },
        },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap()
}

fn question(host: &str, key: Option<&str>, query: &str) -> Result<Question, Failure> {
    let credentials = key.map_or_else(Credentials::default, Credentials::bearer);
    let asker = Requester { host, credentials, origin: Origin::default(), token: Some("operator") };
    asker.question(&table(), query)
}

fn ask(host: &str, key: Option<&str>, query: &str) -> Result<(ClientQuestion, Option<String>), Failure> {
    let table = table();
    let Question::ClientQuestion(question) = question(host, key, query)? else { panic!("every fence is asked for") };
    let tenant = question.client.tenant.map(|tenant| table.tenant(tenant).id.to_string());
    Ok((question, tenant))
}

#[test]
fn a_tenant_asks_for_itself_alone() {
    let (question, tenant) = ask("chat.example", Some("sk-acme"), "model=m&path=/v1/fine_tuning/jobs%3Fx").unwrap();
    assert_eq!((tenant.as_deref(), question.model.as_deref()), (Some("acme"), Some("m")));
    assert_eq!(question.path_class, PathClass::Hub);
    for others in
        ["tenant=globe", "tenant=nobody", "tenant=acme", "country=DE", "client=203.0.113.7", "service=open", "all"]
    {
        assert_eq!(ask("chat.example", Some("sk-acme"), others), Err(Failure::ExplainOthers), "{others}");
    }
    assert!(matches!(ask("chat.example", Some("sk-acme"), "modle=m"), Err(Failure::BadQuestion { .. })));
}

#[test]
fn other_clients_get_no_explanation() {
    for query in ["", "tenant=acme", "modle"] {
        assert_eq!(ask("chat.example", None, query), Err(Failure::ExplainUnauthorised));
        assert_eq!(ask("chat.example", Some("sk-nobody"), query), Err(Failure::UnknownKey));
        assert_eq!(
            ask("open.example", Some("sk-acme"), query),
            Err(Failure::ExplainUnauthorised),
            "the service has no tenants"
        );
    }
    assert_eq!(ask("chat.example", Some("operator"), "token=operator"), Err(Failure::KeyInQuery));
}

#[test]
fn the_operator_asks_for_anybody() {
    let (question, tenant) = ask("ops.example", Some("operator"), "service=chat&tenant=globe&country=de").unwrap();
    assert_eq!((tenant.as_deref(), question.client.country), (Some("globe"), CountryCode::parse("DE")));
    let (question, _) = ask("open.example", Some("operator"), "client=203.0.113.7&country=FR").unwrap();
    assert_eq!(
        (question.client.address, question.client.country),
        ("203.0.113.7".parse().ok(), CountryCode::parse("FR"))
    );
    assert!(ask("open.example", Some("operator"), "client=unknown").is_ok());
}

#[test]
fn every_fence_is_the_operators_to_ask_for() {
    let all = |query: &str| question("ops.example", Some("operator"), query);
    assert_eq!(all("all"), Ok(Question::All { service: None, tenant: None }));
    let table = table();
    let chosen = Question::All { service: table.service_named("chat"), tenant: table.tenant_named("globe") };
    assert_eq!(all("all=true&service=chat&tenant=globe"), Ok(chosen));
    for wrong in ["all=1&country=DE", "all=1&service=caht", "all=1&all=1", "service=chat&all=no"] {
        assert!(matches!(all(wrong), Err(Failure::BadQuestion { .. })), "{wrong}");
    }
}

#[test]
fn a_code_of_no_country_asks_for_an_unknown_client() {
    for code in ["ZZ", "xx", "T1", "A1", "UK"] {
        let (question, _) = ask("open.example", Some("operator"), &format!("country={code}")).unwrap();
        assert_eq!((question.client.country, question.client.address), (None, None), "{code}");
    }
}

#[test]
fn every_mistake_is_reported() {
    let query = "service=caht&client=here&country=Germany&tenant=nobody&model=a&model=b&at=now";
    let Err(Failure::BadQuestion { errors }) = ask("ops.example", Some("operator"), query) else { panic!() };
    let places: Vec<&str> = errors.iter().map(|error| error.split(':').next().unwrap()).collect();
    assert_eq!(places, ["\"at\"", "service", "client", "country", "tenant", "model"]);
    assert!(
        matches!(ask("ops.example", Some("operator"), ""), Err(Failure::BadQuestion { .. })),
        "no service is named"
    );
    let both = ask("open.example", Some("operator"), "client=unknown&country=DE");
    assert!(matches!(both, Err(Failure::BadQuestion { .. })));
    let not_its = ask("open.example", Some("operator"), "tenant=acme&country=DE");
    assert!(matches!(not_its, Err(Failure::BadQuestion { errors }) if errors[0].contains("403")));
}
