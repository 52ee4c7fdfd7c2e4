//! Counts the attempts by which rollouts are judged, in one isolate (a running instance of the Worker). A rollout
//! replaces something old by something new for a part of the sessions; its arms are its old and its new side. Takes
//! attempts; returns the counts of each arm since the last batch. Called by [`super::Collector`].
//!
//! A tenant adds at most [`MOST_OF_TENANT`] attempts to a region of a service between two batches. Its requests
//! resemble each other, so beyond that they would pretend to be more evidence than they are. Which attempts are judged
//! never depends on the arm. Otherwise a tenant with many requests would weigh more in the arm with the smaller share,
//! and two arms that are alike would seem to differ.

use std::collections::BTreeMap;

use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::observe::{ArmCounts, Batch, Counts, Key};
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::table::TenantIndex;

/// The most attempts of one tenant at one region of a service that are judged between two batches, both arms together.
const MOST_OF_TENANT: u32 = 16;
/// The most tenants, each at one region of a service, that are counted between two batches. Attempts of further tenants
/// aren't judged.
const MOST_TENANTS: usize = 4_096;

/// Which attempts of a request are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct JudgedAttempts {
    /// A bit for each attempt. A request has a few at most; further ones aren't judged.
    bits: u32,
    attempts: u32,
    /// The bytes of the request.
    bytes: usize,
}

impl JudgedAttempts {
    /// Notes the next attempt. `bytes` is the size of the request.
    pub(crate) fn note(&mut self, is_judged: bool, bytes: usize) {
        self.bytes = self.bytes.max(bytes);
        if is_judged && self.attempts < u32::BITS {
            self.bits |= 1 << self.attempts;
        }
        self.attempts = self.attempts.saturating_add(1);
    }

    /// The bytes of the request.
    #[must_use]
    pub(crate) fn request_bytes(self) -> usize {
        self.bytes
    }

    /// Whether an attempt is judged, by its index.
    #[must_use]
    pub(crate) fn has(self, nth: usize) -> bool {
        u32::try_from(nth).is_ok_and(|nth| nth < u32::BITS && self.bits & (1 << nth) != 0)
    }
}

/// The arms of rollouts since the last batch.
#[derive(Debug, Default)]
pub(super) struct Arms {
    counts: BTreeMap<(ServiceId, RegionId), BTreeMap<Arm, Counts>>,
    /// How many attempts of each tenant asked to be judged since the last batch.
    admitted: BTreeMap<(ServiceId, RegionId, TenantIndex), u32>,
}

impl Arms {
    /// Whether an attempt will be judged, whichever arm it has. Without tenants every attempt is.
    pub(super) fn admit(&mut self, tenant: Option<TenantIndex>, service: &ServiceId, region: &RegionId) -> bool {
        let Some(tenant) = tenant else { return true };
        let key = (service.clone(), region.clone(), tenant);
        if self.admitted.len() >= MOST_TENANTS && !self.admitted.contains_key(&key) {
            return false;
        }
        let admitted = self.admitted.entry(key).or_default();
        *admitted = admitted.saturating_add(1);
        *admitted <= MOST_OF_TENANT
    }

    /// Changes the counts of the arm that a key names. If there are too many regions, both arms of a further one are
    /// left out.
    pub(super) fn count(&mut self, key: &Key, change: impl FnOnce(&mut Counts)) {
        let Some((region, arm)) = key.region.clone().zip(key.arm.as_deref().and_then(Arm::parse)) else { return };
        let place = (key.service.clone(), region);
        if self.counts.len() < Batch::MAX_ARMS / 2 || self.counts.contains_key(&place) {
            change(self.counts.entry(place).or_default().entry(arm).or_default());
        }
    }

    /// Takes the counts of all arms.
    pub(super) fn take(&mut self) -> Vec<ArmCounts> {
        self.admitted.clear();
        let mut all = Vec::new();
        for ((service, region), arms) in core::mem::take(&mut self.counts) {
            let (service, region) = (&service, &region);
            all.extend(arms.into_iter().map(|(arm, counts)| ArmCounts {
                service: service.clone(),
                region: region.clone(),
                arm: arm.to_string(),
                counts,
            }));
        }
        all
    }
}

#[cfg(test)]
mod tests {
    use bailiwick_rules::testing::Random;

    use super::*;

    fn key(arm: Option<&str>) -> Key {
        Key {
            service: ServiceId::parse("chat").unwrap(),
            clients: "eu".into(),
            region: RegionId::parse("fra"),
            endpoint: None,
            model: None,
            tier: None,
            arm: arm.map(str::to_owned),
        }
    }

