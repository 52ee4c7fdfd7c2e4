//! Which arm of a rollout serves a session. A rollout replaces something old by something new for a share of the
//! sessions; its arms are its old and its new side. Takes a rollout, a region and a session; returns the session's arm,
//! and what that means for an endpoint. Called by the edge when it plans a request.
//!
//! A hash makes a point from 0 to 1 of each session. The session has the new arm if its point lies below the region's
//! share. So a session that has the new arm at 5 % keeps it at 25 %, and all isolates (running instances of the Worker)
//! agree without telling each other.
//!
//! If the rollout replaces the version of a bundle (a set of files, such as prompts), the application has chosen
//! already, because it made its prompt before it sent the request. The request says which version was used, and that
//! decides. It also says by which region's share the application chose. If the request is served in another region, it
//! isn't counted: that region has another share, so its arms would hold different kinds of sessions.

use crate::bundle::Version;
use crate::id::{BundleId, EndpointId, RegionId};
use crate::load::Point;
use crate::rules::{Arm, Change, Ratio};
use crate::table::{RegionIndex, Rollout};

/// The version of a bundle that an application chose for a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Choice {
    /// The version.
    pub version: Version,
    /// The region by whose share it was chosen; `None` if the application names none.
    pub region: Option<RegionIndex>,
}

/// What a rollout makes of an endpoint for one session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Role<'r> {
    /// The rollout changes nothing for this endpoint.
    Unaffected,
    /// The endpoint serves only the other arm, so this session isn't sent there.
    Closed,
    /// The endpoint serves an arm.
    Serves {
        /// The arm.
        arm: Arm,
        /// The endpoint's name of the model in this arm, if the rollout replaces it.
        model: Option<&'r str>,
        /// The endpoint whose place it takes in the order of the region's endpoints.
        stands_for: Option<&'r EndpointId>,
        /// Whether it is asked only after all other endpoints of the region.
        is_last: bool,
    },
}

/// An endpoint of the rules, and the model that a request wants from it.
#[derive(Clone, Copy, Debug)]
pub struct RequestedEndpoint<'a> {
    /// The endpoint.
    pub endpoint: &'a EndpointId,
    /// The client's name of the model.
    pub model: Option<&'a str>,
    /// The endpoint's name of the model.
    pub name_at_endpoint: Option<&'a str>,
}

/// The arm of a session in a region; `None` if the rollout hasn't begun there. `session` is the tenant's id followed by
/// the session's own name.
///
/// If the rollout replaces the version of a bundle, `version` is the version from which the request was made. For a
/// version that is neither the new one nor the one that the region has, the result is `None` too.
#[must_use]
pub fn arm_at(rollout: &Rollout, region: RegionIndex, session: &str, version: Option<Version>) -> Option<Arm> {
    let percent = rollout.share(region)?;
    if let Change::Bundle { to, .. } = &rollout.rule.change {
        let arms = [(Some(*to), Arm::New), (rollout.pin(region), Arm::Old)];
        return version
            .and_then(|version| arms.into_iter().find(|(version_of_arm, _)| *version_of_arm == Some(version)))
            .map(|(_, arm)| arm);
    }
    let millionths = u32::from(percent) * 10_000;
    // The point lies below the share.
    let is_new = Point::of(session.as_bytes(), &rollout.salt).on([(region, Ratio(millionths))]).is_some();
    Some(if is_new { Arm::New } else { Arm::Old })
}

/// What a rollout makes of an endpoint of `region`, for a session whose arm in that region is `arm`.
#[must_use]
pub fn role<'r>(
    rollout: &'r Rollout,
    region: &RegionId,
    arm: Option<Arm>,
    requested: RequestedEndpoint<'_>,
) -> Role<'r> {
    match &rollout.rule.change {
        Change::Model { model, from, to } => match arm {
            Some(arm) if requested.model == Some(model) && requested.name_at_endpoint == Some(from) => {
                let model = (arm == Arm::New).then_some(to.as_str());
                Role::Serves { arm, model, stands_for: None, is_last: false }
            }
            _ => Role::Unaffected,
        },
        Change::Endpoints(pairs) => match (pairs.get(region), arm) {
            (Some(pair), Some(Arm::New)) if pair.to == *requested.endpoint => {
                Role::Serves { arm: Arm::New, model: None, stands_for: Some(&pair.from), is_last: false }
            }
            (Some(pair), _) if pair.to == *requested.endpoint => Role::Closed,
            // If the new endpoint fails, the old one helps out.
            (Some(pair), Some(arm)) if pair.from == *requested.endpoint => {
                Role::Serves { arm: Arm::Old, model: None, stands_for: None, is_last: arm == Arm::New }
            }
            _ => Role::Unaffected,
        },
        // Every endpoint serves both arms, each with its own prompts.
        Change::Bundle { .. } => match arm {
            Some(arm) => Role::Serves { arm, model: None, stands_for: None, is_last: false },
            None => Role::Unaffected,
        },
    }
}

