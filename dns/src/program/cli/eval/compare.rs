//! `bailiwick eval compare`: takes two files of results of an eval, returns whether the second run is as good as the
//! first, as text or JSON. The decisions are in [`bailiwick_rules::eval`].

use std::path::{Path, PathBuf};

use bailiwick_rules::eval::{
    Companion, Comparison, ResultFilter, Run, Settings, Sides, Verdict, chance, compare as compare_runs, differences,
    read_run,
};
use clap::Args;
use serde_json::{Value, json};

use super::log::MAX_FILE;
use super::run::share;
use crate::program::report::Report;
use crate::state::load::read_file;

/// Options of `bailiwick eval compare`.
#[derive(Debug, Args)]
pub(crate) struct CompareArgs {
    /// The results to compare with.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The results that are to be as good.
    #[arg(value_name = "B")]
    b: PathBuf,
    /// The difference of the mean scores that doesn't matter: 0.02 is two points of a hundred.
    #[arg(long, value_name = "DIFFERENCE", value_parser = margin)]
    margin: f64,
    /// The chance that a verdict is wrong, for each verdict.
    #[arg(long, value_name = "CHANCE", default_value = "0.05", value_parser = alpha)]
    alpha: f64,
    /// Ask only that B isn't worse. It may be better by any amount.
    #[arg(long)]
    not_worse: bool,
    /// Compare each file with itself first, by its repetitions, and tell what differs by chance.
    #[arg(long)]
    noise: bool,
    /// The seed of the bootstrap.
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// The metric of samples of lm-eval; by default the first that is a number.
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// The filter of samples of lm-eval; by default the only one.
    #[arg(long, value_name = "NAME")]
    filter: Option<String>,
    /// Print the comparison as JSON.
    #[arg(long)]
    json: bool,
}

/// Compares two files.
pub(super) fn compare(args: &CompareArgs) -> Report {
    compare_files(args).unwrap_or_else(|errors| Report { misused: true, ..Report::failed(errors) })
}

/// Compares the results of two files, and writes the verdict.
fn compare_files(args: &CompareArgs) -> Result<Report, Vec<String>> {
    let (a, b) = match (read(args, &args.a), read(args, &args.b)) {
        (Ok(a), Ok(b)) => (a, b),
        (a, b) => return Err([a.err(), b.err()].into_iter().flatten().collect()),
    };
    let different = differences(&a, &b);
    if !different.is_empty() {
        return Err(different.iter().map(|difference| format!("these can't be compared: {difference}")).collect());
    }
    let sides = if args.not_worse { Sides::NotWorse } else { Sides::Both };
    let settings = Settings { margin: args.margin, alpha: args.alpha, seed: args.seed, sides };
    let noise = match args.noise {
        false => Vec::new(),
        true => [&a, &b]
            .map(|run| chance(run, settings))
            .into_iter()
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| vec!["--noise needs cases that were asked twice; run both with --repeat 2".to_owned()])?,
    };
    let comparison = compare_runs(&a, &b, settings);
    let is_fine = comparison.verdict == Verdict::Alike;
    let output = match args.json {
        true => format!("{:#}\n", as_json(args, &comparison, &noise)),
        false => text(args, &comparison, &noise),
    };
    let warnings = warnings(args, &a, &b);
    Ok(Report { is_unwell: !is_fine, warnings, ..Report::fine(output) })
}

/// What couldn't be compared, as only one file or none tells of it.
fn warnings(args: &CompareArgs, a: &Run, b: &Run) -> Vec<String> {
    let warning = |file: &Path, run: &Run, other: &Run| {
        let alone: Vec<&str> = other.about.keys().filter(|name| !run.about.contains_key(*name)).copied().collect();
        let is_blind = !run.about.contains_key("seed");
        (is_blind || !alone.is_empty()).then(|| {
            let name = file.display();
            format!("{name}: no results_….json stands beside it, so seeds and templates can't be compared")
        })
    };
    [warning(&args.a, a, b), warning(&args.b, b, a)].into_iter().flatten().collect()
}

/// Reads a file of results, with the file beside it that describes the run.
fn read(args: &CompareArgs, file: &Path) -> Result<Run, String> {
    let name = file.display();
    if std::fs::metadata(file).is_ok_and(|metadata| metadata.len() > MAX_FILE) {
        return Err(format!("{name}: has more than {} MiB", MAX_FILE >> 20));
    }
    let bytes = read_file(file).map_err(|error| format!("{name}: can't be read: {error}"))?;
    let wanted = ResultFilter { metric: args.metric.as_deref(), filter: args.filter.as_deref() };
    let companion = companion(file)?;
    read_run(&bytes, companion.as_ref(), wanted).map_err(|problem| format!("{name}: {problem}"))
}

