//! Writes the metrics of zones: whether they are served, their keys, and the signatures that are made while a query is
//! answered. Called by [`super::Exposition::encode`].

use std::fmt;

use prometheus_client::encoding::DescriptorEncoder;

use super::{Exposition, counter, gauge, sample};
use crate::state::owner;

impl Exposition {
    /// Whether each zone is served, and as its files say.
    pub(super) fn zones(&self, encoder: &mut DescriptorEncoder<'_>, status: &owner::Status) -> fmt::Result {
        let snapshot = self.handle.snapshot_owned();
        let sources = snapshot.world().zone_sources();
        let zones: Vec<(String, bool)> =
            sources.iter().map(|zone| (zone.origin.to_string(), zone.is_missing())).collect();
        let help = "1 while a zone is not served: no version of it could be used yet";
        let mut missing = gauge(encoder, "zone_missing", help)?;
        for (zone, is_missing) in &zones {
            missing.encode_family(&[("zone", zone.as_str())])?.encode_gauge(&u64::from(*is_missing))?;
        }
        let help = "1 while a zone is not served as its files say";
        let mut failing = gauge(encoder, "zone_failing", help)?;
        for (zone, is_missing) in &zones {
            let failed = u64::from(*is_missing || status.zones_failing.contains_key(zone));
            failing.encode_family(&[("zone", zone.as_str())])?.encode_gauge(&failed)?;
        }
        Ok(())
    }

    /// Which keys each signed zone has.
    pub(super) fn keys(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let snapshot = self.handle.snapshot_owned();
        if snapshot.world().key_sets().next().is_none() {
            return Ok(());
        }
        let help = "Keys in a signed zone's DNSKEY RRset, with the digest by which nodes that hold different keys can \
            be told apart";
        let mut metric = gauge(encoder, "zone_keys", help)?;
        for key_set in snapshot.world().key_sets() {
            let (zone, keys) = (key_set.zone_name(), u64::try_from(key_set.dnskeys().count()).unwrap_or(u64::MAX));
            metric.encode_family(&[("zone", zone.as_str()), ("sha256", key_set.digest())])?.encode_gauge(&keys)?;
        }
        Ok(())
    }

    /// Until when zones are signed, and how signatures are made.
    pub(super) fn signatures(&self, encoder: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let (snapshot, status) = (self.handle.snapshot_owned(), self.handle.status());
        let world = snapshot.world();
        if world.key_sets().next().is_none() {
            return Ok(());
        }
        let help = "When a signed zone's first signature is no longer served unless it is renewed before, in seconds \
            since 1970";
        let mut until = gauge(encoder, "signed_until_seconds", help)?;
        for (zone, time) in world.signed_until(self.handle.now()) {
            let zone = zone.origin().to_string();
            until.encode_family(&[("zone", zone.as_str())])?.encode_gauge(&(time.0 / 1000))?;
        }
        let mut renewals = counter(encoder, "signature_renewals", "Times that signatures were renewed")?;
        sample(&mut renewals, &[], status.renewals)?;
        let failing = u64::from(status.not_renewed.is_some());
        gauge(encoder, "signature_renewal_failing", "1 while signatures can't be renewed")?.encode_gauge(&failing)?;
        let help = "Signatures that answers needed at once, by what became of them: made, found in memory, or refused \
            for the budget";
        let mut signatures = counter(encoder, "signatures_on_demand", help)?;
        for (outcome, count) in [
            ("made", world.online_signer().signed_count()),
            ("found", world.online_signer().cache_hits()),
            ("refused", world.online_signer().refusals()),
        ] {
            sample(&mut signatures, &[("outcome", outcome)], count)?;
        }
        Ok(())
    }
}
