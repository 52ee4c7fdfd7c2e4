//! `bailiwick eval run`: takes a suite (a list of cases) and the URL of an edge; asks each case in each region, grades
//! the answers, and writes a file of results for each region. This file sends requests and writes files; the decisions
//! are in [`bailiwick_rules::eval`] and [`super::grade`]. The arms of a rollout are its two sides: the requests that
//! get the old thing, and those that get the new thing.

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use bailiwick_host::system::clock::Clock;
use bailiwick_host::system::files::{Mode, replace};
use bailiwick_rules::eval::{Case, Header, MAX_SUITE, Outcome, Suite, VERSION, read_suite};
use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::time::Millis;
use clap::Args;
use futures_util::{StreamExt, stream};
use serde_json::{Map, Value, json};

use super::ask::{Answer, Edge, EdgeTarget, Failure};
use super::grade::{Grade, Grader};
use super::log::ResultFile;
use super::table::{self, Summary};
use super::{judge, page};
use crate::program::report::Report;
use crate::state::load::{read_file, read_text};
use crate::text::span::parse_span;

/// The run stops after this many cases in a row without an answer.
const MOST_UNANSWERED: u32 = 20;
/// How much of an answer is kept, in characters.
const KEPT: usize = 4_000;

/// Options of `bailiwick eval run`.
#[derive(Debug, Args)]
pub(crate) struct RunArgs {
    /// The cases, a line each.
    #[arg(long, value_name = "FILE")]
    suite: PathBuf,
    /// The service that is asked. It is kept with the results.
    #[arg(long, value_name = "NAME", value_parser = service)]
    service: String,
    /// The model to ask for, as clients do.
    #[arg(long, value_name = "NAME")]
    model: String,
    /// The base URL, as clients have it: https://chat.example.com/v1.
    #[arg(long, value_name = "URL", value_parser = base)]
    base: String,
    /// Ask these regions, one after the other. Without it the edge chooses.
    #[arg(long, value_name = "REGION,…", value_delimiter = ',', value_parser = region)]
    region: Vec<String>,
    /// Ask these arms of the service's rollout in each region, one after the other: old, new or both. Results are
    /// REGION.old.jsonl and REGION.new.jsonl.
    #[arg(long, value_name = "ARM,…", value_delimiter = ',', value_parser = arm, requires = "region")]
    arm: Vec<Arm>,
    /// Ask each case so often.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    repeat: u32,
    /// Have so many requests under way at once.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=256))]
    parallel: u16,
    /// Send this seed, and one more for each repetition.
    #[arg(long, value_name = "N")]
    seed: Option<i64>,
    /// How long an answer may take.
    #[arg(long, value_name = "SPAN", default_value = "2m", value_parser = parse_span)]
    timeout: Millis,
    /// How often a request that failed is sent again.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(0..=20))]
    retries: u32,
    /// The file of the API key, of a tenant that may use the service.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// The file of the operator's token, by which the edge lets one choose the region.
    #[arg(long, value_name = "FILE", requires = "region")]
    operator_token_file: Option<PathBuf>,
    /// Exit with 1 if a region's mean score is less, from 0 to 1.
    #[arg(long, value_name = "SCORE", value_parser = share)]
    min_score: Option<f64>,
    /// The folder for the results.
    #[arg(long, value_name = "FOLDER")]
    out: PathBuf,
}

/// Runs it.
///
/// # Errors
/// What is wrong with the suite, the options or the folder; that an edge refuses all.
pub(super) fn run(args: &RunArgs) -> Result<Report, Vec<String>> {
    let (suite, graders) = prepare(&args.suite)?;
    let secret = |file: &Option<PathBuf>| file.as_deref().map(secret).transpose().map_err(|problem| vec![problem]);
    let (key, operator) = (secret(&args.key_file)?, secret(&args.operator_token_file)?);
    let edge =
        Edge::new(&args.base, key, operator, (args.timeout.to_std(), args.retries)).map_err(|problem| vec![problem])?;
    std::fs::create_dir_all(&args.out)
        .map_err(|error| vec![format!("{}: can't be made: {error}", args.out.display())])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| vec![format!("the system gives no event queue: {error}")])?;
    let begun = Clock::system().now();
    let (mut results, mut errors) = (Vec::new(), Vec::new());
    for place in places(args) {
        let name = &place.name();
        let path = args.out.join(format!("{name}.jsonl"));
        let header = Header { begun: Some(begun), ..header(args, &suite, place) };
        let mut log = ResultFile::open(&path, &header).map_err(|problem| vec![problem])?;
        let result = runtime.block_on(ask_all(args, (&suite, &graders), &edge, place, &mut log));
        errors.extend(result.err().map(|problem| format!("{name}: {problem}")));
        let all = suite.cases.len() * usize::try_from(args.repeat).unwrap_or(1);
        let summary = Summary::of(name, all, log.outcomes());
        if args.min_score.is_some_and(|least| summary.mean.is_none_or(|mean| mean < least)) {
            errors.push(format!("{name}: scores less than --min-score"));
        }
        if summary.unanswered() > 0 {
            let unanswered = summary.unanswered();
            errors.push(format!("{name}: {unanswered} have no answer; run the same again, and only they are asked"));
        }
        results.push((summary, log.outcomes().cloned().collect::<Vec<_>>()));
    }
    let file = args.out.join("report.html");
    let page = page::page(&header(args, &suite, EdgeTarget::default()), &suite, &results);
    replace(&file, page.as_bytes(), Mode::Public)
        .map_err(|error| vec![format!("{}: can't be written: {error}", file.display())])?;
    let summaries: Vec<Summary> = results.into_iter().map(|(summary, _)| summary).collect();
    Ok(Report { errors, ..Report::fine(table::text(&summaries)) })
}

