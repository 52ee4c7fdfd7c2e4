//! `bailiwick eval` with the real program against a stand-in: suites are run, killed, taken up again and compared.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bailiwick_tests::chat_stand_in::{Asked, ChatStandIn, Reply};
use bailiwick_tests::node::binary;
use bailiwick_tests::process::Process;
use bailiwick_tests::wait;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a suite, and an edge.
struct Fixture {
    folder: TempDir,
    edge: ChatStandIn,
}

impl Fixture {
    /// A suite of so many sums, at an edge that answers like this.
    fn new(cases: usize, answers: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let lines: Vec<Value> = (0..cases)
            .map(|nth| {
                json!({ "id": format!("c{nth}"), "prompt": format!("{nth}+1?"),
                        "params": { "temperature": 0 }, "expect": { "number": { "value": nth + 1 } } })
            })
            .collect();
        Self::of(&lines, answers)
    }

    fn of(lines: &[Value], answers: impl FnMut(&Asked) -> Reply + Send + 'static) -> Self {
        let fixture = Self { folder: TempDir::new().expect("a folder"), edge: ChatStandIn::start(answers) };
        fixture.write("suite.jsonl", &lines.iter().map(|line| format!("{line}\n")).collect::<String>());
        fixture.write("key", "sk-test\n");
        fixture.write("operator", "operator-token\n");
        fixture
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("a file")
    }

    /// The command that runs the suite into a folder.
    fn command(&self, out: &str, more: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(["eval", "run", "--service", "chat", "--model", "large", "--base", &self.edge.base()]);
        command.arg("--suite").arg(self.path("suite.jsonl")).arg("--key-file").arg(self.path("key"));
        command.arg("--out").arg(self.path(out)).args(more).stdin(Stdio::null());
        command
    }

    fn run(&self, out: &str, more: &[&str]) -> Told {
        Told::of(&self.command(out, more).output().expect("the program"))
    }

    /// Compares two files.
    fn compare(&self, a: &str, b: &str, more: &[&str]) -> Told {
        let mut command = Command::new(binary());
        command.args(["eval", "compare"]).arg(self.path(a)).arg(self.path(b)).args(more).stdin(Stdio::null());
        Told::of(&command.output().expect("the program"))
    }
}

/// What a command said.
#[derive(Debug)]
struct Told {
    code: i32,
    out: String,
    err: String,
}

impl Told {
    fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Self { code: output.status.code().unwrap_or(-1), out: text(&output.stdout), err: text(&output.stderr) }
    }

    #[track_caller]
    fn is(self, code: i32, words: &[&str]) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        for words in words {
            assert!(self.out.contains(words) || self.err.contains(words), "{words:?} is missing: {self:?}");
        }
        self
    }
}

/// The sum that is asked for.
fn sum(asked: &Asked) -> Option<u64> {
    asked.prompt().strip_suffix("+1?")?.parse().ok().map(|number: u64| number + 1)
}

/// Answers every sum, from the region that was asked.
fn right(asked: &Asked) -> Reply {
    let region = asked.header("x-bailiwick-pin").unwrap_or("eu-frankfurt").to_owned();
    let sum = sum(asked).map_or("?".to_owned(), |sum| sum.to_string());
    Reply::Text(format!("It is {sum}."), vec![format!("x-bailiwick-region: {region}")])
}

/// The same, but every tenth is wrong.
fn wrong_at_times(asked: &Asked) -> Reply {
    match sum(asked) {
        Some(sum) if sum % 10 == 0 => Reply::Text("It is -1.".to_owned(), Vec::new()),
        _ => right(asked),
    }
}

