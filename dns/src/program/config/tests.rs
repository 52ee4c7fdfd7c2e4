//! Tests of configuration files that are valid, and of mistakes with their lines.

use super::*;

const WHOLE: &str = r#"
node = "ns1"
listen = ["127.0.0.1:5300", "[::1]:0"]
rules = "rules.json"
geoip = "/var/lib/geo.mmdb"
geoip_registered_country = true
state_dir = "state"
shrink = "take"
responses = "full"
[zones]
"ai.example.com" = "ai.zone"
"Example.ORG." = "sub/org.zone"
[api]
listen = "127.0.0.1:8053"
token_file = "api.token"
write_token_files = ["next.token"]
worker_token_files = ["worker.token"]
read_token_files = ["prometheus.token", "/secret/grafana"]
region_token_files = { uk-london = ["london.token"] }
cert = "api.pem"
key = "/secret/api.key"
[cookies]
secret_files = ["new.secret", "/secret/old"]
required = true
[identity]
version = "1"
hostname = "ns1.example.com"
nsid = "ns1"
[dot]
listen = ["127.0.0.1:853", "[::1]:0"]
cert = "tls.pem"
key = "tls.key"
[doq]
listen = "127.0.0.1:853"
cert = "tls.pem"
key = "tls.key"
[doh]
listen = "127.0.0.1:443"
cert = "tls.pem"
key = "tls.key"
[tcp]
connections = 50
per_client = 5
idle = "2s"
[rate_limit]
per_second = 20
slip = 3
ipv4_prefix = 25
ipv6_prefix = 48
exempt = ["198.51.100.0/24"]
[signing]
per_second = 50
in_all = 500
ipv4_prefix = 28
ipv6_prefix = 64
"#;

fn parse(text: &str) -> Result<Config, Vec<String>> {
    let reported = |errors: Vec<ConfigError>| errors.iter().map(ToString::to_string).collect();
    Config::parse(text, "b.toml", Path::new("/etc/b")).map_err(reported)
}

#[test]
fn a_whole_configuration_is_read_with_paths_beside_it() {
    let config = parse(WHOLE).unwrap();
    assert_eq!(config.node.as_deref(), Some("ns1"));
    assert_eq!(config.listen, ["127.0.0.1:5300".parse().unwrap(), "[::1]:0".parse().unwrap()]);
    assert_eq!(config.rules, Path::new("/etc/b/rules.json"));
    assert_eq!(config.geoip.as_deref(), Some(Path::new("/var/lib/geo.mmdb")));
    assert_eq!(config.registered, Registered::Counts);
    assert_eq!(config.state_dir.as_deref(), Some(Path::new("/etc/b/state")));
    assert_eq!((config.shrink, config.responses), (Shrink::Take, Responses::Full));
    let zones: Vec<_> = config.zones.iter().map(|zone| (zone.origin.to_string(), zone.file.clone())).collect();
    assert_eq!(zones[0], ("ai.example.com.".to_owned(), PathBuf::from("/etc/b/ai.zone")));
    assert_eq!(zones[1], ("Example.ORG.".to_owned(), PathBuf::from("/etc/b/sub/org.zone")));
    let api = config.api.unwrap();
    assert_eq!((api.line, api.token_file.as_deref()), (14, Some(Path::new("/etc/b/api.token"))));
    let writers: Vec<&Path> = api.writers().collect();
    assert_eq!(writers, [Path::new("/etc/b/api.token"), Path::new("/etc/b/next.token")]);
    assert_eq!(api.worker_token_files, [Path::new("/etc/b/worker.token")]);
    assert_eq!(api.read_token_files, [Path::new("/etc/b/prometheus.token"), Path::new("/secret/grafana")]);
    assert_eq!(api.region_token_files["uk-london"], [Path::new("/etc/b/london.token")]);
    let tls = TlsFiles { cert: "/etc/b/api.pem".into(), key: "/secret/api.key".into() };
    assert_eq!(api.tls, Some(tls));
    let secret_files = vec!["/etc/b/new.secret".into(), "/secret/old".into()];
    assert_eq!(config.cookies, CookieFiles { secret_files, required: true });
    assert_eq!(config.identity, Identity::new(Some("1"), Some("ns1.example.com"), Some("ns1")));
    let tls = TlsFiles { cert: "/etc/b/tls.pem".into(), key: "/etc/b/tls.key".into() };
    let encrypted = |addresses: &[&str]| {
        let listen = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Some(Encrypted { listen, tls: tls.clone() })
    };
    assert_eq!(config.dot, encrypted(&["127.0.0.1:853", "[::1]:0"]));
    assert_eq!((config.doq, config.doh), (encrypted(&["127.0.0.1:853"]), encrypted(&["127.0.0.1:443"])));
    let idle = std::time::Duration::from_secs(2);
    assert_eq!(config.tcp, Limits { connections: 50, per_client: 5, idle });
    let exempt = vec!["198.51.100.0/24".parse().unwrap()];
    let limit = RateLimit { per_second: 20, slip: 3, ipv4_prefix: 25, ipv6_prefix: 48, exempt };
    assert_eq!(config.rate_limit, Some(limit));
    let signing = SigningLimit { per_second: 50, in_all: 500, ipv4_prefix: 28, ipv6_prefix: 64 };
    assert_eq!(config.signing, signing);
}

