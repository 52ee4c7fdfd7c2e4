//! Reads a body by the shapes of its values. Takes a value and its [`Shape`]; collects the ids and models in the value,
//! the names to scope, and the first fault. Called by `body`, `field` and `line`.

use core::ops::Range;
use std::borrow::Cow;

use bailiwick_rules::rules::Allowance;

use super::keys::{names_id, names_kept, names_model};
use super::names::{is_local_tool, routes};
use super::place::{Certainty, names_path, names_place};
use super::reach::is_public;
use super::scope::NamedField;
use super::shape::{CHOICE, Fields, KINDS, MEDIA_KINDS, NODE, Shape, TOOL};
use crate::decide::json::{InvalidJson, Kind, Scan, known_as, letters, reads_as};

/// Fields that hold a URL to fetch, even inside of hosted tools.
const URL_FIELDS: &[&str] = &["image_url", "file_url", "audio_url", "video_url", "document_url", "input_image_mask"];

/// Keys of graders.
const GRADERS: &[&str] = &["grader", "graders", "testing_criteria"];

/// Keys of a JSON Schema whose values are schemas under names that the client chose.
const SCHEMAS_BY_NAME: &[&str] =
    &["properties", "patternProperties", "$defs", "definitions", "dependentSchemas", "dependencies"];
/// Keys of a JSON Schema whose values are data.
const SCHEMA_DATA: &[&str] = &["enum", "const", "default", "example", "examples", "required", "dependentRequired"];
/// Keys of a JSON Schema that refer to another schema. Some engines fetch that schema.
const SCHEMA_REFERENCES: &[&str] = &["$ref", "$dynamicRef", "$recursiveRef"];
/// Prefixes of the names of JSON Schema's dialects. Engines don't fetch these names.
const DIALECTS: &[&str] = &["http://json-schema.org/", "https://json-schema.org/"];

/// A reason to refuse a body.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum BodyFault {
    /// A value that names a place from which the model host would fetch.
    Place,
    /// A value that routes: it tells a host where or by which model to process the request.
    Routes,
    /// A part, message or item of an undocumented kind.
    Kind,
    /// A top-level field that is undocumented.
    Unknown,
    /// A priority over other requests.
    Priority,
    /// A duplicate of a key on which the edge acts.
    Twice(&'static str),
    /// A tool that the host runs.
    Tool(String),
    /// A reference to a stored item.
    Reference,
    /// A value that an engine compiles or unpickles.
    EngineInput,
    /// A list or an object in `metadata`, where texts belong.
    NoText,
    /// An id that isn't a text.
    Id,
}

/// Reads values by their shapes.
pub(super) struct Walk {
    /// Whether URLs of the public internet are refused too.
    pub(super) refuses_remote_urls: bool,
    /// Whether the service allows values that engines compile or unpickle.
    allows_engine_inputs: bool,
    /// Whether the service allows tools that the host runs.
    pub(super) allows_hosted_tools: bool,
    /// The ids, with their ranges in the body, in order.
    pub(super) ids: Vec<(Range<usize>, String)>,
    /// The names that engines share among all tenants, with their ranges in the body, in order.
    pub(super) names: Vec<(Range<usize>, NamedField, String)>,
    /// The models below the top level, with their ranges in the body, in order.
    pub(super) models: Vec<(Range<usize>, String)>,
    /// The first fault, and its position in the body.
    pub(super) fault: Option<(usize, BodyFault)>,
    /// The position of the first string in the current object that stands under an undocumented key and isn't media.
    pub(super) stray: Option<usize>,
    /// Whether the current part of a message is media.
    is_of_media: bool,
}

impl Walk {
    /// Starts to read a body of a service with these permissions.
    pub(super) fn new(allow: &[Allowance]) -> Self {
        Self {
            refuses_remote_urls: !allow.contains(&Allowance::RemoteUrls),
            allows_hosted_tools: allow.contains(&Allowance::HostedTools),
            allows_engine_inputs: allow.contains(&Allowance::EngineInputs),
            ids: Vec::new(),
            names: Vec::new(),
            models: Vec::new(),
            fault: None,
            stray: None,
            is_of_media: false,
        }
    }

    /// Records a fault at a position, unless another fault was recorded before.
    pub(super) fn refuse(&mut self, at: usize, fault: BodyFault) {
        if self.fault.is_none() {
            self.fault = Some((at, fault));
        }
    }

