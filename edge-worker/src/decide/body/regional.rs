//! Says whether a model's name chooses the region where the model runs. At clouds and gateways such a name could send a
//! request out of the regions that the rules allow. So a name may choose a region only if an endpoint's `models` map
//! holds the name. Called by `names`.
//!
//! Sources: Amazon Bedrock's inference profiles (`us.anthropic.claude-…`) and ARNs, Vertex AI's
//! `projects/…/locations/…` and `@us-central1`, Azure's regions (`swedencentral`), and the forms in which LiteLLM and
//! others write them (`bedrock/eu-central-1/…`, `azure/eu/…`).

use super::entries::LONGEST_MODEL;
use super::place::{is_plain, lenient};

/// Groups of regions. A name may begin with a group (`us.`), or a part of it may be a group (`azure/eu/gpt-4o`,
/// `gemini@global`).
const GROUPS: &[&str] = &[
    "us", "eu", "apac", "global", "jp", "au", "ca", "ap", "sa", "me", "af", "il", "in", "uk", "kr", "mx", "cn",
    "us-gov",
];

/// Words that choose a kind of deployment or its location, if one of them is a whole part of a name.
const CHOOSING_WORDS: &[&str] =
    &["locations", "global-standard", "globalstandard", "data-zone", "datazone", "datazonestandard"];

/// Directions in names of clouds' regions.
const DIRECTIONS: &[&str] = &["east", "west", "north", "south", "central"];
/// Countries and continents in names of clouds' regions. A longer word comes before the shorter word that it begins
/// with.
const LANDS: &[&str] = &[
    "usgov",
    "usdod",
    "us",
    "gov",
    "isob",
    "iso",
    "europe",
    "eusc",
    "eu",
    "uk",
    "uae",
    "asia",
    "ap",
    "sa",
    "mexico",
    "me",
    "mx",
    "africa",
    "af",
    "il",
    "canada",
    "ca",
    "cn",
    "denmark",
    "de",
    "america",
    "australia",
    "austria",
    "brazil",
    "chile",
    "china",
    "france",
    "germany",
    "jioindia",
    "india",
    "indonesia",
    "israel",
    "italy",
    "japan",
    "korea",
    "malaysia",
    "newzealand",
    "norway",
    "poland",
    "qatar",
    "spain",
    "sweden",
    "switzerland",
    "taiwan",
    "belgium",
    "finland",
    "greece",
];

/// Whether a model's name chooses a region, as the most lenient parser sees the name.
pub(super) fn is_regional(name: &str) -> bool {
    // Plain names of the allowed length need no allocation.
    let mut small = [0; LONGEST_MODEL];
    match small.get_mut(..name.len()).filter(|_| is_plain(name)) {
        Some(small) => {
            small.copy_from_slice(name.as_bytes());
            small.make_ascii_lowercase();
            chooses_region(core::str::from_utf8(small).unwrap_or_default())
        }
        None => chooses_region(&lenient(name)),
    }
}

