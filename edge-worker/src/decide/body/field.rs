//! Judges one top-level field of a body or a form. Takes the field's name and value; says whether the field may be
//! sent, and to which engines. Called by `body` and `multipart`.

use bailiwick_rules::rules::Allowance;

use super::engine::{self, Engines};
use super::fault::{failure, unknown};
use super::form_name;
use super::guess::may_route;
use super::models::NamedModel;
use super::names::{is_hosted, routes};
use super::paths;
use super::pointer::pointer;
use super::shape::{Fields, Shape};
use super::walk::{BodyFault, Walk};
use crate::decide::envelope::Failure;
use crate::decide::json::{InvalidJson, Kind, Scan, is_json, quoted};

/// What an endpoint must know to process a request: the fields of the body, and the models that the body names below
/// its top level.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Needs {
    /// The engines that know all fields.
    pub(crate) engines: Engines,
    /// The last field that some engines don't know.
    pub(crate) field: String,
    /// The models, without repetition.
    pub(crate) models: Vec<NamedModel>,
}

impl Default for Needs {
    fn default() -> Self {
        Self { engines: Engines::ALL, field: String::new(), models: Vec::new() }
    }
}

impl Needs {
    /// The needs of a field that these engines know.
    fn of(engines: Engines, field: &str) -> Self {
        Self { engines, field: field.to_owned(), models: Vec::new() }
    }

    /// The needs of two fields of a form together. The models are those of `self`: a form names no models below the top
    /// level.
    pub(crate) fn and(self, other: Self) -> Self {
        let field = if other.engines == Engines::ALL { self.field } else { other.field };
        Self { engines: self.engines.and(other.engines), field, models: self.models }
    }
}

/// Reads the value of a top-level field. Records faults, ids and names in `walk`, and the engines that know the field
/// in `needs`. With `may_be_unknown`, the service allows undocumented fields.
pub(super) fn read(
    walk: &mut Walk,
    needs: &mut Needs,
    fields: Fields,
    key: &str,
    value: &mut Scan<'_>,
    may_be_unknown: bool,
) -> Result<(), InvalidJson> {
    let (kind, at) = (value.kind()?, value.at());
    if let Some((_, shape)) = fields.iter().find(|(name, _)| *name == key) {
        if matches!(shape, Shape::Hosted) && !walk.allows_hosted_tools && kind != Kind::Null {
            walk.refuse(at, BodyFault::Tool(key.to_owned()));
        }
        return walk.value(shape, value);
    }
    // Numbers and booleans under an unknown name are harmless.
    let is_plain = !matches!(kind, Kind::String | Kind::Object | Kind::Array);
    if let Some((shape, engines)) = engine::field(key) {
        if !is_plain && !may_be_unknown {
            *needs = Needs::of(needs.engines.and(engines), key);
        }
        return walk.value(shape, value);
    }
    let is_hosted = is_hosted(key);
    if is_hosted && walk.allows_hosted_tools {
        return walk.value(&Shape::Hosted, value);
    }
    if is_hosted || routes(key) {
        return walk.unknown(&[], key, value);
    }
    let may_pass = is_plain && key != "priority" || may_be_unknown || kind == Kind::Null;
    if !may_pass && key == "priority" {
        // The value 0 is allowed, because the engine would also use 0 if the field were missing.
        let range = value.skip()?;
        if !value.is_at(range, b"0") {
            walk.refuse(at, BodyFault::Priority);
        }
        return Ok(());
    }
    if key == "model" {
        // On a path that doesn't document `model`, the field still names the request's own model.
        walk.value(&Shape::Label, value)?;
    } else {
        walk.unknown(fields, key, value)?;
    }
    walk.guess(key, kind, at);
    if !may_pass {
        walk.refuse(at, BodyFault::Unknown);
    }
    Ok(())
}

pub(crate) use super::form_name::base;

/// Checks that a form may have a file in the field `name`. `pattern` is the path of the request.
///
/// # Errors
/// 400 if the field must be plain, or if the path documents no file of this name.
pub(crate) fn check_file(pattern: &[&str], name: &str, allow: &[Allowance]) -> Result<Needs, Failure> {
    form_name::check(name, allow)?;
    let base = base(name);
    let known = paths::fields(pattern).iter().find(|(field, _)| *field == base).map(|(_, shape)| shape);
    let may_be_unknown = allow.contains(&Allowance::UnknownFields);
    match known.map(|shape| (shape, Engines::ALL)).or_else(|| engine::field(base)) {
        Some((shape @ (Shape::Data | Shape::EngineInput(Shape::Data)), engines)) => {
            if matches!(shape, Shape::EngineInput(_)) && !allow.contains(&Allowance::EngineInputs) {
                return Err(failure(BodyFault::EngineInput, || name.to_owned()));
            }
            let engines = if may_be_unknown { Engines::ALL } else { engines };
            Ok(Needs::of(engines, name))
        }
        Some(_) => Err(Failure::BadForm { what: "a file stands where a plain field belongs" }),
        None if routes(base) || may_route(base) => Err(failure(BodyFault::Routes, || name.to_owned())),
        None if is_hosted(base) || !may_be_unknown => Err(unknown(name.to_owned())),
        None => Ok(Needs::default()),
    }
}

/// Checks a plain field of a form. `pattern` is the path of the request.
///
/// # Errors
/// 400 that names the fault.
pub(crate) fn check(pattern: &[&str], name: &str, text: &str, allow: &[Allowance]) -> Result<Needs, Failure> {
    form_name::check(name, allow)?;
    let fields = paths::fields(pattern);
    let (mut walk, mut needs) = (Walk::new(allow), Needs::default());
    let base = base(name);
    // A server that reads forms takes `true`, `7` and `{…}` for JSON values, and anything else for a string.
    let is_string = text.starts_with('"') || !is_json(text);
    let json = if is_string { quoted(text) } else { text.to_owned() };
    let may_be_unknown = allow.contains(&Allowance::UnknownFields);
    let _ = read(&mut walk, &mut needs, fields, base, &mut Scan::new(&json), may_be_unknown);
    if let Some((_, fault)) = walk.fault {
        return Err(failure(fault, || name.to_owned()));
    }
    // Only JSON bodies may hold names that the edge replaces, models below the top level, or ids.
    match (walk.names.is_empty() && walk.models.is_empty(), walk.ids.is_empty()) {
        (false, _) => Err(failure(BodyFault::Unknown, || name.to_owned())),
        (_, false) => Err(Failure::UnknownId),
        _ => Ok(needs),
    }
}

/// The failure for a fault at the byte `at` of a JSON body.
pub(super) fn failure_at(text: &str, at: usize, fault: BodyFault) -> Failure {
    failure(fault, || pointer(text, at))
}
