//! The page of a drill. Takes its record and what receipts prove, returns HTML with a picture of the traffic. Called by
//! `report`.
//!
//! The page has no script that runs. A signed one carries the report in a script of another type, which is data.

use std::collections::BTreeSet;
use std::fmt::Write;

use bailiwick_rules::drill::record::{Outcome, Record, Traffic};
use bailiwick_rules::id::RegionId;
use bailiwick_rules::simulation::escape;
use bailiwick_rules::time::{Millis, Timestamp};

use super::figures::{Receipts, in_seconds, is_under_way};
use crate::program::cli::seal::Page;

/// The size of a picture, in pixels.
const SIZE: (f64, f64) = (720.0, 160.0);
/// The colours of regions. The drilled one has the first.
const COLOURS: [&str; 8] = ["#b3261e", "#2b6cb0", "#2f855a", "#6b46c1", "#b7791f", "#2c7a7b", "#97266d", "#4a5568"];

const STYLE: &str = "body{font:15px/1.5 system-ui;max-width:760px;margin:2em auto;padding:0 1em;color:#1a202c} \
    table{border-collapse:collapse;width:100%;margin:.5em 0 1em} th,td{text-align:right;padding:.25em .6em;\
    border-bottom:1px solid #ddd} th:first-child,td:first-child{text-align:left} svg{background:#f6f6f6;display:block;\
    max-width:100%} figure{margin:1em 0} h2{margin-top:2em} .big{font-size:2em;font-weight:600} .good{color:#22543d} \
    .bad{color:#b3261e} .open{color:#744210} .scroll{max-height:30em;overflow:auto}";

/// Draws a record.
pub(super) fn page(record: &Record, receipts: Option<Receipts>, now: Timestamp) -> Page {
    let title = format!("Drill {} of {}", escape(record.drill.as_str()), escape(record.region.as_str()));
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><meta http-equiv=\"content-security-policy\" content=\"default-src 'none'; \
         style-src 'unsafe-inline'\"><title>{title}</title>\n<style>{STYLE}</style>\n<h1>{title}</h1>\n"
    );
    outcome(&mut page, record, now);
    outside(&mut page, record, receipts);
    plan(&mut page, record);
    preflight(&mut page, record);
    if record.began.is_some() {
        moved(&mut page, record);
        phases(&mut page, record);
        loads(&mut page, record);
        traffic(&mut page, record);
    }
    Page::new(page)
}

fn outcome(page: &mut String, record: &Record, now: Timestamp) {
    let words = match record.outcome {
        Outcome::Done => "It took its whole time.",
        Outcome::Aborted if record.began.is_none() => "It didn't begin: the node gave no answer.",
        Outcome::Aborted if record.ended > Some(record.until) => {
            "It was broken off, and the clients came back when the last share ended by itself."
        }
        Outcome::Aborted => "It was broken off, and all clients came back at once.",
        Outcome::Capacity => "It didn't begin: the other regions couldn't carry the load, or nobody knows.",
        Outcome::Blocked => "It didn't begin: something else stood in the way.",
        Outcome::Unfinished if is_under_way(record, now) => "It was under way when this page was made.",
        Outcome::Unfinished => "Whoever ran it is gone; it ended by itself soon afterwards.",
    };
    let tone = if record.outcome == Outcome::Done { "good" } else { "bad" };
    let _ = writeln!(page, "<p class=\"{tone}\"><strong>{}</strong>. {words}</p>", record.outcome.as_str());
    for why in &record.why {
        let _ = writeln!(page, "<p>Because: {}</p>", escape(why));
    }
    let time = |at: Option<Timestamp>| at.map_or("never".to_owned(), |at| at.to_string());
    let by = if record.is_scheduled { "by itself, at its weekly time" } else { "by hand" };
    let _ = writeln!(
        page,
        "<p>Began {} ({by}), ended {}. Counted from {} to {} by {}. Rules revision {}, sha256 <code>{}</code>. Made \
         {now}. All times are UTC.</p>",
        time(record.began),
        time(record.ended),
        record.since,
        record.until,
        escape(&record.node),
        record.revision,
        escape(&record.rules_sha256)
    );
}

