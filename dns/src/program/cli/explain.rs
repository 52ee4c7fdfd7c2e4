//! `bailiwick explain`: takes a client, a service and conditions; returns, step by step, in which regions the client's
//! request may be served and why. Needs no running server.

use std::io::Read;
use std::path::PathBuf;

use bailiwick_host::locate::geoip::Registered;
use bailiwick_rules::explain::{Explanation, explain};
use bailiwick_rules::health::{RegionHealth, supposing_down};
use bailiwick_rules::overview::Overview;
use bailiwick_rules::steer::{Conditions, Local};
use bailiwick_rules::table::Table;
use bailiwick_rules::time::Timestamp;
use clap::Args;

use super::check::read_rules;
use crate::program::config::Config;
use crate::program::question::Question;
use crate::program::report::Report;
use crate::state::load::{self, read_geoip};

/// Options of `bailiwick explain`.
#[derive(Debug, Args)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    question: Question,
    /// The configuration that names the rules and the GeoIP database.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    config: PathBuf,
    /// Follow this rules document; `-` reads standard input.
    #[arg(long, value_name = "FILE", conflicts_with = "config")]
    rules: Option<PathBuf>,
    /// Look addresses up in this GeoIP database instead of the configuration's.
    #[arg(long, value_name = "FILE")]
    geoip: Option<PathBuf>,
    /// Print the decision as JSON.
    #[arg(long)]
    json: bool,
}

/// Steers the request, and explains the decision. The command line knows no health: all regions count as up, except
/// those that `--down` names.
pub(crate) fn run(args: &ExplainArgs, stdin: &mut dyn Read, now: Timestamp) -> Report {
    let (rules, geoip, registered) = match &args.rules {
        Some(rules) => (read_rules(rules, stdin), None, Registered::Ignored),
        None => match Config::read(&args.config) {
            Ok(config) => (load::read_rules(config.rules_file()), config.geoip, config.registered),
            Err(errors) => return Report::failed(errors),
        },
    };
    if args.question.all {
        return match rules {
            Ok(rules) => every_fence(args, &rules.table),
            Err(faults) => Report::failed(faults),
        };
    }
    let places = read_geoip(args.geoip.as_deref().or(geoip.as_deref()), registered);
    let (rules, places) = match (rules, places) {
        (Ok(rules), Ok(places)) => (rules, places),
        (rules, places) => return Report::failed([rules.err(), places.err()].into_iter().flatten().flatten()),
    };
    let understood = match args.question.understand(&rules.table, &places, now) {
        Ok(understood) => understood,
        Err(errors) => return Report::failed(errors),
    };
    let health = supposing_down(&vec![RegionHealth::default(); rules.table.regions().len()], &understood.down);
    let conditions = Conditions { health: &health, local: &Local::default(), now: understood.at };
    let explanation = explain(&rules.table, &understood.ask, &conditions);
    match format_output(args.json, &explanation, Explanation::to_text) {
        Ok(output) => Report { output, warnings: understood.notes, ..Report::default() },
        Err(error) => Report::error(error),
    }
}

/// Prints every fence (the regions that may process a client), or only the fences of the service and of the tenant that
/// are named.
fn every_fence(args: &ExplainArgs, table: &Table) -> Report {
    match args.question.overview(table) {
        Ok(all) => format_output(args.json, &all, Overview::to_text).map_or_else(Report::error, Report::fine),
        Err(errors) => Report::failed(errors),
    }
}

