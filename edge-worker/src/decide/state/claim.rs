//! Opens the sealed ids that a request names. Takes the request's path, query and body; replaces each sealed id by the
//! endpoint's own id, and returns the one endpoint that has all of the named objects. Called by `prepare` and `batch`.
//! A sealed id is an id for the client that also names the endpoint which has the object, and proves who owns it.
//!
//! An id of another tenant counts as unknown, whatever object it names. Ids of items (the messages and tool calls of a
//! conversation) are a special case: many clients send complete items back, with ids that the model doesn't need, and
//! some of these ids were never sealed. An id that can't be opened never reaches a host that may have stored something
//! under this id. An item with all content that a model needs gets another id. An item with encrypted content is sent
//! without an id. An item with nothing but its id is refused.

use bailiwick_rules::rules::Allowance;
use bailiwick_rules::table::{ServiceIndex, Table};

use super::sealed_id::{IdOpener, Keyring, OpenedId, Owner, is_marked, renamed};
use super::{Place, may_hold_items};
use crate::decide::body::Inspected;
use crate::decide::body::ids::{ItemContents, ItemId, Replacement};
use crate::decide::envelope::Failure;
use crate::decide::route::query::Query;
use crate::decide::route::{Class, Route};

/// The places of a request that may hold sealed ids.
pub(crate) struct NamedIds<'r> {
    /// The path.
    pub(crate) route: &'r mut Route,
    /// The query.
    pub(crate) query: &'r mut Query,
    /// The body, if it is JSON.
    pub(crate) body: Option<&'r mut Inspected>,
    /// The client's name of the model.
    pub(crate) model: Option<&'r str>,
}

/// What the opened ids say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct IdClaims {
    /// The endpoint that has all objects that the request names; `None` if it names none.
    pub(crate) place: Option<Place>,
    /// That endpoint's name for the model, if the client's name is the sealed name of a fine-tuned model.
    pub(crate) model: Option<String>,
    /// Whether the request names objects at the endpoint besides the model.
    pub(crate) is_stateful: bool,
}

/// Whether the keys that seal ids are needed to read a request.
#[must_use]
pub(crate) fn needs_keys(table: &Table, service: ServiceIndex, named_ids: &NamedIds<'_>) -> bool {
    let stores = table.service(service).allow.contains(&Allowance::Store);
    let body = named_ids.body.as_deref();
    let is_state = named_ids.route.class() == Class::State || named_ids.model.is_some_and(is_marked);
    is_state || body.is_some_and(|body| body.ids().next().is_some() || stores && body.items().iter().any(is_sealed))
}

fn is_sealed(item: &ItemId) -> bool {
    is_marked(&item.id)
}

/// Opens all ids of a request.
///
/// # Errors
/// 404 for an id that isn't `owner`'s. 400 for ids of more than one endpoint, and for references to items if
/// the service doesn't store answers. 503 if keys are needed and missing.
pub(crate) fn claim(
    keys: Option<&Keyring>,
    table: &Table,
    service: ServiceIndex,
    owner: &Owner,
    named_ids: NamedIds<'_>,
) -> Result<IdClaims, Failure> {
    let is_state = named_ids.route.class() == Class::State;
    let has_ids = named_ids.body.as_deref().is_some_and(|body| body.ids().next().is_some() || !body.items().is_empty());
    let marked_model = named_ids.model.filter(|model| is_marked(model));
    if !is_state && !has_ids && marked_model.is_none() {
        return Ok(IdClaims::default());
    }
    let opener = keys.map(|keys| IdOpener::new(keys, table, owner));
    let mut claims = Claims { opener, place: None };
    let model = marked_model.map(|model| {
        let opened = claims.open(model);
        opened.map_err(|failure| match failure {
            Failure::UnknownId => Failure::ModelNotFound { model: model.to_owned() },
            other => other,
        })
    });
    let model = model.transpose()?;
    if is_state {
        let ids = claims.open_all(named_ids.route.ids())?;
        named_ids.route.replace_ids(&mut ids.into_iter());
        let ids = claims.open_all(named_ids.query.ids())?;
        named_ids.query.replace_ids(&mut ids.into_iter());
    }
    let mut is_stateful = is_state;
    if let Some(body) = named_ids.body {
        let ids = claims.open_all(body.ids())?;
        is_stateful |= !ids.is_empty();
        body.replace_ids(ids.into_iter());
        if !body.items().is_empty() {
            is_stateful |= Items { table, service, owner }.judge(&mut claims, body.items_mut())?;
        }
    }
    Ok(IdClaims { place: claims.place, model, is_stateful })
}

