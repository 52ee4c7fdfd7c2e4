//! The territories in which the law of the European Union and of the European Economic Area applies. Takes an ISO
//! 3166-1 code; returns whether it belongs to a built-in set, and why. Called by [`super::built_in_set`] and by
//! explanations.
//!
//! Some territories of a member state have a code of their own. The member's code then means the rest: `FR` is France
//! in Europe, `GF` is French Guiana. A code belongs to a set only if all of its territory does. The sets say where the
//! treaties apply. They don't say whether personal data may be sent to a country (an adequacy decision, GDPR Article
//! 45).
//!
//! Sources, read on 2026-11-28: Treaty on European Union (TEU), Article 52; Treaty on the Functioning of the European
//! Union (TFEU), Article 355 and Annex II, with European Council Decisions 2010/718/EU (Saint-Barthélemy) and
//! 2012/419/EU (Mayotte); Agreement on the European Economic Area (EEA), Articles 2, 126 and 128 with Protocol 40, and
//! Finland's declaration of 1992-12-17 under Article 126(2).

use super::CountryCode;

/// The 27 members of the European Union: TEU, Article 52(1), without the United Kingdom, which left on 2020-01-31.
pub(super) const EU_MEMBERS: [&str; 27] = [
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV",
    "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
];

/// The members of the European Economic Area that aren't in the Union: EEA, Articles 2 and 126(1).
pub(super) const EEA_BEYOND_EU: [&str; 3] = ["IS", "LI", "NO"];

/// The territories of EU members that have a code of their own and to which the treaties apply: TEU, Article 52(2).
pub(super) const EU_TERRITORIES: [&str; 7] = ["AX", "GF", "GP", "MF", "MQ", "RE", "YT"];

/// What the treaties say about a code of a territory, or of a state that people could wrongly take for a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Territory {
    /// The country code of the territory or state.
    pub code: &'static str,
    /// The state to which the territory belongs; `None` if it is a state itself.
    pub of: Option<&'static str>,
    /// Whether the code is in the built-in set `EU`.
    pub in_eu: bool,
    /// Whether the code is in the built-in set `EEA`.
    pub in_eea: bool,
    /// The reason, with the article of the treaty. It is the end of a sentence that begins with the code.
    pub why: &'static str,
}

const fn inside(code: &'static str, of: &'static str, why: &'static str) -> Territory {
    Territory { code, of: Some(of), in_eu: true, in_eea: true, why }
}

const fn outside(code: &'static str, of: Option<&'static str>, why: &'static str) -> Territory {
    Territory { code, of, in_eu: false, in_eea: false, why }
}

const OUTERMOST: &str = "is an outermost region of France: EU law applies (TFEU, Article 355(1))";
const FRENCH: &str = "is a French overseas country or territory: outside the EU (TFEU, Article 355(2) and Annex II)";
const DUTCH: &str = "is a Dutch overseas country or territory: outside the EU (TFEU, Article 355(2) and Annex II)";
const CROWN: &str = "is a Crown dependency: no part of the United Kingdom (GB), and outside the EU";
const BRITISH: &str = "is a British overseas territory: no part of the United Kingdom (GB), and outside the EU";
const MICROSTATE: &str = "is a state of its own, no member of the EU or the EEA, whatever its agreements with the EU";

