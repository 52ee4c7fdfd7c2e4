//! Load steering. Takes what is known of regions' loads and clients' demand, returns the shares of clients to move.
//! Called by DNS nodes, `bailiwick plan`, `bailiwick simulate` and the warnings of `bailiwick check`.
//!
//! Two types matter. [`Classes`] are the clients of all services, grouped by the order of their fence, so that a plan
//! can't name a region outside of it. A [`Plan`] is what [`plan`] decides from them and the last plan: for each class
//! which part of its clients goes where.
//!
//! Everything is a whole number: amounts are [`Amount`]s, loads and shares [`Ratio`]s in millionths. So equal inputs
//! give equal plans to the bit, natively and in Wasm.
//!
//! A half that acts on a plan ranks the client as for [`crate::steer`] and asks for its class and its [`Point`]. DNS
//! takes the point from the client's /24 or /48, cut to one of [`BUCKETS`]: [`BucketShares`] says where each bucket of
//! a class goes. The edge takes it from tenant and session, and asks the shares that nodes report. `None` means: as
//! distance and health say.

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
pub use planning::{Move, Plan, Seen, plan};
pub use readings::{HOLD, Reading, RegionSeen, RegionState, Standing};
pub use warnings::warnings;

use crate::rules::Ratio;

/// Thousandths of a request in flight: what capacity and demand are measured in.
pub type Amount = u64;

/// The amount of whole requests.
#[must_use]
pub fn requests(count: u32) -> Amount {
    u64::from(count) * 1_000
}

/// An amount's part, in proportion: `amount × part ÷ whole`, rounded down; nothing of a whole of nothing.
fn proportion(amount: Amount, part: Amount, whole: Amount) -> Amount {
    let product = u128::from(amount) * u128::from(part);
    product.checked_div(u128::from(whole)).and_then(|share| u64::try_from(share).ok()).unwrap_or(0)
}

/// The part of an amount that stays at a donor: all below the low mark, and never more than the high mark.
fn staying(natural: Amount, capacity: Amount, low: Ratio, high: Ratio) -> Amount {
    let (low, high) = (low.of(capacity), high.of(capacity));
    if natural <= low {
        return natural;
    }
    // Between the low mark and a full region it rises from the low to the high mark, so that shares begin gently.
    let above = proportion(natural - low, high.saturating_sub(low), capacity.saturating_sub(low));
    low.saturating_add(above).min(high).min(natural)
}

#[cfg(test)]
mod cases;
#[cfg(test)]
mod properties;
