//! The rules' part of the reference. Takes the JSON Schema, returns a table for each of its objects.

use std::fmt::Write as _;

use bailiwick_rules::rules::{
    Cors, Family, Keeping, Limits, Order, Receipts, RegionLoad, Shed, Slew, Streams, Style, WhenAllDown,
    json_schema_text,
};
use serde_json::{Map, Value};

use super::Table;

/// The objects in the order in which a document is written. Every object of the schema has to be here.
const ORDER: [&str; 16] = [
    "Jurisdiction",
    "Region",
    "Answers",
    "Coordinates",
    "RegionLoad",
    "Endpoint",
    "Monitor",
    "Service",
    "ResidencyRule",
    "TtlBounds",
    "Hub",
    "Limits",
    "Cors",
    "Tenant",
    "Network",
    "Override",
];

/// Everything below the heading `rules.json`.
pub(super) fn section() -> String {
    let schema: Value = serde_json::from_str(&json_schema_text()).expect("the schema is JSON");
    let definitions = schema["$defs"].as_object().expect("definitions");
    let reader = Reader { definitions };
    let mut out = String::from("## `rules.json`\n\n");
    out += &reader.object("", &schema);
    let rest = definitions.iter().filter(|(name, one)| is_object(one) && !ORDER.contains(&name.as_str()));
    for name in ORDER.iter().copied().chain(rest.map(|(name, _)| name.as_str())) {
        let one = &definitions[name];
        match one["oneOf"].as_array() {
            None => {
                let _ = write!(out, "\n### {name}\n\n{}\n\n{}", paragraph(one), reader.object(name, one));
            }
            Some(kinds) => {
                for kind in kinds {
                    let which = kind["properties"]["type"]["const"].as_str().unwrap_or_default();
                    let _ = write!(out, "\n### {name} of type `{which}`\n\n{}\n\n", paragraph(kind));
                    out += &reader.object(name, kind);
                }
            }
        }
    }
    for (name, one) in definitions.iter().filter(|(_, one)| is_choice(one)) {
        let _ = write!(out, "\n### {name}\n\n{}\n\n| value | means |\n| --- | --- |\n", paragraph(one));
        for choice in one["oneOf"].as_array().into_iter().flatten() {
            let _ = writeln!(out, "| `{}` | {} |", choice["const"].as_str().unwrap_or_default(), words(choice));
        }
    }
    out
}

/// Something with keys of its own.
fn is_object(one: &Value) -> bool {
    one["properties"].is_object() || one["oneOf"].as_array().is_some_and(|kinds| kinds[0]["properties"].is_object())
}

/// One of several words, each with a meaning.
fn is_choice(one: &Value) -> bool {
    one["oneOf"].as_array().is_some_and(|kinds| kinds[0]["const"].is_string())
}