    /// Reads the value at the scanner's position.
    pub(super) fn value(&mut self, shape: &'static Shape, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        match (scan.kind()?, shape) {
            (_, Shape::Free) => scan.skip().map(drop),
            (kind, Shape::EngineInput(inner)) => {
                if !self.allows_engine_inputs && !matches!(kind, Kind::Null | Kind::False) {
                    self.refuse(scan.at(), BodyFault::EngineInput);
                }
                self.value(inner, scan)
            }
            (Kind::String, _) => self.string(shape, scan),
            (Kind::Array, Shape::Metadata) => self.refuse_and_skip(BodyFault::NoText, scan),
            (Kind::Array, _) => scan.array(|item| self.value(shape, item)),
            (Kind::Object, _) => self.object(shape, scan),
            (_, Shape::Tools) => self.tool_without_type(scan),
            (Kind::Number | Kind::True, Shape::Id | Shape::Kept(_) | Shape::HostedKept) => {
                self.refuse_and_skip(BodyFault::Id, scan)
            }
            _ => scan.skip().map(drop),
        }
    }

    /// Records a fault, and skips the value.
    fn refuse_and_skip(&mut self, fault: BodyFault, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        self.refuse(scan.at(), fault);
        scan.skip().map(drop)
    }

    /// Reads a string.
    fn string(&mut self, shape: &'static Shape, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let start = scan.at();
        let place = match shape {
            Shape::Text | Shape::Content | Shape::Items | Shape::Hosted => return scan.skip().map(drop),
            Shape::Tools => return self.tool_without_type(scan),
            Shape::Schema => return self.schema_text(scan),
            Shape::Kind => return self.kind(&scan.string()?, start),
            Shape::Metadata => return self.refuse_and_skip(BodyFault::NoText, scan),
            Shape::Model(_) => return self.model(scan),
            Shape::Id | Shape::Kept(_) | Shape::HostedKept => {
                let id = scan.string()?.into_owned();
                self.ids.push((start..scan.at(), id));
                return Ok(());
            }
            Shape::Scoped(named) => {
                let name = scan.string()?.into_owned();
                let place = self.is_refused_place(&name, Certainty::Label);
                self.names.push((start..scan.at(), *named, name));
                place
            }
            Shape::Label | Shape::Blob => self.is_refused_place(&scan.string()?, Certainty::Label),
            Shape::Data | Shape::Source => !self.may_be_media(&scan.string()?),
            Shape::Stray => {
                let text = scan.string()?;
                if self.stray.is_none() && !self.may_be_media(&text) {
                    self.stray = Some(start);
                }
                self.is_refused_place(&text, Certainty::Word)
            }
            Shape::Word | Shape::Object(_) => {
                let word = scan.string()?;
                self.is_refused_place(&word, Certainty::Word) || names_path(&word)
            }
            _ => self.is_refused_place(&scan.string()?, Certainty::Word),
        };
        if place {
            self.refuse(start, BodyFault::Place);
        }
        Ok(())
    }

    /// Reads an object.
    fn object(&mut self, shape: &'static Shape, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        match shape {
            // No API documents an object as the name of a model.
            Shape::Model([]) => self.refuse_and_skip(BodyFault::Routes, scan),
            Shape::Object(fields) | Shape::Kept(fields) | Shape::Model(fields) => self.fields(fields, scan),
            Shape::Map(inner) => scan.object(|_, value| self.value(inner, value)),
            Shape::Content => self.node(false, scan),
            Shape::Items => self.node(true, scan),
            Shape::Data => self.media(scan),
            Shape::Source => self.source(scan),
            Shape::Unknown => self.undescribed(scan),
            Shape::Schema => self.schema(scan),
            Shape::Tools => self.tool(scan),
            Shape::ToolChoice => self.choice(scan),
            Shape::Hosted => self.hosted(false, scan),
            Shape::HostedKept => self.hosted(true, scan),
            Shape::Id => scan.object(|_, value| self.value(&Shape::Id, value)),
            Shape::Metadata => self.metadata(scan),
            Shape::Grader => self.grader(false, scan),
            Shape::Graders => self.grader(true, scan),
            _ => scan.object(|key, value| self.nested(&key, value)),
        }
    }

    /// Reads an object with these fields.
    pub(super) fn fields(&mut self, fields: Fields, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| self.field(fields, &key, value))
    }

    /// Reads the value of a key. `fields` are the fields of the object that holds the key.
    pub(super) fn field(&mut self, fields: Fields, key: &str, value: &mut Scan<'_>) -> Result<(), InvalidJson> {
        match fields.iter().find(|(name, _)| *name == key) {
            Some((_, shape)) => self.value(shape, value),
            None => self.unknown(fields, key, value),
        }
    }

    /// Reads a message, a part of a message, or an item of the Responses API.
    fn node(&mut self, is_item: bool, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let start = scan.at();
        let outer = (self.stray.take(), core::mem::take(&mut self.is_of_media));
        let mut kinds = 0;
        scan.object(|key, value| {
            if key == "type" && value.kind()? == Kind::String {
                kinds += 1;
                // The file `ids` judges the id of such an item.
                if is_item && value.clone().string()? == "item_reference" {
                    return value.skip().map(drop);
                }
            }
            self.field(NODE, &key, value)
        })?;
        if kinds > 1 {
            self.refuse(start, BodyFault::Twice("type"));
        }
        if let Some(at) = self.stray.filter(|_| self.is_of_media) {
            self.refuse(at, BodyFault::Place);
        }
        (self.stray, self.is_of_media) = outer;
        Ok(())
    }

    /// Judges the `type` of a message, a part or an item.
    fn kind(&mut self, kind: &str, at: usize) -> Result<(), InvalidJson> {
        let is_media = kind != "text" && MEDIA_KINDS.contains(&kind);
        self.is_of_media |= is_media;
        if kind == "item_reference" {
            self.refuse(at, BodyFault::Reference);
        } else if !is_media && !KINDS.contains(&kind) {
            let place = self.is_refused_place(kind, Certainty::Word);
            self.refuse(at, if place { BodyFault::Place } else { BodyFault::Kind });
        }
        Ok(())
    }

    /// Refuses a value in `tools` that isn't an object, unless the service allows hosted tools (tools that the model
    /// host runs).
    fn tool_without_type(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let at = scan.at();
        if !self.allows_hosted_tools && scan.kind()? != Kind::Null {
            self.refuse(at, BodyFault::Tool("a tool without a type".to_owned()));
        }
        scan.skip().map(drop)
    }

    /// Reads a tool. Each of its `type`s must be one that the client runs.
    fn tool(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        if self.allows_hosted_tools {
            return self.hosted(false, scan);
        }
        let start = scan.at();
        let (mut named, mut shell, mut local) = (false, false, false);
        scan.object(|key, value| {
            let is_kind = key == "type" || TOOL.iter().all(|(name, _)| *name != key) && reads_as(&key, "type");
            if is_kind && value.kind()? == Kind::String {
                let (at, kind) = (value.at(), value.string()?);
                (named, shell) = (true, shell || kind == "shell");
                if !is_local_tool(&kind) {
                    self.refuse(at, BodyFault::Tool(kind.into_owned()));
                }
                return Ok(());
            }
            if key == "environment" {
                local = is_local(&mut value.clone())?;
            }
            self.field(TOOL, &key, value)
        })?;
        if !named {
            self.refuse(start, BodyFault::Tool("a tool without a type".to_owned()));
        } else if shell && !local {
            self.refuse(start, BodyFault::Tool("shell".to_owned()));
        }
        Ok(())
    }

    /// Reads `tool_choice`: a tool that the client runs, or a set of such tools.
    fn choice(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            if key == "type" && value.kind()? == Kind::String {
                let (at, kind) = (value.at(), value.string()?);
                let is_plain = matches!(kind.as_ref(), "allowed_tools" | "auto" | "any" | "tool" | "none" | "required");
                if self.is_refused_place(&kind, Certainty::Word) {
                    self.refuse(at, BodyFault::Place);
                } else if !self.allows_hosted_tools && !is_plain && !is_local_tool(&kind) {
                    self.refuse(at, BodyFault::Tool(kind.into_owned()));
                }
                return Ok(());
            }
            self.field(CHOICE, &key, value)
        })
    }

    /// Reads a tool that the host may run. Looks only for media to fetch, models, ids, and fields that route. `is_kept`
    /// says that the object's `id` names something that is stored at the endpoint.
    fn hosted(&mut self, is_kept: bool, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            // The user's location, and headers for a server of tools. The client chooses the keys in both objects.
            if matches!(key.as_ref(), "user_location" | "headers") {
                return value.skip().map(drop);
            }
            if value.kind()? != Kind::Null && routes(&key) {
                self.refuse(value.at(), BodyFault::Routes);
            }
            let shape = match TOOL.iter().find(|(name, _)| *name == key) {
                Some((_, shape @ (Shape::Text | Shape::Schema | Shape::Id | Shape::Tools))) => shape,
                _ if is_kept && reads_as(&key, "id") => &Shape::Id,
                // The id of a stored object, or an object that describes a new one.
                _ if names_kept(&key) || reads_as(&key, "skills") => &Shape::HostedKept,
                _ if known_as(&key, URL_FIELDS).is_some() => &Shape::Data,
                _ if letters(&key).collect::<String>().ends_with("url") && value.kind()? == Kind::String => {
                    return self.server(value);
                }
                _ => named_by(&key).unwrap_or(&Shape::Hosted),
            };
            self.value(shape, value)
        })
    }

    /// Reads the URL of a server that the host should use. The server must be on the public internet, not in the host's
    /// own network.
    fn server(&mut self, value: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let at = value.at();
        let text = value.string()?;
        if names_place(&text, Certainty::Word) && !is_public(&text) {
            self.refuse(at, BodyFault::Place);
        }
        Ok(())
    }

    /// Reads a JSON Schema that is written as a text. Engines parse that text.
    fn schema_text(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        let start = scan.at();
        let text = scan.string()?;
        if !text.trim_start().starts_with(['{', '[']) {
            return Ok(());
        }
        let mut inner = Self {
            refuses_remote_urls: self.refuses_remote_urls,
            allows_hosted_tools: self.allows_hosted_tools,
            ..Self::new(&[])
        };
        let _ = inner.value(&Shape::Schema, &mut Scan::new(&text));
        if let Some((_, fault)) = inner.fault {
            self.refuse(start, fault);
        }
        Ok(())
    }

    /// Reads a JSON Schema. Its strings may be any text, but references may only lead to schemas inside of it.
    fn schema(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        scan.object(|key, value| {
            let key: &str = &key;
            let (kind, at) = (value.kind()?, value.at());
            if SCHEMA_DATA.contains(&key) {
                return value.skip().map(drop);
            }
            if kind == Kind::Object && SCHEMAS_BY_NAME.contains(&key) {
                return value.object(|_, schema| self.value_of_schema(schema));
            }
            if kind == Kind::String {
                let is_reference = SCHEMA_REFERENCES.iter().any(|name| name.eq_ignore_ascii_case(key));
                let is_dialect = key.eq_ignore_ascii_case("$schema");
                if is_reference || is_dialect {
                    let text = value.string()?;
                    let known = |text: &str| {
                        let text = text.trim_start();
                        if is_reference { text.is_empty() || text.starts_with('#') } else { is_known_dialect(text) }
                    };
                    if !known(&text) && (self.refuses_remote_urls || !is_public(&text)) {
                        self.refuse(at, BodyFault::Place);
                    }
                    return Ok(());
                }
            }
            self.value_of_schema(value)
        })
    }

    /// Reads a schema, or a value in a schema that may hold schemas.
    fn value_of_schema(&mut self, scan: &mut Scan<'_>) -> Result<(), InvalidJson> {
        match scan.kind()? {
            Kind::Object => self.schema(scan),
            Kind::Array => scan.array(|item| self.value_of_schema(item)),
            _ => scan.skip().map(drop),
        }
    }
}

