//! Reads the rollouts of a rules document. A rollout replaces something old by something new for a growing share of
//! requests, region after region. Takes the JSON of one rollout, returns what is replaced, the regions, the steps (the
//! shares in per cent), the checks between two steps, and the progress so far; `None` after a violation, which the
//! reader has then noted. Called by [`super::rules`].

use std::collections::BTreeMap;

use super::value::{boolean, distinct, duration, number, once, reference};
use super::{Context, bundle};
use crate::id::{BundleId, EndpointId, RegionId, ServiceId};
use crate::json::{Fields, Node, Reader};
use crate::rules::{Allowed, Change, EvalCheck, Measure, Pair, Progress, Rollout};
use crate::time::{Millis, Timestamp};

/// The steps of a rollout that names none, in per cent.
const STEPS: [u8; 5] = [1, 5, 25, 50, 100];
/// The allowed values of `hold`, `bake` and `max_hold`, which say how long a step lasts.
const STEP_TIMES: core::ops::RangeInclusive<Millis> = Millis(1_000)..=Millis(31 * 24 * 3_600_000);
/// The allowed values of `warm_up`.
const WARM_UP: core::ops::RangeInclusive<Millis> = Millis(0)..=Millis(3_600_000);
/// The most samples that may be asked for.
const MOST_SAMPLES: u64 = 1_000_000_000;
/// The longest name of a suite, in bytes.
const LONGEST_SUITE: usize = 64;

/// The checks of a rollout.
type Checks = (BTreeMap<Measure, Allowed>, Option<EvalCheck>);

/// Reads a rollout. `context` has the names that the document declares.
pub(super) fn rollout(reader: &mut Reader<'_>, node: &Node, context: &mut Context) -> Option<Rollout> {
    let mut fields = reader.object(node)?;
    let service = fields.required("service", "the service", |reader, node| {
        let service = reference(reader, node, "service", &context.services, ServiceId::parse)?;
        once(reader, service, &mut context.rolled_out, "has another rollout, and one at a time can be judged")
    });
    let change = change(&mut fields, context);
    let regions = fields.required("regions", "its regions, in their order", |reader, node| {
        distinct(reader, node, |reader, node| reference(reader, node, "region", &context.regions, RegionId::parse))
    });
    let steps = fields.optional("steps", steps).unwrap_or_else(|| STEPS.to_vec());
    let step_time = |reader: &mut Reader<'_>, node: &Node| duration(reader, node, STEP_TIMES);
    let hold = fields.optional("hold", step_time).unwrap_or(Millis(15 * 60_000));
    let bake = fields.optional("bake", step_time).unwrap_or(Millis(2 * 3_600_000));
    let warm_up = fields.optional("warm_up", |reader, node| duration(reader, node, WARM_UP));
    let warm_up = warm_up.unwrap_or(Millis(3 * 60_000));
    let samples = fields.optional("min_samples", |reader, node| reader.integer(node, 1..=MOST_SAMPLES));
    let max_hold = fields.optional("max_hold", step_time).unwrap_or(Millis(24 * 3_600_000));
    let least = hold.max(bake).max(warm_up);
    if max_hold <= least {
        fields.fail::<()>(format!(
            "has a \"max_hold\" of {max_hold}, and a step lasts {least} at least, so it would always be rolled back; \
             write a longer \"max_hold\""
        ));
    }
    let example = "such as \"error_rate\": {\"max_diff\": 0.005}";
    let checks = fields.required("checks", example, |reader, node| match node {
        Node::Object(entries) if entries.is_empty() => {
            reader.fail(format!("is empty, so nothing would be judged; add one {example}"))
        }
        _ => checks(reader, node),
    });
    let progress = fields.optional("progress", |reader, node| progress(reader, node, regions.as_deref()));
    if matches!((&change, &checks), (Some(Change::Bundle { .. }), Some((_, Some(_))))) {
        fields.fail::<()>(
            "rolls a bundle out and has an eval among its \"checks\", which sends the prompts of its suite, not those \
             of the bundle; leave \"eval\" out, and compare both versions by hand",
        );
    }
    fields.finish();
    let (checks, eval) = checks?;
    Some(Rollout {
        service: service?,
        change: change?,
        regions: regions?,
        steps,
        hold,
        bake,
        warm_up,
        min_samples: samples.unwrap_or(500),
        max_hold,
        checks,
        eval,
        progress,
    })
}

