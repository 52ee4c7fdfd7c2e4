//! Follows one JSON text chunk by chunk, and replaces names of models and ids at known places. Takes bytes, returns
//! bytes. Called by `splice` and `lines`. A sealed id is an id for the client that also names the endpoint which has
//! the object, and proves who owns it.

use memchr::memchr2;

use crate::decide::body::fields::{Field, field};
use crate::decide::json::{Scan, odd_number, reads_as};
use crate::decide::splice::{NamePlaces, Names};

/// The longest string that is held back to be replaced, in bytes. A longer string is neither a name nor an id.
const LONGEST: usize = 2_048;
/// How many ids are remembered with their replacements. A stream refers to few items at once.
const MAX_KNOWN: usize = 8;
/// The longest key that is read, in bytes.
const LONGEST_KEY: usize = 64;
/// The deepest nesting at which strings are replaced.
const DEEPEST: usize = 128;

/// The place of an object or an array in the JSON text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Role {
    /// The document itself.
    Root,
    /// A list of items: `data` of the document, or `output` or `instructions` of the document or of its `response`.
    Data,
    /// An object in such a list, or `item` or `file` of the document. `file` is the file that an upload made.
    Item,
    /// `response` of the document.
    Response,
    /// A list of ids.
    Ids,
    /// In a line of a batch: `body` of the line or of its `response`.
    Body,
    /// `audio` of a message or of a delta.
    Audio,
    /// The client's own data, such as `metadata`. Nothing in it is replaced.
    Opaque,
    Other,
}

/// The latest key of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Key {
    Model,
    /// `id`.
    OwnId,
    /// `root` or `parent`: the model from which a model was made.
    Origin,
    Body,
    /// `first_id` or `last_id` of a list.
    Cursor,
    Data,
    /// `output`, or `instructions` if they are a list of items.
    Items,
    /// `item` of an event.
    Item,
    Response,
    File,
    Audio,
    /// `message` of a fine-tuning job's event.
    Message,
    Known(Field),
}

/// An object or an array that is open at the current position.
#[derive(Clone, Copy, Debug)]
struct Frame {
    role: Role,
    is_object: bool,
    /// Whether a string that begins now is a key.
    at_key: bool,
    key: Key,
}

/// The kind of the current string.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum StringRole {
    Key,
    Model,
    Id,
    /// The name of a model. The name is sealed if the model is fine-tuned.
    Tuned,
    /// A text that may contain the name of a fine-tuned model.
    Note,
    Other,
}

impl StringRole {
    /// Whether the string is held back until its end.
    fn is_held(self) -> bool {
        !matches!(self, Self::Key | Self::Other)
    }
}

/// The state between two chunks.
#[derive(Debug, Default)]
pub(crate) struct Json {
    frames: Vec<Frame>,
    /// How many objects and arrays are open below [`DEEPEST`]. They aren't followed.
    deeper: usize,
    /// The kind of the current string; `None` outside of strings.
    text: Option<StringRole>,
    escaped: bool,
    /// The bytes of the current string so far, from its opening quotation mark on. For a key it is a copy; for a value
    /// it is what is held back.
    held: Vec<u8>,
    begun: bool,
    /// The latest ids of endpoints with their replacements, both quoted. The events of a stream repeat them.
    known: Vec<(Vec<u8>, String)>,
    /// Bytes outside of strings that are held back, because they may be a number that JSON doesn't have, such as `NaN`.
    unquoted: Vec<u8>,
}

impl Json {
    /// Whether nothing was read yet.
    pub(super) fn is_fresh(&self) -> bool {
        !self.begun
    }

    /// Writes the bytes that are held back, and gets ready for the next JSON text.
    pub(super) fn reset(&mut self, out: &mut Vec<u8>) {
        out.extend(self.take_held());
        self.frames.clear();
        (self.deeper, self.text, self.escaped, self.begun) = (0, None, false, false);
    }

    /// The bytes that are held back.
    pub(super) fn held(&self) -> Vec<u8> {
        let is_held = self.text.is_some_and(StringRole::is_held);
        [self.unquoted.as_slice(), if is_held { &self.held } else { &[] }].concat()
    }

    /// Takes the bytes that are held back.
    pub(super) fn take_held(&mut self) -> Vec<u8> {
        let held = self.held();
        self.unquoted.clear();
        self.held.clear();
        held
    }

    /// Writes bytes to `out`, with replaced names.
    pub(super) fn pass(&mut self, names: &Names, bytes: &[u8], out: &mut Vec<u8>) {
        let mut at = 0;
        while let Some((next, _)) = self.step(names, bytes, at, out) {
            at = next;
        }
    }

    /// Writes bytes up to the end of the first model's name that is replaced, and returns the position after it in
    /// `bytes`.
    pub(super) fn pass_to_model(&mut self, names: &Names, bytes: &[u8], out: &mut Vec<u8>) -> Option<usize> {
        let mut at = 0;
        while let Some((next, model)) = self.step(names, bytes, at, out) {
            at = next;
            if model {
                return Some(at);
            }
        }
        None
    }