    /// The share of one tenant in the judged attempts of the old and the new arm, which has 5 % of the sessions.
    /// `of_small` is the number of other tenants, which send one request each while this one sends ten.
    fn shares_of_a_flood(of_small: u16) -> [f64; 2] {
        let (mut arms, place, mut random) = (Arms::default(), key(None), Random::new(1));
        let fra = place.region.unwrap();
        let (mut of_flood, mut all) = ([0_u32; 2], [0_u32; 2]);
        for _ in 0..50_000 / u32::from(of_small) {
            for nth in 0..of_small * 11 {
                let tenant = if nth % 11 == 0 { 1 + nth / 11 } else { 0 };
                let arm = if random.chance(5) { Arm::New } else { Arm::Old };
                if arms.admit(Some(TenantIndex(tenant.into())), &place.service, &fra) {
                    all[usize::from(arm == Arm::New)] += 1;
                    of_flood[usize::from(arm == Arm::New)] += u32::from(tenant == 0);
                }
            }
            arms.take();
        }
        [0, 1].map(|arm| f64::from(of_flood[arm]) / f64::from(all[arm]))
    }

    #[test]
    fn a_flood_of_one_tenant_weighs_the_same_in_both_arms() {
        let [old, new] = shares_of_a_flood(100);
        println!("a flood of one tenant: {old:.3} of the old arm, {new:.3} of the new one");
        assert!((old - new).abs() < 0.02, "{old} {new}");
        assert!((0.10..0.18).contains(&old), "16 of 116: {old}");
    }

    #[test]
    fn a_tenant_adds_a_bounded_number_to_each_region_of_a_service() {
        let (mut arms, [fra, par]) = (Arms::default(), ["fra", "par"].map(|name| RegionId::parse(name).unwrap()));
        let [chat, other] = ["chat", "other"].map(|name| ServiceId::parse(name).unwrap());
        let mut admit = |tenant, service, region| (0..100).filter(|_| arms.admit(tenant, service, region)).count();
        let (acme, globe) = (Some(TenantIndex(0)), Some(TenantIndex(1)));
        assert_eq!([admit(acme, &chat, &fra), admit(globe, &chat, &fra)], [16; 2]);
        assert_eq!([admit(acme, &chat, &par), admit(acme, &other, &fra)], [16; 2], "a rollout each");
        assert_eq!(admit(acme, &chat, &fra), 0);
        assert_eq!(admit(None, &chat, &fra), 100, "without tenants nobody can be told apart");
        arms.take();
        assert!(arms.admit(acme, &chat, &fra), "the next span");
        for tenant in 2..10_000 {
            arms.admit(Some(TenantIndex(tenant)), &chat, &fra);
        }
        assert!(arms.admitted.len() <= MOST_TENANTS, "{}", arms.admitted.len());
        assert!(arms.admit(Some(TenantIndex(2)), &chat, &fra), "known before there were too many");
        assert!(!arms.admit(Some(TenantIndex(9_999)), &chat, &fra));
    }

    #[test]
    fn with_too_many_tenants_or_regions_both_arms_are_left_out_alike() {
        // More tenants than are counted. Those that come first are judged in both arms.
        let [old, new] = shares_of_a_flood(5_000);
        println!("a flood among 5,000 tenants: {old:.4} of the old arm, {new:.4} of the new one");
        assert!((old - new).abs() < 0.01, "{old} {new}");

        let mut arms = Arms::default();
        let at = |nth: usize, arm| Key { region: RegionId::parse(&format!("r{nth}")), ..key(Some(arm)) };
        for nth in 0..2 * Batch::MAX_ARMS {
            arms.count(&at(nth, "old"), |counts| Counts::bump(&mut counts.attempts, "committed"));
        }
        for nth in 0..2 * Batch::MAX_ARMS {
            arms.count(&at(nth, "new"), |counts| Counts::bump(&mut counts.attempts, "committed"));
        }
        let taken = arms.take();
        let of = |arm: &str| -> Vec<_> {
            taken.iter().filter(|counts| counts.arm == arm).map(|counts| &counts.region).collect()
        };
        assert_eq!((taken.len(), of("old")), (Batch::MAX_ARMS, of("new")));
    }

    #[test]
    fn each_attempt_is_judged_or_not() {
        let mut judged = JudgedAttempts::default();
        for nth in 0..100 {
            judged.note(nth % 3 == 1, nth);
        }
        assert!((0..200).all(|nth| judged.has(nth) == (nth < 32 && nth % 3 == 1)));
        assert_eq!(judged.request_bytes(), 99);
    }

    #[test]
    fn counts_are_kept_by_arm_and_those_of_no_arm_are_none() {
        let mut arms = Arms::default();
        for arm in [Some("old"), Some("new"), Some("new"), None, Some("other")] {
            arms.count(&key(arm), |counts| Counts::bump(&mut counts.attempts, "committed"));
        }
        let taken: Vec<_> =
            arms.take().into_iter().map(|entry| (entry.arm, entry.counts.attempts["committed"])).collect();
        assert_eq!(taken, [("old".to_owned(), 1), ("new".to_owned(), 2)]);
        assert!(arms.take().is_empty());
    }
}