/// The ids that were opened so far.
struct Claims<'a> {
    /// `None` if the Worker has no keys.
    opener: Option<IdOpener<'a>>,
    /// The endpoint that has all objects that were named so far.
    place: Option<Place>,
}

impl Claims<'_> {
    fn open(&mut self, id: &str) -> Result<String, Failure> {
        let opener = self.opener.as_ref().ok_or(Failure::NoStateKey)?;
        let OpenedId { place, id } = opener.open(id).ok_or(Failure::UnknownId)?;
        self.pin(&place)?;
        Ok(id)
    }

    fn open_all<'i>(&mut self, ids: impl Iterator<Item = &'i str>) -> Result<Vec<String>, Failure> {
        ids.map(|id| self.open(id)).collect()
    }

    /// Notes the endpoint that has an object. All objects of a request must be at one endpoint.
    fn pin(&mut self, place: &Place) -> Result<(), Failure> {
        match &self.place {
            None => self.place = Some(place.clone()),
            Some(known_place) if known_place == place => {}
            Some(_) => return Err(Failure::IdsApart),
        }
        Ok(())
    }
}

/// Decides what is sent in place of the ids of items.
struct Items<'a> {
    table: &'a Table,
    service: ServiceIndex,
    owner: &'a Owner,
}

impl Items<'_> {
    /// Decides what is sent in place of each id. Returns whether an item is stored at the endpoint that the request
    /// goes to.
    fn judge(&self, claims: &mut Claims<'_>, items: &mut [ItemId]) -> Result<bool, Failure> {
        let stores = self.table.service(self.service).allow.contains(&Allowance::Store);
        if !stores && items.iter().any(|item| item.holds == ItemContents::Reference) {
            return Err(Failure::ItemReference);
        }
        let mut opened: Vec<Option<OpenedId>> = Vec::with_capacity(items.len());
        for item in &*items {
            let opened_id = claims.opener.as_ref().filter(|_| is_sealed(item)).and_then(|opener| opener.open(&item.id));
            if stores && is_sealed(item) && opened_id.is_none() {
                return Err(if claims.opener.is_some() { Failure::UnknownId } else { Failure::NoStateKey });
            }
            if let Some(opened_id) = opened_id.as_ref().filter(|_| item.holds != ItemContents::Content) {
                claims.pin(&opened_id.place)?;
            }
            opened.push(opened_id);
        }
        // Any endpoint could read a complete item. The request prefers the endpoint of the latest item, where the
        // conversation was before.
        if claims.place.is_none() {
            claims.place = opened.iter().flatten().last().map(|latest| latest.place.clone());
        }
        let (mut holds_items, mut is_there) = (None, false);
        for (item, opened) in items.iter_mut().zip(opened) {
            let here = opened.filter(|opened| Some(&opened.place) == claims.place.as_ref());
            item.sent = match here {
                Some(opened) => {
                    is_there = true;
                    Replacement::Other(opened.id)
                }
                None if is_sealed(item)
                    || *holds_items.get_or_insert_with(|| may_hold_items(self.table, self.service)) =>
                {
                    self.without(item)?
                }
                // No endpoint of the service stores answers, so the id can name nothing there.
                None => Replacement::Same,
            };
        }
        Ok(is_there)
    }

    /// What is sent in place of an id that the host must not see.
    fn without(&self, item: &ItemId) -> Result<Replacement, Failure> {
        match item.holds {
            ItemContents::Reference | ItemContents::Nothing => Err(Failure::UnknownId),
            // The encrypted content may contain the id, and another id could make the host refuse it.
            ItemContents::Encrypted => Ok(Replacement::None),
            ItemContents::Content => Ok(Replacement::Other(renamed(self.owner, &item.id))),
        }
    }
}

#[cfg(test)]
mod tests;