/// What is asked, one after the other: each arm of each region.
fn places(args: &RunArgs) -> Vec<EdgeTarget<'_>> {
    let arms = match args.arm.as_slice() {
        [] => vec![None],
        arms => arms.iter().copied().map(Some).collect(),
    };
    let each = |region| arms.iter().map(move |arm| EdgeTarget { region, arm: *arm });
    match args.region.as_slice() {
        [] => each(None).collect(),
        regions => regions.iter().flat_map(|region| each(Some(region.as_str()))).collect(),
    }
}

/// The first line of a file of results: what was asked where.
fn header(args: &RunArgs, suite: &Suite, place: EdgeTarget<'_>) -> Header {
    let name = args.suite.file_stem().map(|name| name.to_string_lossy().into_owned());
    Header {
        bailiwick_eval: VERSION,
        suite: name.unwrap_or_default(),
        suite_hash: suite.hash.clone(),
        cases: suite.cases.len(),
        service: args.service.clone(),
        region: place.region.map(str::to_owned),
        arm: place.arm.map(|arm| arm.to_string()),
        begun: None,
        model: args.model.clone(),
        seed: args.seed,
        repeat: args.repeat,
    }
}

/// Reads the suite, and prepares what it expects.
fn prepare(file: &Path) -> Result<(Suite, Vec<Grader>), Vec<String>> {
    let name = file.display();
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_SUITE) {
        return Err(vec![format!("{name}: has more than {} MiB; split it into several suites", MAX_SUITE >> 20)]);
    }
    let bytes = read_file(file).map_err(|error| vec![format!("{name}: can't be read: {error}")])?;
    let with_name =
        |mistakes: Vec<String>| mistakes.iter().map(|mistake| format!("{name}: {mistake}")).collect::<Vec<_>>();
    let suite = read_suite(&bytes).map_err(with_name)?;
    let (mut graders, mut mistakes) = (Vec::new(), Vec::new());
    for case in &suite.cases {
        match Grader::new(&case.expect) {
            Ok(grader) => graders.push(grader),
            Err(mistake) => mistakes.push(format!("line {}: {mistake}", case.line)),
        }
    }
    if mistakes.is_empty() { Ok((suite, graders)) } else { Err(with_name(mistakes)) }
}

/// Asks a region all that has no answer yet.
async fn ask_all(
    args: &RunArgs,
    (suite, graders): (&Suite, &[Grader]),
    edge: &Edge,
    place: EdgeTarget<'_>,
    log: &mut ResultFile,
) -> Result<(), String> {
    let done = log.done();
    let cases = || suite.cases.iter().zip(graders);
    let all = (0..args.repeat).flat_map(|repeat| cases().map(move |(case, grader)| (case, grader, repeat)));
    let todo: Vec<_> = all.filter(|(case, _, repeat)| !done.contains(&(case.id.clone(), *repeat))).collect();
    let mut progress = Progress::new(&place.name(), todo.len());
    let requests = todo.into_iter().map(|(case, grader, repeat)| ask_one(args, edge, (case, grader, repeat), place));
    let mut outcomes = stream::iter(requests).buffer_unordered(usize::from(args.parallel));
    let mut in_a_row = 0;
    while let Some(outcome) = outcomes.next().await {
        let outcome = outcome?;
        in_a_row = if outcome.score.is_some() { 0 } else { in_a_row + 1 };
        progress.count(&outcome);
        let why = outcome.error.clone();
        log.append(outcome)?;
        if in_a_row >= MOST_UNANSWERED {
            return Err(format!("{in_a_row} cases in a row have no answer: {}", why.unwrap_or_default()));
        }
    }
    Ok(())
}

