//! Warnings of replicas of knowledge: those that no service needs, and needs that DNS can't respect. Takes what
//! [`Warner`] holds, adds warnings. Called by [`super::warnings`]. A replica is knowledge, such as a search index, of
//! which regions hold copies.

use super::Warner;
use crate::id::ServiceId;
use crate::rules::Service;

impl Warner<'_> {
    /// Warns of replicas that no service needs.
    pub(super) fn replicas(&mut self) {
        let needed =
            |id| self.rules.services.values().flat_map(|service| service.needs.values()).any(|all| all.contains(id));
        let idle: Vec<String> = self.rules.replicas.keys().filter(|id| !needed(id)).map(ToString::to_string).collect();
        for id in idle {
            let message = "is needed by no service, so nothing is withheld because of it; add it to the \"needs\" of a \
                service, or remove it";
            self.warn(format!("/replicas/{id}"), message);
        }
    }

    /// Warns of a service that only DNS steers and whose `needs` list only single paths, which DNS doesn't know.
    pub(super) fn needs(&mut self, id: &ServiceId, service: &Service) {
        let is_dns_alone = self.members(service).all(|region| region.endpoints.is_empty());
        let needs_any = service.needs.values().any(|needed| !needed.is_empty());
        if is_dns_alone && needs_any && !service.needs.contains_key("/") {
            let message = "lists paths, which only the edge knows, and no region has endpoints that the edge could \
                ask: nothing is withheld by them; list \"/\", which stands for every other path";
            self.warn(format!("/services/{id}/needs"), message);
        }
    }
}
