//! Tests of `bailiwick check` over files in a temporary folder: which mistakes it finds, and how it reports them.

use bailiwick_host::locate::geoip::testing::{DatabaseBuilder, flat};

use super::*;

fn check_in(directory: &Path, files: &[(&str, &str)]) -> Findings {
    for (name, text) in files {
        std::fs::write(directory.join(name), text).unwrap();
    }
    configured(&directory.join("bailiwick.toml"))
}

const CONFIG: &str = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\ngeoip = 'geo.mmdb'\n[zones]\n\
    'a.example' = 'a.zone'\n\
    'b.example' = 'b.zone'\n[api]\nlisten = '127.0.0.1:0'\ntoken_file = 'api.token'\n";

#[test]
fn errors_of_all_parts_are_told_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let findings = check_in(
        directory.path(),
        &[
            ("bailiwick.toml", CONFIG),
            ("rules.json", r#"{"version": 1, "revision": 0, "regoins": {}}"#),
            ("geo.mmdb", "no database"),
            ("a.zone", "@ 300 A 192.0.2.1\n"),
            ("b.zone", "x A nonsense\ny A 1.2.3\n"),
            ("api.token", "two words"),
        ],
    );
    let expected = [
        "rules.json:1:16: /revision: ",
        "rules.json:1:31: /regoins: ",
        "b.zone:1: ",
        "b.zone:2: ",
        "geo.mmdb: is not a usable MMDB file",
        "a.zone", // no SOA
        "api.token:1: a token is letters",
    ];
    for part in expected {
        assert!(
            findings.errors.iter().any(|error| error.to_string().contains(part)),
            "{part:?} is not in {:#?}",
            findings.errors
        );
    }
    let json: serde_json::Value = serde_json::from_str(&findings.json()).unwrap();
    assert_eq!(json["ok"], false);
    assert!(json["errors"][0]["place"].as_str().unwrap().ends_with("rules.json:1:16"), "{json}");
    assert!(!findings.report(false).errors.is_empty());
}

#[test]
fn whoever_sends_the_aggregate_beside_the_writer_is_warned() {
    let directory = tempfile::tempdir().unwrap();
    let warned = |more: &str, aggregate: &str| {
        let config = format!(
            "listen = ['127.0.0.1:0']\nrules = 'rules.json'\nstate_dir = 'state'\n[fleet]\nmode = 'peers'\n\
             peers = ['https://ns1.example:8053']\n{more}"
        );
        let rules = format!(r#"{{"version": 1, "revision": 1{aggregate}}}"#);
        let findings = check_in(directory.path(), &[("bailiwick.toml", &config), ("rules.json", &rules)]);
        assert!(findings.errors.is_empty(), "{:#?}", findings.errors);
        findings.warnings.iter().any(|warning| warning.contains("the writer sends the aggregate, too"))
    };
    let aggregate = r#", "aggregate": {"otlp": "https://metrics.example/v1/metrics"}"#;
    assert!(warned("sends_aggregate = true\n", aggregate));
    assert!(!warned("sends_aggregate = true\n", ""));
    assert!(!warned("", aggregate));
    assert!(!warned("writer = true\nsends_aggregate = true\n", aggregate));
}

#[test]
fn an_access_log_without_its_secret_is_warned_of() {
    let warned = |more: &str| {
        let directory = tempfile::tempdir().unwrap();
        let config = format!(
            "listen = [\"127.0.0.1:0\"]\nrules = \"rules.json\"\n[zones]\n[api]\nlisten = \"127.0.0.1:0\"\n\
             [api.access_log]\notlp = \"https://otel.example/v1/logs\"\n{more}"
        );
        let rules = r#"{"version": 1, "revision": 1}"#;
        let findings = check_in(directory.path(), &[("bailiwick.toml", &config), ("rules.json", rules), ("s", "x")]);
        assert!(findings.errors.is_empty(), "{:?}", findings.errors);
        findings
            .warnings
            .iter()
            .any(|warning| warning.starts_with("[api.access_log]/secret: NO_SUCH_SECRET has no value"))
    };
    assert!(warned("secret = \"NO_SUCH_SECRET\"\n"));
    assert!(!warned("secret = \"NO_SUCH_SECRET\"\n[secrets]\nNO_SUCH_SECRET = \"s\"\n"));
    assert!(!warned(""));
}

#[test]
fn a_steered_host_that_clashes_with_its_zone_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let rules = r#"{"version": 1, "revision": 1, "jurisdictions": {"eu": {"include": ["EU"]}},
            "regions": {"fra": {"countries": ["DE"], "answers": {"A": ["192.0.2.1"]}}},
            "services": {"chat": {"hosts": ["chat.a.example", "chat.elsewhere.example"], "pattern": "active-active",
                "regions": ["fra"],
                                  "residency": [{"clients": ["*"], "process_in": ["eu"]}]}}}"#;
    let zone = "@ 300 SOA ns.x. h.x. 1 2 3 4 5\n@ 300 NS ns.x.\n";
    let config = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\n[zones]\n'a.example' = 'a.zone'\n";
    let files = [("bailiwick.toml", config), ("rules.json", rules), ("a.zone", zone)];
    let fine = check_in(directory.path(), &files);
    assert_eq!(fine.errors, []);
    assert!(fine.warnings.iter().any(|warning| warning.contains("chat.elsewhere.example")), "{:#?}", fine.warnings);

    let clash = format!("{zone}chat 300 A 192.0.2.9\n");
    let findings = check_in(directory.path(), &[("a.zone", &clash)]);
    assert!(findings.errors.iter().any(|error| error.to_string().contains("a.zone:3")), "{:#?}", findings.errors);
}