/// The codes that people often get wrong, sorted by code.
pub(super) const TERRITORIES: [Territory; 36] = [
    outside("AD", None, MICROSTATE),
    outside("AI", Some("GB"), BRITISH),
    outside("AW", Some("NL"), DUTCH),
    inside(
        "AX",
        "FI",
        "is a part of Finland: EU law applies (TFEU, Article 355(4)), and the EEA Agreement by Finland's declaration",
    ),
    outside(
        "BL",
        Some("FR"),
        "left the outermost regions on 2012-01-01 (Decision 2010/718/EU): outside the EU (TFEU, Annex II)",
    ),
    outside("BM", Some("GB"), BRITISH),
    outside("BQ", Some("NL"), DUTCH),
    outside("CH", None, "is no member of the EU or the EEA (it signed the EEA Agreement in 1992 and didn't ratify it)"),
    outside("CW", Some("NL"), DUTCH),
    outside("FK", Some("GB"), BRITISH),
    outside("FO", Some("DK"), "belongs to Denmark, but EU law doesn't apply there (TFEU, Article 355(5)(a))"),
    inside("GF", "FR", OUTERMOST),
    outside("GG", Some("GB"), CROWN),
    outside(
        "GI",
        Some("GB"),
        "is no part of the United Kingdom (GB); EU law applied there (TFEU, Article 355(3)) until 2020-01-31",
    ),
    outside(
        "GL",
        Some("DK"),
        "belongs to Denmark and left the European Communities in 1985: outside the EU (TFEU, Annex II)",
    ),
    inside("GP", "FR", OUTERMOST),
    outside("IM", Some("GB"), CROWN),
    outside("JE", Some("GB"), CROWN),
    outside("KY", Some("GB"), BRITISH),
    outside("MC", None, MICROSTATE),
    inside("MF", "FR", OUTERMOST),
    inside("MQ", "FR", OUTERMOST),
    outside("NC", Some("FR"), FRENCH),
    outside("PF", Some("FR"), FRENCH),
    outside("PM", Some("FR"), FRENCH),
    inside("RE", "FR", OUTERMOST),
    outside(
        "SJ",
        Some("NO"),
        "is Svalbard, which Norway keeps out of the EEA Agreement (Protocol 40), with Jan Mayen, which has no code of \
         its own",
    ),
    outside("SM", None, MICROSTATE),
    outside("SX", Some("NL"), DUTCH),
    outside("TC", Some("GB"), BRITISH),
    outside("TF", Some("FR"), FRENCH),
    outside("VA", None, MICROSTATE),
    outside("VG", Some("GB"), BRITISH),
    outside("WF", Some("FR"), FRENCH),
    outside(
        "XK",
        None,
        "is Kosovo, by a code that ISO 3166-1 leaves to its users and everybody uses so; no member of the EU",
    ),
    inside(
        "YT",
        "FR",
        "has been an outermost region of France since 2014-01-01 (Decision 2012/419/EU): EU law applies (TFEU, Article \
         355(1))",
    ),
];

/// The entry of a code's territory. `None` for most states, and for territories that EU law doesn't mention.
#[must_use]
pub fn territory(country: CountryCode) -> Option<&'static Territory> {
    let index = TERRITORIES.binary_search_by(|territory| territory.code.cmp(country.as_str())).ok()?;
    TERRITORIES.get(index)
}

/// A code that databases, proxies or people write in place of a country's code, but that isn't one.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NonCountry {
    /// The code.
    pub code: &'static str,
    /// The meaning of the code. It is the end of a sentence that begins with the code.
    pub about: &'static str,
    /// The country that the writer probably means, if there is one.
    pub stands_for: Option<&'static str>,
}

const fn of_nobody(code: &'static str, about: &'static str) -> NonCountry {
    NonCountry { code, about, stands_for: None }
}

const fn alias(code: &'static str, about: &'static str, stands_for: &'static str) -> NonCountry {
    NonCountry { code, about, stands_for: Some(stands_for) }
}