/// The class of the number of requests outside the fence. A zero is good only if it proves something: something was
/// compared, nothing is known to be missing, every request that only a tenant's fence allows has its receipt, and every
/// receipt that was given proves what it says.
fn tone(all: u64, record: &Record, receipts: Option<Receipts>) -> &'static str {
    let checked = &record.checked;
    let is_proved = match receipts {
        Some(Receipts { checked: valid, invalid, unproved, .. }) => {
            valid > 0 && valid >= checked.edge_by_tenant && invalid == 0 && unproved == 0
        }
        None => checked.edge_by_tenant == 0 && checked.dns + checked.edge > 0,
    };
    match (all, is_proved && !checked.has_gaps()) {
        (0, true) => "good",
        (0, false) => "open",
        _ => "bad",
    }
}

fn outside(page: &mut String, record: &Record, receipts: Option<Receipts>) {
    let checked = &record.checked;
    let all = checked.outside() + receipts.map_or(0, |receipts| receipts.outside);
    let tone = tone(all, record, receipts);
    let _ = writeln!(page, "<h2>Requests outside the fence</h2>\n<p class=\"big {tone}\">{all}</p>");
    let _ = writeln!(
        page,
        "<p>Compared one by one with a second, plain reading of the rules document, which shares no code with the one \
         that steers:</p>\n<table><tr><th>what</th><th>compared</th><th>outside</th></tr>\n\
         <tr><td>answers of DNS, by the client's country</td><td>{}</td><td>{}</td></tr>\n\
         <tr><td>requests sent to endpoints, by the client's jurisdictions</td><td>{}</td><td>{}</td></tr>",
        checked.dns, checked.dns_outside, checked.edge, checked.edge_outside
    );
    match receipts {
        Some(receipts) => {
            let _ = writeln!(
                page,
                "<tr><td>signed receipts of the edge</td><td>{}</td><td>{}</td></tr>\n</table>\n<p>{} receipts were of \
                 another time, {} of fences without the region, {} weren't signed by the gateway's keys or were \
                 changed, {} were given twice, and {} have no room for their whole fence and prove nothing.</p>",
                receipts.checked,
                receipts.outside,
                receipts.other_time,
                receipts.other_fence,
                receipts.invalid,
                receipts.repeated,
                receipts.unproved
            );
        }
        None => *page += "</table>\n<p>No receipts were given.</p>\n",
    }
    let _ = writeln!(
        page,
        "<p>Not compared: {} answers of DNS whose country wasn't counted, and {} requests whose client's jurisdictions \
         weren't or that may have been sent by other rules. {} batches of counts of Workers were lost, and {} entries \
         weren't counted. {} requests lie within the fence of a tenant alone; counts don't tell tenants apart, \
         receipts \
         do.</p>",
        checked.dns_left_out,
        checked.edge_left_out,
        checked.batches_lost,
        checked.edge_uncounted,
        checked.edge_by_tenant
    );
}

fn plan(page: &mut String, record: &Record) {
    let plan = &record.plan;
    let ramp: Vec<String> = plan.ramp.iter().map(|share| format!("{share} %")).collect();
    let percent = |part: f64| format!("{:.1} %", part * 100.0);
    let limits: Vec<String> = [
        plan.error_rate.map(|part| format!("more than {} of the requests failed", percent(part))),
        plan.refused.map(|part| format!("more than {} were refused", percent(part))),
        plan.first_token_p95_ms.map(|ms| format!("95 % of the answers took longer than {ms} ms to the first token")),
    ]
    .into_iter()
    .flatten()
    .collect();
    let limits = if limits.is_empty() {
        "It watched no limits.".to_owned()
    } else {
        format!("It was to be broken off if {}.", limits.join(", or if "))
    };
    let _ = writeln!(
        page,
        "<h2>Plan</h2>\n<p>{} of the region's clients, each share for {:.0} s and the last for {:.0} s, then back the \
         same way. {limits}</p>",
        ramp.join(", "),
        in_seconds(plan.step_ms),
        in_seconds(plan.for_ms),
    );
    if record.steps.is_empty() {
        return;
    }
    *page += "<table><tr><th>share asked for</th><th>at</th></tr>\n";
    for taken in &record.steps {
        let _ = writeln!(page, "<tr><td>{} %</td><td>{}</td></tr>", taken.share, taken.at);
    }
    *page += "</table>\n";
}

fn load(load: Option<f64>) -> String {
    match load {
        None => "–".to_owned(),
        Some(load) if load > 4_000.0 => "∞".to_owned(),
        Some(load) => format!("{:.0} %", load * 100.0),
    }
}