/// The version of a bundle in an application's statement of what a request was made of, with the region by whose share
/// it was chosen, such as `prompts@7d86…;region=uk-london, tools@0d8d…`. `None` if it doesn't name the bundle, says two
/// things of it, or can't be read.
///
/// ```
/// use bailiwick_rules::{id::BundleId, rollout::choice_in};
/// let (name, digits) = (BundleId::parse("prompts").unwrap(), "0a".repeat(32));
/// let chosen = |statement: &str| {
///     let statement = statement.replace("DIGITS", &digits);
///     choice_in(&statement, &name).map(|(_, region)| region.map(str::to_owned))
/// };
/// assert_eq!(chosen("tools@1, prompts@DIGITS;region=uk-london"), Some(Some("uk-london".to_owned())));
/// assert_eq!(chosen("prompts@DIGITS"), Some(None));
/// assert_eq!(chosen("prompts@0a"), None);
/// ```
#[must_use]
pub fn choice_in<'s>(statement: &'s str, bundle: &BundleId) -> Option<(Version, Option<&'s str>)> {
    let entries = statement.split(',').filter_map(|entry| entry.trim().split_once('@'));
    let mut choices = entries.filter(|(name, _)| *name == bundle.as_str()).map(|(_, choice)| {
        let (version, region) = choice.split_once(";region=").map_or((choice, None), |(v, region)| (v, Some(region)));
        Some((Version::parse(version)?, region))
    });
    let choice = choices.next()??;
    choices.all(|other| other == Some(choice)).then_some(choice)
}

