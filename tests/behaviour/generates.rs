//! Monitors of type `openai`: whether a token is made decides, and what its absence means is told apart.

use std::time::{Duration, Instant};

use bailiwick_tests::gpu_stand_in::{Gpu, GpuStandIn};
use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::ZONE;

/// The name of the secret that the node has, and its value.
const SECRET: (&str, &str) = ("FRA_PROBE", "s3cret-of-the-probe");

/// Rules with one region of one endpoint, watched by a probe that awaits a token for a second.
fn rules(gpu: &GpuStandIn, change: impl FnOnce(&mut Value)) -> Value {
    let mut endpoint = json!({
        "url": gpu.base(), "engine": "vllm", "capacity": 10, "models": { "chat-large": "m" },
        "load": { "type": "vllm", "url": gpu.metrics_url(), "interval": "500ms" },
        "monitor": { "type": "openai", "model": "chat-large", "first_token": "1s", "interval": "1500ms",
                     "secret": SECRET.0, "up_thresh": 1, "ok_thresh": 1, "down_thresh": 2 },
    });
    change(&mut endpoint);
    json!({
        "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
        "regions": { "eu-frankfurt": { "countries": ["DE"], "answers": { "A": ["192.0.2.10"] },
                                       "endpoints": { "fra-1": endpoint } } },
        "services": { "chat": { "hosts": ["chat.ai.example.com"], "pattern": "active-active",
            "regions": ["eu-frankfurt"], "residency": [{ "clients": ["*", "unknown"], "process_in": ["eu"] }] } },
    })
}

fn start(rules: &Value) -> Node {
    let setup = Setup::new(rules, ZONE).with(&format!("[secrets]\n{} = \"fra.secret\"\n", SECRET.0));
    setup.write("fra.secret", &format!("{}\n", SECRET.1));
    setup.start()
}

fn of_node(node: &Node, path: &str) -> Value {
    serde_json::from_str(&node.get(path)).expect("JSON")
}

/// What `/v1/health` says of the endpoint.
fn endpoint(node: &Node) -> Value {
    of_node(node, "/v1/health")["regions"]["eu-frankfurt"]["endpoints"]["fra-1"].clone()
}

fn verdict(node: &Node) -> String {
    endpoint(node)["probe"]["verdict"].as_str().unwrap_or_default().to_owned()
}

/// How often a verdict came.
fn count(node: &Node, verdict: &str) -> u64 {
    let labels = format!("{{region=\"eu-frankfurt\",endpoint=\"fra-1\",verdict=\"{verdict}\"}} ");
    let metrics = node.get("/metrics");
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("bailiwick_monitor_verdicts_total")?.strip_prefix(&labels));
    line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{verdict} isn't counted:\n{metrics}"))
}

fn wait_for(node: &Node, verdict: &str, times: u64) {
    wait::until_true(&format!("{times} times {verdict}"), || count(node, verdict) >= times);
}

fn wait_until_status(node: &Node, status: &str) {
    wait::until_true(&format!("the endpoint is {status}"), || endpoint(node)["status"] == status);
}

#[test]
fn health_200_but_no_token_is_down_in_time() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |_| {}));
    assert_eq!((endpoint(&node)["status"].as_str(), verdict(&node)), (Some("up"), "answered".to_owned()));
    let asked = gpu.asked()[0].clone();
    assert_eq!(asked.path, "/v1/chat/completions");
    assert_eq!(
        (&asked.body["model"], &asked.body["max_tokens"], &asked.body["stream"]),
        (&"m".into(), &1.into(), &true.into())
    );
    assert!(asked.headers.contains(&format!("authorization: bearer {}", SECRET.1)), "{:?}", asked.headers);

    gpu.become_(Gpu::Mute);
    let begun = Instant::now();
    wait_until_status(&node, "down");
    // Two failures within at most 1.6 intervals each, a second for each token, and what a busy machine adds.
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let well = ureq::get(gpu.health_url()).call().expect("an answer").status();
    assert_eq!(well, 200, "which a probe by http would take for health");
    let told = endpoint(&node);
    assert_eq!(
        (told["probe"]["verdict"].as_str(), told["probe"]["failure"].as_str()),
        (Some("down"), Some("no token within 1s"))
    );
    assert_eq!(of_node(&node, "/v1/health")["regions"]["eu-frankfurt"]["status"], "down");

    gpu.become_(Gpu::Vllm);
    wait_until_status(&node, "up");
    let nonces: Vec<String> = gpu
        .asked()
        .iter()
        .map(|one| one.body["messages"][0]["content"].as_str().expect("a prompt").to_owned())
        .collect();
    assert!(nonces.len() > 2 && nonces.iter().all(|one| nonces.iter().filter(|other| *other == one).count() == 1));
    let everything = [node.log(), node.get("/v1/health"), node.get("/v1/status"), node.get("/metrics")].concat();
    assert!(!everything.contains(SECRET.1), "no output has the secret");
}

