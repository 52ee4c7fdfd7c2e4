//! Random rollouts for random documents. Takes a valid document, adds rollouts to it; it stays valid. Used by property
//! tests of the edge and of `rollout`.

use serde_json::{Value, json};

use super::Random;

/// Gives some services of a valid document a rollout that stands anywhere. The document stays valid.
pub fn roll_out(random: &mut Random, document: &mut Value) {
    // One kind for all, as a rollout of endpoints changes the models of an endpoint.
    let is_of_models = random.chance(50);
    let services = document["services"].as_object().cloned().unwrap_or_default();
    for (service, rule) in services {
        let members: Vec<String> = rule["regions"].as_array().into_iter().flatten().map(text).collect();
        let change =
            if is_of_models { of_model(random, document, &members) } else { of_endpoints(random, document, &members) };
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

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A rollout of a model's name, with the regions that have the old one.
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

/// A rollout of the first endpoint of each region that has a second one.
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