#[test]
fn each_region_is_asked_and_two_that_answer_alike_are_equivalent() {
    let fixture = Fixture::new(200, right);
    let operator = fixture.path("operator").display().to_string();
    let more = ["--region", "eu-frankfurt,uk-london", "--operator-token-file", &operator, "--seed", "7"];
    let told = fixture.run("out", &more).is(0, &["eu-frankfurt", "uk-london"]);
    let rows: Vec<Vec<&str>> = told.out.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(rows[1][..5], ["eu-frankfurt", "200", "200", "0", "1.0000"], "{}", told.out);
    let asked = fixture.edge.asked();
    assert_eq!(asked.len(), 400);
    for one in &asked {
        assert_eq!(one.path, "/v1/chat/completions");
        assert_eq!(one.header("authorization"), Some("bearer sk-test"));
        assert_eq!(one.header("x-bailiwick-operator"), Some("bearer operator-token"));
        assert_eq!(one.body["model"], "large");
        assert_eq!((&one.body["seed"], &one.body["temperature"]), (&json!(7), &json!(0)));
    }
    let compared = |more: &[&str]| fixture.compare("out/eu-frankfurt.jsonl", "out/uk-london.jsonl", more);
    compared(&["--margin", "0.02"]).is(0, &["equivalent", "200 cases, 0 differ"]);
    compared(&["--margin", "0.001"]).is(1, &["not shown"]);
    let json: Value = serde_json::from_str(&compared(&["--margin", "0.02", "--json"]).is(0, &[]).out).expect("JSON");
    assert_eq!((&json["verdict"], &json["comparison"]["pairs"]["both"]), (&json!("equivalent"), &json!(200)));
    assert!(fixture.read("out/report.html").contains("uk-london"));
}

#[test]
fn both_arms_of_a_rollout_are_asked_and_an_answer_of_the_other_one_ends_the_run() {
    let by_arm = |asked: &Asked| {
        let (region, arm) = asked.header("x-bailiwick-pin").and_then(|pin| pin.split_once(";arm=")).expect("a pin");
        let sum = sum(asked).unwrap_or_default();
        let headers = vec![format!("x-bailiwick-region: {region}"), format!("x-bailiwick-arm: {arm}")];
        Reply::Text(if arm == "new" && sum < 5 { "no".to_owned() } else { sum.to_string() }, headers)
    };
    let fixture = Fixture::new(100, by_arm);
    let operator = fixture.path("operator").display().to_string();
    let arms = ["--region", "uk-london", "--arm", "old,new", "--operator-token-file", &operator];
    fixture.run("out", &arms).is(0, &["uk-london.old", "uk-london.new", "0.9600"]);
    assert_eq!(fixture.edge.asked().len(), 200);
    fixture.run("out", &arms).is(0, &["0.9600"]);
    assert_eq!(fixture.edge.asked().len(), 200, "what was answered isn't asked again");
    let header: Value =
        serde_json::from_str(fixture.read("out/uk-london.new.jsonl").lines().next().expect("a header")).expect("JSON");
    assert_eq!((&header["arm"], &header["region"]), (&json!("new"), &json!("uk-london")));
    assert!(header["begun"].is_string(), "{header}");
    fixture.compare("out/uk-london.old.jsonl", "out/uk-london.new.jsonl", &["--margin", "0.1"]).is(0, &["equivalent"]);
    // A region with its arms is another run than the region alone.
    fixture.edge.answer(right);
    fixture.run("alone", &arms).is(1, &["uk-london;arm=old answered"]);
    let unarmed = move |asked: &Asked| match by_arm(asked) {
        Reply::Text(text, headers) => Reply::Text(text, headers[..1].to_vec()),
        other => other,
    };
    fixture.edge.answer(unarmed);
    fixture.run("unarmed", &arms).is(1, &["the old arm was asked, and the answer names none"]);
    fixture.run("x", &["--arm", "new"]).is(2, &["--region"]);
    fixture.run("x", &["--region", "uk-london", "--arm", "newest"]).is(2, &["write old, new, or old,new"]);
}

#[test]
fn a_model_that_got_worse_is_found() {
    let fixture = Fixture::new(200, right);
    fixture.run("old", &[]).is(0, &["_any"]);
    fixture.edge.answer(wrong_at_times);
    fixture.run("new", &[]).is(0, &["180"]);
    fixture.run("new", &["--min-score", "0.95"]).is(1, &["_any: scores less than --min-score"]);
    fixture.compare("old/_any.jsonl", "new/_any.jsonl", &["--margin", "0.05"]).is(1, &["worse: B is worse than A"]);
    fixture.compare("new/_any.jsonl", "old/_any.jsonl", &["--margin", "0.05"]).is(1, &["better: "]);
    let not_worse = ["--margin", "0.05", "--not-worse"];
    fixture.compare("new/_any.jsonl", "old/_any.jsonl", &not_worse).is(0, &["not worse"]);
    assert!(fixture.read("new/report.html").contains("20 cases aren't right everywhere"));
}

