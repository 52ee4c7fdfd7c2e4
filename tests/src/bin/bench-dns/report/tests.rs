//! The tables of a report.

use super::*;

#[test]
fn the_table_has_a_row_for_whoever_was_measured() {
    let table = example().table();
    let row = "| bailiwick | 1.05 (1.04–1.06) | 1.05 (1.04–1.06) | 0.25 (0.25–0.25) | 500 (500–500) | 20 \
        (20–20) | 95 (95–95) | 62 | 0 / 0 / 0 |";
    assert!(table.contains(row), "{table}");
    assert!(table.contains("| a<b&c | 2.00 (2.00–2.00) "), "{table}");
    assert!(table.contains("1 \\| <2> |"), "a bar in a version would be a column: {table}");
    assert!(table.find("**static**") < table.find("**missing**"));
    assert_eq!(table.matches("| bailiwick | 1.").count(), 2);
    assert!(!table.contains("**steered**"), "nobody was asked that");
    let columns = |line: &str| line.replace("\\|", "").matches('|').count();
    for lines in table.split("\n\n").filter(|part| part.starts_with('|')) {
        let first = lines.lines().next().map_or(0, columns);
        assert!(lines.lines().all(|line| columns(line) == first), "{lines}");
    }
}

#[test]
fn several_threads_are_told_beside_one() {
    let mut report = example();
    let of_two = |sample: &Sample| Sample {
        turn: Turn { threads: 2, ..sample.turn.clone() },
        cores: 2,
        cpu: sample.cpu * 1.5,
        busy: 1.5,
        generator: 0.4,
        ..sample.clone()
    };
    let two: Vec<Sample> =
        report.samples.iter().filter(|sample| sample.turn.kind == Kind::Static).map(of_two).collect();
    report.samples.extend(two);
    let two: Vec<About> = report.about.iter().map(|about| About { threads: 2, ..about.clone() }).collect();
    report.about.extend(two);
    let table = report.table();
    assert!(table.find("**static**") < table.find("**static, 2 threads**"), "{table}");
    assert!(table.find("**static, 2 threads**") < table.find("**missing**"), "{table}");
    // 500,000 answers/s with three quarters of both cores.
    let row = "| a<b&c | 3.00 (3.00–3.00) | 3.00 (3.00–3.00) | 0.25 (0.25–0.25) | 500 (500–500) | 1.50 \
        (1.50–1.50) | 1.50 | 0.40 | 667 (667–667) |";
    assert!(table.contains(row), "{table}");
    assert!(table.contains("| bailiwick, 2 threads | 0.25 |"), "{table}");
    assert!(!table.contains("Not kept busy"), "95 % of both cores are accounted for: {table}");
    for sample in report.samples.iter_mut().filter(|sample| sample.turn.threads == 2) {
        sample.generator = 0.1;
    }
    assert!(report.table().contains("static, 2 threads bailiwick 80 %"), "{}", report.table());
    assert_eq!(report.json()["rows"].as_array().unwrap().len(), 7);
    let chart = crate::chart::chart(&report.rows());
    assert_eq!(chart.matches("class=\"panel\"").count(), 3, "{chart}");
}

#[test]
fn without_a_rate_there_is_no_latency() {
    let mut report = example();
    report.rate = 0;
    report.samples.iter_mut().for_each(|sample| sample.latency = None);
    let table = report.table();
    assert!(!table.contains("p50"), "{table}");
    assert!(table.contains("(0.25–0.25) | 500 (500–500) | 62 | 0 / 0 / 0 |"), "{table}");
}

#[test]
fn doubts_are_told() {
    let mut report = example();
    assert!(report.doubts(&report.rows()).is_empty());
    for sample in report.samples.iter_mut().filter(|sample| sample.turn.server == "echo") {
        (sample.cpu, sample.busy) = (1.2, 0.5);
    }
    let table = report.table();
    assert!(table.contains("Not kept busy (static echo 50 %)"), "{table}");
    assert!(table.contains("The echo beside itself is × 1.20"), "{table}");
}

#[test]
fn wrong_answers_and_all_samples_are_told_to_programs() {
    let report = example();
    assert!(report.wrong());
    let json = report.json();
    assert_eq!(json["samples"].as_array().unwrap().len(), 5);
    assert_eq!(json["rows"][1]["over_echo"]["most"], 1.06);
    assert_eq!(json["samples"][0]["latency_us"]["p99"], 95);
}