/// All known codes that aren't countries, sorted by code.
const NON_COUNTRIES: [NonCountry; 21] = [
    of_nobody("A1", "is what old databases write for an anonymous proxy"),
    of_nobody("A2", "is what old databases write for a satellite provider"),
    of_nobody("AN", "was the Netherlands Antilles, which are AW, BQ, CW and SX now"),
    of_nobody("AP", "is what old databases write for somewhere in Asia or the Pacific"),
    of_nobody("CS", "was Serbia and Montenegro, which are RS and ME now"),
    alias("EA", "is Ceuta and Melilla, which belong to Spain", "ES"),
    alias("EL", "is what the EU's institutions write for Greece", "GR"),
    of_nobody("EU", "is what old databases write for somewhere in Europe"),
    alias("FL", "is no code of ISO 3166-1, though cars of Liechtenstein carry it", "LI"),
    alias("FX", "was France in Europe", "FR"),
    alias("IC", "is the Canary Islands, which belong to Spain", "ES"),
    of_nobody("O1", "is what databases write for none of the countries"),
    of_nobody("SU", "was the Soviet Union"),
    of_nobody("T1", "is what Cloudflare writes for Tor"),
    alias("TP", "was East Timor", "TL"),
    alias("UK", "is no code of ISO 3166-1, which writes the United Kingdom otherwise", "GB"),
    alias("XI", "is Northern Ireland in matters of customs", "GB"),
    of_nobody("XX", "is what databases and Cloudflare write for a country that isn't known"),
    of_nobody("YU", "was Yugoslavia"),
    alias("ZR", "was Zaire", "CD"),
    of_nobody("ZZ", "is what databases write for a country that isn't known"),
];

/// The entry of a code that isn't a country's. `None` for countries, and for unknown codes.
///
/// ```
/// use bailiwick_rules::geo::non_country;
/// assert_eq!(non_country("UK").unwrap().stands_for, Some("GB"));
/// assert_eq!(non_country("GB"), None);
/// ```
#[must_use]
pub fn non_country(code: &str) -> Option<&'static NonCountry> {
    let index = NON_COUNTRIES.binary_search_by(|entry| entry.code.cmp(code)).ok()?;
    NON_COUNTRIES.get(index)
}

/// Whether a text has the form of a country's code as databases and proxies write it, such as `ZZ` and `A1`. Such a
/// text that isn't a country's code means an unknown country. Any other text is a mistake of the writer.
#[must_use]
pub fn is_like_code(text: &str) -> bool {
    text.len() == 2
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
        && text.bytes().any(|byte| byte.is_ascii_alphabetic())
}

#[cfg(test)]
mod tests {
    use super::super::built_in_set;
    use super::*;

    fn country(code: &str) -> CountryCode {
        CountryCode::parse(code).unwrap_or_else(|| panic!("{code} is no country"))
    }

    #[test]
    fn tables_are_sorted_and_only_territories_are_countries() {
        assert!(TERRITORIES.is_sorted_by(|a, b| a.code < b.code));
        assert!(NON_COUNTRIES.is_sorted_by(|a, b| a.code < b.code));
        for one in TERRITORIES {
            assert_eq!(territory(country(one.code)), Some(&one));
            assert!(one.of.is_none_or(|state| territory(country(state)).is_none()), "{}", one.code);
        }
        for one in NON_COUNTRIES {
            assert_eq!(CountryCode::parse(one.code), None, "{}", one.code);
            assert!(one.stands_for.is_none_or(|code| CountryCode::parse(code).is_some()), "{}", one.code);
        }
    }

    /// TEU, Article 52, TFEU, Article 355: the sets hold exactly the codes that the table says.
    #[test]
    fn the_sets_are_the_members_and_the_territories_where_the_treaties_apply() {
        let (eu, eea) = (built_in_set("EU").unwrap(), built_in_set("EEA").unwrap());
        for one in TERRITORIES {
            let held = (eu.contains(country(one.code)), eea.contains(country(one.code)));
            assert_eq!(held, (one.in_eu, one.in_eea), "{}", one.code);
        }
        let members = EU_MEMBERS.iter().chain(&EU_TERRITORIES).count();
        assert_eq!((eu.iter().count(), eea.iter().count()), (members, members + EEA_BEYOND_EU.len()));
        assert!(EU_TERRITORIES.iter().all(|code| territory(country(code)).is_some_and(|one| one.in_eu)));
        assert!(!eea.contains(country("GB")));
    }
}