#[test]
fn what_differs_by_chance_is_told() {
    // Every fifth case is right every other time.
    let turns: Mutex<BTreeMap<u64, bool>> = Mutex::new(BTreeMap::new());
    let fixture = Fixture::new(100, move |asked| {
        let sum = sum(asked).unwrap_or_default();
        let mut turns = turns.lock().expect("the turns");
        let turn = turns.entry(sum).or_insert(true);
        *turn = !*turn;
        if sum.is_multiple_of(5) && *turn { Reply::text("no idea") } else { right(asked) }
    });
    fixture.run("a", &["--repeat", "2", "--seed", "1"]).is(0, &["200"]);
    fixture.run("b", &["--repeat", "2", "--seed", "1"]).is(0, &[]);
    let told = fixture.compare("a/_any.jsonl", "b/_any.jsonl", &["--margin", "0.05", "--noise"]);
    told.is(0, &["_any.jsonl with itself: 20 of 100 cases change by chance", "100 cases, 0 differ"]);
    let seeds: Vec<Value> = fixture.edge.asked().iter().map(|one| one.body["seed"].clone()).collect();
    assert_eq!(seeds.iter().filter(|seed| **seed == 2).count(), 200, "the second time has a seed of its own");
    fixture.run("once", &["--seed", "1"]).is(0, &[]);
    let once = "once/_any.jsonl";
    fixture.compare(once, once, &["--margin", "0.05", "--noise"]).is(2, &["--repeat 2"]);
    fixture.compare(once, "a/_any.jsonl", &["--margin", "0.05"]).is(2, &["number of repetitions differs"]);
    fixture.run("other", &["--seed", "2"]).is(0, &[]);
    fixture.compare(once, "other/_any.jsonl", &["--margin", "0.05"]).is(2, &["the seed differs: 1 in the first"]);
}

#[test]
fn a_killed_run_goes_on_and_asks_nothing_twice() {
    let answered = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&answered);
    let fixture = Fixture::new(40, move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        // Then the edge hangs, with requests under way.
        12.. => Reply::Silence,
        _ => right(asked),
    });
    let mut command = fixture.command("out", &["--parallel", "3"]);
    let mut process = Process::start(command.stdout(Stdio::null()).stderr(Stdio::null()));
    let file = "out/_any.jsonl";
    wait::until_true("twelve answers are written and three are awaited", || {
        fs::read_to_string(fixture.path(file)).is_ok_and(|text| text.lines().count() == 13)
            && fixture.edge.asked().len() == 15
    });
    // Nobody else may write meanwhile.
    fixture.run("out", &[]).is(1, &["another run is writing it"]);
    process.signal("KILL");
    process.wait();
    let mut text = fixture.read(file);
    text.push_str("{\"case\":\"c39\",\"repe");
    fixture.write(file, &text);
    let known = fixture.edge.asked().len();
    let done: Vec<String> = outcomes(&text).into_keys().collect();
    fixture.edge.answer(right);
    fixture.run("out", &[]).is(0, &["40"]);
    let asked = fixture.edge.asked();
    assert_eq!(asked.len() - known, 28, "those that had no answer, once each");
    for one in &asked[known..] {
        let case = format!("c{}", sum(one).expect("a sum") - 1);
        assert!(!done.contains(&case), "{case} had an answer");
    }
    assert_eq!(outcomes(&fixture.read(file)).len(), 40);
    fixture.run("out", &[]).is(0, &["40"]);
    assert_eq!(fixture.edge.asked().len(), asked.len(), "nothing is left to ask");
    fixture.run("out", &["--seed", "3"]).is(1, &["seed was none, and is 3 now", "choose another --out"]);
}

/// The whole lines of results by case.
fn outcomes(text: &str) -> BTreeMap<String, Value> {
    let lines = text.lines().skip(1).filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|line| (line["case"].as_str().expect("a case").to_owned(), line)).collect()
}

