//! Load steering. Takes the loads of regions and the demand of clients, returns the shares of clients to move to other
//! regions. Called by DNS nodes, `bailiwick plan`, `bailiwick simulate` and the warnings of `bailiwick check`.
//!
//! Two types matter. [`Classes`] are the clients of all services, grouped by the order of their fence: the regions that
//! may process a client, best first. So a plan can't name a region outside of the fence. A [`Plan`] says for each class
//! which part of its clients goes to which region; [`plan`] makes it from the classes, the loads and the last plan.
//!
//! All numbers are integers: amounts are [`Amount`]s, loads and shares are [`Ratio`]s in millionths. So equal inputs
//! give plans that are equal to the bit, natively and in Wasm.
//!
//! To follow a plan, DNS server and Worker rank the regions for a client as [`crate::steer`] does. Then they look up
//! the client's class and its [`Point`]. The DNS server makes the point from the client's /24 or /48 and rounds it to
//! one of [`BUCKETS`] buckets; [`BucketShares`] has the region of each bucket. The Worker makes the point from tenant
//! and session, and uses the shares that nodes report. `None` means that the client isn't moved: distance and health
//! decide its region.

mod buckets;
mod classes;
mod demand;
mod engine;
mod estimate;
mod exposition;
mod fill;
mod lost;
mod margin;
mod mean;
mod place;
mod planning;
mod readings;
mod warnings;

pub use buckets::{BucketShares, Buckets};
pub use classes::{Class, ClassIndex, Classes, Demand, place_of_country};
pub(crate) use demand::demand_in;
pub use demand::read_demand;
pub use engine::{EnginePage, EngineReading};
pub use estimate::estimate;
pub use exposition::{MAX_PAGE, Page, PageError, Sample};
pub use lost::{FenceLoss, losses, settled};
pub use margin::{Margin, Margins, margins};
pub use mean::{EndpointLoad, MeanLoad, capacity_of};
pub use place::{BUCKETS, Home, Point};
pub use planning::{Move, Plan, PlanInput, plan};
pub use readings::{HOLD, Reading, RegionInput, RegionState, Standing};
pub use warnings::warnings;

use crate::rules::Ratio;

/// A number of requests in flight, in thousandths. Capacity and demand are such amounts.
pub type Amount = u64;

/// The amount of this many requests.
#[must_use]
pub fn requests(count: u32) -> Amount {
    u64::from(count) * 1_000
}

/// A proportional part of an amount: `amount × part ÷ whole`, rounded down; 0 if `whole` is 0.
fn proportion(amount: Amount, part: Amount, whole: Amount) -> Amount {
    let product = u128::from(amount) * u128::from(part);
    product.checked_div(u128::from(whole)).and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

/// The part of a region's natural load that stays at the region. The natural load is the load if no client were moved.
/// Below the region's low mark everything stays, and never more stays than the high mark allows.
fn staying(natural: Amount, capacity: Amount, low: Ratio, high: Ratio) -> Amount {
    let (low, high) = (low.of(capacity), high.of(capacity));
    if natural <= low {
        return natural;
    }
    // As the natural load rises from the low mark to the capacity, the staying part rises from the low mark to the high
    // mark. So shares begin small.
    let above = proportion(natural - low, high.saturating_sub(low), capacity.saturating_sub(low));
    low.saturating_add(above).min(high).min(natural)
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;
