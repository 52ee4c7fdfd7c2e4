//! Finds the country of a region of Azure. Takes the value of the header `x-ms-region` of an answer, such as `Sweden
//! Central`; returns a country. Called by `proxy`, which compares the country with the rules.
//!
//! A deployment of a model may stand in another country than the rules say, or the provider may move the deployment
//! from region to region. The header of each answer names the region that made the answer.

use bailiwick_rules::geo::CountryCode;

/// Azure's regions by country, with their names in lower case and without spaces. Numbers at the end of a name are left
/// out: `East US 2` lies in the country of `East US`.
const REGIONS: &[(&str, &[&str])] = &[
    ("AE", &["uaenorth", "uaecentral"]),
    ("AT", &["austriaeast"]),
    ("AU", &["australiaeast", "australiasoutheast", "australiacentral"]),
    ("BE", &["belgiumcentral"]),
    ("BR", &["brazilsouth", "brazilsoutheast"]),
    ("CA", &["canadacentral", "canadaeast"]),
    ("CH", &["switzerlandnorth", "switzerlandwest"]),
    ("CL", &["chilecentral"]),
    ("DE", &["germanywestcentral", "germanynorth"]),
    ("DK", &["denmarkeast"]),
    ("ES", &["spaincentral"]),
    ("FR", &["francecentral", "francesouth"]),
    ("GB", &["uksouth", "ukwest"]),
    ("HK", &["eastasia"]),
    ("ID", &["indonesiacentral"]),
    ("IE", &["northeurope"]),
    ("IL", &["israelcentral"]),
    ("IN", &["centralindia", "southindia", "westindia", "jioindiawest", "jioindiacentral"]),
    ("IT", &["italynorth"]),
    ("JP", &["japaneast", "japanwest"]),
    ("KR", &["koreacentral", "koreasouth"]),
    ("MX", &["mexicocentral"]),
    ("MY", &["malaysiawest"]),
    ("NL", &["westeurope"]),
    ("NO", &["norwayeast", "norwaywest"]),
    ("NZ", &["newzealandnorth"]),
    ("PL", &["polandcentral"]),
    ("QA", &["qatarcentral"]),
    ("SE", &["swedencentral", "swedensouth"]),
    ("SG", &["southeastasia"]),
    ("US", &["eastus", "westus", "centralus", "northcentralus", "southcentralus", "westcentralus"]),
    ("ZA", &["southafricanorth", "southafricawest"]),
];

/// The country of a region of Azure; `None` for an unknown name.
#[must_use]
pub(crate) fn country_of(region: &str) -> Option<CountryCode> {
    let plain: String = region.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).collect();
    let (country, _) = REGIONS.iter().find(|(_, names)| names.contains(&plain.as_str()))?;
    CountryCode::parse(country)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_region_is_known_in_any_spelling() {
        for (name, country) in [
            ("Sweden Central", "SE"),
            ("swedencentral", "SE"),
            ("East US 2", "US"),
            ("westus3", "US"),
            ("North Europe", "IE"),
        ] {
            assert_eq!(country_of(name), CountryCode::parse(country), "{name}");
        }
        for unknown in ["", "Atlantis", "europe", "global", "Sweden\u{a0}Centrál"] {
            assert_eq!(country_of(unknown), None, "{unknown}");
        }
        for (country, _) in REGIONS {
            assert!(CountryCode::parse(country).is_some(), "{country}");
        }
    }
}