/// Whether failures of this arm are ignored when the endpoint's health is judged. That is so for the new arm if the
/// same endpoint serves the old arm too, under another name of the model or with other prompts: failures of the new
/// thing must not take the endpoint away from the old arm. At a share of 100 % there is no old arm any more, so all
/// failures count.
#[must_use]
pub fn is_trial(rollout: &Rollout, region: RegionIndex, arm: Arm) -> bool {
    arm == Arm::New
        && !matches!(rollout.rule.change, Change::Endpoints(_))
        // Before the region has a share, an operator may ask for the new arm. Everybody else gets the old thing.
        && rollout.share(region).is_none_or(|share| share < 100)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::table::Table;

    fn table(name: &str, share: &Value) -> Table {
        let endpoints = json!({ "a": { "url": "https://a.example", "models": { "m": "old" } },
                                "b": { "url": "https://b.example", "models": { "m": "old" } } });
        let progress = json!({ "shares": share, "since": "2026-12-01T06:00:00Z" });
        let rules = json!({
            "version": 1, "revision": 1, "jurisdictions": { "eu": { "include": ["EU"] } },
            "regions": { "fra": { "countries": ["DE"], "endpoints": endpoints },
                         "par": { "countries": ["FR"], "endpoints": endpoints } },
            "services": { "chat": { "hosts": ["chat.example"], "pattern": "active-active", "regions": ["fra", "par"],
                                    "residency": [{ "clients": ["eu"], "process_in": ["eu"] }] } },
            "rollouts": { name: { "service": "chat", "model": "m", "from": "old", "to": "new",
                "regions": ["fra", "par"], "checks": { "error_rate": { "max_diff": 0.01 } }, "progress": progress } },
        });
        Table::compile(rules.to_string().as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
    }

    /// The arms of sessions in the region that comes first by name.
    fn arms(name: &str, share: u8) -> Vec<Arm> {
        let table = table(name, &json!({ "fra": share }));
        let (rollout, fra) = (&table.rollouts()[0], table.region_named("fra").unwrap());
        (0..20_000).map(|nth| arm_at(rollout, fra, &format!("acme\0session\0{nth}"), None).unwrap()).collect()
    }

    fn new(arms: &[Arm]) -> usize {
        arms.iter().filter(|arm| **arm == Arm::New).count()
    }

    #[test]
    fn each_arm_gets_its_share_of_the_sessions() {
        for share in [1, 5, 25, 50, 90] {
            let (count, expected) = (new(&arms("r", share)) as f64, 200.0 * f64::from(share));
            let deviation = libm::sqrt(expected * (1.0 - f64::from(share) / 100.0));
            assert!((count - expected).abs() < 5.0 * deviation, "{share} %: {count} of 20,000");
        }
        assert_eq!(new(&arms("r", 100)), 20_000);
    }

    #[test]
    fn a_session_with_the_new_arm_keeps_it_while_the_share_grows() {
        let mut before = arms("r", 1);
        for share in [5, 25, 50, 99, 100] {
            let after = arms("r", share);
            let lost = before.iter().zip(&after).filter(|(before, after)| after < before).count();
            assert_eq!(lost, 0, "{share} %");
            before = after;
        }
    }

    #[test]
    fn rollouts_choose_independently_of_each_other_and_of_the_shares_of_load() {
        let one = arms("r", 50);
        let both = |other: &[Arm]| one.iter().zip(other).filter(|(one, other)| one == other).count();
        assert!((9_500..10_500).contains(&both(&arms("s", 50))), "{}", both(&arms("s", 50)));
        // A rollout that is named like a region.
        let named = arms("fra", 50);
        let is_moved = |nth: usize| {
            let point = Point::of(format!("acme\0session\0{nth}").as_bytes(), "fra");
            point.on([(RegionIndex(0), Ratio(500_000))]).is_some()
        };
        let alike = named.iter().enumerate().filter(|(nth, arm)| is_moved(*nth) == (**arm == Arm::New)).count();
        assert!((9_500..10_500).contains(&alike), "{alike}");
    }

    #[test]
    fn what_an_application_says_of_its_bundles_is_read_strictly() {
        let (name, one, two) = (BundleId::parse("prompts").unwrap(), "1".repeat(64), "2".repeat(64));
        let of = |text: &str| {
            let text = text.replace("ONE", &one).replace("TWO", &two);
            choice_in(&text, &name).map(|(version, region)| (version, region.map(str::to_owned)))
        };
        let version = Version::parse(&one).unwrap();
        for text in ["prompts@ONE;region=fra", "tools@TWO;region=par, prompts@ONE;region=fra ,prompts@ONE;region=fra"] {
            assert_eq!(of(text), Some((version, Some("fra".to_owned()))), "{text}");
        }
        let found = Some((version, None));
        for text in [
            "prompts@ONE",
            " prompts@ONE ",
            "tools@TWO,prompts@ONE",
            "prompts@ONE, tools@TWO, x",
            "prompts@ONE, prompts@ONE",
            "@, =, prompts@ONE,",
        ] {
            assert_eq!(of(text), found, "{text}");
        }
        for text in [
            "",
            "prompts",
            "prompts@",
            "prompts@11111111",
            "prompts@ONE1",
            "Prompts@ONE",
            "prompts@ONE@TWO",
            "prompts @ONE",
            "prompts@ ONE",
            "prompts@ONE;q=1",
            "prompts@ONE;region",
            "prompts@ONE; region=fra",
            "prompts@ONE;region=fra, prompts@ONE;region=par",
            "prompts@ONE;region=fra, prompts@ONE",
            "prompts@ONE, prompts@TWO",
            "prompts@ONE, prompts@",
            "xprompts@ONE",
            "tools@ONE",
            "prompts=ONE",
        ] {
            assert_eq!(of(text), None, "{text}");
        }
    }

    #[test]
    fn a_region_that_has_not_begun_has_no_arms() {
        let table = table("r", &json!({ "fra": 5 }));
        let (rollout, par) = (&table.rollouts()[0], table.region_named("par").unwrap());
        assert_eq!(arm_at(rollout, par, "acme", None), None);
        let (endpoint, region) = (EndpointId::parse("a").unwrap(), &table.region(par).id);
        let requested = RequestedEndpoint { endpoint: &endpoint, model: Some("m"), name_at_endpoint: Some("old") };
        assert_eq!(role(rollout, region, None, requested), Role::Unaffected);
        let new = role(rollout, region, Some(Arm::New), requested);
        assert!(matches!(new, Role::Serves { arm: Arm::New, model: Some("new"), .. }), "{new:?}");
        for unaffected in [
            RequestedEndpoint { name_at_endpoint: Some("other"), ..requested },
            RequestedEndpoint { model: Some("n"), ..requested },
        ] {
            assert_eq!(role(rollout, region, Some(Arm::New), unaffected), Role::Unaffected);
        }
    }
}
