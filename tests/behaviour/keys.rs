//! Keys of signed zones: made, rolled and listed by `bailiwick keys`, taken up by nodes, told apart by their digests.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use bailiwick_tests::node::{Node, Setup, bailiwick};
use bailiwick_tests::process::{run, text_of};
use bailiwick_tests::wait;
use serde_json::{Value, json};

/// Every TTL is a second, so that a rollover takes a few.
const ZONE: &str = "$TTL 1\n@ IN SOA ns1 hostmaster 1 2 3 4 1\n@ IN NS ns1\nns1 IN A 192.0.2.53\n";
const SIGNED: &str =
    "[dnssec.\"ai.example.com\"]\nkeys = \"keys\"\ndnskey_ttl = \"1s\"\nds_ttl = \"1s\"\npropagation = \"0s\"\n";

fn setup() -> Setup {
    Setup::new(&json!({ "version": 1, "revision": 1 }), ZONE).with(SIGNED)
}

fn keys(setup: &Setup, words: &str) -> Output {
    let config = setup.path("bailiwick.toml").display().to_string();
    bailiwick(["keys"].into_iter().chain(words.split(' ')).chain(["--config", &config]))
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn fine(setup: &Setup, words: &str) -> String {
    let output = keys(setup, words);
    assert!(output.status.success(), "{words}: {}", err(&output));
    out(&output)
}

fn refused(setup: &Setup, words: &str) -> String {
    let output = keys(setup, words);
    assert_eq!((output.status.code(), out(&output).as_str()), (Some(1), ""), "{words}");
    err(&output)
}

/// What a step prints once it isn't too early any more.
fn once_allowed(setup: &Setup, words: &str) -> String {
    wait::until(words, || {
        let output = keys(setup, words);
        if output.status.success() {
            return Some(out(&output));
        }
        let reported = err(&output);
        assert!(reported.contains("too early") || reported.contains("try again at"), "{words}: {reported}");
        None
    })
}

fn listed(setup: &Setup) -> Value {
    serde_json::from_str::<Value>(&fine(setup, "list --json")).unwrap()[0].clone()
}

fn states(setup: &Setup) -> Vec<String> {
    let zone = listed(setup);
    zone["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
}

fn digest(node: &Node) -> Value {
    let health: Value = serde_json::from_str(&node.get("/v1/health")).unwrap();
    health["keys_sha256"]["ai.example.com."].clone()
}

/// The files of private keys.
fn pems(directory: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "pem")).collect()
}

/// The DNSKEY of a private key, as OpenSSL derives its public half: the last octets of SubjectPublicKeyInfo.
fn dnskey(pem: &Path, algorithm: u8, length: usize) -> String {
    let pem = pem.display().to_string();
    let spki = run("openssl", ["pkey", "-in", &pem, "-pubout", "-outform", "DER"]).stdout;
    let base64 = pem.replace(".pem", ".public");
    fs::write(&base64, &spki[spki.len() - length..]).unwrap();
    let public = text_of("openssl", ["base64", "-A", "-in", &base64]);
    fs::remove_file(base64).unwrap();
    format!("ai.example.com. 3600 IN DNSKEY 257 3 {algorithm} {public}\n")
}

#[test]
fn tag_and_ds_are_those_that_bind_computes() {
    for (algorithm, length) in [(13, 64), (15, 32)] {
        let setup = setup();
        fine(&setup, &format!("generate --algorithm {algorithm}"));
        let records = setup.path("dnskey.zone");
        fs::write(&records, dnskey(&pems(&setup.path("keys"))[0], algorithm, length)).unwrap();
        let records = records.display().to_string();
        for (option, number) in [("-2", 2), ("-a SHA-384", 4)] {
            let arguments = option.split(' ').chain(["-f", &records, "ai.example.com"]);
            let expected = text_of("dnssec-dsfromkey", arguments);
            assert_eq!(fine(&setup, &format!("ds --early --digest {number}")), expected, "algorithm {algorithm}");
            assert!(expected.contains(&format!(" {algorithm} {number} ")), "{expected}");
        }
    }
}

#[test]
fn a_key_that_openssl_made_signs_too() {
    let setup = setup();
    fine(&setup, "generate");
    let pem = pems(&setup.path("keys")).remove(0);
    let path = pem.display().to_string();
    text_of("openssl", ["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", &path]);
    assert_eq!(fs::metadata(&pem).unwrap().permissions().mode() & 0o077, 0);
    // Its tag is another than the state's, and the message tells which.
    let reported = refused(&setup, "ds --early");
    let tag = reported.split("holds key ").nth(1).unwrap().split(' ').next().unwrap();
    let state = fs::read_to_string(setup.path("keys/state.json")).unwrap();
    let old = listed_tag(&state);
    setup_state(&setup, &state.replace(&format!("\"tag\": {old}"), &format!("\"tag\": {tag}")));
    assert!(fine(&setup, "ds --early").contains(&format!(" DS {tag} 13 2 ")));
}

fn listed_tag(state: &str) -> u64 {
    serde_json::from_str::<Value>(state).unwrap()["keys"][0]["tag"].as_u64().unwrap()
}

fn setup_state(setup: &Setup, text: &str) {
    fs::write(setup.path("keys/state.json"), text).unwrap();
}

