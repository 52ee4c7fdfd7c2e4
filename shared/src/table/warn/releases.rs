//! Warns of endpoints that have a model with a release (what should run under the model's name), where no node can
//! check what they run. Takes what [`Warner`] holds, adds warnings. Called by [`super::warnings`].

use super::Warner;
use crate::table::releases::endpoint_model;

impl Warner<'_> {
    /// Warns of endpoints that have the model of a release, but no monitor that asks a model.
    pub(super) fn releases(&mut self) {
        let mut warnings = Vec::new();
        for model in self.rules.releases.keys() {
            for region in self.regions {
                for (id, endpoint) in &region.endpoints {
                    let is_asked = endpoint.monitor.as_ref().is_some_and(|monitor| monitor.probe.model().is_some());
                    if endpoint_model(endpoint, model).is_some() && !is_asked {
                        let message = format!(
                            "has the model {model:?}, of which there is a release, but no monitor of \"type\": \
                             \"openai\", so no node can check what it runs; add such a monitor"
                        );
                        warnings.push((format!("/regions/{}/endpoints/{id}", region.id), message));
                    }
                }
            }
        }
        for (place, message) in warnings {
            self.warn(place, message);
        }
    }
}
