//! What a change has to keep to that is published on a node. Takes the settings of `[fleet]`, returns a part of
//! `/v1/fleet`; and reads that again for whoever publishes.

use bailiwick_rules::fleet::gates::Gates;
use bailiwick_rules::rules::Ratio;
use serde::{Deserialize, Serialize};

use crate::state::fleet::Settings;

/// What a change has to keep to, as JSON has it: parts are texts, as in `bailiwick.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    gates: GateTexts,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct GateTexts {
    max_moved: Option<String>,
    max_denied: Option<String>,
    min_regions: Option<u32>,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        // The configuration has whole per cent.
        let text = |ratio: Ratio| format!("{}%", ratio.0 / 10_000);
        let gates = settings.gates;
        Self {
            gates: GateTexts {
                max_moved: gates.max_moved.map(text),
                max_denied: gates.max_denied.map(text),
                min_regions: gates.min_regions,
            },
        }
    }
}

impl Limits {
    /// What a change may come to. A gate that can't be read is taken for the narrowest: it is there, after all.
    pub(crate) fn gates(&self) -> Gates {
        let part = |text: &Option<String>| text.as_deref().map(|text| Ratio::parse_percent(text).unwrap_or_default());
        let GateTexts { max_moved, max_denied, min_regions } = &self.gates;
        Gates { max_moved: part(max_moved), max_denied: part(max_denied), min_regions: *min_regions }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_what_its_configuration_says() {
        let gates = Gates { max_moved: Some(Ratio(200_000)), max_denied: None, min_regions: Some(2) };
        let settings = Settings { gates, ..Settings::default() };
        let json = serde_json::to_string(&Limits::from(&settings)).unwrap();
        assert!(json.contains(r#""max_moved":"20%","max_denied":null,"min_regions":2"#), "{json}");
        let read: Limits = serde_json::from_str(&json).unwrap();
        assert_eq!(read.gates(), gates);
        let older: Limits = serde_json::from_str("{}").unwrap();
        assert_eq!(older.gates(), Gates::default(), "a node that tells none");
        let odd: Limits = serde_json::from_str(r#"{"gates": {"max_moved": "a lot"}}"#).unwrap();
        assert_eq!(odd.gates().max_moved, Some(Ratio(0)), "the narrowest");
    }
}
