//! Reads `[fleet.gates]` and `[fleet.stages]`: how much a change of the rules may change for clients, and how carefully
//! a revision goes from stage to stage (a stage is a part of the fleet's nodes). Called by the reader of `[fleet]`.

use bailiwick_rules::fleet::gates::Gates;
use bailiwick_rules::fleet::stages::Care;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::time::Millis;

use super::{Reader, Value};
use crate::program::config::keys::names;

/// The longest time for which a stage's nodes may serve a revision before the next stage begins.
const LONGEST_BAKE: Millis = Millis(7 * 86_400_000);

impl Reader<'_> {
    /// Reads the section `[fleet.gates]`: how much a document may change without an operator's consent.
    pub(super) fn gates(&mut self, value: &Value<'_>) -> Gates {
        let mut gates = Gates::default();
        let Some(table) = self.section("fleet.gates", "max_moved = \"20%\"", value) else { return gates };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "max_moved" => gates.max_moved = self.percent("fleet.gates.max_moved", value),
                "max_denied" => gates.max_denied = self.percent("fleet.gates.max_denied", value),
                "min_regions" => {
                    let mut regions = 0_u32;
                    self.size("fleet.gates.min_regions", value, 1, 1_000, &mut regions);
                    gates.min_regions = Some(regions).filter(|regions| *regions > 0);
                }
                _ => self.no_key("fleet.gates.", key, &names("fleet.gates")),
            }
        }
        gates
    }

    /// Reads the section `[fleet.stages]`: what stops a document from going to the nodes of the next stage.
    pub(super) fn care(&mut self, value: &Value<'_>) -> Care {
        let mut care = Care::default();
        let Some(table) = self.section("fleet.stages", "bake = \"10m\"", value) else { return care };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "bake" => care.bake = self.bake(value).unwrap_or(care.bake),
                "max_servfail" => self.limit("fleet.stages.max_servfail", value, &mut care.servfail),
                "max_denied" => self.limit("fleet.stages.max_denied", value, &mut care.denied),
                "max_shift" => self.limit("fleet.stages.max_shift", value, &mut care.shift),
                "min_answers" => self.size("fleet.stages.min_answers", value, 1, 1_000_000_000, &mut care.enough),
                _ => self.no_key("fleet.stages.", key, &names("fleet.stages")),
            }
        }
        care
    }

    /// Reads how long the nodes of a stage have to serve a document before the next stage gets it.
    fn bake(&mut self, value: &Value<'_>) -> Option<Millis> {
        let text = self.string("fleet.stages.bake", value)?;
        let bake = Millis::parse(text).filter(|bake| (Millis(1_000)..=LONGEST_BAKE).contains(bake));
        bake.or_else(|| {
            let message = format!("\"fleet.stages.bake\" is \"{text}\"; write a duration from \"1s\" to \"7d\"");
            self.fail(value.span(), message)
        })
    }

    fn limit(&mut self, key: &str, value: &Value<'_>, limit: &mut Ratio) {
        *limit = self.percent(key, value).unwrap_or(*limit);
    }

    fn percent(&mut self, key: &str, value: &Value<'_>) -> Option<Ratio> {
        let text = self.string(key, value)?;
        Ratio::parse_percent(text).or_else(|| {
            let message = format!("\"{key}\" is \"{text}\"; write whole per cent from \"1%\" to \"100%\"");
            self.fail(value.span(), message)
        })
    }
}