#[test]
fn a_rollover_goes_from_generation_to_removal_beside_a_node_that_serves() {
    let setup = setup();
    fine(&setup, "generate --zone ai.example.com");
    assert!(refused(&setup, "ds").contains("too early for the parent"));
    assert!(refused(&setup, "roll").contains("try again at"));
    assert!(refused(&setup, "generate").contains("the zone has a key already"));
    let node = setup.start();
    let setup = &node.setup;
    let mut digests = vec![digest(&node)];
    assert_eq!(digests[0], listed(setup)["keys_sha256"]);
    let mut taken_up = |what: &str| {
        wait::until_true(what, || digest(&node) == listed(setup)["keys_sha256"]);
        assert!(!digests.contains(&digest(&node)), "{what}");
        digests.push(digest(&node));
    };

    let first = once_allowed(setup, "ds");
    once_allowed(setup, "roll");
    assert_eq!(states(setup), ["active", "published"]);
    taken_up("the new key is published");
    assert!(refused(setup, "roll").contains("is under way"));
    let second = once_allowed(setup, "ds");
    assert_ne!(first, second);
    once_allowed(setup, "roll --ds-seen");
    assert_eq!(states(setup)[1], "active");
    taken_up("the new key signs");
    assert_eq!(fine(setup, "ds"), second);
    // By time alone, in the node as in the list.
    wait::until_true("the old key is removed", || states(setup)[0] == "removed");
    taken_up("the old key has left");
    let metrics = node.get("/metrics");
    let metric = format!("bailiwick_zone_keys{{zone=\"ai.example.com.\",sha256={}}} 1", digest(&node));
    assert!(metrics.contains(&metric), "{metric} is not in {metrics}");
    assert_eq!(pems(&setup.path("keys")).len(), 2, "no key is deleted");
}

#[test]
fn nodes_that_hold_different_keys_are_told_apart() {
    let (one, other, third) = (setup(), setup(), setup());
    fine(&one, "generate");
    fine(&third, "generate");
    fs::create_dir(other.path("keys")).unwrap();
    for entry in fs::read_dir(one.path("keys")).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, other.path("keys").join(path.file_name().unwrap())).unwrap();
    }
    let nodes = [one.start(), other.start(), third.start()];
    let digests: Vec<Value> = nodes.iter().map(digest).collect();
    assert!(digests[0].as_str().is_some_and(|digest| digest.len() == 64), "{digests:?}");
    assert_eq!(digests[0], digests[1]);
    assert_ne!(digests[0], digests[2]);
}

#[test]
fn no_node_starts_without_the_keys_of_a_zone_that_should_be_signed() {
    let setup = setup();
    let both = |setup: &Setup, wanted: &str| {
        let config = setup.path("bailiwick.toml").display().to_string();
        for output in [setup.start_in_vain(), bailiwick(["check", "--config", &config])] {
            assert_eq!(output.status.code(), Some(1));
            assert!(err(&output).contains(wanted), "{wanted:?} is not in {}", err(&output));
        }
    };
    both(
        &setup,
        "keys/state.json: is missing; make the zone's first key with `bailiwick keys generate --zone ai.example.com.`",
    );
    fine(&setup, "generate");
    let pem = pems(&setup.path("keys")).remove(0);
    let chmod = |mode: u32| fs::set_permissions(&pem, fs::Permissions::from_mode(mode)).unwrap();
    chmod(0o644);
    both(&setup, "others than its owner have rights to it (mode 0644)");
    chmod(0o600);
    let text = fs::read_to_string(&pem).unwrap();
    fs::write(&pem, "").unwrap();
    both(&setup, "holds no private key in PKCS#8 PEM");
    fs::remove_file(&pem).unwrap();
    both(&setup, "is missing, and state.json names it");
    fs::write(&pem, text).unwrap();
    chmod(0o600);
    let state = fs::read_to_string(setup.path("keys/state.json")).unwrap();
    let other = (listed_tag(&state) + 1) % 65_536;
    setup_state(&setup, &state.replace(&format!("\"tag\": {}", listed_tag(&state)), &format!("\"tag\": {other}")));
    both(&setup, &format!("and state.json says key {other} of algorithm 13"));
    setup_state(&setup, &state.replace("\"state\": \"active\"", "\"state\": \"published\""));
    both(&setup, "state.json: /keys/0: a published key has the times");
    setup_state(&setup, &state);
    assert!(
        out(&bailiwick(["check", "--config", &setup.path("bailiwick.toml").display().to_string()]))
            .contains("signed ai.example.com.: 1 key")
    );
}

#[test]
fn bad_keys_on_a_reload_leave_the_last_good_in_service() {
    let setup = setup();
    fine(&setup, "generate");
    let node = setup.start();
    let good = digest(&node);
    let state = fs::read_to_string(node.setup.path("keys/state.json")).unwrap();
    setup_state(&node.setup, "{}");
    node.tells("state.json: (document)");
    assert_eq!(digest(&node), good);
    wait::until_true("the alarm is up", || {
        node.get("/metrics").contains("bailiwick_source_failing{source=\"keys\"} 1")
    });
    setup_state(&node.setup, &state);
    node.process.signal("HUP");
    wait::until_true("the alarm is over", || {
        node.get("/metrics").contains("bailiwick_source_failing{source=\"keys\"} 0")
    });
    assert_eq!(digest(&node), good);
}

#[test]
fn misuse_of_keys_exits_with_2() {
    for words in ["keys", "keys ds --digest 3", "keys generate --algorithm 8", "keys roll --zone a..b", "keys delete"] {
        assert_eq!(bailiwick(words.split(' ')).status.code(), Some(2), "{words}");
    }
    let help = out(&bailiwick(["keys", "roll", "--help"]));
    assert!(help.contains("--ds-seen") && help.contains("refused, and told when to try again"), "{help}");
}