#[test]
fn most_of_it_may_be_missing() {
    let config = parse("listen = ['127.0.0.1:0']\nrules = 'r.json'").unwrap();
    assert!(config.geoip.is_none() && config.state_dir.is_none() && config.api.is_none() && config.zones.is_empty());
    assert_eq!((config.cookies, config.identity), (CookieFiles::default(), Identity::default()));
    assert_eq!((config.shrink, config.responses), (Shrink::Hold, Responses::Minimal));
    assert!(config.dot.is_none() && config.doq.is_none() && config.doh.is_none() && config.rate_limit.is_none());
    assert_eq!((config.tcp, config.signing), (Limits::default(), SigningLimit::default()));
}

#[test]
fn every_error_is_reported_at_once_with_its_line() {
    let text = "node = ''\nlisten = ['127.0.0.1', 5300, '127.0.0.1:53', '127.0.0.1:53']\nrules = 7\ngeiop = 'x'\n\
                threads = 0\n\
                [zones]\n'a..b' = 'z'\n'ok.example' = 3\n'OK.example.' = 'again'\n[api]\ncert = 'c.pem'\n\
                cretificate = 'x'\n[secrets]\n'FRA-1' = 'x'\n";
    let errors = parse(text).unwrap_err();
    let expect = [
        "b.toml:1: \"node\" is empty",
        "b.toml:2: \"127.0.0.1\" is not an address",
        "b.toml:2: \"listen\" holds an integer",
        "b.toml:2: \"127.0.0.1:53\" is listed twice",
        "b.toml:3: \"rules\" is an integer",
        "b.toml:4: unknown key \"geiop\"; did you mean \"geoip\"?",
        "b.toml:5: \"threads\" has to be a whole number from 1 to 1024",
        "b.toml:7: \"a..b\" is not a zone's name: the name has an empty label",
        "b.toml:8: \"ok.example\" is an integer",
        "b.toml:9: the zone \"OK.example.\" is listed twice",
        "b.toml:10: \"api.listen\" is missing",
        "b.toml:10: \"api.cert\" and \"api.key\" belong together; add the other",
        "b.toml:12: unknown key \"api.cretificate\"",
        "b.toml:14: \"FRA-1\" is not the name of a secret; write it as the rules do",
    ];
    for expected in expect {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected:?} is not among {errors:#?}");
    }
    assert_eq!(errors.len(), expect.len(), "{errors:#?}");
}

