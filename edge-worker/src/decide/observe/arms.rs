//! What the arms of rollouts are judged by, in one isolate. Takes attempts; returns the counts of each arm since the
//! last batch. Called by [`super::Collector`].
//!
//! A tenant adds at most [`MOST_OF_TENANT`] attempts to an arm of a region between two batches. Its requests resemble
//! each other, so beyond that they would pretend to be more evidence than they are.

use std::collections::BTreeMap;

use bailiwick_rules::id::{RegionId, ServiceId};
use bailiwick_rules::observe::{ArmCounts, Batch, Counts, Key};
use bailiwick_rules::rollout::Arm;
use bailiwick_rules::table::TenantIndex;

/// The most attempts of one tenant at one arm of one region that are judged between two batches.
const MOST_OF_TENANT: u32 = 16;
/// The most tenants, each at one arm of one region, that are told apart between two batches. Others aren't judged.
const MOST_TENANTS: usize = 4_096;

/// Which attempts of a request are judged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Judged {
    /// A bit for each attempt. A request has a few at most; further ones aren't judged.
    bits: u32,
    attempts: u32,
}

impl Judged {
    /// Notes the next attempt.
    pub(crate) fn note(&mut self, is_judged: bool) {
        if is_judged && self.attempts < u32::BITS {
            self.bits |= 1 << self.attempts;
        }
        self.attempts = self.attempts.saturating_add(1);
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
    counts: BTreeMap<(ServiceId, RegionId, Arm), Counts>,
    admitted: BTreeMap<(TenantIndex, RegionId, Arm), u32>,
}

impl Arms {
    /// Whether an attempt will be judged. Without tenants every attempt is.
    pub(super) fn admit(&mut self, tenant: Option<TenantIndex>, region: &RegionId, arm: Arm) -> bool {
        let Some(tenant) = tenant else { return true };
        let key = (tenant, region.clone(), arm);
        if self.admitted.len() >= MOST_TENANTS && !self.admitted.contains_key(&key) {
            return false;
        }
        let admitted = self.admitted.entry(key).or_default();
        *admitted = admitted.saturating_add(1);
        *admitted <= MOST_OF_TENANT
    }

    /// Changes the counts of the arm that a key names.
    pub(super) fn count(&mut self, key: &Key, change: impl FnOnce(&mut Counts)) {
        let Some((region, arm)) = key.region.clone().zip(key.arm.as_deref().and_then(Arm::parse)) else { return };
        let place = (key.service.clone(), region, arm);
        if self.counts.len() < Batch::MAX_ARMS || self.counts.contains_key(&place) {
            change(self.counts.entry(place).or_default());
        }
    }

    /// Takes the counts of all arms.
    pub(super) fn take(&mut self) -> Vec<ArmCounts> {
        self.admitted.clear();
        let counts = core::mem::take(&mut self.counts).into_iter();
        counts
            .map(|((service, region, arm), counts)| ArmCounts { service, region, arm: arm.to_string(), counts })
            .collect()
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn a_tenant_adds_a_bounded_number_to_each_arm() {
        let (mut arms, fra) = (Arms::default(), RegionId::parse("fra").unwrap());
        let mut admit = |tenant, arm| (0..100).filter(|_| arms.admit(tenant, &fra, arm)).count();
        let (acme, globe) = (Some(TenantIndex(0)), Some(TenantIndex(1)));
        assert_eq!([admit(acme, Arm::Old), admit(globe, Arm::Old), admit(acme, Arm::New)], [16; 3]);
        assert_eq!(admit(None, Arm::Old), 100, "without tenants nobody can be told apart");
        arms.take();
        assert!(arms.admit(acme, &fra, Arm::Old), "the next span");
        for tenant in 2..10_000 {
            arms.admit(Some(TenantIndex(tenant)), &fra, Arm::Old);
        }
        assert!(arms.admitted.len() <= MOST_TENANTS, "{}", arms.admitted.len());
    }

    #[test]
    fn each_attempt_is_judged_or_not() {
        let mut judged = Judged::default();
        for nth in 0..100 {
            judged.note(nth % 3 == 1);
        }
        assert!((0..200).all(|nth| judged.has(nth) == (nth < 32 && nth % 3 == 1)));
    }

    #[test]
    fn counts_are_kept_by_arm_and_those_of_no_arm_are_none() {
        let mut arms = Arms::default();
        for arm in [Some("old"), Some("new"), Some("new"), None, Some("other")] {
            arms.count(&key(arm), |counts| Counts::bump(&mut counts.attempts, "committed"));
        }
        let taken: Vec<_> = arms.take().into_iter().map(|one| (one.arm, one.counts.attempts["committed"])).collect();
        assert_eq!(taken, [("old".to_owned(), 1), ("new".to_owned(), 2)]);
        assert!(arms.take().is_empty());
    }
}