/// Asks a case once, and grades the answer.
///
/// # Errors
/// If no case would be answered.
async fn ask_one(
    args: &RunArgs,
    edge: &Edge,
    (case, grader, repeat): (&Case, &Grader, u32),
    place: EdgeTarget<'_>,
) -> Result<Outcome, String> {
    let blank = Outcome { case: case.id.clone(), repeat, hashes: case.hashes.clone(), ..Outcome::default() };
    let unanswered = |why: String| Outcome { error: Some(why), ..blank.clone() };
    let answer = match edge.ask(&request(args, case, repeat), place).await {
        Ok(answer) => answer,
        Err(Failure::Unanswered(why)) => return Ok(unanswered(why)),
        Err(Failure::Refused(why)) => return Ok(outcome_of(blank, Grade::of(Err(format!("refused: {why}"))), None)),
        Err(Failure::Hopeless(why)) => return Err(why),
    };
    let grade = match grader.grade(&answer.text) {
        Ok(grade) => grade,
        // The judge is the same for all regions, so it isn't asked in the one that is judged.
        Err(model) => match edge.ask(&judge::request(model, &case.messages, &answer.text), EdgeTarget::default()).await
        {
            Ok(answer) => match judge::grade(model, &answer.text) {
                Ok(grade) => grade,
                Err(why) => return Ok(unanswered(why)),
            },
            Err(Failure::Unanswered(why) | Failure::Refused(why)) => {
                return Ok(unanswered(format!("the judge didn't answer: {why}")));
            }
            Err(Failure::Hopeless(why)) => return Err(format!("the judge {:?}: {why}", model.model)),
        },
    };
    Ok(outcome_of(blank, grade, Some(answer)))
}

/// The outcome of a graded answer. `blank` has the fields that don't depend on the answer.
fn outcome_of(blank: Outcome, grade: Grade, answer: Option<Answer>) -> Outcome {
    let outcome = Outcome { right: grade.right, score: Some(grade.score), note: grade.note, ..blank };
    let Some(answer) = answer else { return outcome };
    Outcome {
        answer: Some(answer.text.chars().take(KEPT).collect()),
        ms: u64::try_from(answer.took.as_millis()).unwrap_or(u64::MAX),
        region: answer.region,
        arm: answer.arm,
        fingerprint: answer.fingerprint,
        ..outcome
    }
}

/// The request of a case. A seed of its own "params" goes before that of the command line.
fn request(args: &RunArgs, case: &Case, repeat: u32) -> Value {
    let mut fields: Map<String, Value> = Map::new();
    if let Some(seed) = args.seed {
        fields.insert("seed".to_owned(), json!(seed.saturating_add(i64::from(repeat))));
    }
    fields.extend(case.params.clone());
    fields.insert("model".to_owned(), json!(args.model));
    fields.insert("messages".to_owned(), case.messages.clone());
    Value::Object(fields)
}

/// How far a region is, for a terminal.
struct Progress {
    region: String,
    all: usize,
    done: usize,
    wrong: usize,
    unanswered: usize,
    is_shown: bool,
}

impl Progress {
    fn new(region: &str, all: usize) -> Self {
        let is_shown = std::io::stderr().is_terminal();
        Self { region: region.to_owned(), all, done: 0, wrong: 0, unanswered: 0, is_shown }
    }

    /// Counts an outcome, and shows the progress on the terminal.
    fn count(&mut self, outcome: &Outcome) {
        self.done += 1;
        self.wrong += usize::from(outcome.right == Some(false));
        self.unanswered += usize::from(outcome.score.is_none());
        if self.is_shown {
            let Self { region, all, done, wrong, unanswered, .. } = self;
            let end = if done == all { "\n" } else { "" };
            let line = format!("\r{region}: {done} of {all}, {wrong} wrong, {unanswered} without an answer{end}");
            let mut out = std::io::stderr();
            // If standard error is closed, there is nowhere to report that.
            let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
        }
    }
}

/// The first line of a file, for a header.
fn secret(file: &Path) -> Result<String, String> {
    let name = file.display();
    let text = read_text(file).map_err(|error| format!("{name}: can't be read: {error}"))?;
    match text.lines().next().map(str::trim) {
        Some(secret) if !secret.is_empty() && secret.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(secret.to_owned())
        }
        _ => Err(format!("{name}:1: holds no key")),
    }
}

fn base(text: &str) -> Result<String, String> {
    let is_url = reqwest::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    match is_url && !text.trim_end_matches('/').ends_with("/chat/completions") {
        true => Ok(text.to_owned()),
        false => Err("write the base URL as clients have it, such as https://chat.example.com/v1".to_owned()),
    }
}

fn region(text: &str) -> Result<String, String> {
    RegionId::parse(text).map(|region| region.to_string()).ok_or_else(|| "is no name of a region".to_owned())
}

fn arm(text: &str) -> Result<Arm, String> {
    Arm::parse(text).ok_or_else(|| "write old, new, or old,new".to_owned())
}

fn service(text: &str) -> Result<String, String> {
    ServiceId::parse(text).map(|service| service.to_string()).ok_or_else(|| "is no name of a service".to_owned())
}

pub(super) fn share(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    number.filter(|number| (0.0..=1.0).contains(number)).ok_or_else(|| "write a number from 0 to 1".to_owned())
}