#[test]
fn a_limit_is_obeyed_and_a_silent_edge_is_given_up() {
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let fixture = Fixture::new(3, move |asked| match count.fetch_add(1, Ordering::SeqCst) {
        0 => Reply::Status("429 Too Many Requests".into(), vec!["retry-after: 3".into()], "{}".into()),
        1 => Reply::Status("503 Service Unavailable".into(), vec!["retry-after: 0".into()], "{}".into()),
        2 => Reply::Status("200 OK".into(), vec!["retry-after: 0".into()], "no JSON".into()),
        _ => right(asked),
    });
    let begun = std::time::Instant::now();
    fixture.run("out", &["--parallel", "1"]).is(0, &["1.0000"]);
    // Without the header the second attempt comes after a second.
    assert!(begun.elapsed() >= std::time::Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(fixture.edge.asked().len(), 6);
    fixture.edge.answer(|_| Reply::Silence);
    let told = fixture.run("silent", &["--timeout", "1s", "--retries", "0", "--parallel", "3"]);
    told.is(1, &["3 have no answer", "run the same again"]);
    assert!(fixture.read("silent/_any.jsonl").contains("no answer in time"));
    fixture.compare("out/_any.jsonl", "silent/_any.jsonl", &["--margin", "0.9"]).is(2, &["second file have no answer"]);
    fixture.edge.answer(right);
    fixture.run("silent", &[]).is(0, &["1.0000"]);
    fixture.compare("out/_any.jsonl", "silent/_any.jsonl", &["--margin", "0.9"]).is(0, &["equivalent"]);
}

#[test]
fn what_no_case_would_get_an_answer_by_ends_the_run() {
    let denied = |_: &Asked| {
        let body = json!({ "error": { "code": "invalid_api_key", "message": "c0 secret prompt" } });
        Reply::Status("401 Unauthorized".into(), Vec::new(), body.to_string())
    };
    let fixture = Fixture::new(50, denied);
    let told = fixture.run("out", &["--parallel", "1"]).is(1, &["status 401 invalid_api_key", "50 have no answer"]);
    assert!(!told.err.contains("secret prompt"));
    assert_eq!(fixture.edge.asked().len(), 1);
    fixture.edge.answer(right);
    let elsewhere = |asked: &Asked| match right(asked) {
        Reply::Text(text, _) => Reply::Text(text, vec!["x-bailiwick-region: us-virginia".into()]),
        other => other,
    };
    fixture.edge.answer(elsewhere);
    let told = fixture.run("out", &["--region", "uk-london"]);
    told.is(1, &["uk-london was asked and us-virginia answered"]);
    fixture.edge.answer(|_| Reply::Status("307 Temporary Redirect".into(), vec!["location: /".into()], String::new()));
    fixture.run("moved", &[]).is(1, &["status 307"]);
    // A refusal of one case is that case's answer.
    fixture.edge.answer(|asked| match sum(asked) {
        Some(7) => Reply::Status("400 Bad Request".into(), Vec::new(), "{\"error\":{\"code\":\"too_long\"}}".into()),
        _ => right(asked),
    });
    fixture.run("once", &[]).is(0, &["0.9800"]);
    assert!(fixture.read("once/_any.jsonl").contains("refused: status 400 too_long"));
}

#[test]
fn a_judge_is_asked_at_the_same_edge_and_nothing_becomes_markup() {
    let evil = "<script>alert(1)</script>";
    let case = json!({ "id": evil, "prompt": evil,
                       "expect": { "judge": { "model": "judge", "rubric": "polite" } } });
    let strict = json!({ "id": "b", "prompt": "hello", "expect": { "judge":
                         { "model": "judge", "rubric": "polite", "pass": 0.5 } } });
    let fixture = Fixture::of(&[case, strict], move |asked| match asked.body["model"].as_str() {
        Some("judge") => Reply::text("0.4"),
        _ => Reply::Text(evil.to_owned(), vec!["x-bailiwick-region: uk-london".into()]),
    });
    fixture.run("out", &["--region", "uk-london"]).is(0, &["uk-london"]);
    let judged: Vec<Asked> = fixture.edge.asked().into_iter().filter(|one| one.body["model"] == "judge").collect();
    assert_eq!(judged.len(), 2);
    assert!(judged.iter().all(|one| one.header("x-bailiwick-pin").is_none()), "the judge is the same for all regions");
    assert!(judged.iter().any(|one| one.prompt().contains("polite") && one.prompt().contains("alert(1)")));
    let found = outcomes(&fixture.read("out/uk-london.jsonl"));
    assert_eq!((&found[evil]["score"], &found[evil]["right"]), (&json!(0.4), &Value::Null));
    assert_eq!((&found["b"]["score"], &found["b"]["right"]), (&json!(0.0), &json!(false)));
    let page = fixture.read("out/report.html");
    assert!(!page.contains("<script") && page.contains("&lt;script&gt;"), "{page}");
    fixture.edge.answer(|asked| match asked.body["model"].as_str() {
        Some("judge") => Reply::text("very polite"),
        _ => Reply::text("hello"),
    });
    fixture.run("mute", &[]).is(1, &["2 have no answer"]);
}

#[test]
fn a_broken_suite_is_told_line_by_line_and_nobody_is_asked() {
    let fixture = Fixture::new(1, right);
    let fine = json!({ "id": "a", "prompt": "x", "expect": { "exact": "y" } }).to_string();
    fixture.write("suite.jsonl", &format!("{fine}\n{fine}\n{{\"id\": \n"));
    let told =
        fixture.run("out", &[]).is(1, &["suite.jsonl: line 2: the id \"a\" stands in line 1", "line 3: is no JSON"]);
    assert!(!told.err.contains("panicked"));
    for (suite, words) in [
        (String::new(), "has no case"),
        (fine.replace("\"exact\":\"y\"", "\"regex\":\"(\""), "line 1: \"regex\" is none"),
        (fine.replace("\"exact\":\"y\"", "\"json_schema\":{\"type\":\"opaque\"}"), "\"json_schema\" is none"),
        (fine.replace("\"exact\":\"y\"", "\"number\":{\"value\":NaN}"), "line 1: is no JSON"),
    ] {
        fixture.write("suite.jsonl", &suite);
        fixture.run("out", &[]).is(1, &[words]);
    }
    assert!(fixture.edge.asked().is_empty());
    for (wrong, code) in [
        (vec!["--base", "chat.example.com"], 2),
        (vec!["--parallel", "0"], 2),
        (vec!["--repeat", "1000"], 2),
        (vec!["--region", "../evil"], 2),
        (vec!["--min-score", "NaN"], 2),
        (vec!["--operator-token-file", "x"], 2),
    ] {
        let mut command = Command::new(binary());
        command.args(["eval", "run", "--suite", "s", "--service", "chat", "--model", "m", "--out", "o"]);
        if wrong[0] != "--base" {
            command.args(["--base", "http://127.0.0.1:9/v1"]);
        }
        Told::of(&command.args(&wrong).output().expect("the program")).is(code, &[wrong[0]]);
    }
}

#[test]
fn samples_of_lm_eval_are_compared_by_their_seeds_and_templates_too() {
    let fixture = Fixture::new(1, right);
    let samples = |wrong: usize| -> String {
        let line = |doc: usize| {
            json!({ "doc_id": doc, "doc": {}, "target": "4", "arguments": { "gen_args_0": { "arg_0": "q" } },
                    "resps": [["4"]], "filtered_resps": ["4"], "filter": "none", "metrics": ["exact_match"],
                    "doc_hash": doc.to_string(), "prompt_hash": "p", "target_hash": "t",
                    "exact_match": f64::from(u8::from(doc >= wrong)) })
        };
        (0..300).map(|doc| format!("{}\n", line(doc))).collect()
    };
    let results = |seed: u32| json!({ "config": { "random_seed": seed }, "task_hashes": { "my_task": "h" } });
    for (name, wrong, seed) in [("a", 0, 1), ("b", 0, 1), ("c", 0, 2), ("d", 40, 1)] {
        fs::create_dir(fixture.path(name)).expect("a folder");
        fixture.write(&format!("{name}/samples_my_task_2026-11-30T00-00-00.jsonl"), &samples(wrong));
        fixture.write(&format!("{name}/results_2026-11-30T00-00-00.json"), &results(seed).to_string());
    }
    let compare = |a: &str, b: &str| {
        let file = |name: &str| format!("{name}/samples_my_task_2026-11-30T00-00-00.jsonl");
        fixture.compare(&file(a), &file(b), &["--margin", "0.02"])
    };
    let told = compare("a", "b").is(0, &["equivalent"]);
    assert_eq!(told.err, "");
    compare("a", "c").is(2, &["the seed differs: 1 in the first file, 2 in the second"]);
    compare("a", "d").is(1, &["worse"]);
    fs::remove_file(fixture.path("b/results_2026-11-30T00-00-00.json")).expect("removed");
    compare("a", "b").is(0, &["no results_….json stands beside it"]);
    fixture.compare("suite.jsonl", "nowhere.jsonl", &["--margin", "0.1"]).is(2, &["is no header", "can't be read"]);
    fixture.compare("suite.jsonl", "suite.jsonl", &["--margin", "NaN"]).is(2, &["--margin"]);
    fixture.compare("suite.jsonl", "suite.jsonl", &[]).is(2, &["--margin"]);
}