/// The description as a paragraph, in lines of at most 120 characters.
fn paragraph(one: &Value) -> String {
    let mut lines = vec![String::new()];
    for word in words(one).split(' ') {
        if lines.last().is_some_and(|line| line.chars().count() + word.chars().count() >= 120) {
            lines.push(String::new());
        }
        let Some(line) = lines.last_mut() else { continue };
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines.join("\n")
}

fn words(one: &Value) -> String {
    one["description"].as_str().unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

struct Reader<'s> {
    definitions: &'s Map<String, Value>,
}

impl Reader<'_> {
    fn object(&self, name: &str, one: &Value) -> String {
        let mut table = Table::default();
        let required: Vec<&str> = one["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        for (key, property) in one["properties"].as_object().into_iter().flatten() {
            if key == "$schema" {
                table.row(key, "string", "–", "The address of the schema, for editors. Not read.");
                continue;
            }
            let (meaning, reported) =
                default_in(&words(property), name == "Monitor" && !required.contains(&key.as_str()));
            let meaning = if property["const"].is_string() { "What is tried.".to_owned() } else { meaning };
            let default = match reported.or_else(|| self.default(name, key, property)) {
                _ if required.contains(&key.as_str()) => "required".to_owned(),
                default => default.unwrap_or_else(|| "–".to_owned()),
            };
            table.row(key, &self.kind(property), &default, &meaning);
        }
        table.to_string()
    }

    /// What a value looks like.
    fn kind(&self, one: &Value) -> String {
        if let Some(name) = one["$ref"].as_str().and_then(|path| path.strip_prefix("#/$defs/")) {
            return self.named(name);
        }
        if let Some(kinds) = one["anyOf"].as_array() {
            let kinds = kinds.iter().filter(|kind| kind["type"] != "null").map(|kind| self.kind(kind));
            return kinds.collect::<Vec<_>>().join(" or ");
        }
        if let Some(only) = one["const"].as_str() {
            return format!("`{only}`");
        }
        if let Some(choices) = one["enum"].as_array() {
            let choices = choices.iter().filter_map(Value::as_str).map(|choice| format!("`{choice}`"));
            return choices.collect::<Vec<_>>().join(" or ");
        }
        let kind = one["type"].as_str().or_else(|| one["type"][0].as_str()).unwrap_or("anything");
        match kind {
            "array" => match self.kind(&one["items"]) {
                items if items.contains(" or ") && !items.starts_with('`') => format!("list of ({items})"),
                items => format!("list of {items}"),
            },
            "object" => format!("object: name to {}", self.kind(&one["additionalProperties"])),
            "integer" | "number" => match (one["minimum"].as_i64(), one["maximum"].as_i64()) {
                (Some(least), Some(most)) if least == most => format!("{kind} {least}"),
                (Some(least), Some(most)) => format!("{kind} from {least} to {most}"),
                (Some(least), None) => format!("{kind} from {least}"),
                _ => kind.to_owned(),
            },
            kind => match one["format"].as_str() {
                Some("ipv4") => "IPv4 address".to_owned(),
                Some("ipv6") => "IPv6 address".to_owned(),
                _ => kind.to_owned(),
            },
        }
    }

    fn named(&self, name: &str) -> String {
        let one = &self.definitions[name];
        match name {
            "Duration" => "duration".to_owned(),
            "CountryCode" => "country code".to_owned(),
            "Timestamp" => "time (RFC 3339)".to_owned(),
            "HexDigest" => "64 hex digits".to_owned(),
            "WebOrigin" => "origin".to_owned(),
            "Slew" => "share in a time".to_owned(),
            "Monitor" => "[Monitor](#monitor-of-type-tcp)".to_owned(),
            _ if is_object(one) || is_choice(one) => format!("[{name}](#{})", name.to_lowercase()),
            _ => self.kind(one),
        }
    }

    fn default(&self, name: &str, key: &str, property: &Value) -> Option<String> {
        let limits = Limits::default();
        let load = RegionLoad::default();
        let shown = |one: &dyn std::fmt::Display| Some(format!("`{one}`"));
        let number = |millionths: u32| Some(format!("`{}`", f64::from(millionths) / 1e6));
        match (name, key) {
            ("Limits", "headers_streamed") => shown(&limits.headers_streamed),
            ("Limits", "headers_unary") => shown(&limits.headers_unary),
            ("Limits", "first_token") => shown(&limits.first_token),
            ("Limits", "idle") => shown(&limits.idle),
            ("Limits", "total") => shown(&limits.total),
            ("RegionLoad", "low") => number(load.low.0),
            ("RegionLoad", "high") => number(load.high.0),
            ("RegionLoad", "warmup") => shown(&load.warmup),
            ("Service", "slew") => shown(&Slew::default()),
            ("Service", "order") => self.chosen("Order", &Order::default()),
            ("Service", "shed") => self.chosen("Shed", &Shed::default()),
            ("Keeping", "stale_for") => shown(&Keeping::default().stale_for),
            ("Cors", "max_age") => shown(&Cors::MAX_AGE),
            ("Service", "when_all_down") => self.chosen("WhenAllDown", &WhenAllDown::default()),
            ("Service", "receipts") => self.chosen("Receipts", &Receipts::default()),
            ("Service", "streams") => self.chosen("Streams", &Streams::default()),
            ("Endpoint", "style") => self.chosen("Style", &Style::default()),
            ("Monitor", "family") => self.chosen("Family", &Family::default()),
            _ => match &property["default"] {
                Value::Null => None,
                Value::Array(none) if none.is_empty() => Some("none".to_owned()),
                Value::Object(_) => Some("none".to_owned()),
                value => Some(format!("`{value}`")),
            },
        }
    }

    /// The word in the document for a variant in the code.
    fn chosen(&self, name: &str, variant: &dyn std::fmt::Debug) -> Option<String> {
        let plain = |text: &str| text.replace(['-', '_'], "").to_lowercase();
        let variant = plain(&format!("{variant:?}"));
        let choices = self.definitions[name]["oneOf"].as_array()?;
        let words = choices.iter().filter_map(|choice| choice["const"].as_str());
        words.filter(|word| plain(word) == variant).map(|word| format!("`{word}`")).next()
    }
}

/// A meaning and the default. Optional keys of a monitor name it at the end, behind a semicolon.
fn default_in(meaning: &str, is_monitor: bool) -> (String, Option<String>) {
    match meaning.split_once("; ").filter(|_| is_monitor) {
        None => (meaning.to_owned(), None),
        Some((meaning, rest)) => {
            let (default, more) = rest.split_once(". ").unwrap_or((rest.trim_end_matches('.'), ""));
            let default = if default.ends_with(char::is_numeric) || default.ends_with('s') && default.len() < 5 {
                format!("`{default}`")
            } else {
                default.to_owned()
            };
            (format!("{meaning}. {more}").trim_end().to_owned(), Some(default))
        }
    }
}