#[test]
fn errors_of_cookies_and_identity_are_told_with_their_lines() {
    let long = "x".repeat(256);
    let text = format!(
        "listen = ['127.0.0.1:0']\nrules = 'r'\n[cookies]\nsecret_files = ['', 3, 'a', 'a']\nrequired = 'yes'\n\
         secrets = []\n\
         [identity]\nversion = 7\nhostname = ''\nnsid = '{long}'\nhost = 'x'\n"
    );
    let errors = parse(&text).unwrap_err();
    let expect = [
        "b.toml:4: \"cookies.secret_files\" is empty; name a file",
        "b.toml:4: \"cookies.secret_files\" is an integer",
        "b.toml:4: \"/etc/b/a\" is listed twice",
        "b.toml:5: \"cookies.required\" is a string; write true or false",
        "b.toml:6: unknown key \"cookies.secrets\"",
        "b.toml:8: \"identity.version\" is an integer",
        "b.toml:9: \"identity.hostname\" is empty",
        "b.toml:10: \"identity.nsid\" has 256 octets; shorten it to 255",
        "b.toml:11: unknown key \"identity.host\"",
    ];
    for expected in expect {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected:?} is not among {errors:#?}");
    }
    assert_eq!(errors.len(), expect.len(), "{errors:#?}");
    let errors = parse("listen = ['127.0.0.1:0']\nrules = 'r'\ncookies = 1\nidentity = []\n").unwrap_err();
    assert!(errors[0].contains("write a section [cookies]") && errors[1].contains("write a section [identity]"));
}

#[test]
fn errors_of_transports_and_limits_are_told_with_their_lines() {
    let text = "listen = ['127.0.0.1:0']\nrules = 'r'\n[dot]\nlisten = []\ncert = 'c'\ncrt = 'x'\n[doq]\n[doh]\n\
                listen = 'nowhere'\n\
                cert = 'c'\nkey = 'k'\n[tcp]\nconnections = 0\nper_client = 'many'\nidle = '1d'\n[rate_limit]\n\
                slip = -1\n\
                ipv4_prefix = 33\nexempt = ['here']\n[signing]\nper_second = 0\nin_all = 100001\nipv6_prefix = 0\n\
                exempt = []\n";
    let errors = parse(text).unwrap_err();
    let expect = [
        "b.toml:3: \"dot.key\" is missing",
        "b.toml:4: \"dot.listen\" is empty",
        "b.toml:6: unknown key \"dot.crt\"; did you mean \"cert\"?",
        "b.toml:7: \"doq.listen\" is missing",
        "b.toml:7: \"doq.cert\" is missing",
        "b.toml:7: \"doq.key\" is missing",
        "b.toml:9: \"nowhere\" is not an address",
        "b.toml:13: \"tcp.connections\" has to be a whole number from 1",
        "b.toml:14: \"tcp.per_client\" has to be a whole number from 1",
        "b.toml:15: \"tcp.idle\" is \"1d\"; write a duration",
        "b.toml:16: \"rate_limit.per_second\" is missing",
        "b.toml:17: \"rate_limit.slip\" has to be a whole number from 0 to 100",
        "b.toml:18: \"rate_limit.ipv4_prefix\" has to be a whole number from 1 to 32",
        "b.toml:19: \"here\" in \"rate_limit.exempt\" is no network",
        "b.toml:21: \"signing.per_second\" has to be a whole number from 1 to 100000",
        "b.toml:22: \"signing.in_all\" has to be a whole number from 1 to 100000",
        "b.toml:23: \"signing.ipv6_prefix\" has to be a whole number from 1 to 128",
        "b.toml:24: unknown key \"signing.exempt\"",
    ];
    for expected in expect {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected:?} is not among {errors:#?}");
    }
    assert_eq!(errors.len(), expect.len(), "{errors:#?}");
}

#[test]
fn one_prefix_may_not_have_more_signatures_than_all() {
    let read = |signing: &str| parse(&format!("listen = ['127.0.0.1:0']\nrules = 'r'\n[signing]\n{signing}\n"));
    let errors = read("per_second = 300\nin_all = 299").unwrap_err();
    let expected = "\"signing.per_second\" (300) is more than \"signing.in_all\" (299)";
    assert!(matches!(&errors[..], [error] if error.contains(expected)), "{errors:?}");
    assert_eq!(read("per_second = 300\nin_all = 300").unwrap().signing.in_all, 300);
}

