//! Reads `x-bailiwick-pin`, by which an operator names the region that serves a request. Takes the header and the
//! rules; returns a [`Pin`]. Called by `serve` when it recognises a request; `plan` keeps to it. The arms of a rollout
//! are its two sides: the requests that get the old thing, and those that get the new thing.

use bailiwick_rules::rollout::Arm;
use bailiwick_rules::table::{RegionIndex, Table};

use crate::decide::envelope::{Failure, PinFault};

/// The header that names the region: `uk-london`, or `uk-london;arm=new`.
pub(crate) const PIN: &str = "x-bailiwick-pin";
/// The header that carries the operator's token, since the key of the tenant is in `Authorization`.
pub(crate) const OPERATOR: &str = "x-bailiwick-operator";

/// Where an operator wants a request to be served.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Pin {
    /// The only region that may be asked. The fence decides whether it is asked at all.
    pub(crate) region: RegionIndex,
    /// The arm of the service's rollout; `None` for the one that the session has.
    pub(crate) arm: Option<Arm>,
}

impl Pin {
    /// Reads the header's value.
    ///
    /// # Errors
    /// 400 if it names no region of the rules, or anything else than an arm after it.
    pub(crate) fn read(value: &str, table: &Table) -> Result<Self, Failure> {
        let mut parts = value.split(';').map(str::trim);
        let region = parts.next().and_then(|name| table.region_named(name));
        let region = region.ok_or(Failure::BadPin { wrong: PinFault::Region })?;
        let arm = match (parts.next(), parts.next()) {
            (None, _) => None,
            (Some("arm=old"), None) => Some(Arm::Old),
            (Some("arm=new"), None) => Some(Arm::New),
            _ => return Err(Failure::BadPin { wrong: PinFault::Form }),
        };
        Ok(Self { region, arm })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_names_a_region_and_perhaps_an_arm() {
        let rules = serde_json::json!({ "version": 1, "revision": 1,
            "regions": { "fra": { "countries": ["DE"] }, "lon": { "countries": ["GB"] } } });
        let table = Table::compile(rules.to_string().as_bytes()).unwrap();
        let lon = table.region_named("lon").unwrap();
        for (text, arm) in
            [("lon", None), (" lon ", None), ("lon;arm=new", Some(Arm::New)), ("lon ; arm=old", Some(Arm::Old))]
        {
            assert_eq!(Pin::read(text, &table), Ok(Pin { region: lon, arm }), "{text}");
        }
        for text in ["", ";arm=new", "paris", "LON", "lon, fra", "lon lon", "lön"] {
            assert_eq!(Pin::read(text, &table), Err(Failure::BadPin { wrong: PinFault::Region }), "{text}");
        }
        for text in ["lon;", "lon;arm=", "lon;arm=New", "lon;arm=new;arm=old", "lon;x", "lon;arm=new;"] {
            assert_eq!(Pin::read(text, &table), Err(Failure::BadPin { wrong: PinFault::Form }), "{text}");
        }
    }
}