/// The shape of a key's value, if the key has a meaning in any object: ids, an object with an id, a model, or graders.
pub(super) fn named_by(key: &str) -> Option<&'static Shape> {
    if names_id(key) {
        Some(&Shape::Id)
    } else if names_kept(key) {
        Some(&Shape::Kept(&[("id", Shape::Id)]))
    } else if names_model(key) {
        Some(&Shape::Model(&[]))
    } else if known_as(key, GRADERS).is_some() {
        Some(&Shape::Graders)
    } else {
        None
    }
}

/// Whether a dialect of JSON Schema is known, or its name isn't a URL.
fn is_known_dialect(text: &str) -> bool {
    DIALECTS.iter().any(|dialect| text.starts_with(dialect)) || !names_place(text, Certainty::Word)
}

/// Whether every `type` of an object is `local`.
fn is_local(scan: &mut Scan<'_>) -> Result<bool, InvalidJson> {
    if scan.kind()? != Kind::Object {
        return Ok(false);
    }
    let mut kinds: Vec<Cow<'_, str>> = Vec::new();
    scan.object(|key, value| {
        if reads_as(&key, "type") && value.kind()? == Kind::String {
            kinds.push(value.string()?);
            return Ok(());
        }
        value.skip().map(drop)
    })?;
    Ok(!kinds.is_empty() && kinds.iter().all(|kind| kind == "local"))
}
