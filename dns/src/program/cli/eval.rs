//! `bailiwick eval`: asks a model in each region the cases of a suite and grades the answers; and compares the results
//! of two such runs, case by case. Takes the options of a command, returns its report. Called by the command line.

mod ask;
mod compare;
mod grade;
mod judge;
mod log;
mod page;
mod run;
mod table;

use clap::Subcommand;

pub(super) use log::MAX_FILE;

use crate::program::report::Report;

/// What to do with a suite or its results.
#[derive(Debug, Subcommand)]
pub(crate) enum EvalCommand {
    /// Ask the cases of a suite, region by region, and grade the answers.
    ///
    /// A suite has a case in each line: {"id": "sum", "prompt": "2+2?", "expect": {"contains": "4"}}. Instead of
    /// "prompt" it may have "messages"; "params" holds more fields of the request, such as {"temperature": 0}. "expect"
    /// has one of
    ///
    ///   {"exact": "Paris"}            the same text, but for spaces at its ends
    /// {"contains": ["a", "b"]}      all of these
    /// {"regex": "^(?i)yes"}         a text in which this is found
    /// {"json_schema": {…}}          JSON that the schema allows
    /// {"number": {"value": 3.14, "tolerance": 0.01}}          the last number of the answer
    /// {"judge": {"model": "large", "rubric": "polite", "pass": 0.7}}      what another model finds good
    ///
    /// Results go to FOLDER/REGION.jsonl, a line for each answer, and a page to FOLDER/report.html. With --arm old,new
    /// both arms of a rollout are asked, into REGION.old.jsonl and REGION.new.jsonl. A run that was
    /// killed goes on where it was. Answers that were got are not asked for again.
    ///
    /// The exit code is 1 if cases have no answer, or if a region scores less than --min-score.
    #[command(
        verbatim_doc_comment,
        after_help = "Examples:
  bailiwick eval run --suite smoke.jsonl --service chat --model large --base https://chat.example.com/v1 \\
    --key-file key.txt --out results
  bailiwick eval run … --region eu-frankfurt,uk-london --operator-token-file operator.token --repeat 2
  bailiwick eval run … --region uk-london --arm old,new --operator-token-file operator.token   for a rollout"
    )]
    Run(run::RunArgs),
    /// Tell whether the second run is as good as the first, within a margin.
    ///
    /// It reads results of `bailiwick eval run`, and samples of `lm_eval --log_samples`. Each case is compared with
    /// itself: right and wrong by McNemar's exact test and an exact test of equivalence, scores by bets and a paired
    /// bootstrap. What ran otherwise, by its cases, prompts, parameters or seeds, isn't compared.
    ///
    /// Exit codes: 0 equivalent within the margin; 1 worse, better, or not shown, as with too few cases; 2 not to be
    /// compared, or wrong usage.
    #[command(after_help = "Examples:
  bailiwick eval compare results/eu-frankfurt.jsonl results/uk-london.jsonl --margin 0.02
  bailiwick eval compare old.jsonl new.jsonl --margin 0.02 --not-worse --noise
  bailiwick eval compare a/samples_gsm8k_….jsonl b/samples_gsm8k_….jsonl --margin 0.03 --filter strict-match")]
    Compare(compare::CompareArgs),
}

/// Runs it.
pub(crate) fn run(command: &EvalCommand) -> Report {
    match command {
        EvalCommand::Run(args) => run::run(args).unwrap_or_else(Report::failed),
        EvalCommand::Compare(args) => compare::compare(args),
    }
}
