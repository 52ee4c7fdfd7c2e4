//! `[fleet.gates]`: what a change of the rules may come to. Called by the reader of `[fleet]`.

use bailiwick_rules::fleet::gates::Gates;
use bailiwick_rules::rules::Ratio;

use super::{Reader, Value};
use crate::program::config::keys::names;

impl Reader<'_> {
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

    fn percent(&mut self, key: &str, value: &Value<'_>) -> Option<Ratio> {
        let text = self.string(key, value)?;
        Ratio::parse_percent(text).or_else(|| {
            let message = format!("\"{key}\" is \"{text}\"; write whole per cent from \"1%\" to \"100%\"");
            self.fail(value.span(), message)
        })
    }
}
