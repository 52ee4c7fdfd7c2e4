//! Pins of bundles: what is compiled, and what is refused with the place of the mistake.

use serde_json::{Value, json};

use super::{assert_refused, compile, sound};
use crate::bundle::Version;
use crate::id::RegionId;

fn version(digit: &str) -> String {
    digit.repeat(64)
}

#[test]
fn a_region_has_its_own_version_or_the_one_of_all() {
    let mut document = sound();
    assert!(compile(&document).unwrap().bundles().is_empty());
    document["bundles"] = json!({ "prompts": { "version": version("1"), "regions": { "lon": version("2") } } });
    let table = compile(&document).unwrap();
    let prompts = &table.bundles()["prompts"];
    let of = |region: Option<&str>| {
        let region = region.map(|region| RegionId::parse(region).unwrap());
        prompts.version_of(region.as_ref())
    };
    let [one, two] = ["1", "2"].map(|digit| Version::parse(&version(digit)).unwrap());
    assert_eq!([of(None), of(Some("fra")), of(Some("lon")), of(Some("nowhere"))], [one, one, two, one]);
    let places: Vec<_> = prompts.versions().collect();
    assert_eq!(places, [("version".to_owned(), one), ("regions/lon".to_owned(), two)]);
}

#[test]
fn mistakes_in_pins_are_told_with_their_place() {
    let refuses = |pins: Value, pointer: &str, hint: &str| {
        assert_refused(move |document: &mut Value| document["bundles"] = pins, pointer, hint);
    };
    refuses(json!({ "prompts": {} }), "/bundles/prompts/version", "is missing");
    refuses(json!({ "prompts": { "version": "7" } }), "/bundles/prompts/version", "64 lower-case hex digits");
    refuses(json!({ "prompts": { "version": version("A") } }), "/bundles/prompts/version", "which is no version");
    refuses(json!({ "../x": { "version": version("1") } }), "/bundles/..~1x", "is not a name");
    let of_region = |region: &str, one: Value| {
        let mut regions = json!({});
        regions[region] = one;
        json!({ "prompts": { "version": version("1"), "regions": regions } })
    };
    refuses(of_region("lom", version("1").into()), "/bundles/prompts/regions/lom", "did you mean \"lon\"?");
    refuses(of_region("lon", json!(1)), "/bundles/prompts/regions/lon", "a string");
    refuses(json!({ "prompts": { "version": version("1"), "region": {} } }), "/bundles/prompts/region", "regions");
}