#[test]
fn signed_zones_are_read_with_defaults_that_are_long_enough_for_most() {
    let text = "listen = ['127.0.0.1:0']\nrules = 'r'\n[zones]\n'a.example' = 'a'\n'b.example' = 'b'\n\
                [dnssec.'B.example.']\nkeys = 'k'\n\
                [dnssec.'a.example']\nkeys = '/k/a'\ncds = 'publish'\ndnskey_ttl = '10m'\nds_ttl = '24h'\n\
                propagation = '0s'\n";
    let signed = parse(text).unwrap().dnssec;
    assert_eq!(
        (signed[0].origin.to_string(), signed[0].policy),
        ("B.example.".to_owned(), crate::dnssec::policy::Policy::default())
    );
    assert_eq!(signed[0].directory, Path::new("/etc/b/k"));
    let policy = crate::dnssec::policy::Policy {
        cds: crate::dnssec::policy::Cds::Publish,
        dnskey_ttl: bailiwick_rules::time::Millis(600_000),
        ds_ttl: bailiwick_rules::time::Millis(86_400_000),
        propagation: bailiwick_rules::time::Millis(0),
    };
    assert_eq!((signed[1].directory.as_path(), signed[1].policy), (Path::new("/k/a"), policy));
    assert_eq!(policy.dnskey_ttl_seconds(), 600);
}

#[test]
fn errors_of_signed_zones_are_told_with_their_lines() {
    let text = "listen = ['127.0.0.1:0']\nrules = 'r'\n[zones]\n'a.example' = 'a'\n[dnssec.'b.example']\n\
                keys = 'k'\n\
                [dnssec.'a.example']\ncds = 'yes'\ndnskey_ttl = '500ms'\nds_ttl = '1w'\nkyes = 'k'\n\
                [dnssec.'A.EXAMPLE.']\nkeys = 'k'\n\
                [dnssec.'..']\nkeys = 'k'\n[dnssec.c.example]\nkeys = 'k'\n";
    let errors = parse(text).unwrap_err();
    let expect = [
        "b.toml:5: \"b.example\" is to be signed and isn't in [zones]; did you mean \"a.example.\"?",
        "b.toml:7: \"dnssec.\"a.example\".keys\" is missing; name the directory",
        "b.toml:8: \"dnssec.\"a.example\".cds\" is \"yes\"; write \"off\"",
        "b.toml:9: \"dnssec.\"a.example\".dnskey_ttl\" is \"500ms\"; write whole seconds from \"1s\" to \"24h\"",
        "b.toml:10: \"dnssec.\"a.example\".ds_ttl\" is \"1w\"",
        "b.toml:11: unknown key \"dnssec.\"a.example\".kyes\"; did you mean \"keys\"?",
        "b.toml:14: \"..\" is not a zone's name",
        "b.toml:16: the zone's name that begins with \"c\" must stand in quotes",
    ];
    for expected in expect {
        assert!(errors.iter().any(|error| error.starts_with(expected)), "{expected:?} is not among {errors:#?}");
    }
    assert_eq!(errors.len(), expect.len(), "{errors:#?}");
    let twice = "listen = ['127.0.0.1:0']\nrules = 'r'\n[zones]\n'a.example' = 'a'\n[dnssec.'a.example']\n\
                 keys = 'k'\n\
                 [dnssec.'a.example.']\nkeys = 'k'\n";
    assert_eq!(
        parse(twice).unwrap_err(),
        ["b.toml:7: the zone \"a.example.\" has two sections in [dnssec]; remove one"]
    );
    let flat = parse("listen = ['127.0.0.1:0']\nrules = 'r'\ndnssec = 'keys'\n").unwrap_err();
    assert!(flat[0].starts_with("b.toml:3: \"dnssec\" is a string; write a section"), "{flat:?}");
}