#[test]
fn what_the_node_will_not_do_is_told() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("state")).unwrap();
    let kept = r#"{"version": 1, "revision": 9}"#;
    std::fs::write(directory.path().join("state/rules.last-good.json"), kept).unwrap();
    let config = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\nstate_dir = 'state'\n[tcp]\nconnections = 1000000\n";
    let files = [("bailiwick.toml", config), ("rules.json", r#"{"version": 1, "revision": 8}"#)];
    let reported = check_in(directory.path(), &files).warnings;
    assert!(reported.iter().any(|one| one.contains("would go on with the rules that it keeps")), "{reported:#?}");
    let reported = check_in(directory.path(), &[("rules.json", kept)]).warnings;
    assert!(!reported.iter().any(|one| one.contains("that it keeps")), "{reported:#?}");
    let config = Config::read(&directory.path().join("bailiwick.toml")).unwrap();
    assert!(too_many_connections(&config, 524_288).unwrap().contains("lower connections to 524032"));
    assert_eq!(too_many_connections(&config, 1_000_256), None);
}

#[test]
fn a_database_is_told_by_what_it_says_instead_of_a_country() {
    let directory = tempfile::tempdir().unwrap();
    let made = DatabaseBuilder::new(4)
        .add("10.0.0.0/24".parse().unwrap(), &flat("ZZ", None))
        .add("10.0.2.0/24".parse().unwrap(), &flat("ZZ", None))
        .add("10.0.4.0/24".parse().unwrap(), &flat("UK", None))
        .add("10.0.6.0/24".parse().unwrap(), &flat("DE", None));
    std::fs::write(directory.path().join("geo.mmdb"), made.bytes()).unwrap();
    let config = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\ngeoip = 'geo.mmdb'\n";
    let rules = r#"{"version": 1, "revision": 1}"#;
    let findings = check_in(directory.path(), &[("bailiwick.toml", config), ("rules.json", rules)]);
    let reported = "geo.mmdb: says \"ZZ\" of 2 networks, \"UK\" of 1 network: no country, so these clients are unknown";
    assert!(findings.summary.iter().any(|line| line.ends_with(reported)), "{:#?}", findings.summary);
    assert!(findings.warnings.len() == 1 && findings.warnings[0].contains("(GB is meant)"), "{:#?}", findings.warnings);
}

#[test]
fn an_empty_zone_file_is_told_by_its_name() {
    let directory = tempfile::tempdir().unwrap();
    let config = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\n[zones]\n'a.example' = 'a.zone'\n";
    let rules = r#"{"version": 1, "revision": 1}"#;
    let files = [("bailiwick.toml", config), ("rules.json", rules), ("a.zone", "; nothing yet\n")];
    let findings = check_in(directory.path(), &files);
    assert_eq!(findings.errors.len(), 1, "{:#?}", findings.errors);
    assert!(findings.errors[0].to_string().contains("a.zone: holds no records"), "{:#?}", findings.errors);
}

#[test]
fn rules_alone_may_come_by_standard_input() {
    let args = CheckArgs { config: PathBuf::new(), rules: Some("-".into()), json: false };
    let reported = run(&args, &mut &br#"{"version": 1, "revision": 3}"#[..]);
    assert!(reported.errors.is_empty() && reported.output.starts_with("rules revision 3 (sha256 "), "{reported:?}");
    let reported = run(&args, &mut &b"{"[..]);
    assert!(reported.errors[0].starts_with("standard input: (document): is not JSON"), "{reported:?}");
}

#[test]
fn rules_alone_may_come_by_a_pipe_and_those_that_are_served_may_not() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("rules.json");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let config = "listen = ['127.0.0.1:0']\nrules = 'rules.json'\n";
    let findings = check_in(directory.path(), &[("bailiwick.toml", config)]);
    let reported: Vec<String> = findings.errors.iter().map(Fault::to_string).collect();
    assert!(reported.len() == 1 && reported[0].contains("rules.json: is no file but a pipe"), "{reported:?}");
    let into = pipe.clone();
    let writer = std::thread::spawn(move || std::fs::write(into, r#"{"version": 1, "revision": 3}"#));
    let args = CheckArgs { config: PathBuf::new(), rules: Some(pipe), json: false };
    let reported = run(&args, &mut std::io::empty());
    assert!(reported.errors.is_empty() && reported.output.starts_with("rules revision 3 (sha256 "), "{reported:?}");
    writer.join().unwrap().unwrap();
}
