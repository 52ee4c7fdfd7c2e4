//! Reads the fields by which several nodes agree on health: the voters, and the guard of a service. Called by the
//! readers of the document and of services.

use std::collections::BTreeMap;

use super::Context;
use super::value::{duration, number, reference};
use crate::id::{NOT_A_NAME, RegionId, SiteId, VoterId};
use crate::json::{Node, Reader};
use crate::rules::{Fleet, Guard, Ratio, Voter};
use crate::time::Millis;

/// The longest span that any of these fields may have.
const LONGEST: Millis = Millis(24 * 3_600_000);
/// The most regions that a guard may keep.
const MOST_KEPT: u64 = 1_000;

/// Reads `fleet`: the nodes that vote on health, and the limits of their probes.
pub(super) fn fleet(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Fleet> {
    let mut fields = reader.object(node)?;
    let voters =
        fields.required("voters", "the nodes that vote, such as {\"ns1\": {\"site\": \"london\"}}", |reader, node| {
            voters(reader, node, context)
        });
    let span = |low, high| move |reader: &mut Reader<'_>, node: &Node| duration(reader, node, low..=high);
    let min_hold = fields.optional("min_hold", span(Millis(0), Millis(3_600_000)));
    let hold = fields.optional("hold", span(Millis(10_000), LONGEST));
    let most = fields.optional("max_probes_per_second", |reader, node| {
        let value = number(reader, node)?;
        let ratio = Ratio::from_load(value).filter(|ratio| *ratio >= Ratio(10_000));
        ratio.or_else(|| reader.fail(format!("is {value}; write a number from 0.01 to 100, such as 2")))
    });
    fields.finish();
    Some(Fleet {
        voters: voters?,
        min_hold: min_hold.unwrap_or_else(crate::rules::half_minute),
        hold: hold.unwrap_or_else(crate::rules::five_minutes),
        max_probes_per_second: most,
    })
}

/// Reads the nodes that vote.
fn voters(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<BTreeMap<VoterId, Voter>> {
    let entries = reader.entries(node)?;
    if entries.is_empty() {
        return reader
            .fail("names nobody; add a node such as {\"ns1\": {\"site\": \"london\"}}, or leave \"fleet\" out");
    }
    let mut voters = BTreeMap::new();
    for (name, node) in entries {
        let reader = &mut reader.at(name);
        let voter = voter(reader, node, context);
        match VoterId::parse(name) {
            Some(name) => voters.extend(voter.map(|voter| (name, voter))),
            None => _ = reader.fail::<()>(format!("{NOT_A_NAME}; it is the \"node\" of that node's bailiwick.toml")),
        }
    }
    Some(voters)
}

/// Reads a node that votes.
fn voter(reader: &mut Reader<'_>, node: &Node, context: &Context) -> Option<Voter> {
    let mut fields = reader.object(node)?;
    let site = fields.required("site", "where it stands, such as \"london\"", |reader, node| {
        let text = reader.string(node)?;
        SiteId::parse(text).or_else(|| reader.fail(format!("is {text:?}, which {NOT_A_NAME}")))
    });
    let region =
        fields.optional("region", |reader, node| reference(reader, node, "region", &context.regions, RegionId::parse));
    fields.finish();
    Some(Voter { site: site?, region })
}

/// The `guard` of a service.
pub(super) fn guard(reader: &mut Reader<'_>, node: &Node) -> Option<Guard> {
    let mut fields = reader.object(node)?;
    let defaults = Guard::default();
    let keep = fields.optional("keep", |reader, node| reader.integer(node, 0..=MOST_KEPT));
    let max_down = fields.optional("max_down", |reader, node| {
        let text = reader.string(node)?;
        let hint = "write whole per cent from \"1%\" to \"100%\"";
        Ratio::parse_percent(text).or_else(|| reader.fail(format!("is {text:?}; {hint}")))
    });
    let window = fields.optional("window", |reader, node| duration(reader, node, Millis(1_000)..=LONGEST));
    fields.finish();
    Some(Guard {
        keep: keep.and_then(|keep| u32::try_from(keep).ok()).unwrap_or(defaults.keep),
        max_down: max_down.unwrap_or(defaults.max_down),
        window: window.unwrap_or(defaults.window),
    })
}
