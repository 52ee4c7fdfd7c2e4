//! Takes `[dnssec]` of the configuration, with a section `[dnssec."zone"]` for each signed zone; returns these zones.
//! Called by the reader in `read`.

use bailiwick_rules::time::Millis;

use super::{Key, Reader, Value, kind, zone_name};
use crate::dnssec::policy::Cds;
use crate::dnssec::policy::Policy;
use crate::program::config::keys::names;
use crate::program::config::{SignedZone, ZoneFile};
use crate::protocol::name::Name;
use crate::text::nearest::suggestion;

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600_000;

impl Reader<'_> {
    /// Reads all of `[dnssec]`. `zones` are the zones that `[zones]` lists.
    pub(super) fn dnssec(&mut self, value: &Value<'_>, zones: &[ZoneFile]) -> Vec<SignedZone> {
        let mut signed: Vec<SignedZone> = Vec::new();
        let Some(table) = value.get_ref().as_table() else {
            let kind = kind(value);
            let message = format!(
                "\"dnssec\" is {kind}; write a section [dnssec.\"example.com\"] with keys = \"keys/example.com\""
            );
            self.note(value.span(), message);
            return signed;
        };
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (key, value) in entries {
            let name = key.get_ref();
            let Some(origin) = self.zone_of_section(key, value, zones) else { continue };
            if signed.iter().any(|zone| zone.origin == origin) {
                self.note(key.span(), format!("the zone \"{name}\" has two sections in [dnssec]; remove one"));
                continue;
            }
            let (directory, policy) = self.signed_zone(key, value);
            signed.extend(directory.map(|directory| SignedZone { origin, directory, policy }));
        }
        signed
    }

    /// The zone that a section is for. `[zones]` must list a zone of this name.
    fn zone_of_section(&mut self, key: &Key<'_>, value: &Value<'_>, zones: &[ZoneFile]) -> Option<Name> {
        let name = key.get_ref();
        let is_nested = |value: &Value<'_>| {
            value
                .get_ref()
                .as_table()
                .is_some_and(|table| table.values().all(|inner| inner.get_ref().is_table()) && !table.is_empty())
        };
        if is_nested(value) {
            // Without quotes, TOML reads the dots of a key as nested sections.
            let message =
                format!("the zone's name that begins with \"{name}\" must stand in quotes: [dnssec.\"example.com\"]");
            return self.fail(key.span(), message);
        }
        let origin = match zone_name(name) {
            Ok(origin) => origin,
            Err(error) => return self.fail(key.span(), format!("\"{name}\" is not a zone's name: {error}")),
        };
        if !zones.iter().any(|zone| zone.origin == origin) {
            let known: Vec<String> = zones.iter().map(|zone| zone.origin.to_string()).collect();
            let wanted = origin.to_string();
            let near = suggestion(&wanted, known.iter().map(String::as_str));
            return self.fail(key.span(), format!("\"{name}\" is to be signed and isn't in [zones]; {near}"));
        }
        Some(origin)
    }

    /// Reads a section `[dnssec."ZONE"]`: the directory of the keys, and the times of a key roll.
    fn signed_zone(&mut self, key: &Key<'_>, value: &Value<'_>) -> (Option<std::path::PathBuf>, Policy) {
        let (mut directory, mut policy) = (None, Policy::default());
        let section = format!("dnssec.\"{}\"", key.get_ref());
        let Some(table) = self.section(&section, "keys = \"keys/example.com\"", value) else { return (None, policy) };
        for (key, value) in table {
            let name = format!("{section}.{}", key.get_ref());
            match key.get_ref().as_ref() {
                "keys" => directory = Some(self.path(&name, value)),
                "cds" => policy.cds = self.cds(&name, value).unwrap_or_default(),
                // At most a day: signatures are renewed when they are valid for three more days, and a resolver must
                // not keep the keys for longer than their signature is valid.
                "dnskey_ttl" => self.span(&name, value, 1, 24, "1h", &mut policy.dnskey_ttl),
                "ds_ttl" => self.span(&name, value, 0, 14 * 24, "48h", &mut policy.ds_ttl),
                "propagation" => self.span(&name, value, 0, 14 * 24, "1h", &mut policy.propagation),
                _ => self.no_key(&format!("{section}."), key, &names("dnssec")),
            }
        }
        if directory.is_none() {
            let message = format!(
                "\"{section}.keys\" is missing; name the directory of the zone's keys, such as keys = \
                 \"keys/example.com\""
            );
            self.note(key.span(), message);
        }
        (directory.flatten(), policy)
    }

    /// Reads whether CDS records are published, for parents that follow them.
    fn cds(&mut self, key: &str, value: &Value<'_>) -> Option<Cds> {
        match self.string(key, value)? {
            "off" => Some(Cds::Off),
            "publish" => Some(Cds::Publish),
            "delete" => Some(Cds::Delete),
            other => {
                self.fail(value.span(), format!("\"{key}\" is \"{other}\"; write \"off\", \"publish\" or \"delete\""))
            }
        }
    }

    /// Reads a duration of whole seconds, from `least` seconds to `most` hours, into `place`. If the value is wrong,
    /// `place` keeps its value.
    fn span(&mut self, key: &str, value: &Value<'_>, least: u64, most: u64, example: &str, place: &mut Millis) {
        let Some(text) = self.string(key, value) else { return };
        let fits = |span: &Millis| (least * SECOND..=most * HOUR).contains(&span.0) && span.0.is_multiple_of(SECOND);
        match Millis::parse(text).filter(fits) {
            Some(span) => *place = span,
            None => self.note(
                value.span(),
                format!(
                    "\"{key}\" is \"{text}\"; write whole seconds from \"{least}s\" to \"{most}h\", such as \
                    \"{example}\""
                ),
            ),
        }
    }
}
