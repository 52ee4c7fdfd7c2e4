//! Judges values under undocumented keys, and objects of media. Takes a key and its value in the body; records a fault
//! in the [`Walk`] if the value may not be sent. Called by `walk`.
//!
//! A model host reads keys that no API reference lists: `path` in an image, `model_name` in options. Nobody knows all
//! of these keys. So the value of such a key is judged by the words in the key, and by what a host could do with the
//! value.

use super::guess::{may_hold_media, may_route};
use super::media::is_media;
use super::names::{is_hosted, routes};
use super::place::{Certainty, names_place};
use super::reach::is_public;
use super::shape::{Fields, MEDIA, Shape, WORDS, engine_input};
use super::walk::{BodyFault, Walk, named_by};
use crate::decide::json::{InvalidJson, Kind, Scan, reads_as};

impl Walk {
    /// Reads the value of a key that isn't in its object's table of fields.
    pub(super) fn unknown(&mut self, fields: Fields, key: &str, value: &mut Scan<'_>) -> Result<(), InvalidJson> {
        self.unlisted(fields, key, value, &Shape::Stray)
    }

    /// Reads the value of an undocumented key. `otherwise` is the shape of the value if the key's name gives no hint.
    #[inline(never)]
    fn unlisted(
        &mut self,
        fields: Fields,
        key: &str,
        value: &mut Scan<'_>,
        otherwise: &'static Shape,
    ) -> Result<(), InvalidJson> {
        if let Some(shape) = named_by(key) {
            if value.kind()? != Kind::Null && routes(key) {
                self.refuse(value.at(), BodyFault::Routes);
            }
            return self.value(shape, value);
        }
        // A server that ignores case reads the key as the field whose name differs only in case.
        let like = fields.iter().find(|(name, _)| reads_as(key, name)).map(|(_, shape)| shape);
        if let Some(
            shape @ (Shape::Kind
            | Shape::Tools
            | Shape::ToolChoice
            | Shape::Scoped(_)
            | Shape::Data
            | Shape::Source
            | Shape::Id
            | Shape::Kept(_)
            | Shape::Model(_)
            | Shape::Metadata
            | Shape::Grader
            | Shape::Graders),
        ) = like
        {
            return self.value(shape, value);
        }
        if let Some(shape) = engine_input(key) {
            return self.value(shape, value);
        }
        let (kind, at, routes) = (value.kind()?, value.at(), routes(key));
        let may_be_path = matches!(kind, Kind::String | Kind::Array | Kind::Object);
        let shape = if may_be_path && !routes && may_hold_media(key) { &Shape::Data } else { otherwise };
        self.value(shape, value)?;
        if kind != Kind::Null && routes {
            self.refuse(at, BodyFault::Routes);
        }
        if !self.allows_hosted_tools && !matches!(kind, Kind::Null | Kind::False) && is_hosted(key) {
            self.refuse(at, BodyFault::Tool(key.to_owned()));
        }
        Ok(())
    }

    /// Reads a documented object whose fields aren't listed here. Most of its keys are documented words of the API.
    pub(super) fn undescribed(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            if let Some((_, shape)) = WORDS.iter().find(|(name, _)| *name == key) {
                return self.value(shape, value);
            }
            self.unlisted(&[], &key, value, &Shape::Unknown)
        })
    }

    /// Reads an object of media. A string under an undocumented key in it must be media too, or the body is refused.
    pub(super) fn media(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let outer = self.stray.take();
        self.fields(MEDIA, scan)?;
        if let Some(at) = core::mem::replace(&mut self.stray, outer) {
            self.refuse(at, BodyFault::Place);
        }
        Ok(())
    }

    /// Reads `source` of a part, as in Anthropic's API: media, or text if its `type` is `text`. The type may follow the
    /// data, so the data is judged at the end.
    #[inline(never)]
    pub(super) fn source(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let outer = self.stray.take();
        let (mut types, mut texts, mut data) = (0, 0, None);
        scan.object(|key, value| {
            let is_string = value.kind()? == Kind::String;
            let at = value.at();
            if is_string && reads_as(&key, "type") {
                let kind = value.string()?;
                (types, texts) = (types + 1, texts + usize::from(kind == "text"));
                if self.is_refused_place(&kind, Certainty::Word) {
                    self.refuse(at, BodyFault::Place);
                }
                return Ok(());
            }
            if is_string && key == "data" {
                if !self.may_be_media(&value.string()?) {
                    data = data.or(Some(at));
                }
                return Ok(());
            }
            if key == "content" { self.value(&Shape::Content, value) } else { self.field(MEDIA, &key, value) }
        })?;
        let is_text = types > 0 && types == texts;
        let stray = core::mem::replace(&mut self.stray, outer);
        if let Some(at) = data.filter(|_| !is_text).or(stray) {
            self.refuse(at, BodyFault::Place);
        }
        Ok(())
    }

    /// Reads a value inside the value of an undocumented key.
    pub(super) fn nested(&mut self, key: &str, value: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let (kind, at) = (value.kind()?, value.at());
        self.unknown(&[], key, value)?;
        self.guess(key, kind, at);
        Ok(())
    }

    /// Refuses a value that a host may route by. The key's name is only a guess, so `null`, `false` and numbers pass.
    pub(super) fn guess(&mut self, key: &str, kind: Kind, at: usize) {
        if !matches!(kind, Kind::Null | Kind::False | Kind::Number) && may_route(key) {
            self.refuse(at, BodyFault::Routes);
        }
    }

    /// Whether a text names a place from which the model host may not fetch.
    pub(super) fn is_refused_place(&self, text: &str, certainty: Certainty) -> bool {
        names_place(text, certainty) && (self.refuses_remote_urls || !is_public(text))
    }

    /// Whether a text is allowed where media is expected.
    pub(super) fn may_be_media(&self, text: &str) -> bool {
        is_media(text) || !self.refuses_remote_urls && is_public(text)
    }
}