/// Reads what is replaced: `model`, `from` and `to`; or `endpoints`; or `bundle` and `to`.
fn change(fields: &mut Fields<'_, '_, '_>, context: &mut Context) -> Option<Change> {
    if fields.has("bundle") {
        for key in ["model", "from", "endpoints"] {
            fields.optional(key, |reader, _| {
                reader.fail::<()>(
                    "stands beside \"bundle\"; replace a bundle's version, a model's name or endpoints, one of them",
                )
            });
        }
        let bundle = fields.optional("bundle", |reader, node| {
            let bundle = reference(reader, node, "bundle", &context.bundles, BundleId::parse)?;
            once(reader, bundle, &mut context.moved, "is moved by another rollout, and has one new version at a time")
        });
        let to = fields.required("to", "the new version of the bundle", bundle::version);
        return Some(Change::Bundle { bundle: bundle?, to: to? });
    }
    if fields.has("endpoints") {
        for key in ["model", "from", "to"] {
            fields.optional(key, |reader, _| {
                reader.fail::<()>("stands beside \"endpoints\"; replace a model's name or endpoints, not both")
            });
        }
        return fields.optional("endpoints", |reader, node| endpoints(reader, node, context)).map(Change::Endpoints);
    }
    if !["model", "from", "to"].iter().any(|key| fields.has(key)) {
        return fields.fail(
            "says nothing to replace; add \"model\", \"from\" and \"to\", or \"endpoints\": {\"REGION\": {\"from\": …, \
             \"to\": …}}, or \"bundle\" and \"to\"",
        );
    }
    let name = |reader: &mut Reader<'_>, node: &Node| match reader.string(node)? {
        "" => reader.fail("is an empty model name"),
        name => Some(name.to_owned()),
    };
    let model = fields.required("model", "the clients' name of the model", name);
    let from = fields.required("from", "the endpoints' old name of the model", name);
    let to = fields.required("to", "the endpoints' new name of the model", |reader, node| match name(reader, node)? {
        to if from.as_ref() == Some(&to) => reader.fail("is the same as \"from\"; write the new name"),
        to => Some(to),
    });
    Some(Change::Model { model: model?, from: from?, to: to? })
}

/// Reads the old and the new endpoint of each region.
fn endpoints(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<BTreeMap<RegionId, Pair>> {
    let mut pairs = BTreeMap::new();
    for (name, node) in reader.entries(node)? {
        let reader = &mut reader.at(name);
        let Some(region) = RegionId::parse(name).filter(|_| context.regions.iter().any(|region| region == name)) else {
            let hint = super::value::declared(name, &context.regions);
            reader.fail::<()>(format!("is of the region {name:?}, which isn't declared{hint}"));
            continue;
        };
        let names = context.endpoints.get(name).map_or(&[][..], Vec::as_slice);
        let endpoint =
            |reader: &mut Reader<'_>, node: &Node| reference(reader, node, "endpoint", names, EndpointId::parse);
        let Some(mut fields) = reader.object(node) else { continue };
        let from = fields.required("from", "the old endpoint", endpoint);
        let to = fields.required("to", "the new endpoint", |reader, node| match endpoint(reader, node)? {
            to if from.as_ref() == Some(&to) => reader.fail("is the same as \"from\"; write the new endpoint"),
            to => Some(to),
        });
        fields.finish();
        pairs.extend(from.zip(to).map(|(from, to)| (region, Pair { from, to })));
    }
    Some(pairs)
}

/// Reads the shares of the steps, in per cent.
fn steps(reader: &mut Reader<'_>, node: &Node) -> Option<Vec<u8>> {
    let mut last = 0;
    let steps = reader.filled_list(node, |reader, node| {
        let step = percentage(reader, node)?;
        if step <= last {
            return reader.fail(format!("is {step} after {last}; steps rise"));
        }
        if last == 0 && step == 100 {
            return reader.fail("is 100 at once, so nothing would be left to compare with; begin with less");
        }
        last = step;
        Some(step)
    })?;
    (!steps.is_empty()).then_some(steps)
}

fn percentage(reader: &mut Reader<'_>, node: &Node) -> Option<u8> {
    reader.integer(node, 1..=100).and_then(|share| u8::try_from(share).ok())
}

/// Reads the checks that decide whether the next step may begin.
fn checks(reader: &mut Reader<'_>, node: &Node) -> Option<Checks> {
    let mut checks = BTreeMap::new();
    let mut fields = reader.object(node)?;
    for (name, measure) in Measure::ALL {
        checks.extend(
            fields.optional(name, |reader, node| allowed(reader, node, measure)).map(|allowed| (measure, allowed)),
        );
    }
    let eval = fields.optional("eval", eval);
    fields.finish();
    Some((checks, eval))
}

/// Reads the check by an eval: both sides answer the prompts of a suite, and their scores are compared.
fn eval(reader: &mut Reader<'_>, node: &Node) -> Option<EvalCheck> {
    let mut fields = reader.object(node)?;
    let suite = fields.required("suite", "\"suite\": \"smoke\", the name of its file", |reader, node| {
        let text = reader.string(node)?;
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if (1..=LONGEST_SUITE).contains(&text.len()) && text.bytes().all(fits) {
            return Some(text.to_owned());
        }
        reader.fail(format!(
            "is {text:?}; write the name of the suite's file without \".jsonl\": at most {LONGEST_SUITE} letters, \
             digits, \".\", \"_\" and \"-\""
        ))
    });
    let example = "\"margin\": 0.02, by how much the mean score may be less";
    let margin = fields.required("margin", example, |reader, node| {
        let value = number(reader, node)?;
        let fits = (0.001..=0.5).contains(&value);
        if fits { Some(value) } else { reader.fail(format!("is {value}; write a number from 0.001 to 0.5")) }
    });
    fields.finish();
    Some(EvalCheck { suite: suite?, margin: margin? })
}

/// Reads by how much the new side may be worse in a measure. Shares have a greatest difference, times a greatest ratio.
fn allowed(reader: &mut Reader<'_>, node: &Node, measure: Measure) -> Option<Allowed> {
    let mut fields = reader.object(node)?;
    let within = |low: f64, high: f64, what: &'static str| {
        move |reader: &mut Reader<'_>, node: &Node| {
            let value = number(reader, node)?;
            let fits = (low..=high).contains(&value);
            if fits { Some(value) } else { reader.fail(format!("is {value}; write {what}")) }
        }
    };
    let unfit = |what: &'static str| move |reader: &mut Reader<'_>, _: &Node| reader.fail::<f64>(what);
    let (max_diff, max_ratio) = if measure.is_time() {
        fields.optional("max_diff", unfit("is for shares, and this is a time; write \"max_ratio\" instead"));
        let ratio = within(1.1, 100.0, "a ratio from 1.1 to 100, such as 1.15; times are counted in steps of 9 %");
        (None, fields.required("max_ratio", "\"max_ratio\": 1.15, how many times as long it may take", ratio))
    } else {
        fields.optional("max_ratio", unfit("is for times, and this is a share; write \"max_diff\" instead"));
        let diff = within(0.000_1, 1.0, "a difference from 0.0001 to 1, such as 0.005 for half a point");
        (fields.required("max_diff", "\"max_diff\": 0.005, by how much the share may be greater", diff), None)
    };
    let critical = fields.optional("critical", boolean).unwrap_or_default();
    fields.finish();
    (max_diff.is_some() || max_ratio.is_some()).then_some(Allowed { max_diff, max_ratio, critical })
}

