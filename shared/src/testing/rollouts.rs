//! Random rollouts for random documents. Takes a valid document, adds rollouts to it. Used by property tests of the
//! edge and of `rollout`.

use serde_json::{Value, json};

use super::Random;

/// Gives some services of a valid document a rollout that has come anywhere between its beginning and its end. The
/// document stays valid.
pub fn roll_out(random: &mut Random, document: &mut Value) {
    // All rollouts are of one kind, because a rollout of endpoints changes the models of an endpoint, on which a
    // rollout of a model would depend.
    let kind = *random.pick(&[Kind::Model, Kind::Endpoints, Kind::Bundle]);
    let services = document["services"].as_object().cloned().unwrap_or_default();
    for (service, rule) in services {
        let members: Vec<String> = rule["regions"].as_array().into_iter().flatten().map(text).collect();
        let change = match kind {
            Kind::Model => of_model(random, document, &members),
            Kind::Endpoints => of_endpoints(random, document, &members),
            Kind::Bundle => Some(of_bundle(random, document, &service, &members)),
        };
        let Some((mut rollout, regions)) = change.filter(|(_, regions)| !regions.is_empty()) else { continue };
        rollout["service"] = json!(service);
        rollout["regions"] = json!(regions);
        rollout["checks"] = json!({ "error_rate": { "max_diff": 0.01 } });
        if random.chance(90) {
            rollout["progress"] = progress(random, &regions);
        }
        document["rollouts"][format!("r-{service}")] = rollout;
    }
}

/// What a rollout replaces.
#[derive(Clone, Copy)]
enum Kind {
    Model,
    Endpoints,
    Bundle,
}

/// The version whose digits are all the same.
pub fn version(digit: char) -> String {
    digit.to_string().repeat(64)
}

/// A rollout of a new bundle to version 2…. Some regions have version 1…, and others 0….
fn of_bundle(random: &mut Random, document: &mut Value, service: &str, members: &[String]) -> (Value, Vec<String>) {
    let regions: Vec<String> = members.iter().filter(|_| random.chance(80)).cloned().collect();
    let with_own = members.iter().filter(|_| random.chance(30));
    let own: serde_json::Map<String, Value> = with_own.map(|region| (region.clone(), json!(version('1')))).collect();
    let name = format!("b-{service}");
    document["bundles"][&name] = json!({ "version": version('0'), "regions": own });
    (json!({ "bundle": name, "to": version('2') }), regions)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A rollout that changes the endpoints' name of a model, with the regions that have the old name.
fn of_model(random: &mut Random, document: &Value, members: &[String]) -> Option<(Value, Vec<String>)> {
    let calls = |region: &String| -> Vec<(String, String)> {
        let endpoints = document["regions"][region]["endpoints"].as_object().into_iter().flat_map(|all| all.values());
        let models = endpoints.filter_map(|endpoint| endpoint["models"].as_object());
        models.flatten().map(|(model, name)| (model.clone(), text(name))).collect()
    };
    let all: Vec<(String, String)> = members.iter().flat_map(calls).collect();
    let (model, from) = (!all.is_empty()).then(|| random.pick(&all).clone())?;
    let regions = members.iter().filter(|region| calls(region).contains(&(model.clone(), from.clone())));
    let regions = regions.cloned().collect();
    Some((json!({ "model": model, "from": from, "to": format!("new-{model}") }), regions))
}

/// A rollout from the first to the second endpoint of each region that has two.
fn of_endpoints(random: &mut Random, document: &mut Value, members: &[String]) -> Option<(Value, Vec<String>)> {
    let mut pairs = serde_json::Map::new();
    for region in members {
        let endpoints = document["regions"][region]["endpoints"].as_object_mut()?;
        let Some((from, old)) = endpoints.iter().next().map(|(name, old)| (name.clone(), old.clone())) else {
            continue;
        };
        let Some((to, new)) = endpoints.iter_mut().nth(1).filter(|_| random.chance(80)) else { continue };
        new["models"] = old["models"].clone();
        if new["models"].is_null() {
            new.as_object_mut()?.remove("models");
        }
        pairs.insert(region.clone(), json!({ "from": from, "to": to }));
    }
    let regions = members.iter().filter(|region| pairs.contains_key(*region)).cloned().collect();
    Some((json!({ "endpoints": pairs }), regions))
}

fn progress(random: &mut Random, regions: &[String]) -> Value {
    let begun = random.below(regions.len() + 1);
    let mut shares = serde_json::Map::new();
    for (nth, region) in regions.iter().take(begun).enumerate() {
        let share = if nth + 1 < begun { 100 } else { 1 + random.below(100) };
        shares.insert(region.clone(), json!(share));
    }
    json!({ "shares": shares, "since": "2026-12-01T06:00:00Z" })
}
