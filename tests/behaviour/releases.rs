//! Releases: what regions really run is read, told and, if the rules say so, withheld, but never the last region.

use bailiwick_tests::dns::question;
use bailiwick_tests::geo::GERMAN;
use bailiwick_tests::gpu_stand_in::{Gpu, GpuStandIn, Runs};
use bailiwick_tests::node::{Node, Setup, bailiwick};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::ZONE;

const REGIONS: [(&str, &str, &str); 3] =
    [("fra", "DE", "192.0.2.10"), ("lon", "GB", "192.0.2.20"), ("par", "FR", "192.0.2.30")];

/// Three GPUs of one region each, all with the same model, of which DNS prefers Frankfurt's.
fn document(gpus: &[GpuStandIn], release: &Value) -> Value {
    let region = |(gpu, (_, country, address)): (&GpuStandIn, (&str, &str, &str))| {
        let monitor = json!({ "type": "openai", "model": "chat", "interval": "2s", "first_token": "1s",
            "up_thresh": 1, "ok_thresh": 1, "down_thresh": 1 });
        let endpoint = json!({ "url": gpu.base(), "models": { "chat": "m" }, "monitor": monitor });
        json!({ "countries": [country], "answers": { "A": [address] }, "endpoints": { "e": endpoint } })
    };
    let regions: serde_json::Map<_, _> =
        gpus.iter().zip(REGIONS).map(|one| ((one.1).0.to_owned(), region(one))).collect();
    let names: Vec<&String> = regions.keys().collect();
    json!({
        "version": 1, "revision": 1, "releases": { "chat": release },
        "services": { "chat": { "hosts": ["chat.ai.example.com"], "pattern": "active-passive", "regions": names,
            "ttl": { "min": 0, "max": 5 }, "residency": [{ "clients": ["*", "unknown"], "process_in": ["*"] }] } },
        "regions": regions,
    })
}

fn gpus(count: usize) -> Vec<GpuStandIn> {
    (0..count)
        .map(|at| {
            let gpu = GpuStandIn::start(Gpu::Vllm);
            // Batches and other GPUs move log probabilities a little.
            gpu.run(Runs { noise: [0.0, 0.02, -0.02][at % 3], ..Runs::default() });
            gpu
        })
        .collect()
}

fn start(gpus: &[GpuStandIn], release: &Value) -> Node {
    Setup::new(&document(gpus, release), ZONE).start()
}

/// What an endpoint runs, and what of it differs.
fn running(node: &Node, region: &str) -> (String, String) {
    let told: Value = serde_json::from_str(&node.get("/v1/releases")).expect("JSON");
    let endpoints = told["releases"]["chat"]["endpoints"].as_array().expect("endpoints");
    let one = endpoints.iter().find(|one| one["region"] == region).expect("the region");
    let differs = one["differs"].as_array().into_iter().flatten().filter_map(Value::as_str);
    (one["state"].as_str().unwrap_or_default().to_owned(), differs.collect::<Vec<_>>().join(" "))
}

fn until_running(node: &Node, region: &str, state: &str, differs: &str) {
    let wanted = (state.to_owned(), differs.to_owned());
    let mut last = wanted.clone();
    let is_it = || {
        last = running(node, region);
        last == wanted
    };
    let what = format!("{region} runs {state} {differs}");
    let waited = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| wait::until_true(&what, is_it)));
    assert!(waited.is_ok(), "{what}: it is {last:?}: {}", node.get("/v1/releases"));
}

fn answers(node: &Node, address: &str) {
    let asked = || question("chat.ai.example.com", "A").from(GERMAN).ask(node.dns).data();
    wait::until_true(&format!("DNS answers {address}"), || asked() == [address]);
}

fn status_of(node: &Node, region: &str) -> String {
    let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
    health["regions"][region]["status"].as_str().unwrap_or_default().to_owned()
}