/// What `results_DATE.json` beside `samples_TASK_DATE.jsonl` tells.
fn companion(file: &Path) -> Result<Option<Companion>, String> {
    let named = file.file_stem().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("samples_"));
    let Some((task, date)) = named.and_then(|name| name.rsplit_once('_')) else { return Ok(None) };
    let other = file.with_file_name(format!("results_{date}.json"));
    if !other.exists() {
        return Ok(None);
    }
    let name = other.display();
    let bytes = read_file(&other).map_err(|error| format!("{name}: can't be read: {error}"))?;
    Companion::read(&bytes, task).map(Some).map_err(|problem| format!("{name}: {problem}"))
}

/// The comparison as JSON, with the verdict and the settings.
fn as_json(args: &CompareArgs, comparison: &Comparison, noise: &[(Comparison, usize)]) -> Value {
    let noise = noise.iter().map(|(itself, flips)| json!({ "changing": flips, "itself": one_as_json(itself) }));
    json!({ "verdict": comparison.verdict.as_str(), "margin": args.margin, "alpha": args.alpha, "seed": args.seed,
            "not_worse_only": args.not_worse, "comparison": one_as_json(comparison),
            "noise": noise.collect::<Vec<_>>() })
}

/// The numbers of a comparison as JSON.
fn one_as_json(comparison: &Comparison) -> Value {
    let pairs = comparison.pairs.map(
        |pairs| json!({ "both": pairs.both, "only_a": pairs.only_a, "only_b": pairs.only_b, "neither": pairs.neither }),
    );
    json!({ "cases": comparison.cases, "differing": comparison.differing, "means": comparison.means,
            "difference": comparison.difference, "interval": comparison.interval, "pairs": pairs,
            "p_no_difference": comparison.p_no_difference,
            "p_worse": comparison.p_worse, "p_better": comparison.p_better, "method": comparison.method })
}

/// The comparison as text. `noise` compares each file with itself, if cases were asked twice.
fn text(args: &CompareArgs, comparison: &Comparison, noise: &[(Comparison, usize)]) -> String {
    let mut out = String::new();
    for ((itself, flips), file) in noise.iter().zip([&args.a, &args.b]) {
        out += &format!(
            "{} with itself: {flips} of {} cases change by chance; difference {}, {}\n",
            file.display(),
            itself.cases,
            signed(itself.difference),
            within(args, itself)
        );
    }
    let [a, b] = comparison.means;
    out += &format!("{} cases, {} differ: A {a:.4}, B {b:.4}\n", comparison.cases, comparison.differing);
    if let Some(pairs) = comparison.pairs {
        out += &format!(
            "right in both {}, in A alone {}, in B alone {}, in neither {}\n",
            pairs.both, pairs.only_a, pairs.only_b, pairs.neither
        );
    }
    out += &format!("B − A is {}, {}\n", signed(comparison.difference), within(args, comparison));
    out += &format!(
        "p of no difference {:.2e}, of worse by {2} {:.2e}, of better by {2} {3:.2e} ({4})\n",
        comparison.p_no_difference, comparison.p_worse, args.margin, comparison.p_better, comparison.method
    );
    out + &sentence(args, comparison) + "\n"
}

/// The verdict, and what may be done.
fn sentence(args: &CompareArgs, comparison: &Comparison) -> String {
    let margin = args.margin;
    match comparison.verdict {
        Verdict::Alike if args.not_worse => format!("not worse: B isn't worse by {margin}"),
        Verdict::Alike => format!("equivalent: B is neither worse nor better by {margin}"),
        Verdict::Worse => "worse: B is worse than A".to_owned(),
        Verdict::Better => "better: B is better than A; --not-worse accepts that".to_owned(),
        Verdict::NotShown => {
            format!("not shown: B may be worse or better by {margin}; more cases, or a greater margin, decide")
        }
    }
}

/// The interval of the difference, as text.
fn within(args: &CompareArgs, comparison: &Comparison) -> String {
    let [low, high] = comparison.interval;
    format!("{} % interval {} to {}", covered_percent(args.alpha), signed(low), signed(high))
}

/// How often the interval holds the true difference, in per cent. The smallest `alpha` gives 99.9998.
fn covered_percent(alpha: f64) -> f64 {
    ((1.0 - 2.0 * alpha) * 1e6).round() / 1e4
}

fn signed(number: f64) -> String {
    format!("{number:+.4}")
}

fn margin(text: &str) -> Result<f64, String> {
    let number: Option<f64> = text.parse().ok();
    let number = number.filter(|number| number.is_finite() && *number > 0.0);
    number.ok_or_else(|| "write a number above 0, such as 0.02".to_owned())
}

fn alpha(text: &str) -> Result<f64, String> {
    share(text).ok().filter(|alpha| (1e-6..=0.25).contains(alpha)).ok_or_else(|| "from 0.000001 to 0.25".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_named_by_what_it_covers() {
        for (alpha, shown) in [(0.05, "90"), (0.25, "50"), (0.005, "99"), (0.035, "93"), (1e-6, "99.9998")] {
            assert_eq!(covered_percent(alpha).to_string(), shown, "{alpha}");
        }
    }
}
