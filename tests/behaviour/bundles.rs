//! Bundles with the real program: pushed, pinned, served by region, waited for, and never served when damaged.

mod clients;
mod fleet;
mod rollout;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bailiwick_tests::node::{Node, Setup, TOKEN, bailiwick};
use bailiwick_tests::wait;
use serde_json::{Value, json};

use crate::fixture::{World, ZONE};
use crate::fleet::nodes::{failing, fine};

/// What a node answered.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
    headers: ureq::http::HeaderMap,
}

impl Answer {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Sends a request with these headers.
pub(crate) fn asked(api: SocketAddr, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let mut request = ureq::http::Request::builder().method(method).uri(format!("http://{api}{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let mut response = agent.run(request.body(body).expect("a request")).expect("an answer");
    let body = response.body_mut().with_config().limit(100 << 20).read_to_vec().expect("a body");
    Answer { status: response.status().as_u16(), body, headers: response.headers().clone() }
}

pub(crate) fn get(node: &Node, path: &str) -> Answer {
    asked(node.api, "GET", path, &[], b"")
}

/// A folder of prompts with this system prompt.
pub(crate) fn prompts(setup: &Setup, system: &str) -> PathBuf {
    let folder = setup.path("prompts");
    std::fs::create_dir_all(folder.join("chat")).expect("made");
    std::fs::write(folder.join("chat/system.md"), system).expect("written");
    std::fs::write(folder.join("tools.json"), "{}").expect("written");
    folder
}

/// Pushes such a folder; its version.
#[track_caller]
pub(crate) fn push(node: &Node, system: &str) -> String {
    let folder = prompts(&node.setup, system).display().to_string();
    let version = fine(node, &["bundle", "push", &folder, "--name", "prompts"]).trim().to_owned();
    assert_eq!(version.len(), 64, "{version}");
    version
}

/// Writes rules with these pins, and waits until they are in service.
pub(crate) fn pin(node: &Node, world: &World, revision: u64, pins: &Value) {
    let mut rules = world.rules(revision);
    rules["bundles"] = pins.clone();
    node.setup.write("rules.json", &rules.to_string());
    wait::until_true("the rules are in service", || {
        node.get("/v1/rules").contains(&format!("\"revision\":{revision}"))
    });
}

/// The version that a node serves.
pub(crate) fn serves(node: &Node, query: &str) -> String {
    let answer = get(node, &format!("/v1/bundles/prompts{query}"));
    answer.json()["version"].as_str().unwrap_or_default().to_owned()
}

const LONDON: &str = "4444444444444444444444444444444444444444444444444444444444444444";

/// A node with a token for applications in London.
fn node(world: &World) -> Node {
    let setup = Setup::new(&world.rules(1), ZONE);
    setup.write("london.token", LONDON);
    setup.with("region_token_files = { uk-london = [\"london.token\"] }\n").start()
}

#[test]
fn what_is_pushed_and_pinned_is_served_by_region() {
    let world = World::start();
    let node = node(&world);
    let (one, two) = (push(&node, "Be kind."), push(&node, "Be brief."));
    assert_ne!(one, two);
    let answer = get(&node, "/v1/bundles/prompts");
    assert!(answer.status == 404 && answer.text().contains("pin no version"), "unpinned: {}", answer.text());
    pin(&node, &world, 2, &json!({ "prompts": { "version": one, "regions": { "uk-london": two } } }));
    wait::until_true("it is served", || get(&node, "/v1/bundles/prompts").status == 200);
    assert_eq!(
        [serves(&node, ""), serves(&node, "?region=eu-paris"), serves(&node, "?region=uk-london")],
        [one.as_str(), &one, &two]
    );
    // By the region of the token, which may read bundles and nothing else.
    let token = format!("Bearer {LONDON}");
    let of_london = |path: &str| asked(node.api, "GET", path, &[("authorization", &token)], b"");
    assert_eq!(of_london("/v1/bundles/prompts").json()["version"], two);
    assert_eq!(of_london("/v1/bundles/prompts/chat/system.md").text(), "Be brief.");
    assert_eq!(of_london("/v1/bundles/prompts?region=eu-paris").status, 403);
    let written = asked(node.api, "PUT", "/v1/bundles/prompts", &[("authorization", &token)], b"x");
    assert!(written.status == 403 && written.text().contains("region_token_files"), "{}", written.text());
    assert_eq!(get(&node, "/v1/bundles/prompts?region=nowhere").status, 400);
    let answer = get(&node, "/v1/bundles/prompts/chat/system.md");
    assert_eq!((answer.status, answer.text().as_str()), (200, "Be kind."));
    assert_eq!(
        (answer.header("x-bailiwick-bundle-version"), answer.header("content-type")),
        (one.as_str(), "application/octet-stream")
    );
    let manifest = get(&node, "/v1/bundles/prompts").json();
    let paths: Vec<&str> =
        manifest["files"].as_array().unwrap().iter().map(|one| one["path"].as_str().unwrap()).collect();
    assert_eq!((paths, &manifest["bytes"]), (vec!["chat/system.md", "tools.json"], &json!(10)));
    let of_version = format!("/v1/bundles/prompts/chat/system.md?version={two}");
    assert_eq!(get(&node, &of_version).text(), "Be brief.");
    let listed = get(&node, "/v1/bundles").json();
    assert_eq!(listed["bundles"]["prompts"]["pinned"], one);
    assert_eq!(listed["bundles"]["prompts"]["versions"].as_array().map(Vec::len), Some(2));
    // The same after a restart.
    let node = node.stop().start();
    assert_eq!([serves(&node, ""), serves(&node, "?region=uk-london")], [one, two]);
}

#[test]
fn who_has_a_version_is_told_so_and_may_wait_for_the_next() {
    let world = World::start();
    let node = node(&world);
    let (one, two) = (push(&node, "one"), push(&node, "two"));
    pin(&node, &world, 2, &json!({ "prompts": { "version": one } }));
    wait::until_true("it is served", || get(&node, "/v1/bundles/prompts").status == 200);
    let tag = format!("\"{one}\"");
    let with_tag = |path: &str| asked(node.api, "GET", path, &[("if-none-match", &tag)], b"");
    assert_eq!(get(&node, "/v1/bundles/prompts").header("etag"), tag);
    let same = with_tag("/v1/bundles/prompts");
    assert_eq!((same.status, same.body.len(), same.header("etag")), (304, 0, tag.as_str()));
    let file = get(&node, "/v1/bundles/prompts/tools.json");
    let of_file = file.header("etag").to_owned();
    let again = asked(node.api, "GET", "/v1/bundles/prompts/tools.json", &[("if-none-match", &of_file)], b"");
    assert_eq!(again.status, 304);
    // A wait ends with its time.
    let begun = Instant::now();
    assert_eq!(with_tag("/v1/bundles/prompts?wait=1s").status, 304);
    assert!(begun.elapsed() >= Duration::from_secs(1));
    for odd in ["61s", "soon", ""] {
        assert_eq!(with_tag(&format!("/v1/bundles/prompts?wait={odd}")).status, 400, "{odd}");
    }
    assert_eq!(get(&node, "/v1/bundles/prompts?wate=1s").status, 400);
    // It ends at once with another version, and what isn't known isn't waited for.
    let (api, begun) = (node.api, Instant::now());
    let waiting = std::thread::spawn(move || {
        asked(api, "GET", "/v1/bundles/prompts?wait=60s", &[("if-none-match", &tag)], b"").json()["version"].clone()
    });
    pin(&node, &world, 3, &json!({ "prompts": { "version": two } }));
    assert_eq!(waiting.join().expect("an answer"), two);
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(get(&node, "/v1/bundles/prompts?wait=60s").json()["version"], two);
    // Nobody who waits keeps the server from ending.
    let tag = format!("\"{two}\"");
    let waiting = std::thread::spawn(move || {
        asked(api, "GET", "/v1/bundles/prompts?wait=60s", &[("if-none-match", &tag)], b"").status
    });
    wait::until_true("somebody waits", || get(&node, "/v1/bundles/prompts").status == 200 && !waiting.is_finished());
    let mut node = node;
    node.process.signal("TERM");
    assert!(node.process.wait().success());
    assert_eq!(waiting.join().expect("an answer"), 304);
}

#[test]
fn a_damaged_version_is_never_served_and_the_last_good_one_stays() {
    let world = World::start();
    let node = node(&world);
    let one = push(&node, "one");
    pin(&node, &world, 2, &json!({ "prompts": { "version": one } }));
    wait::until_true("it is served", || serves(&node, "") == one);
    let two = push(&node, "two");
    pin(&node, &world, 3, &json!({ "prompts": { "version": two } }));
    wait::until_true("it is served", || serves(&node, "") == two);
    // Settled: what was served last is on the disk.
    let served = node.setup.path("state/bundles/served.json");
    wait::until_true("it is noted", || std::fs::read_to_string(&served).is_ok_and(|text| text.contains(&two)));
    let file = node.setup.path(&format!("state/bundles/prompts/{two}"));
    let mut bytes = std::fs::read(&file).expect("a pack");
    let at = bytes.len() - 4;
    bytes[at] ^= 1;
    std::fs::write(&file, &bytes).expect("written");
    let damaged = get(&node, "/v1/bundles/prompts/chat/system.md");
    assert!(damaged.status == 503 && damaged.text().contains("damaged"), "{} {}", damaged.status, damaged.text());
    node.tells("was damaged in state_dir");
    wait::until_true("it isn't held", || {
        get(&node, "/v1/bundles").json()["bundles"]["prompts"]["missing"] == json!([two])
    });
    assert_ne!(get(&node, "/v1/bundles/prompts/chat/system.md").text(), "two");
    push(&node, "two");
    wait::until_true("it is back", || get(&node, "/v1/bundles/prompts/chat/system.md").text() == "two");
    // A version that isn't here: the one before is served, and that is said; also after a restart.
    let missing = "ab".repeat(32);
    pin(&node, &world, 4, &json!({ "prompts": { "version": missing } }));
    node.tells("is pinned, and isn't on this node");
    let answer = get(&node, "/v1/bundles/prompts");
    assert_eq!(
        (answer.json()["version"].as_str(), answer.header("x-bailiwick-bundle-pinned")),
        (Some(two.as_str()), missing.as_str())
    );
    let node = node.stop().start();
    assert_eq!(get(&node, "/v1/bundles/prompts/chat/system.md").text(), "two");
    let config = node.setup.path("bailiwick.toml").display().to_string();
    let checked = bailiwick(["check", "--config", &config]);
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success() && said.contains("isn't in state_dir"), "{said}");
    // Where nothing was ever served, that is said.
    pin(&node, &world, 5, &json!({ "prompts": { "version": two }, "tools": { "version": missing } }));
    wait::until_true("it is missing", || get(&node, "/v1/bundles/tools").status == 503);
    assert_eq!(get(&node, "/v1/bundles/tools").header("retry-after"), "2");
}

#[test]
fn what_is_no_bundle_is_refused_and_nothing_outside_is_read() {
    let world = World::start();
    let node = node(&world);
    let one = push(&node, "one");
    pin(&node, &world, 2, &json!({ "prompts": { "version": one } }));
    wait::until_true("it is served", || serves(&node, "") == one);
    for path in
        ["..%2f..%2fapi.token", "../../api.token", "%2e%2e/api.token", "chat", "chat/", "/etc/passwd", "nothing"]
    {
        let answer = get(&node, &format!("/v1/bundles/prompts/{path}"));
        assert!(answer.status == 404 && !answer.text().contains(TOKEN), "{path}: {} {}", answer.status, answer.text());
    }
    let token = format!("Bearer {TOKEN}");
    let put = |name: &str, body: &[u8]| {
        let answer = asked(node.api, "PUT", &format!("/v1/bundles/{name}"), &[("authorization", &token)], body);
        (answer.status, answer.text())
    };
    let pack = std::fs::read(node.setup.path(&format!("state/bundles/prompts/{one}"))).expect("a pack");
    assert_eq!(put("other", &pack).0, 201);
    assert_eq!(put("other", &pack).0, 200, "it is there already");
    assert_eq!(asked(node.api, "PUT", "/v1/bundles/other", &[], &pack).status, 401);
    let text = String::from_utf8(pack.clone()).expect("text");
    for (odd, why) in [
        (text.replace("tools.json", "../ls.json"), "in it; write it as it is within the folder"),
        (text.replace("chat/system.md", "/hat/system.md"), "is absolute"),
        (text.replace("{}", "{]"), "doesn't have the digest"),
        (text[..text.len() - 1].to_owned(), "its contents are cut"),
        (text.clone() + "x", "more than its contents"),
        ("PK".to_owned(), "no pack of a bundle"),
    ] {
        let (status, said) = put("odd", odd.as_bytes());
        assert!(status == 422 && said.contains(why), "{why}: {status} {said}");
    }
    for name in [".hidden", "a%2fb", "a%20b", &"x".repeat(64)] {
        assert_eq!(put(name, &pack).0, 400, "{name}");
    }
    let (status, said) = put("large", &vec![b'x'; 66 << 20]);
    assert!(status == 413 && said.contains("64 MiB"), "{status} {said}");
    let listed =
        get(&node, "/v1/bundles").json()["bundles"].as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(listed, ["other", "prompts"]);
}

/// Asks for all files at once, and reads no more than the answer's first line.
fn slow_reader(node: &Node) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(node.api).expect("connected");
    stream.write_all(b"GET /v1/bundles/prompts?as=pack HTTP/1.1\r\nhost: ns1\r\n\r\n").expect("sent");
    let mut line = [0; 12];
    stream.read_exact(&mut line).expect("an answer");
    (stream, String::from_utf8_lossy(&line).into_owned())
}

#[test]
fn slow_readers_of_large_bundles_fill_no_memory_and_keep_nobody_from_small_files() {
    let world = World::start();
    let node = node(&world);
    let folder = prompts(&node.setup, "one");
    std::fs::write(folder.join("large.bin"), vec![7; 60 << 20]).expect("written");
    let version = fine(&node, &["bundle", "push", &folder.display().to_string(), "--name", "prompts"]);
    pin(&node, &world, 2, &json!({ "prompts": { "version": version.trim() } }));
    wait::until_true("it is served", || get(&node, "/v1/bundles/prompts").status == 200);
    let mut readers: Vec<_> = (0..4).map(|_| slow_reader(&node)).collect();
    assert!(readers.iter().all(|(_, line)| line == "HTTP/1.1 200"), "{readers:?}");
    for path in ["?as=pack", "/large.bin"] {
        let refused = get(&node, &format!("/v1/bundles/prompts{path}"));
        assert_eq!((refused.status, refused.header("retry-after")), (503, "2"), "{}", refused.text());
    }
    assert_eq!(get(&node, "/v1/bundles/prompts/chat/system.md").text(), "one");
    drop(readers.pop());
    wait::until_true("one that went away has made room", || get(&node, "/v1/bundles/prompts/large.bin").status == 200);
}

#[test]
fn the_command_line_pushes_lists_shows_and_fetches() {
    let world = World::start();
    let node = node(&world);
    let none = fine(&node, &["bundle", "list"]);
    assert!(none.contains("bailiwick bundle push"), "{none}");
    let (one, two) = (push(&node, "one"), push(&node, "two"));
    let folder = prompts(&node.setup, "one");
    let dry = bailiwick(["bundle", "push", &folder.display().to_string(), "--name", "prompts", "--dry-run"]);
    assert_eq!(String::from_utf8_lossy(&dry.stdout).trim(), one);
    let by_hand = bailiwick_tests::process::text_of(
        "sh",
        ["-c", &format!("cd {} && find * -type f | LC_ALL=C sort | xargs sha256sum | sha256sum", folder.display())],
    );
    assert_eq!(by_hand.split(' ').next(), Some(one.as_str()));
    let unpinned = failing(&node, &["bundle", "show", "prompts"]);
    assert!(unpinned.contains("pin no version"), "{unpinned}");
    pin(&node, &world, 2, &json!({ "prompts": { "version": one, "regions": { "uk-london": two } } }));
    wait::until_true("it is served", || serves(&node, "") == one);
    let listed = fine(&node, &["bundle", "list"]);
    assert!(listed.contains(&one) && listed.contains("pinned for uk-london"), "{listed}");
    let shown = fine(&node, &["bundle", "show", "prompts"]);
    assert!(shown.starts_with(&format!("prompts {one}\n")) && shown.contains("chat/system.md"), "{shown}");
    assert!(fine(&node, &["bundle", "show", "prompts", "--region", "uk-london"]).contains(&two));
    let of_version = fine(&node, &["bundle", "show", &format!("prompts@{}", &two[..10]), "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&of_version).expect("JSON")["version"], two);
    let to = node.setup.path("fetched");
    let words = ["bundle", "fetch", "prompts", "--to", &to.display().to_string()].map(str::to_owned);
    fine(&node, &words.each_ref().map(String::as_str));
    assert_eq!(std::fs::read_to_string(to.join("chat/system.md")).expect("a file"), "one");
    assert!(failing(&node, &words.each_ref().map(String::as_str)).contains("isn't empty"));
    assert!(failing(&node, &["bundle", "fetch", "prompts@abcd", "--to", "x"]).contains("has no version abcd"));
    std::os::unix::fs::symlink("/etc/passwd", folder.join("chat/passwd")).expect("a link");
    let config = std::fs::read_to_string(node.setup.path("bailiwick.toml")).expect("a configuration");
    node.setup.write("other.toml", &config.replace("uk-london", "uk-londn"));
    let checked = bailiwick(["check", "--config", &node.setup.path("other.toml").display().to_string()]);
    let said = String::from_utf8_lossy(&checked.stderr).into_owned() + &String::from_utf8_lossy(&checked.stdout);
    assert!(said.contains("no region uk-londn") && said.contains("uk-london"), "{said}");
    let folder = folder.display().to_string();
    assert!(failing(&node, &["bundle", "push", &folder, "--name", "prompts"]).contains("is a symbolic link"));
}