fn format_output<T: serde::Serialize>(json: bool, reported: &T, text: impl Fn(&T) -> String) -> Result<String, String> {
    if !json {
        return Ok(text(reported));
    }
    let json = serde_json::to_string_pretty(reported).map(|json| json + "\n");
    json.map_err(|error| format!("the explanation can't be written as JSON: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{"version": 1, "revision": 4,
        "jurisdictions": {"eu": {"include": ["EU"]}, "uk": {"countries": ["GB"]}},
        "regions": {"fra": {"countries": ["DE"]}, "lon": {"countries": ["GB"]}},
        "services": {"chat": {"hosts": ["chat.example"], "pattern": "hub-and-spoke", "regions": ["fra", "lon"],
            "hub": {"region": "fra", "paths": ["/fine_tuning"]},
            "residency": [{"clients": ["eu"], "process_in": ["eu"]}, {"clients": ["uk"], "process_in": [["uk",
                "eu"]]}]}},
        "tenants": {"acme": {"key_sha256": ["0000000000000000000000000000000000000000000000000000000000000001"],
            "residency": "eu", "services": ["chat"]},
            "clinic": {"key_sha256": ["0000000000000000000000000000000000000000000000000000000000000002"],
                "process_in": ["uk"], "services": ["chat"]},
            "globe": {"key_sha256": ["0000000000000000000000000000000000000000000000000000000000000003"],
                "services": ["chat"]}},
        "networks": [{"prefix": "198.51.100.0/24", "country": "DE"}]}"#;

    fn ask(question: Question, json: bool) -> Report {
        let args = ExplainArgs { question, config: PathBuf::new(), rules: Some("-".into()), geoip: None, json };
        run(&args, &mut RULES.as_bytes(), Timestamp(0))
    }

    fn question(client: &str) -> Question {
        Question { service: Some("chat".into()), client: Some(client.into()), ..Question::default() }
    }

    fn ordered(reported: &Report) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_str(&reported.output).unwrap_or_else(|_| panic!("{reported:?}"));
        let regions = json["ordered"].as_array().unwrap();
        regions.iter().map(|region| region["region"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn clients_come_by_address_country_or_not_at_all() {
        assert_eq!(ordered(&ask(question("198.51.100.7"), true)), ["fra"]);
        assert!(ordered(&ask(question("203.0.113.7"), true)).is_empty(), "no database places it");
        assert!(ordered(&ask(question("unknown"), true)).is_empty());
        let british = Question { client: None, country: Some("gb".into()), ..question("") };
        assert_eq!(ordered(&ask(british.clone(), true)), ["lon", "fra"]);
        assert_eq!(ordered(&ask(Question { down: vec!["lon".into()], ..british.clone() }, true)), ["fra"]);
        assert_eq!(ordered(&ask(Question { tenant: Some("acme".into()), ..british.clone() }, true)), ["fra"]);
        let hub = Question { path: Some("/v1/fine_tuning/jobs?limit=1".into()), ..british };
        assert_eq!(ordered(&ask(hub, true)), ["fra"]);
    }

    #[test]
    fn every_wrong_name_is_told_with_the_nearest() {
        let wrong = Question {
            service: Some("chta".into()),
            client: Some("203.0.113".into()),
            tenant: Some("acne".into()),
            down: vec!["fra".into(), "lno".into()],
            at: Some("tomorrow".into()),
            ..Question::default()
        };
        let reported = ask(wrong, false);
        let expected = [
            "tenant: the rules have no tenant \"acne\"; did you mean \"acme\"?",
            "service: the rules have no service \"chta\"; did you mean \"chat\"?",
            "client: \"203.0.113\" is no address",
            "at: \"tomorrow\" is not a time",
            "region: the rules have no region \"lno\"; did you mean \"lon\"?",
        ];
        for (error, expected) in reported.errors.iter().zip(expected) {
            assert!(error.starts_with(expected), "{error}");
        }
        assert_eq!(reported.errors.len(), expected.len());
        assert!(reported.output.is_empty());
        let nowhere = ask(Question { client: None, country: Some("Germany".into()), ..question("") }, false);
        assert!(nowhere.errors[0].starts_with("country: \"Germany\" is no ISO 3166-1 code"));
    }

    #[test]
    fn a_code_of_no_country_is_an_unknown_client() {
        for (code, hint) in
            [("zz", "isn't known"), ("A1", "proxy"), ("UK", "the country is GB"), ("QQ", "no country's")]
        {
            let reported = ask(Question { client: None, country: Some(code.into()), ..question("") }, false);
            assert!(reported.output.contains("client     unknown"), "{reported:?}");
            assert!(
                reported.warnings.iter().any(|note| note.starts_with("country: ") && note.contains(hint)),
                "{reported:?}"
            );
        }
    }

    #[test]
    fn a_tenant_that_says_where_it_belongs_needs_no_client() {
        let of = |tenant: &str| Question { tenant: Some(tenant.into()), ..Question::default() };
        let reported = ask(of("acme"), true);
        assert_eq!((ordered(&reported), reported.warnings.len()), (vec!["fra".to_owned()], 0));
        let reported = ask(of("clinic"), false);
        assert!(reported.output.contains("its tenant's own process_in is the fence"), "{reported:?}");
        assert!(reported.output.contains("fence      lon\n"), "{reported:?}");
        assert!(ask(of("globe"), true).warnings[0].contains("where it asks from decides"));
    }

    #[test]
    fn every_fence_is_told_at_once_or_some() {
        let reported = ask(Question { all: true, ..Question::default() }, false);
        for row in [
            "chat     acme    all, as it declares eu",
            "chat     clinic  all, wherever they are",
            "chat     globe   unknown",
        ] {
            assert!(reported.output.contains(row), "{}", reported.output);
        }
        let reported = ask(Question { all: true, tenant: Some("clinic".into()), ..Question::default() }, true);
        let json: serde_json::Value = serde_json::from_str(&reported.output).unwrap();
        assert_eq!(
            (json["fences"].as_array().unwrap().len(), &json["fences"][0]["fence"][0]["region"]),
            (1, &"lon".into())
        );
        let wrong =
            Question { all: true, service: Some("chta".into()), tenant: Some("acne".into()), ..Question::default() };
        assert_eq!(ask(wrong, false).errors.len(), 2);
    }

    #[test]
    fn a_service_of_tenants_is_noted() {
        let reported = ask(question("198.51.100.7"), false);
        assert!(reported.errors.is_empty() && reported.warnings[0].contains("belongs to tenants"), "{reported:?}");
        assert!(reported.output.contains("service    chat, rules revision 4"));
    }
}