#[test]
fn saturated_but_advancing_stays_up_and_counts_as_full() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |_| {}));
    gpu.become_(Gpu::Saturated);
    wait_for(&node, "busy", 4);
    assert_eq!((endpoint(&node)["status"].as_str(), count(&node, "down"), count(&node, "frozen")), (Some("up"), 0, 0));
    let told = endpoint(&node);
    assert!(told["probe"]["says"].as_str().is_some_and(|says| says.contains("it is full, not down")), "{told}");
    let load = || of_node(&node, "/v1/health")["loads"]["eu-frankfurt"]["endpoints"]["fra-1"]["load"].as_f64();
    assert!(load() >= Some(1.0), "{:?}", load());
    gpu.become_(Gpu::Vllm);
    wait::until_true("it is answered again", || verdict(&node) == "answered");
    wait::until_true("its load is what its engine says", || load() < Some(1.0));
}

#[test]
fn frozen_is_down_although_it_accepts_and_has_work() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |_| {}));
    gpu.become_(Gpu::Frozen);
    wait_until_status(&node, "down");
    assert_eq!((verdict(&node).as_str(), count(&node, "busy")), ("frozen", 0));
    node.tells("eu-frankfurt/fra-1 is frozen by its last probe");
}

#[test]
fn probe_of_a_reasoning_model_isnt_down() {
    let gpu = GpuStandIn::start(Gpu::Reasoning);
    let node = start(&rules(&gpu, |_| {}));
    assert_eq!(endpoint(&node)["status"], "up", "{}", endpoint(&node));
    wait_for(&node, "answered", 3);
    let told = endpoint(&node);
    assert_eq!(told["probe"]["raised"], "max_completion_tokens = 16", "{told}");
    assert_eq!(count(&node, "misconfigured") + count(&node, "down"), 0);
    let refused = gpu.asked().iter().filter(|one| one.body.get("max_tokens").is_some()).count();
    assert_eq!(refused, 1, "the refusal is remembered");
    assert_eq!(node.log().matches("the model refuses a single token").count(), 1, "{}", node.log());
}

#[test]
fn throttled_isnt_down() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |_| {}));
    gpu.become_(Gpu::Throttled);
    wait_for(&node, "throttled", 4);
    assert_eq!((endpoint(&node)["status"].as_str(), verdict(&node).as_str()), (Some("up"), "throttled"));
}

#[test]
fn misconfigured_alarms_at_once_and_is_down_only_after_its_threshold() {
    for (gpu, status) in [(Gpu::Unauthorized, 401), (Gpu::NoModel, 404)] {
        let gpu = GpuStandIn::start(gpu);
        let node = start(&rules(&gpu, |endpoint| endpoint["monitor"]["down_thresh"] = json!(3)));
        node.tells("eu-frankfurt/fra-1 is misconfigured by its probe");
        assert!(count(&node, "misconfigured") < 3, "the alarm came before the threshold");
        assert_eq!(endpoint(&node)["status"], "unknown", "the first failure doesn't decide");
        let failure = endpoint(&node)["probe"]["failure"].clone();
        assert_eq!(failure, format!("answered {status}, expected a token"));
        wait_until_status(&node, "down");
        assert!(count(&node, "misconfigured") >= 3);
    }
    // A node without the credential sends nothing, and says so.
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = Setup::new(&rules(&gpu, |_| {}), ZONE).start();
    assert_eq!(verdict(&node), "misconfigured");
    assert_eq!(endpoint(&node)["probe"]["failure"], "the secret FRA_PROBE has no value on this node");
    assert!(gpu.asked().is_empty());
}

#[test]
fn sglang_and_azure_are_understood() {
    let sglang = GpuStandIn::start(Gpu::Sglang);
    let node = start(&rules(&sglang, |endpoint| endpoint["engine"] = json!("sglang")));
    assert_eq!(verdict(&node), "answered");
    let azure = GpuStandIn::start(Gpu::Azure);
    let node = start(&rules(&azure, |endpoint| {
        for key in ["engine", "load"] {
            endpoint.as_object_mut().expect("an object").remove(key);
        }
        endpoint["url"] = json!(azure.base().trim_end_matches("/v1"));
        endpoint["style"] = json!("azure");
        endpoint["api_version"] = json!("2024-10-21");
    }));
    assert_eq!(verdict(&node), "answered");
    let asked = azure.asked()[0].clone();
    assert_eq!(asked.path, "/openai/deployments/m/chat/completions?api-version=2024-10-21");
    assert!(asked.headers.contains(&format!("api-key: {}", SECRET.1)), "{:?}", asked.headers);
}