    /// Writes the bytes from `at` up to the end of the next token. Returns the position after them, and whether a
    /// model's name was replaced.
    fn step(&mut self, names: &Names, bytes: &[u8], at: usize, out: &mut Vec<u8>) -> Option<(usize, bool)> {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        if let Some(text) = self.text {
            return Some(self.string(text, names, rest, at, out));
        }
        let run = rest.iter().position(|byte| matches!(byte, b'"' | b'{' | b'}' | b'[' | b']' | b':' | b','));
        let (plain, rest) = rest.split_at(run.unwrap_or(rest.len()));
        self.plain(plain, run.is_none(), out);
        self.begun |= !plain.iter().all(u8::is_ascii_whitespace);
        let Some(&byte) = rest.first() else { return Some((bytes.len(), false)) };
        self.begun = true;
        match byte {
            b'"' => {
                let text = self.kind_of_string(names);
                self.text = Some(text);
                self.held.clear();
                self.held.push(byte);
                if !text.is_held() {
                    out.push(byte);
                }
            }
            _ => {
                self.punctuation(byte);
                out.push(byte);
            }
        }
        Some((at + plain.len() + 1, false))
    }

    /// Writes bytes outside of strings: a number or a word, and the space around it. With `is_cut`, the number or word
    /// may continue in the next bytes.
    fn plain(&mut self, plain: &[u8], is_cut: bool, out: &mut Vec<u8>) {
        let is_odd = || memchr2(b'N', b'I', plain).is_some() || is_cut && plain.ends_with(b"-");
        if self.unquoted.is_empty() && !is_odd() {
            return out.extend_from_slice(plain);
        }
        self.unquoted.extend_from_slice(plain);
        // A number that JSON doesn't have is shorter than `LONGEST_KEY`, even with some space around it.
        if is_cut && self.unquoted.len() <= LONGEST_KEY {
            return;
        }
        let unquoted = core::mem::take(&mut self.unquoted);
        let odd = unquoted.trim_ascii();
        if odd_number(odd).is_none_or(|length| length != odd.len()) {
            return out.extend_from_slice(&unquoted);
        }
        let before = unquoted.len() - unquoted.trim_ascii_start().len();
        out.extend_from_slice(&unquoted[..before]);
        out.extend_from_slice(b"null");
        out.extend_from_slice(&unquoted[before + odd.len()..]);
    }

