//! Warnings of monitors that ask a model and lack something that they need. Takes what [`Warner`] holds, adds warnings.
//! Called by [`super::warnings`].

use super::Warner;
use crate::rules::PROBE_TOKENS;

impl Warner<'_> {
    /// Warns of monitors that ask a model: without the credential that the endpoint has, with a budget for fewer probes
    /// than their interval asks for, or without the metrics that tell a full engine from a dead one.
    pub(super) fn model_probes(&mut self) {
        let mut warnings = Vec::new();
        for region in self.regions {
            for (place, monitor) in region.monitors() {
                let Some((probe, budget)) = monitor.probe.model().and_then(|probe| Some((probe, probe.budget?))) else {
                    continue;
                };
                let probes_of_interval = budget.per.0 / monitor.interval.0.max(1);
                let probes_of_budget = budget.tokens / PROBE_TOKENS;
                if probes_of_budget < probes_of_interval {
                    let message = format!(
                        "pays for {probes_of_budget} probes of {} in {}, where \"interval\" asks for \
                         {probes_of_interval}: while it is spent the last state stands; write {} tokens, or a longer \
                         interval",
                        probe.model,
                        budget.per,
                        probes_of_interval.saturating_mul(PROBE_TOKENS)
                    );
                    warnings.push((format!("{place}/budget"), message));
                }
            }
            for (id, endpoint) in &region.endpoints {
                let place = format!("/regions/{}/endpoints/{id}/monitor", region.id);
                let Some(probe) = endpoint.monitor.as_ref().and_then(|monitor| monitor.probe.model()) else { continue };
                if probe.http.secret.is_none() && endpoint.secret.is_some() {
                    let message = "asks without a credential an endpoint that has a \"secret\"; name one in \"secret\" \
                        here, whose value the DNS nodes have";
                    warnings.push((place.clone(), message.to_owned()));
                }
                if endpoint.load.is_none() && endpoint.engine.is_some() {
                    let message = "asks an engine whose metrics aren't read: while it is full it can't be told from \
                        one that is down; add \"load\" to the endpoint";
                    warnings.push((place, message.to_owned()));
                }
            }
        }
        for (place, message) in warnings {
            self.warn(place, message);
        }
    }
}