#[test]
fn it_isnt_probed_while_real_answers_come() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |endpoint| endpoint["monitor"]["interval"] = json!("4s")));
    let mut sequence = 0;
    let mut observe = || {
        sequence += 1;
        let health = of_node(&node, "/v1/status");
        let batch = json!({
            "version": 1, "isolate": "00112233445566aa", "sequence": sequence, "at": health["now"], "span_ms": 1000,
            "revision": 1, "in_flight": [], "demand": [],
            "counts": [{ "service": "chat", "clients": "none", "region": "eu-frankfurt", "endpoint": "fra-1",
                         "model": "chat-large", "requests": { "ok": 1 }, "attempts": { "committed": 1 },
                         "tokens_out": 5, "busy_ms": 100 }],
        });
        let (status, body) = node.call("POST", "/v1/observations", Some(TOKEN), Some(&batch));
        assert_eq!(status, 200, "{body}");
    };
    observe();
    let asked = gpu.asked().len();
    wait::until_true("three rounds without a probe", || {
        observe();
        count(&node, "served") >= 3
    });
    assert!(gpu.asked().len() <= asked + 1, "one round may have been under way");
    let told = endpoint(&node);
    assert_eq!((&told["status"], &told["probe"]["verdict"]), (&"up".into(), &"served".into()));
    // Once nobody is answered, it is asked again.
    let before = gpu.asked().len();
    wait::until_true("it is asked again", || gpu.asked().len() > before);
}

#[test]
fn a_spent_budget_keeps_the_last_state_and_tells_it() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |endpoint| endpoint["monitor"]["budget"] = json!({ "tokens": 64 })));
    wait::until_true("the budget is spent", || endpoint(&node)["probe"]["unpaid_until"].is_string());
    gpu.become_(Gpu::Mute);
    let report = of_node(&node, "/v1/health")["regions"]["eu-frankfurt"].clone();
    assert_eq!((&report["stale"], &report["endpoints"]["fra-1"]["status"]), (&false.into(), &"up".into()));
    assert_eq!((gpu.asked().len(), verdict(&node).as_str()), (1, "answered"));
    assert!(of_node(&node, "/v1/status").to_string().contains("the budget is spent until"));
}

#[test]
fn a_secret_that_changes_is_used_from_the_next_probe_on() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let node = start(&rules(&gpu, |_| {}));
    node.setup.write("fra.secret", "another");
    wait::until_true("the new one is sent", || {
        gpu.asked().iter().any(|one| one.headers.contains(&"authorization: bearer another".to_owned()))
    });
}

#[test]
fn check_tells_what_probes_of_a_model_lack() {
    let gpu = GpuStandIn::start(Gpu::Vllm);
    let checked = |rules: &Value, lines: &str| {
        let setup = Setup::new(rules, ZONE).with(lines);
        let output = bailiwick(["check", "--config", setup.path("bailiwick.toml").to_str().expect("UTF-8")]);
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let fine = rules(&gpu, |_| {});
    let told = checked(&fine, "");
    assert!(told.contains("FRA_PROBE has no value here"), "{told}");
    let told = checked(&fine, "[secrets]\nFRA_PROBE = 'none.secret'\n");
    assert!(told.contains("none.secret: can't be read") && told.contains("named by [secrets] FRA_PROBE"), "{told}");
    for (change, said) in [
        (json!({ "model": "chat" }), "a model that the endpoint's \"models\" don't have"),
        (json!({ "first_token": "2s" }), "not less than \"interval\""),
        (json!({ "budget": { "tokens": 10 } }), "lets not one probe a day be sent"),
    ] {
        let rules = rules(&gpu, |endpoint| {
            for (key, value) in change.as_object().expect("an object") {
                endpoint["monitor"][key] = value.clone();
            }
        });
        let told = checked(&rules, "");
        assert!(told.contains(said), "{said}: {told}");
    }
    let mut of_region = fine.clone();
    of_region["regions"]["eu-frankfurt"]["monitor"] = json!({ "type": "openai", "model": "m" });
    let told = checked(&of_region, "");
    assert!(told.contains("the base URL to ask, which a region has none of"), "{told}");
}