fn preflight(page: &mut String, record: &Record) {
    let looked = &record.preflight;
    let _ = writeln!(page, "<h2>Preflight</h2>\n<p><strong>{}</strong></p>", looked.verdict.as_str());
    for reason in &looked.reasons {
        let _ = writeln!(page, "<p>{}</p>", escape(reason));
    }
    *page += "<table><tr><th>fence</th><th>demand</th><th>load without the region</th></tr>\n";
    for fence in &looked.fences {
        let names: Vec<String> = fence.fence.iter().map(|region| escape(region.as_str())).collect();
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.1}</td><td>{}</td></tr>",
            names.join(" + "),
            fence.demand,
            load(fence.load)
        );
    }
    *page += "</table>\n";
}

fn moved(page: &mut String, record: &Record) {
    let seconds = |ms: Option<u64>| ms.map_or("never seen".to_owned(), |ms| format!("{:.0} s", in_seconds(ms)));
    let late = &record.late;
    let _ = writeln!(
        page,
        "<h2>How fast clients moved</h2>\n<p>From the moment the highest share was asked for until 95 % of it had \
         moved: answers of DNS {}, requests at the edge {}.</p>",
        seconds(record.moved.dns_ms),
        seconds(record.moved.edge_ms)
    );
    let _ = match late.ms {
        0 => writeln!(page, "<p>The highest share didn't last for twice the longest TTL.</p>"),
        _ => writeln!(
            page,
            "<p>After twice the longest TTL ({:.0} s), in {:.0} s: {} answers of DNS named the region, {} requests \
             were sent there, and its load was {}.</p>",
            in_seconds(late.after_ms),
            in_seconds(late.ms),
            late.dns,
            late.edge,
            load(late.load)
        ),
    };
}

fn phases(page: &mut String, record: &Record) {
    *page += "<h2>Errors and times</h2>\n<table><tr><th></th><th>seconds</th><th>requests</th><th>failed</th>\
              <th>refused</th><th>first token, median</th><th>95 %</th></tr>\n";
    for (name, phase) in [("before", &record.before), ("during", &record.during), ("after", &record.after)] {
        let ms = |ms: Option<u64>| ms.map_or("–".to_owned(), |ms| format!("{ms} ms"));
        let _ = writeln!(
            page,
            "<tr><td>{name}</td><td>{:.0}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            in_seconds(phase.ms),
            phase.requests,
            phase.failed,
            phase.refused,
            ms(phase.first_token_ms.map(|(median, _)| median)),
            ms(phase.first_token_ms.map(|(_, p95)| p95))
        );
    }
    *page += "</table>\n";
}

/// The load that is to be expected when a share of the clients is elsewhere: the preflight tells it with all regions
/// and without the drilled one.
fn predicted(before: Option<f64>, during: Option<f64>, share: f64) -> Option<f64> {
    let during = during?;
    if share >= 1.0 { Some(during) } else { before.map(|before| before + (during - before) * share) }
}

fn loads(page: &mut String, record: &Record) {
    let _ = writeln!(page, "<h2>Load against the prediction</h2>");
    let share = f64::from(record.plan.ramp.last().copied().unwrap_or(100)) / 100.0;
    let _ = writeln!(page, "<p>Predicted for {:.0} % of the region's clients elsewhere.</p>", share * 100.0);
    *page += "\n<table><tr><th>region</th><th>before</th><th>predicted</th>\
              <th>highest seen</th></tr>\n";
    for one in &record.preflight.regions {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(one.region.as_str()),
            load(one.now),
            load(predicted(one.before, one.during, share)),
            load(record.highest_loads.get(&one.region).copied())
        );
    }
    *page += "</table>\n";
}

