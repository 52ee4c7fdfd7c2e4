//! `bailiwick init | check | explain | hash-key`, as typed.

use std::process::{Command, Output, Stdio};

use bailiwick_tests::geo;
use bailiwick_tests::node::{bailiwick, binary};
use tempfile::TempDir;

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn fresh() -> (TempDir, String) {
    let folder = TempDir::new().unwrap();
    let output = bailiwick(["init", folder.path().to_str().unwrap()]);
    assert!(output.status.success(), "{}", err(&output));
    let config = folder.path().join("bailiwick.toml").display().to_string();
    (folder, config)
}

#[test]
fn init_writes_what_check_finds_good_and_never_overwrites() {
    let (folder, config) = fresh();
    let output = bailiwick(["check", "--config", &config]);
    assert!(output.status.success(), "{}{}", out(&output), err(&output));
    let again = bailiwick(["init", folder.path().to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(1));
    assert!(err(&again).contains("--force"), "{}", err(&again));
}

#[test]
fn check_tells_every_error_and_exits_with_1() {
    let (folder, config) = fresh();
    std::fs::write(folder.path().join("rules.json"), r#"{ "version": 2, "revision": 0, "servcies": {} }"#).unwrap();
    let output = bailiwick(["check", "--config", &config]);
    assert_eq!(output.status.code(), Some(1));
    let reported = out(&output) + &err(&output);
    for place in ["/version", "/revision", "/servcies"] {
        assert!(reported.contains(place), "{reported}");
    }
    assert!(reported.contains("services"), "the nearest key is named: {reported}");
    assert!(!reported.contains('\u{1b}'), "no colour where there is no terminal");
}

#[test]
fn usage_errors_exit_with_2() {
    for arguments in [&["chekc"][..], &["explain"], &["serve", "--colour"]] {
        assert_eq!(bailiwick(arguments.iter().copied()).status.code(), Some(2), "{arguments:?}");
    }
}

#[test]
fn explain_tells_four_clients() {
    let (folder, _) = fresh();
    let rules = folder.path().join("rules.json").display().to_string();
    let database = geo::database().display().to_string();
    let rules_text = std::fs::read_to_string(&rules).unwrap();
    let rules_json: serde_json::Value = serde_json::from_str(&rules_text).unwrap();
    let service = rules_json["services"].as_object().unwrap().keys().next().unwrap().clone();
    for (client, country) in [(geo::GERMAN, "DE"), (geo::BRITISH, "GB"), (geo::AMERICAN, "US"), ("unknown", "null")] {
        let output = bailiwick([
            "explain",
            "--rules",
            &rules,
            "--geoip",
            &database,
            "--service",
            &service,
            "--client",
            client,
            "--json",
        ]);
        assert!(output.status.success(), "{}", err(&output));
        let reported: serde_json::Value = serde_json::from_str(&out(&output)).unwrap();
        assert_eq!(reported["client"]["country"].as_str().unwrap_or("null"), country);
        let text =
            bailiwick(["explain", "--rules", &rules, "--geoip", &database, "--service", &service, "--client", client]);
        assert!(out(&text).contains("fence"), "{}", out(&text));
    }
    let typo = bailiwick(["explain", "--rules", &rules, "--service", "nonesuch", "--client", "unknown"]);
    assert_eq!(typo.status.code(), Some(1));
    assert!(err(&typo).contains(&service), "it names what there is: {}", err(&typo));
}

#[test]
fn regions_may_be_supposed_down_one_by_one_or_in_a_list() {
    let (folder, _) = fresh();
    let rules = folder.path().join("rules.json").display().to_string();
    let json: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(&rules).unwrap()).unwrap();
    let regions: Vec<&str> = json["regions"].as_object().unwrap().keys().map(String::as_str).collect();
    let service = json["services"].as_object().unwrap().keys().next().unwrap();
    let explain = |down: &[&str]| {
        let ask = ["explain", "--rules", &rules, "--service", service, "--country", "DE"];
        out(&bailiwick(ask.into_iter().chain(down.iter().copied())))
    };
    let one_by_one: Vec<&str> = regions.iter().flat_map(|region| ["--down", region]).collect();
    let reported = explain(&one_by_one);
    assert!(reported.contains("revived"), "{reported}");
    assert_eq!(explain(&["--down", &regions.join(",")]), reported);
}

#[test]
fn help_is_a_command_too() {
    let help = bailiwick(["help", "explain"]);
    assert!(help.status.success() && out(&help).contains("--down"), "{}", err(&help));
}

#[test]
fn hash_key_reads_the_key_from_standard_input() {
    use std::io::Write;
    let mut child =
        Command::new(binary()).arg("hash-key").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"hello\n").unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(out(&output).trim(), "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824");
}

#[test]
fn bash_completes_the_names_of_the_rules_in_reach() {
    let folder = tempfile::tempdir().unwrap();
    assert!(bailiwick(["init", folder.path().to_str().unwrap()]).status.success());
    let complete = |words: &str, option: &str| {
        let script = format!(
            "source <(bailiwick completions bash); COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _bailiwick bailiwick \"${{COMP_WORDS[COMP_CWORD]}}\" '{option}'; echo \"${{COMPREPLY[@]}}\""
        );
        let beside = binary().parent().unwrap().display().to_string();
        let path = format!("{beside}:{}", std::env::var("PATH").unwrap_or_default());
        let mut bash = Command::new("bash");
        let output = bash.args(["-c", &script]).env("PATH", path).current_dir(folder.path());
        String::from_utf8(output.output().unwrap().stdout).unwrap().trim().to_owned()
    };
    assert_eq!(complete("bailiwick drain eu-", "drain"), "eu-frankfurt eu-frankfurt/fra-1");
    assert_eq!(complete("bailiwick undrain uk-london/", "undrain"), "uk-london/lon-1");
    assert_eq!(complete("bailiwick explain --service c", "--service"), "chat");
    assert_eq!(complete("bailiwick explain --down us", "--down"), "us-virginia");
}

#[test]
fn completions_and_the_manual_come_from_the_same_definitions() {
    for shell in ["bash", "zsh", "fish"] {
        assert!(out(&bailiwick(["completions", shell])).contains("hash-key"), "{shell}");
    }
    assert!(out(&bailiwick(["man"])).contains(".TH"));
}