fn command(node: &Node) -> (Option<i32>, String) {
    let (api, token) = (format!("http://{}", node.api), node.setup.path("api.token").display().to_string());
    let output = bailiwick(["releases", "--api", &api, "--token-file", &token]);
    (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn another_model_behind_the_same_name_is_told_withheld_and_comes_back() {
    let gpus = gpus(3);
    let node = start(&gpus, &json!({ "skew": "withhold", "interval": "1s" }));
    for (region, ..) in REGIONS {
        until_running(&node, region, "same", "");
    }
    answers(&node, REGIONS[0].2);
    let (code, table) = command(&node);
    assert_eq!(code, Some(0), "{table}");
    assert!(table.contains("vllm-0.11.0-H100-tp8-bf16-a3b21f94") && table.contains("131072"), "{table}");

    gpus[0].run(Runs { weights: 2, ..Runs::default() });
    until_running(&node, "fra", "skew", "canary");
    answers(&node, REGIONS[1].2);
    assert_eq!(status_of(&node, "fra"), "up", "its health is another matter");
    let explained = node.get("/v1/explain?service=chat&country=DE&model=chat");
    assert!(explained.contains(r#"{"region":"fra","reason":"skew","differs":["canary"]}"#), "{explained}");
    let (code, table) = command(&node);
    assert!(code == Some(1) && table.contains("skew: canary"), "{table}");
    let skew = r#"bailiwick_release_skew{region="fra",endpoint="e",release="chat"} 1"#;
    assert!(node.get("/metrics").contains(skew));

    gpus[0].run(Runs { fingerprint: "vllm-0.11.0-A100-tp4-bf16-99999999", noise: 0.02, ..Runs::default() });
    until_running(&node, "fra", "same", "");
    answers(&node, REGIONS[0].2);

    gpus[1].run(Runs { max_model_len: 32_768, fingerprint: "vllm-0.10.0-H100-tp8-bf16-a3b21f94", ..Runs::default() });
    until_running(&node, "lon", "skew", "max_model_len fingerprint");
}

#[test]
fn the_last_region_is_never_withheld_and_a_tie_withholds_nobody() {
    let gpus = gpus(2);
    gpus[1].run(Runs { weights: 2, ..Runs::default() });
    let node = start(&gpus, &json!({ "skew": "withhold", "interval": "1s" }));
    until_running(&node, "fra", "undecided", "canary");
    until_running(&node, "lon", "undecided", "canary");
    answers(&node, REGIONS[0].2);

    let pinned = json!({ "skew": "withhold", "interval": "1s", "fingerprint": "b*" });
    let node = start(&gpus, &pinned);
    until_running(&node, "fra", "skew", "fingerprint");
    until_running(&node, "lon", "skew", "fingerprint");
    answers(&node, REGIONS[0].2);
    gpus[1].run(Runs { fingerprint: "b4567-5dab1a2c", ..Runs::default() });
    answers(&node, REGIONS[1].2);
    gpus[1].become_(Gpu::Mute);
    answers(&node, REGIONS[0].2);
    let explained = node.get("/v1/explain?service=chat&country=DE&model=chat");
    assert!(explained.contains(r#""skewed":true"#), "{explained}");
}

#[test]
fn who_says_nothing_differs_from_nothing_and_who_hangs_stays_up() {
    let gpus = gpus(3);
    gpus[0].run(Runs { weights: 2, has_logprobs: false, ..Runs::default() });
    gpus[1].run(Runs { hangs_at_models: true, ..Runs::default() });
    let node = start(&gpus, &json!({ "skew": "withhold", "interval": "1s" }));
    until_running(&node, "fra", "same", "");
    until_running(&node, "par", "same", "");
    let said = || {
        let health: Value = serde_json::from_str(&node.get("/v1/health")).expect("JSON");
        health["regions"]["fra"]["endpoints"]["e"]["releases"]["chat"].clone()
    };
    assert!(said()["canary"].is_null() && said()["fingerprint"].is_string(), "{}", said());
    answers(&node, REGIONS[0].2);
    for (region, ..) in REGIONS {
        assert_eq!(status_of(&node, region), "up", "{region}");
    }
    // Its other answers are read all the same, once the list of models has taken too long.
    until_running(&node, "lon", "same", "");
    let told = node.get("/v1/releases");
    assert!(told.contains("the list of models: no whole answer within 10 s"), "{told}");
    assert_eq!(status_of(&node, "lon"), "up");
}

#[test]
fn the_canary_is_pinned_by_what_the_command_prints() {
    let gpus = gpus(2);
    let node = start(&gpus, &json!({ "interval": "1s" }));
    until_running(&node, "fra", "same", "");
    let told: Value = serde_json::from_str(&node.get("/v1/releases")).expect("JSON");
    let canary = told["releases"]["chat"]["endpoints"][0]["said"]["canary"].clone();
    gpus[1].run(Runs { weights: 3, ..Runs::default() });
    let node = start(&gpus, &json!({ "interval": "1s", "skew": "withhold", "canary": canary }));
    until_running(&node, "fra", "same", "");
    until_running(&node, "lon", "skew", "canary");
    let without = start(&gpus, &json!({ "interval": "1s", "skew": "warn", "canary": canary }));
    until_running(&without, "lon", "skew", "canary");
    answers(&without, REGIONS[0].2);
}

#[test]
fn rules_without_releases_ask_for_tokens_alone() {
    let gpus = gpus(1);
    let mut rules = document(&gpus, &json!({}));
    rules.as_object_mut().expect("an object").remove("releases");
    let node = Setup::new(&rules, ZONE).start();
    wait::until_true("it was probed three times", || gpus[0].asked().len() >= 3);
    let asked = gpus[0].asked();
    assert!(asked.iter().all(|one| one.body["stream"] == true && one.body.get("logprobs").is_none()));
    assert!(!node.get("/v1/health").contains("releases") && !node.get("/metrics").contains("bailiwick_release_"));
}