#[test]
fn addresses_of_which_one_holds_another_are_told_over_all_sections() {
    let reported = |text: &str| parse(&format!("rules = 'r'\n{text}")).err().unwrap_or_default();
    let expect_one = |errors: Vec<String>, at: &str, words: &str| {
        assert!(matches!(&errors[..], [error] if error.starts_with(at) && error.contains(words)), "{errors:?}");
    };
    expect_one(
        reported("listen = ['0.0.0.0:53', '127.0.0.1:53']"),
        "b.toml:2: ",
        "\"127.0.0.1:53\" and \"0.0.0.0:53\" overlap",
    );
    expect_one(reported("listen = ['[::1]:53', '[::]:53']"), "b.toml:2: ", "overlap");
    expect_one(reported("listen = ['0.0.0.0:53']\n[api]\nlisten = '127.0.0.1:53'"), "b.toml:4: ", "overlap");
    expect_one(
        reported("listen = ['127.0.0.1:53']\n[api]\nlisten = '127.0.0.1:53'"),
        "b.toml:4: ",
        "by another section",
    );
    let both = "listen = ['0.0.0.0:53', '[::]:53']\n";
    expect_one(reported(&format!("ipv6_only = false\n{both}")), "b.toml:3: ", "overlap");
    for fine in [both, "listen = ['0.0.0.0:0', '127.0.0.1:0']", "listen = ['127.0.0.1:53', '127.0.0.2:53']"] {
        assert_eq!(reported(fine), [""; 0], "{fine}");
    }
    let doq = "listen = ['127.0.0.1:53']\n[doq]\nlisten = ['0.0.0.0:53']\ncert = 'c'\nkey = 'k'";
    expect_one(reported(doq), "b.toml:4: ", "overlap");
    let doh = "listen = ['127.0.0.1:53']\n[doq]\nlisten = ['127.0.0.1:853']\ncert = 'c'\nkey = 'k'\n[dot]\n\
               listen = ['127.0.0.1:853']\ncert = 'c'\nkey = 'k'";
    assert_eq!(reported(doh), [""; 0], "UDP and TCP share a port");
}

#[test]
fn shrink_and_responses_are_one_of_two_words_each() {
    let errors = parse("listen = ['127.0.0.1:0']\nrules = 'r'\nshrink = 'keep'\n").unwrap_err();
    assert_eq!(errors, ["b.toml:3: \"shrink\" is \"keep\"; write \"hold\" or \"take\""]);
    let errors = parse("listen = ['127.0.0.1:0']\nrules = 'r'\nresponses = 'maximal'\n").unwrap_err();
    assert_eq!(errors, ["b.toml:3: \"responses\" is \"maximal\"; write \"minimal\" or \"full\""]);
    assert!(parse("listen = ['127.0.0.1:0']\nrules = 'r'\nshrink = 1\n").unwrap_err()[0].contains("an integer"));
}

#[test]
fn a_zone_without_quotes_gets_an_error_of_its_own() {
    let errors = parse("listen = ['127.0.0.1:0']\nrules = 'r'\n[zones]\nai.example.com = 'z'\n").unwrap_err();
    assert!(errors[0].starts_with("b.toml:4: the zone's name that begins with \"ai\" must stand in quotes"));
}

#[test]
fn rfc5891_4_names_that_nobody_asks_for_are_no_zones() {
    let zone = |name: &str| parse(&format!("listen = ['127.0.0.1:0']\nrules = 'r'\n[zones]\n\"{name}\" = 'z'\n"));
    for (name, error) in [
        ("b\u{fc}cher.example", "write it in Punycode, \"xn--bcher-kva.example\""),
        ("B\u{dc}CHER\u{3002}example.", "write it in Punycode, \"xn--bcher-kva.example\""),
        ("\u{4f8b}\u{3048}.\u{30c6}\u{30b9}\u{30c8}", "write it in Punycode, \"xn--r8jz45g.xn--zckzah\""),
        ("a\u{2024}\u{2024}b.example", "no form in Punycode"),
        ("my zone.example", "it holds ' ', which no name of a zone does; remove it"),
        (" example", "it holds ' '"),
        ("a\\tb.example", "it holds '\\t'"),
        ("*.example", "a wildcard is no zone; write the zone \"example\""),
        ("a.*.example", "a wildcard is no zone"),
    ] {
        let errors = zone(name).unwrap_err();
        assert!(
            matches!(&errors[..], [found] if found.starts_with("b.toml:4: ") && found.contains(error)),
            "{errors:?}"
        );
    }
    for good in ["xn--bcher-kva.example", "0/25.2.0.192.in-addr.arpa", "_tcp.example", "."] {
        assert!(zone(good).is_ok(), "{good}");
    }
}

#[test]
fn broken_toml_is_reported_with_its_line() {
    let errors = parse("listen = ['127.0.0.1:5300']\nrules = \nrules = 'x'\n").unwrap_err();
    assert!(errors.iter().any(|error| error.starts_with("b.toml:2: is not TOML")), "{errors:#?}");
}