    /// Reads a piece of a string from `rest`. Holds the string if it may have to be replaced. Returns the length of the
    /// piece, and whether the string has ended.
    fn string(&mut self, text: StringRole, names: &Names, rest: &[u8], at: usize, out: &mut Vec<u8>) -> (usize, bool) {
        let mut length = 0;
        let mut ended = false;
        for &byte in rest {
            length += 1;
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => {
                    ended = true;
                    break;
                }
                _ => {}
            }
        }
        let piece = &rest[..length];
        let longest = if text == StringRole::Key { LONGEST_KEY } else { LONGEST };
        match text {
            StringRole::Other => out.extend_from_slice(piece),
            StringRole::Key => {
                out.extend_from_slice(piece);
                self.held.extend(piece.iter().take(longest + 1 - self.held.len().min(longest + 1)));
            }
            StringRole::Model | StringRole::Id | StringRole::Tuned | StringRole::Note => {
                self.held.extend_from_slice(piece);
            }
        }
        let mut replaced = false;
        if ended {
            let held = core::mem::take(&mut self.held);
            self.text = None;
            match text {
                StringRole::Other => {}
                StringRole::Key => self.key(&held, names.places),
                StringRole::Model => replaced = Self::model(&held, names, out),
                StringRole::Id => self.id(names, held, out),
                StringRole::Tuned | StringRole::Note => {
                    let new = plain(&held).and_then(|text| names.tuned(&text));
                    out.extend_from_slice(new.as_deref().map_or(&held, str::as_bytes));
                }
            }
        } else if text.is_held() && self.held.len() > longest {
            out.append(&mut self.held);
            self.text = Some(StringRole::Other);
        }
        (at + length, replaced)
    }

    /// Writes the replacement of a quoted id.
    fn id(&mut self, names: &Names, held: Vec<u8>, out: &mut Vec<u8>) {
        if let Some((_, new)) = self.known.iter().find(|(known, _)| *known == held) {
            return out.extend_from_slice(new.as_bytes());
        }
        match plain(&held).and_then(|id| names.id(&id)) {
            None => out.extend_from_slice(&held),
            Some(new) => {
                out.extend_from_slice(new.as_bytes());
                if self.known.len() == MAX_KNOWN {
                    self.known.remove(0);
                }
                self.known.push((held, new));
            }
        }
    }

    /// Writes the replacement of a model's name. Returns whether there is one.
    fn model(held: &[u8], names: &Names, out: &mut Vec<u8>) -> bool {
        let name = plain(held);
        let new = name.as_deref().and_then(|name| names.model(name));
        // The rules don't name a fine-tuned model, because it belongs to a tenant. Its name is sealed like an id.
        let tuned = || name.as_deref().filter(|_| names.ids.is_some()).and_then(|name| names.tuned(name));
        match new {
            None if let Some(tuned) = tuned() => out.extend_from_slice(tuned.as_bytes()),
            Some(new) => out.extend_from_slice(new.as_bytes()),
            None => out.extend_from_slice(held),
        }
        new.is_some()
    }

    /// What the string that begins here is: a key, a model's name, an id, or something else.
    fn kind_of_string(&self, names: &Names) -> StringRole {
        let Some(frame) = self.frames.last().filter(|_| self.deeper == 0) else { return StringRole::Other };
        if frame.is_object && frame.at_key {
            return StringRole::Key;
        }
        if frame.is_object && names.has_models() && is_model(names.places, frame.role, frame.key) {
            return StringRole::Model;
        }
        let ids = names.ids.is_some();
        match (frame.role, frame.is_object, frame.key) {
            (Role::Root | Role::Item, true, Key::Model) if ids => StringRole::Tuned,
            (Role::Item, true, Key::Message) if ids => StringRole::Note,
            (Role::Ids, false, _)
            | (Role::Root | Role::Response | Role::Item | Role::Audio, true, Key::OwnId)
            | (Role::Root, true, Key::Cursor)
                if ids =>
            {
                StringRole::Id
            }
            (role, true, Key::Known(Field::Id)) if ids && role != Role::Opaque => StringRole::Id,
            _ => StringRole::Other,
        }
    }

    /// Follows a bracket, colon or comma outside of strings.
    fn punctuation(&mut self, byte: u8) {
        match byte {
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' if self.deeper > 0 => self.deeper -= 1,
            b'}' | b']' => drop(self.frames.pop()),
            b':' | b',' if self.deeper == 0 => {
                if let Some(frame) = self.frames.last_mut() {
                    frame.at_key = byte == b',';
                }
            }
            _ => {}
        }
    }

    /// An object or a list begins: finds its role from its parent's role and key.
    fn open(&mut self, is_object: bool) {
        if self.deeper > 0 || self.frames.len() == DEEPEST {
            self.deeper += 1;
            return;
        }
        let role = match self.frames.last() {
            None if is_object => Role::Root,
            None => Role::Other,
            Some(parent) => match (parent.role, parent.key) {
                (Role::Opaque, _) => Role::Opaque,
                (Role::Data, _) if is_object => Role::Item,
                _ if !parent.is_object => Role::Other,
                (_, Key::Known(Field::Opaque)) => Role::Opaque,
                (_, Key::Known(Field::Ids)) if !is_object => Role::Ids,
                (Role::Root, Key::Data) | (Role::Root | Role::Response, Key::Items) if !is_object => Role::Data,
                (Role::Root, Key::Response) if is_object => Role::Response,
                (Role::Root, Key::File | Key::Item) if is_object => Role::Item,
                (_, Key::Audio) if is_object => Role::Audio,
                (Role::Root | Role::Response, Key::Body) if is_object => Role::Body,
                _ => Role::Other,
            },
        };
        self.frames.push(Frame { role, is_object, at_key: is_object, key: Key::Known(Field::Other) });
    }

    /// A key has ended: notes what it means for the value after it.
    fn key(&mut self, held: &[u8], places: NamePlaces) {
        let Some(frame) = self.frames.last_mut() else { return };
        frame.key = match plain(held).as_deref() {
            Some("model") => Key::Model,
            Some("id") => Key::OwnId,
            Some("first_id" | "last_id") => Key::Cursor,
            Some("data") => Key::Data,
            Some("output" | "instructions") => Key::Items,
            Some("item") => Key::Item,
            Some("response") => Key::Response,
            Some("file") => Key::File,
            Some("audio") => Key::Audio,
            Some("root" | "parent") if places == NamePlaces::Models => Key::Origin,
            // A client may read keys without regard to case, so `Model` is replaced too.
            Some(name) if places == NamePlaces::Lines && reads_as(name, "body") => Key::Body,
            Some(name) if places == NamePlaces::Lines && reads_as(name, "model") => Key::Model,
            Some("message") => Key::Message,
            // The id of a tool's container.
            Some("container") => Key::Known(Field::Id),
            Some("item_id" | "approval_request_id" | "fine_tuned_model" | "fine_tuned_model_checkpoint") => {
                Key::Known(Field::Id)
            }
            Some(name) => Key::Known(field(name)),
            None => Key::Known(Field::Other),
        };
    }
}

/// Whether the value is a model's name.
fn is_model(places: NamePlaces, role: Role, key: Key) -> bool {
    match places {
        NamePlaces::Answer => key == Key::Model && matches!(role, Role::Root | Role::Response),
        NamePlaces::Objects => key == Key::Model && matches!(role, Role::Root | Role::Response | Role::Item),
        NamePlaces::Models => matches!(key, Key::OwnId | Key::Origin) && matches!(role, Role::Root | Role::Item),
        NamePlaces::Lines => key == Key::Model && role == Role::Body,
    }
}

/// The text of a quoted string.
fn plain(quoted: &[u8]) -> Option<String> {
    let text = core::str::from_utf8(quoted).ok()?;
    Scan::new(text).string().ok().map(std::borrow::Cow::into_owned)
}
