//! The limits for a change that is published on a node: its gates (how much the change may do to clients), and how
//! carefully it goes from stage to stage. Takes the settings of `[fleet]`, returns a part of `/v1/fleet`. The commands
//! that publish read this part back into gates and settings. A stage is a part of the fleet: the canary nodes get a new
//! document first, then the early nodes, then all.

use bailiwick_rules::fleet::gates::Gates;
use bailiwick_rules::fleet::stages::Care;
use bailiwick_rules::receipt::PublicKey;
use bailiwick_rules::rules::Ratio;
use bailiwick_rules::time::Millis;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use crate::state::fleet::Settings;

/// The limits for a change, as they stand in JSON. Durations and percentages are texts, as in `bailiwick.toml`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limits {
    gates: GateTexts,
    stages: StageTexts,
    trusted_publishers: Vec<String>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct GateTexts {
    max_moved: Option<String>,
    max_denied: Option<String>,
    min_regions: Option<u32>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct StageTexts {
    bake: String,
    max_servfail: String,
    max_denied: String,
    max_shift: String,
    min_answers: u64,
}

impl From<&Settings> for Limits {
    fn from(settings: &Settings) -> Self {
        // The configuration has only whole per cent.
        let text = |ratio: Ratio| format!("{}%", ratio.0 / 10_000);
        let (gates, care) = (settings.gates, settings.care);
        Self {
            gates: GateTexts {
                max_moved: gates.max_moved.map(text),
                max_denied: gates.max_denied.map(text),
                min_regions: gates.min_regions,
            },
            stages: StageTexts {
                bake: care.bake.to_string(),
                max_servfail: text(care.servfail),
                max_denied: text(care.denied),
                max_shift: text(care.shift),
                min_answers: care.enough,
            },
            trusted_publishers: settings.trusted_publishers.iter().map(|key| URL_SAFE_NO_PAD.encode(key.0)).collect(),
        }
    }
}

impl Limits {
    /// The gates of a change. A gate that can't be read counts as the strictest, because the node does have a gate.
    pub(crate) fn gates(&self) -> Gates {
        let part = |text: &Option<String>| text.as_deref().map(|text| Ratio::parse_percent(text).unwrap_or_default());
        let GateTexts { max_moved, max_denied, min_regions } = &self.gates;
        Gates { max_moved: part(max_moved), max_denied: part(max_denied), min_regions: *min_regions }
    }

    /// How carefully a change goes from stage to stage. A setting that can't be read has its default.
    pub(crate) fn care(&self) -> Care {
        let usual = Care::default();
        let StageTexts { bake, max_servfail, max_denied, max_shift, min_answers } = &self.stages;
        let part = |text: &str, usual: Ratio| Ratio::parse_percent(text).unwrap_or(usual);
        Care {
            bake: Millis::parse(bake).unwrap_or(usual.bake),
            servfail: part(max_servfail, usual.servfail),
            denied: part(max_denied, usual.denied),
            shift: part(max_shift, usual.shift),
            enough: Some(*min_answers).filter(|least| *least > 0).unwrap_or(usual.enough),
        }
    }

    /// The keys of those who may publish.
    pub(crate) fn publishers(&self) -> Vec<PublicKey> {
        let key = |text: &String| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok().map(PublicKey);
        self.trusted_publishers.iter().filter_map(key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_tells_is_what_its_configuration_says() {
        let gates = Gates { max_moved: Some(Ratio(200_000)), max_denied: None, min_regions: Some(2) };
        let care = Care { bake: Millis(90_000), servfail: Ratio(20_000), enough: 7, ..Care::default() };
        let settings = Settings { gates, care, trusted_publishers: vec![PublicKey([7; 32])], ..Settings::default() };
        let json = serde_json::to_string(&Limits::from(&settings)).unwrap();
        assert!(json.contains(r#""max_moved":"20%","max_denied":null,"min_regions":2"#), "{json}");
        assert!(json.contains(r#""bake":"90s""#), "{json}");
        let read: Limits = serde_json::from_str(&json).unwrap();
        assert_eq!((read.gates(), read.care(), read.publishers()), (gates, care, settings.trusted_publishers));
        let older: Limits = serde_json::from_str("{}").unwrap();
        assert_eq!((older.gates(), older.care()), (Gates::default(), Care::default()), "a node that reports neither");
        let odd: Limits = serde_json::from_str(r#"{"gates": {"max_moved": "a lot"}}"#).unwrap();
        assert_eq!(odd.gates().max_moved, Some(Ratio(0)), "the narrowest");
    }
}
