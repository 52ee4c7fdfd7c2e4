//! Reads drills: which region's loss is rehearsed, when, how far and until what. Called by [`super::rules`].

use super::Context;
use super::value::{duration, number, reference};
use crate::id::RegionId;
use crate::json::{Node, Reader};
use crate::rules::drill::RAMP;
use crate::rules::{AbortLimits, DateRange, Drill, Ratio, Weekly, five_minutes};
use crate::time::Millis;

/// The values of `for`.
const LASTING: core::ops::RangeInclusive<Millis> = Millis(1_000)..=Millis(12 * 3_600_000);
/// The values of `step`.
const STEP: core::ops::RangeInclusive<Millis> = Millis(1_000)..=Millis(3_600_000);
/// The values of `first_token_p95`.
const FIRST_TOKEN: core::ops::RangeInclusive<Millis> = Millis(1)..=Millis(600_000);

pub(super) fn drill(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Drill> {
    let mut fields = reader.object(node)?;
    let region = fields.required("region", "the region", |reader, node| {
        reference(reader, node, "region", &context.regions, RegionId::parse)
    });
    let weekly = fields.optional("weekly", |reader, node| {
        let text = reader.string(node)?;
        let hint = "write a day and a time in UTC, such as \"Tue 10:00\"";
        Weekly::parse(text).or_else(|| reader.fail(format!("is {text:?}; {hint}")))
    });
    let lasts = fields.optional("for", |reader, node| duration(reader, node, LASTING));
    let ramp = fields.optional("ramp", ramp);
    let step = fields.optional("step", |reader, node| duration(reader, node, STEP));
    let blocked = fields.optional("blocked", |reader, node| {
        reader.filled_list(node, |reader, node| {
            let text = reader.string(node)?;
            let hint = "write two dates as MM-DD/MM-DD, such as \"12-15/01-05\"";
            DateRange::parse(text).or_else(|| reader.fail(format!("is {text:?}; {hint}")))
        })
    });
    let abort = fields.optional("abort", abort_limits);
    fields.finish();
    Some(Drill {
        region: region?,
        weekly,
        lasts: lasts.unwrap_or(Millis(30 * 60_000)),
        ramp: ramp.unwrap_or_else(|| RAMP.to_vec()),
        step: step.unwrap_or_else(five_minutes),
        blocked: blocked.unwrap_or_default(),
        abort: abort.unwrap_or_default(),
    })
}

/// Shares in per cent that rise.
fn ramp(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<u8>> {
    let mut last = 0;
    reader.filled_list(node, |reader, node| {
        let share = u8::try_from(reader.integer(node, 1..=100)?).ok()?;
        if share <= last {
            return reader.fail(format!("is {share} after {last}; the shares of a ramp rise"));
        }
        last = share;
        Some(share)
    })
}

fn abort_limits(reader: &mut Reader<'_>, node: &Node) -> Option<AbortLimits> {
    let mut fields = reader.object(node)?;
    let read = AbortLimits {
        error_rate: fields.optional("error_rate", share),
        first_token_p95: fields.optional("first_token_p95", |reader, node| duration(reader, node, FIRST_TOKEN)),
        refused: fields.optional("refused", share),
    };
    fields.finish();
    Some(read)
}

fn share(reader: &mut Reader<'_>, node: &Node) -> Option<Ratio> {
    let value = number(reader, node)?;
    Ratio::from_number(value)
        .or_else(|| reader.fail(format!("is {value}; write a share from 0 to 1, such as 0.01 for 1 %")))
}

#[cfg(test)]
mod tests {
    use crate::rules::{Ratio, Weekly};
    use crate::table::Table;
    use crate::time::Millis;

    fn read(drill: &str) -> Result<Table, Vec<String>> {
        let rules = format!(
            r#"{{ "version": 1, "revision": 1, "jurisdictions": {{ "uk": {{ "countries": ["GB"] }} }},
            "regions": {{ "lon": {{ "countries": ["GB"] }}, "spare": {{ "countries": ["GB"] }} }},
            "services": {{ "chat": {{ "hosts": ["chat.example"], "pattern": "active-active", "regions": ["lon"],
                "residency": [{{ "clients": ["uk"], "process_in": ["uk"] }}] }} }},
            "drills": {{ "one": {drill} }} }}"#
        );
        Table::compile(rules.as_bytes()).map_err(|all| all.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_drill_is_read_with_its_defaults() {
        let table = read(r#"{ "region": "lon" }"#).unwrap();
        let (id, drill) = &table.drills()[0];
        assert_eq!((id.as_str(), &drill.ramp[..], drill.weekly), ("one", &[10, 50, 100][..], None));
        assert_eq!((drill.lasts, drill.step, drill.span()), (Millis(1_800_000), Millis(300_000), Millis(3_000_000)));
        assert!(drill.abort.is_empty() && drill.blocked.is_empty());
        let table = read(
            r#"{ "region": "lon", "weekly": "Tue 10:00", "for": "20m", "step": "1m", "ramp": [25],
                 "blocked": ["12-15/01-05"],
                 "abort": { "error_rate": 0.01, "first_token_p95": "4s", "refused": 0.02 } }"#,
        );
        let table = table.unwrap();
        let (_, drill) = &table.drills()[0];
        assert_eq!((drill.weekly, drill.span()), (Weekly::parse("Tue 10:00"), Millis(1_200_000)));
        assert_eq!(drill.abort.error_rate, Some(Ratio(10_000)));
    }

    #[test]
    fn mistakes_are_told_with_their_mends() {
        for (fields, said) in [
            (r#""region": "lodn""#, "region: names the region \"lodn\""),
            (r#""region": "spare""#, "region: is spare, which no service has"),
            (r#""region": "lon", "weekly": "Tuesday""#, "weekly: is \"Tuesday\"; write a day and a time in UTC"),
            (r#""region": "lon", "for": "0s""#, "for: is \"0s\"; write a duration from"),
            (r#""region": "lon", "ramp": []"#, "ramp: "),
            (r#""region": "lon", "ramp": [50, 50]"#, "ramp/1: is 50 after 50"),
            (r#""region": "lon", "ramp": [101]"#, "ramp/0: is 101"),
            (r#""region": "lon", "blocked": ["12-15"]"#, "blocked/0: is \"12-15\"; write two dates"),
            (r#""region": "lon", "abort": { "error_rate": 2 }"#, "abort/error_rate: is 2; write a share from 0 to 1"),
            (r#""region": "lon", "abort": { "latency": "1s" }"#, "abort/latency"),
            (r#""weekly": "Tue 10:00""#, "region"),
        ] {
            let reported = read(&format!("{{ {fields} }}")).unwrap_err();
            let told = |one: &String| one.strip_prefix("/drills/one").is_some_and(|rest| rest.contains(said));
            assert!(reported.len() == 1 && told(&reported[0]), "{fields}: {reported:?}");
        }
    }
}