/// Whether a name in lower case chooses a region.
fn chooses_region(name: &str) -> bool {
    let is_separator = |c: char| !(c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'));
    let mut parts = name.split(is_separator).peekable();
    let is_whole = !name.contains(is_separator);
    // Most names hold no direction.
    let may_hold_region = name.bytes().enumerate().any(|(at, byte)| {
        let begins = matches!(byte, b'e' | b'w' | b'n' | b's' | b'c');
        begins && name.get(at..).is_some_and(|rest| begins_with(rest, DIRECTIONS).is_some())
    });
    while let Some(part) = parts.next() {
        let is_arn = part == "arn" && parts.peek().is_some_and(|next| next.starts_with("aws"));
        let begins_with_group =
            part.split_once('.').is_some_and(|(group, rest)| GROUPS.contains(&group) && !rest.is_empty());
        let is_choosing = !is_whole && (GROUPS.contains(&part) || CHOOSING_WORDS.contains(&part));
        if is_arn || begins_with_group || is_choosing || may_hold_region && holds_region(part) {
            return true;
        }
    }
    false
}

/// Whether a part of a name holds a region of a cloud: `us-east-1`, `europe-west4`, `swedencentral`.
fn holds_region(part: &str) -> bool {
    let (mut has_land, mut has_direction) = (false, false);
    for word in part.split(['.', '-', '_']) {
        match geography(word) {
            Some((land, direction)) => (has_land, has_direction) = (has_land || land, has_direction || direction),
            None => (has_land, has_direction) = (false, false),
        }
        if has_land && has_direction {
            return true;
        }
    }
    false
}

/// Whether a word holds a country, and whether it holds a direction. `None` if the word holds anything else, except for
/// a number at its end.
fn geography(word: &str) -> Option<(bool, bool)> {
    let mut rest = word.trim_end_matches(|c: char| c.is_ascii_digit());
    let (mut has_land, mut has_direction) = (false, false);
    while !rest.is_empty() {
        if let Some(after) = begins_with(rest, DIRECTIONS) {
            (rest, has_direction) = (after, true);
        } else {
            (rest, has_land) = (begins_with(rest, LANDS)?, true);
        }
    }
    (has_land || has_direction).then_some((has_land, has_direction))
}

/// The rest of a text after the first of these words with which it begins.
fn begins_with<'t>(text: &'t str, words: &[&str]) -> Option<&'t str> {
    words.iter().find_map(|word| text.strip_prefix(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_choose_a_region_are_found() {
        for name in [
            "us.anthropic.claude-sonnet-4-20250514-v1:0",
            "eu.anthropic.claude-3-7-sonnet-20250219-v1:0",
            "apac.amazon.nova-lite-v1:0",
            "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "jp.anthropic.claude-haiku-4-5-20251001-v1:0",
            "au.anthropic.claude-sonnet-4-5",
            "us-gov.anthropic.claude-3-haiku",
            "US.anthropic.claude",
            "bedrock/us.anthropic.claude",
            "bedrock/converse/eu.amazon.nova-pro-v1:0",
            "bedrock:us.anthropic.claude",
            "bedrock/us-east-1/anthropic.claude-v2",
            "bedrock/eu-central-1/6-month-commitment/anthropic.claude-v2",
            "arn:aws:bedrock:us-east-1:123456789012:inference-profile/us.anthropic.claude",
            "arn:aws-us-gov:bedrock:x:1:application-inference-profile/abc",
            "bedrock/arn:aws:bedrock:x:1:provisioned-model/abc",
            "arn%3Aaws%3Abedrock:x",
            "claude-sonnet-4@us-central1",
            "gemini-2.5-pro@europe-west4",
            "gemini-2.5-pro@global",
            "projects/p/locations/us-central1/publishers/google/models/gemini-2.5-pro",
            "publishers/google/locations/x/models/m",
            "vertex_ai/northamerica-northeast1/gemini",
            "azure/eu/gpt-4o-2024-08-06",
            "azure/us/gpt-4o",
            "azure/global-standard/gpt-4o",
            "azure/swedencentral/gpt-4o",
            "gpt-4o-swedencentral",
            "gpt-4o-eastus2",
            "eastus-gpt-4o",
            "gpt-4o_westeurope",
            "gpt-4o-ap-southeast-2",
            "gpt-4o.us-gov-west-1",
            "gpt-4o,us.anthropic.claude",
            "ｕｓ.anthropic.claude",
            "u\u{200b}s.anthropic.claude",
            "gpt-4o\u{200b}@us-central1",
        ] {
            assert!(is_regional(name), "{name}");
        }
    }

    #[test]
    fn names_that_only_look_regional_are_models() {
        for name in [
            "",
            "gpt-4o",
            "gpt-4.1-mini",
            "us",
            "global",
            "anthropic.claude-3-7-sonnet-20250219-v1:0",
            "amazon.nova-lite-v1:0",
            "claude-sonnet-4@20250514",
            "gemini-2.5-pro@default",
            "meta-llama/Llama-3.1-8B-Instruct",
            "northwind/phi-west",
            "central-bert",
            "north-mistral-7b",
            "deepseek-ai/DeepSeek-R1",
            "accounts/fireworks/models/llama-v3p1-8b",
            "publishers/google/models/gemini-2.5-pro",
            "hf.co/a/b:Q4_K_M",
            "use.bert",
            "eurollm.9b",
            "usa-llm",
            "llama3:8b",
            "southern-star",
            "indus.x",
            "ft:gpt-4o:acme::id",
        ] {
            assert!(!is_regional(name), "{name}");
        }
    }
}