fn traffic(page: &mut String, record: &Record) {
    let all: BTreeSet<&RegionId> = record.minutes.iter().flat_map(|minute| minute.regions.keys()).collect();
    let others = all.into_iter().filter(|region| **region != record.region);
    let regions: Vec<&RegionId> = std::iter::once(&record.region).chain(others).collect();
    *page += "<h2>Traffic per region and minute</h2>\n";
    picture(page, record, &regions, "Answers of DNS", |traffic| traffic.dns);
    picture(page, record, &regions, "Requests sent by the edge", |traffic| traffic.edge);
    *page += "<div class=\"scroll\"><table><tr><th>from</th><th>share</th>";
    for region in &regions {
        let _ = write!(page, "<th>{} DNS</th><th>edge</th><th>load</th>", escape(region.as_str()));
    }
    *page += "<th>failed</th><th>refused</th></tr>\n";
    for minute in &record.minutes {
        let _ = write!(page, "<tr><td>{}</td><td>{} %</td>", minute.from, minute.share);
        for region in &regions {
            let of = minute.regions.get(*region).copied().unwrap_or_default();
            let _ = write!(page, "<td>{}</td><td>{}</td><td>{}</td>", of.dns, of.edge, load(of.load));
        }
        let _ = writeln!(page, "<td>{}</td><td>{}</td></tr>", minute.failed, minute.refused);
    }
    *page += "</table></div>\n";
    let kept = record.minutes.last().map(|minute| minute.from.after(Millis(minute.ms)));
    // The minute that has begun is not among them while the drill is under way.
    if let Some(kept) = kept.filter(|kept| record.until.since(*kept) > Millis(120_000)) {
        let _ = writeln!(page, "<p>This record has no traffic by minute from {kept} on; its other parts have all.</p>");
    }
}