/// Reads how far the rollout is: the share of each region, when the step began, and why it is paused or has ended.
fn progress(reader: &mut Reader<'_>, node: &Node, regions: Option<&[RegionId]>) -> Option<Progress> {
    let mut fields = reader.object(node)?;
    let shares = fields.optional("shares", |reader, node| shares(reader, node, regions)).unwrap_or_default();
    let since = fields.required("since", "when the step began, such as \"2026-12-01T06:00:00Z\"", |reader, node| {
        let text = reader.string(node)?;
        Timestamp::parse(text)
            .or_else(|| reader.fail(format!("is {text:?}; write a time such as \"2026-12-01T06:00:00Z\"")))
    });
    let text = |reader: &mut Reader<'_>, node: &Node| match reader.string(node)?.trim() {
        "" => reader.fail("is empty; say why, or leave it out"),
        text => Some(text.to_owned()),
    };
    let (paused, ended) = (fields.optional("paused", text), fields.optional("ended", text));
    fields.finish();
    Some(Progress { shares, since: since?, paused, ended })
}

/// The shares of the regions that have begun: those before the last are at 100 %.
fn shares(reader: &mut Reader<'_>, node: &Node, regions: Option<&[RegionId]>) -> Option<BTreeMap<RegionId, u8>> {
    let mut shares = BTreeMap::new();
    for (name, node) in reader.entries(node)? {
        let reader = &mut reader.at(name);
        let region = RegionId::parse(name);
        let Some(region) = region.filter(|region| regions.is_none_or(|regions| regions.contains(region))) else {
            reader.fail::<()>(format!("names {name}, which isn't one of the rollout's regions; leave it out"));
            continue;
        };
        shares.extend(percentage(reader, node).map(|share| (region, share)));
    }
    let mut begun = regions.unwrap_or_default().iter().map(|region| (region, shares.get(region).copied()));
    let before_last = shares.len().saturating_sub(1);
    if let Some((region, share)) = begun.by_ref().take(before_last).find(|(_, share)| *share != Some(100)) {
        let share = share.unwrap_or_default();
        return reader.fail(format!(
            "has {region} at {share} %, and a region after it has begun; a region begins when all before it are at 100"
        ));
    }
    if before_last < shares.len() && regions.is_some() && begun.next().is_none_or(|(_, share)| share.is_none()) {
        return reader.fail("skips a region; they begin in the order of \"regions\"");
    }
    Some(shares)
}
