//! Reads the fields about load: a region's marks and numbers, and how a service's clients may be moved. Called by the
//! readers of regions and services.

use super::value::{duration, number, one_of};
use crate::json::{Fields, Node, Reader};
use crate::rules::{Order, Pattern, Ratio, RegionLoad, Shed, ShedAt, Slew};
use crate::time::Millis;

/// The largest capacity or demand of a region or an endpoint, in requests at once.
pub(super) const MAX_REQUESTS: u64 = 1_000_000_000;

/// Reads the `load` of a region: its capacity, its demand, and the marks between which clients are moved.
pub(super) fn region_load(reader: &mut Reader<'_>, node: &Node) -> Option<RegionLoad> {
    let mut fields = reader.object(node)?;
    let defaults = RegionLoad::default();
    let marks = (fields.optional("low", ratio), fields.optional("high", ratio));
    let (low, high) = match marks {
        // If only one mark is given, it may lie beyond the default of the other, which then moves.
        (Some(low), None) => (low, defaults.high.max(Ratio(low.0.midpoint(Ratio::ONE.0)))),
        (None, Some(high)) => (defaults.low.min(Ratio(high.0 / 2)), high),
        (low, high) => (low.unwrap_or(defaults.low), high.unwrap_or(defaults.high)),
    };
    if low >= high {
        fields.fail::<()>(format!(
            "has a low mark of {low}, which isn't below its high mark of {high}; lower \"low\", or raise \"high\""
        ));
    }
    let capacity = fields.optional("capacity", |reader, node| reader.integer(node, 1..=MAX_REQUESTS));
    let demand = fields.optional("demand", |reader, node| reader.integer(node, 0..=MAX_REQUESTS));
    let warmup = fields.optional("warmup", |reader, node| duration(reader, node, Millis(0)..=Millis(3_600_000)));
    fields.finish();
    Some(RegionLoad {
        low,
        high,
        capacity: capacity.and_then(|n| u32::try_from(n).ok()),
        demand: demand.and_then(|n| u32::try_from(n).ok()),
        warmup: warmup.unwrap_or(defaults.warmup),
    })
}

fn ratio(reader: &mut Reader<'_>, node: &Node) -> Option<Ratio> {
    let value = number(reader, node)?;
    let ratio = Ratio::from_number(value).filter(|ratio| *ratio > Ratio(0));
    ratio.or_else(|| reader.fail(format!("is {value}; write a load above 0 and up to 1, such as 0.7")))
}

/// `order` of a service or a service tier.
pub(super) fn order(fields: &mut Fields<'_, '_, '_>) -> Option<Order> {
    let choices = [("distance", Order::Distance), ("first-token", Order::FirstToken)];
    fields.optional("order", |reader, node| one_of(reader, node, &choices))
}

/// `shed`, `shed_at` and `slew` of a service.
pub(super) fn shedding(fields: &mut Fields<'_, '_, '_>, pattern: Option<Pattern>) -> (Shed, Option<ShedAt>, Slew) {
    let choices = [("spill", Shed::Spill), ("never", Shed::Never)];
    let shed = fields.optional("shed", |reader, node| {
        let shed = one_of(reader, node, &choices)?;
        match (shed, pattern) {
            (Shed::Spill, Some(Pattern::RegionalSharding)) => reader.fail(
                "is \"spill\" for \"pattern\": \"regional-sharding\", whose clients never leave their home; leave it \
                 out",
            ),
            _ => Some(shed),
        }
    });
    let at = [("edge", ShedAt::Edge), ("dns", ShedAt::Dns)];
    let shed_at = fields.optional("shed_at", |reader, node| one_of(reader, node, &at));
    let slew = fields.optional("slew", |reader, node| {
        let text = reader.string(node)?;
        let hint = "write a share and a time, such as \"5%/10s\": 1 to 100 per cent in 1s to 1h";
        Slew::parse(text).or_else(|| reader.fail(format!("is {text:?}; {hint}")))
    });
    (shed.unwrap_or_default(), shed_at, slew.unwrap_or_default())
}