/// The shares of regions, minute by minute, one above the other.
#[allow(clippy::cast_precision_loss)] // pixels
fn picture(page: &mut String, record: &Record, regions: &[&RegionId], title: &str, of: impl Fn(&Traffic) -> u64) {
    let width = SIZE.0 / record.minutes.len().max(1) as f64;
    let _ = write!(page, "<figure><figcaption>{title}: the part of each region, minute by minute. ");
    for (region, colour) in regions.iter().zip(COLOURS.iter().cycle()) {
        let _ = write!(page, "<span style=\"color:{colour}\">■</span> {} ", escape(region.as_str()));
    }
    let _ =
        writeln!(page, "</figcaption><svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">", SIZE.0, SIZE.1);
    for (nth, minute) in record.minutes.iter().enumerate() {
        let count = |region: &RegionId| minute.regions.get(region).map_or(0, &of);
        let all: u64 = regions.iter().map(|region| count(region)).sum();
        let mut top = SIZE.1;
        for (region, colour) in regions.iter().zip(COLOURS.iter().cycle()) {
            let height = SIZE.1 * count(region) as f64 / all.max(1) as f64;
            top -= height;
            if height > 0.0 {
                let x = width * nth as f64;
                let _ = writeln!(
                    page,
                    "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>",
                    (width - 1.0).max(0.5)
                );
            }
        }
    }
    *page += "</svg></figure>\n";
}

#[cfg(test)]
pub(super) mod tests {
    use bailiwick_rules::report::LONGEST_HOLD;
    use serde_json::{Value, json};

    use super::*;

    const EVIL: &str = "<script>alert(1)</script>\"'&";

    pub(in super::super) fn record() -> Record {
        let at = "2026-12-01T10:00:00Z";
        let phase = json!({ "ms": 1, "dns": 1, "requests": 1, "failed": 0, "refused": 0, "first_token_ms": [1, 2] });
        let minute = json!({ "from": at, "ms": 60_000, "share": 10, "failed": 0, "refused": 0,
                             "regions": { "fra": { "dns": 3, "edge": 1, "load": 0.5 } } });
        let record: Value = json!({
            "drill": "one", "region": "fra", "node": EVIL, "revision": 1, "rules_sha256": EVIL, "is_scheduled": false,
            "plan": { "ramp": [10], "step_ms": 1, "for_ms": 1, "error_rate": 0.01, "first_token_p95_ms": 1,
                      "refused": null },
            "preflight": { "verdict": "go", "reasons": [EVIL], "fences_left_out": 0,
                "fences": [{ "fence": ["fra"], "demand": 1.0, "load": 4294.0, "refused": 0.0 }],
                "regions": [{ "region": "fra", "now": 0.1, "before": null, "during": 0.2 }] },
            "since": at, "began": at, "steps": [{ "at": at, "share": 10 }], "ended": at, "until": at,
            "outcome": "aborted", "why": [EVIL], "minutes": [minute], "before": phase, "during": phase, "after": phase,
            "moved": { "dns_ms": 5000, "edge_ms": null },
            "late": { "after_ms": 0, "ms": 0, "dns": 0, "edge": 0, "load": null }, "highest_loads": { "fra": 0.7 },
            "checked": { "dns": 3, "dns_outside": 0, "dns_left_out": 0, "edge": 1, "edge_by_tenant": 0,
                         "edge_outside": 0 },
        });
        serde_json::from_value(record).expect("a record")
    }

    #[test]
    fn nothing_of_a_drill_becomes_markup() {
        let page = page(&record(), None, Timestamp(0)).plain();
        assert!(!page.contains("<script"), "{page}");
        assert_eq!(page.matches("&lt;script&gt;alert(1)").count(), 4, "{page}");
    }

    #[test]
    fn the_prediction_is_of_the_highest_share_and_not_of_the_whole_loss() {
        assert_eq!(predicted(Some(0.4), Some(0.8), 0.5), Some(0.4 + 0.4 * 0.5));
        assert_eq!((predicted(None, Some(0.8), 1.0), predicted(None, Some(0.8), 0.5)), (Some(0.8), None));
    }

    #[test]
    fn limits_that_were_watched_are_told_and_no_others() {
        let of = |error_rate, first_token_p95_ms| {
            let mut record = record();
            (record.plan.error_rate, record.plan.refused) = (error_rate, None);
            record.plan.first_token_p95_ms = first_token_p95_ms;
            page(&record, None, Timestamp(0)).plain()
        };
        assert!(of(None, None).contains("It watched no limits."));
        let both = "if more than 1.0 % of the requests failed, or if 95 % of the answers took longer than 4000 ms to";
        assert!(of(Some(0.01), Some(4_000)).contains(both));
        assert!(!of(Some(0.01), None).contains("first token."));
    }

    #[test]
    fn a_drill_under_way_is_not_said_to_be_over() {
        let running = Record { outcome: Outcome::Unfinished, ..record() };
        let at = |now| page(&running, None, now).plain();
        assert!(at(running.until).contains("under way when this page was made"));
        assert!(at(running.until.after(LONGEST_HOLD)).contains("is gone"));
    }

    #[test]
    fn minutes_that_were_left_out_are_said_to_be() {
        let of = |ms| page(&Record { until: record().since.after(Millis(ms)), ..record() }, None, Timestamp(0)).plain();
        assert!(of(180_001).contains("no traffic by minute from 2026-12-01T10:01:00Z on"), "{}", of(180_001));
        assert!(!of(180_000).contains("no traffic by minute"));
    }

    #[test]
    fn what_lies_outside_is_told_first_and_receipts_count() {
        let of = |receipts| page(&record(), receipts, Timestamp(0)).plain();
        assert!(of(None).contains("<p class=\"big good\">0</p>"));
        let fine = Receipts { checked: 5, ..Receipts::default() };
        assert!(of(Some(fine)).contains("<p class=\"big good\">0</p>"));
        for open in [Receipts { checked: 0, ..fine }, Receipts { invalid: 1, ..fine }, Receipts { unproved: 1, ..fine }]
        {
            assert!(of(Some(open)).contains("<p class=\"big open\">0</p>"), "{open:?}");
        }
        let mut by_tenant = record();
        by_tenant.checked.edge_by_tenant = 1;
        let tone_of = |record: &Record, receipts| tone(0, record, receipts);
        assert_eq!(tone_of(&by_tenant, None), "open");
        assert_eq!(tone_of(&by_tenant, Some(fine)), "good");
        by_tenant.checked.edge_by_tenant = 6;
        assert_eq!(tone_of(&by_tenant, Some(fine)), "open", "five receipts prove nothing of the sixth");
        let gaps: [fn(&mut Record); 4] = [
            |record| record.checked.dns_left_out = 1,
            |record| record.checked.edge_left_out = 1,
            |record| record.checked.edge_uncounted = 1,
            |record| record.checked.batches_lost = 1,
        ];
        for gap in gaps {
            let mut with_gap = record();
            gap(&mut with_gap);
            assert_eq!((tone_of(&with_gap, None), tone_of(&with_gap, Some(fine))), ("open", "open"));
        }
        let receipts = Receipts { checked: 5, outside: 2, invalid: 1, other_time: 3, ..fine };
        let page = of(Some(receipts));
        assert!(page.contains("<p class=\"big bad\">2</p>") && page.contains("<td>5</td><td>2</td>"), "{page}");
    }
}
