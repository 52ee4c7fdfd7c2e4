//! Tests of one isolate's quotas: charges, refusals, settlements, and the exchange with a node.

use bailiwick_rules::quota::Dimension;
use bailiwick_rules::table::Table;

use super::*;

const NOW: Timestamp = Timestamp(1_796_104_800_000);

fn table(tokens: u64) -> Table {
    let rules = serde_json::json!({
        "version": 1, "revision": 1,
        "regions": { "fra": { "countries": ["DE"], "endpoints": {
            "fra-1": { "url": "https://a.example/v1", "quota": "q" } } } },
        "quotas": { "q": { "tokens": tokens, "burst": "30s", "headroom": 0 } },
        "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra"],
                                "residency": [{ "clients": ["*"], "process_in": ["*"] }] } },
    });
    Table::compile(rules.to_string().as_bytes()).unwrap()
}

fn demand(bytes: u64, output: Output) -> Demand {
    Demand { tenant: None, model: "m".to_owned(), bytes, choices: 1, output }
}

fn left(quotas: &Quotas) -> u64 {
    let known = quotas.pools.values().next().unwrap();
    known.pool.left(&known.limits, NOW).1.unwrap()
}

#[test]
fn a_request_takes_its_prompt_and_all_that_it_may_answer() {
    let (table, quotas) = (table(60_000), Quotas::default());
    let quota = &table.quotas()[0];
    for (output, choices, expected) in
        [(Output::Nothing, 1, 100), (Output::Unstated, 1, 900), (Output::AtMost(50), 3, 250)]
    {
        let demand = Demand { choices, ..demand(400, output) };
        assert_eq!(quotas.cost(quota, &demand), Cost { requests: 1, tokens: expected });
    }
    let absurd = Demand { choices: u64::MAX, ..demand(u64::MAX, Output::AtMost(u64::MAX)) };
    assert_eq!(quotas.cost(quota, &absurd).tokens, u64::MAX);
}

#[test]
fn what_was_taken_is_replaced_by_what_was_used() {
    let table = table(60_000);
    let quota = &table.quotas()[0];
    let demand = demand(400, Output::AtMost(900));
    let usage = |total: u64| Settlement::Used(Some(Tokens { prompt: 50, answer: total - 50 }));
    for (end, expected) in [
        (Settlement::Refused, 30_000),
        (Settlement::Used(None), 29_000),
        (usage(60), 29_940),
        (usage(5_000), 25_000),
        (Settlement::Left { seen: 10 }, 29_000),
        (Settlement::Left { seen: 5_000 }, 24_900),
    ] {
        let mut quotas = Quotas::default();
        let charge = quotas.charge(quota, &demand, NOW);
        assert_eq!(left(&quotas), 29_000);
        quotas.settle(&charge, &demand, end, NOW);
        assert_eq!(left(&quotas), expected, "{end:?}");
    }
}

#[test]
fn estimates_follow_the_usage_of_model_and_tenant() {
    let table = table(60_000);
    let quota = &table.quotas()[0];
    let mut quotas = Quotas::default();
    let demand = demand(4_000, Output::Nothing);
    let charge = quotas.charge(quota, &demand, NOW);
    let usage = Tokens { prompt: 500, answer: 0 };
    quotas.settle(&charge, &demand, Settlement::Used(Some(usage)), NOW);
    quotas.learn(&demand, usage);
    assert_eq!(quotas.cost(quota, &demand).tokens, 500);
    let other = Demand { tenant: Some(TenantIndex(3)), ..demand.clone() };
    assert_eq!(quotas.cost(quota, &other).tokens, 1_000);
}

#[test]
fn a_provider_that_refuses_withholds_its_quota() {
    let table = table(60_000);
    let quota = &table.quotas()[0];
    let mut quotas = Quotas::default();
    let demand = demand(400, Output::Nothing);
    let charge = quotas.charge(quota, &demand, NOW);
    let reading = Reading { retry_after: Some(Millis(7_000)), ..Reading::default() };
    quotas.apply_headers(&charge, 500, &reading, NOW);
    assert_eq!(quotas.check(quota, &demand, NOW), Ok(()));
    quotas.apply_headers(&charge, 429, &reading, NOW);
    assert_eq!(quotas.check(quota, &demand, NOW), Err(Refusal::Wait(Millis(7_000))));
    let some = Dimension { limit: Some(9), remaining: Some(120), reset: None };
    quotas.apply_headers(&charge, 200, &Reading { tokens: Some(some), ..Reading::default() }, NOW);
    assert_eq!(left(&quotas), 120, "the number that the provider reported");
}

#[test]
fn a_node_s_grant_is_spent_and_then_waited_for() {
    let table = table(60_000);
    let quota = &table.quotas()[0];
    let mut quotas = Quotas::default();
    let demand = demand(4_000, Output::Nothing);
    quotas.charge(quota, &demand, NOW);
    assert!(quotas.is_due(NOW));
    let asks = quotas.asks(&table, "a".to_owned(), NOW);
    let ask = asks.quotas.values().next().unwrap();
    assert_eq!((ask.spent.tokens, ask.want.tokens), (1_000, 2_250));
    assert!(!quotas.is_due(NOW), "a request to the node is under way");
    let grant = r#"{"quotas":{"q":{"granted":{"requests":9,"tokens":2500},"lasts_ms":2000}}}"#;
    quotas.note_answer(&table, &asks, Some(&serde_json::from_str(grant).unwrap()));
    for _ in 0..2 {
        assert_eq!(quotas.check(quota, &demand, NOW), Ok(()));
        quotas.charge(quota, &demand, NOW);
    }
    assert!(matches!(quotas.check(quota, &demand, NOW), Err(Refusal::Wait(_))), "500 are left");
    quotas.note_lack(quota, &demand, NOW);
    let soon = NOW.after(Millis(300));
    let asks = quotas.asks(&table, "a".to_owned(), soon);
    assert_eq!(asks.quotas.values().next().unwrap().least.tokens, 1_000);
    quotas.note_answer(&table, &asks, None);
    assert!(!quotas.is_due(soon.after(Millis(500))), "not at once after a failure");
    assert!(quotas.is_due(soon.after(Millis(1_000))));
}

#[test]
fn an_isolate_reports_the_state_of_its_quotas() {
    let table = table(60_000);
    let mut quotas = Quotas::default();
    assert_eq!(quotas.standings(&table, NOW), [], "the isolate has used no quota");
    let charge = quotas.charge(&table.quotas()[0], &demand(4_000, Output::Nothing), NOW);
    quotas.apply_headers(&charge, 429, &Reading { retry_after: Some(Millis(7_000)), ..Reading::default() }, NOW);
    let reported = QuotaState { quota: "q".into(), requests: None, tokens: Some(29_000), closed: Millis(7_000) };
    assert_eq!(quotas.standings(&table, NOW), [reported]);
}

#[test]
fn what_was_taken_stays_taken_when_the_rules_change() {
    let (old, new) = (table(60_000), table(120_000));
    let mut quotas = Quotas::default();
    let demand = demand(4_000, Output::Nothing);
    quotas.charge(&old.quotas()[0], &demand, NOW);
    assert_eq!(quotas.check(&new.quotas()[0], &demand, NOW), Ok(()));
    assert_eq!(left(&quotas), 59_000);
}
