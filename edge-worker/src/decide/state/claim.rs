//! Opens the sealed ids that a request names. Takes its path, query and body; returns the one endpoint that has all of
//! it, and puts that endpoint's own ids in their places. Called by `prepare` and `batch`.
//!
//! An id of another tenant counts as missing, whatever it names. Ids of items are a special case: many clients send
//! complete items back, with ids that nobody needs, and some of these were never sealed. Such an id never reaches a
//! host that may have stored something under it. An item with all that a model needs gets another id. An item that only
//! its maker can read goes without an id. An item that holds nothing else is refused.

use bailiwick_rules::rules::Allowance;
use bailiwick_rules::table::{ServiceIndex, Table};

use super::sealed_id::{IdOpener, Keyring, OpenedId, Owner, is_marked, renamed};
use super::{Place, may_hold_items};
use crate::decide::body::Inspected;
use crate::decide::body::ids::{ItemContents, ItemId, Replacement};
use crate::decide::envelope::Failure;
use crate::decide::route::query::Query;
use crate::decide::route::{Class, Route};

/// The places where a request may name something that was handed out.
pub(crate) struct NamedIds<'r> {
    /// The path.
    pub(crate) route: &'r mut Route,
    /// The query.
    pub(crate) query: &'r mut Query,
    /// The body, if it is JSON.
    pub(crate) body: Option<&'r mut Inspected>,
    /// The model, by the client's name.
    pub(crate) model: Option<&'r str>,
}

/// What the opened ids say.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Claimed {
    /// The endpoint that has all of it.
    pub(crate) place: Option<Place>,
    /// That endpoint's name for the model, if the client's name was handed out by a fine-tuning job.
    pub(crate) model: Option<String>,
    /// Whether the request names anything besides the model.
    pub(crate) is_stateful: bool,
}

/// Whether a request can't be read without the keys that seal ids.
#[must_use]
pub(crate) fn needs_keys(table: &Table, service: ServiceIndex, named: &NamedIds<'_>) -> bool {
    let stores = table.service(service).allow.contains(&Allowance::Store);
    let body = named.body.as_deref();
    let is_state = named.route.class() == Class::State || named.model.is_some_and(is_marked);
    is_state || body.is_some_and(|body| body.ids().next().is_some() || stores && body.items().iter().any(is_sealed))
}

fn is_sealed(item: &ItemId) -> bool {
    is_marked(&item.id)
}

/// Opens all ids of a request.
///
/// # Errors
/// 404 for anything that isn't `owner`'s. 400 for things at more than one endpoint, and for references to items if no
/// answers are stored. 503 if keys are needed and missing.
pub(crate) fn claim(
    keys: Option<&Keyring>,
    table: &Table,
    service: ServiceIndex,
    owner: &Owner,
    named: NamedIds<'_>,
) -> Result<Claimed, Failure> {
    let is_state = named.route.class() == Class::State;
    let has_ids = named.body.as_deref().is_some_and(|body| body.ids().next().is_some() || !body.items().is_empty());
    let marked_model = named.model.filter(|model| is_marked(model));
    if !is_state && !has_ids && marked_model.is_none() {
        return Ok(Claimed::default());
    }
    let opener = keys.map(|keys| IdOpener::new(keys, table, owner));
    let mut claims = Claims { opener, found: None };
    let model = marked_model.map(|model| {
        let opened = claims.open(model);
        opened.map_err(|failure| match failure {
            Failure::UnknownId => Failure::ModelNotFound { model: model.to_owned() },
            other => other,
        })
    });
    let model = model.transpose()?;
    if is_state {
        let ids = claims.open_all(named.route.ids())?;
        named.route.replace_ids(&mut ids.into_iter());
        let ids = claims.open_all(named.query.ids())?;
        named.query.replace_ids(&mut ids.into_iter());
    }
    let mut is_stateful = is_state;
    if let Some(body) = named.body {
        let ids = claims.open_all(body.ids())?;
        is_stateful |= !ids.is_empty();
        body.replace_ids(ids.into_iter());
        if !body.items().is_empty() {
            is_stateful |= Items { table, service, owner }.judge(&mut claims, body.items_mut())?;
        }
    }
    Ok(Claimed { place: claims.found, model, is_stateful })
}

/// The ids that were opened so far.
struct Claims<'a> {
    /// `None` without keys.
    opener: Option<IdOpener<'a>>,
    /// The endpoint that has all of it.
    found: Option<Place>,
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

    fn pin(&mut self, place: &Place) -> Result<(), Failure> {
        match &self.found {
            None => self.found = Some(place.clone()),
            Some(one) if one == place => {}
            Some(_) => return Err(Failure::IdsApart),
        }
        Ok(())
    }
}

/// Judges the ids of items.
struct Items<'a> {
    table: &'a Table,
    service: ServiceIndex,
    owner: &'a Owner,
}

impl Items<'_> {
    /// Judges each id. Returns whether an item is stored at the endpoint that the request goes to.
    fn judge(&self, claims: &mut Claims<'_>, items: &mut [ItemId]) -> Result<bool, Failure> {
        let stores = self.table.service(self.service).allow.contains(&Allowance::Store);
        if !stores && items.iter().any(|item| item.holds == ItemContents::Reference) {
            return Err(Failure::ItemReference);
        }
        let mut opened: Vec<Option<OpenedId>> = Vec::with_capacity(items.len());
        for item in &*items {
            let found = claims.opener.as_ref().filter(|_| is_sealed(item)).and_then(|opener| opener.open(&item.id));
            if stores && is_sealed(item) && found.is_none() {
                return Err(if claims.opener.is_some() { Failure::UnknownId } else { Failure::NoStateKey });
            }
            if let Some(found) = found.as_ref().filter(|_| item.holds != ItemContents::Content) {
                claims.pin(&found.place)?;
            }
            opened.push(found);
        }
        // A complete item could be read anywhere. The latest one says where the conversation was.
        if claims.found.is_none() {
            claims.found = opened.iter().flatten().last().map(|latest| latest.place.clone());
        }
        let (mut holds_items, mut is_there) = (None, false);
        for (item, opened) in items.iter_mut().zip(opened) {
            let here = opened.filter(|opened| Some(&opened.place) == claims.found.as_ref());
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
                // That endpoint stores nobody's answers.
                None => Replacement::Same,
            };
        }
        Ok(is_there)
    }

    /// What is sent instead of an id that the host must not see.
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
