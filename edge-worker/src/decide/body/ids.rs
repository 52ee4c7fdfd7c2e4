//! Finds ids of items of the Responses API. Takes a body's `input`; returns each id, and says what its item holds
//! besides the id. Called by `top_level`. [`claim`](crate::decide::state::claim) then decides what is sent in place of
//! each id.
//!
//! An item's id may be more than a name: a model host that stores answers may replace the item by the item that it
//! stored under that id.

use core::ops::Range;

use crate::decide::json::{InvalidJson, Kind, Scan, quoted, reads_as};

/// What an item holds besides its id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum ItemContents {
    /// A reference to a stored item.
    Reference,
    /// Nothing. The host would use the item that it stored under the id.
    Nothing,
    /// Encrypted content. Only the endpoint that made the content can read it. The content may contain the id.
    Encrypted,
    /// All content that a model needs.
    Content,
}

/// What is sent in place of an id.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) enum Replacement {
    /// The same id.
    #[default]
    Same,
    /// Another id.
    Other(String),
    /// No id. The id's key is left out too.
    None,
}

/// The id of an item.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ItemId {
    /// The id, as the client sent it.
    pub(crate) id: String,
    /// What the id's item holds.
    pub(crate) holds: ItemContents,
    /// What is sent in place of the id.
    pub(crate) sent: Replacement,
    /// The range of the id in the body, with its quotes.
    value: Range<usize>,
    /// The range of the id, its key and one comma.
    member: Range<usize>,
}

impl ItemId {
    /// The edit of the body that sends the replacement; `None` if the id stays.
    pub(super) fn edit(&self) -> Option<(Range<usize>, String)> {
        match &self.sent {
            Replacement::Same => None,
            Replacement::Other(id) => Some((self.value.clone(), quoted(id))),
            Replacement::None => Some((self.member.clone(), String::new())),
        }
    }
}

/// The ids of the items in the value at `range` of a body.
pub(super) fn items(body: &str, range: Range<usize>) -> Vec<ItemId> {
    let mut items = Vec::new();
    let value = body.get(range.clone()).unwrap_or_default();
    let finder = IdFinder { body, start: range.start };
    // The body is known to be JSON.
    let _ = finder.visit(&mut Scan::new(value), &mut items);
    items
}

/// Searches a value for items.
struct IdFinder<'b> {
    body: &'b str,
    /// The offset of the value in the body.
    start: usize,
}

impl IdFinder<'_> {
    fn visit(&self, scan: &mut Scan<'_>, items: &mut Vec<ItemId>) -> Result<(), InvalidJson> {
        match scan.kind()? {
            Kind::Array => scan.array(|item| self.visit(item, items)),
            Kind::Object => self.item(scan, items),
            _ => scan.skip().map(drop),
        }
    }

    /// Reads an item. Keys may be in upper or lower case, because some servers ignore case.
    fn item(&self, scan: &mut Scan<'_>, items: &mut Vec<ItemId>) -> Result<(), InvalidJson> {
        let mut ids = Vec::new();
        let (mut is_reference, mut is_typed, mut may_be_empty) = (false, false, false);
        let (mut is_encrypted, mut has_content) = (false, false);
        scan.object(|key, value| {
            let kind = value.kind()?;
            let is = |name: &str| reads_as(&key, name);
            let start = value.at();
            match kind {
                Kind::String if is("id") => {
                    let id = value.string()?.into_owned();
                    ids.push((id, None, self.start + start..self.start + value.at()));
                }
                // The approval of a tool call holds the id of another item: the request for approval.
                Kind::String if is("approval_request_id") => {
                    let id = value.string()?.into_owned();
                    ids.push((id, Some(ItemContents::Content), self.start + start..self.start + value.at()));
                }
                Kind::String if is("type") => {
                    let item_type = value.string()?;
                    is_typed = true;
                    is_reference |= item_type == "item_reference";
                    may_be_empty |= matches!(item_type.as_ref(), "reasoning" | "image_generation_call" | "compaction");
                }
                Kind::String if is("role") => {
                    is_typed = true;
                    value.skip()?;
                }
                Kind::String if is("encrypted_content") => is_encrypted |= value.skip()?.len() > 2,
                Kind::String | Kind::Array if is("result") || is("content") => has_content |= !is_empty(value)?,
                _ => value.skip().map(drop)?,
            }
            Ok(())
        })?;
        let holds = match (is_reference || !is_typed, may_be_empty) {
            (true, _) => ItemContents::Reference,
            (false, true) if has_content => ItemContents::Content,
            (false, true) if is_encrypted => ItemContents::Encrypted,
            (false, true) => ItemContents::Nothing,
            (false, false) => ItemContents::Content,
        };
        let id = |(id, own, value): (String, Option<ItemContents>, Range<usize>)| {
            let member = self.member(&value);
            ItemId { id, holds: own.unwrap_or(holds), sent: Replacement::Same, value, member }
        };
        items.extend(ids.into_iter().map(id));
        Ok(())
    }

    /// The range of a key and its value, with the comma that separates them from others.
    fn member(&self, value: &Range<usize>) -> Range<usize> {
        let before = self.body.get(..value.start).unwrap_or_default();
        let key = before.trim_end().strip_suffix(':').unwrap_or(before).trim_end();
        let key = key.strip_suffix('"').and_then(|key| key.rfind('"')).unwrap_or(value.start);
        let before = before.get(..key).unwrap_or_default().trim_end();
        if before.ends_with(',') {
            return before.len() - 1..value.end;
        }
        let after = self.body.get(value.end..).unwrap_or_default();
        let rest = after.trim_start();
        let comma = if rest.starts_with(',') { after.len() - rest.len() + 1 } else { 0 };
        key..value.end + comma
    }
}

/// Whether the next value, a string or a list, is empty. The length of a string includes its two quotes.
fn is_empty(scan: &mut Scan<'_>) -> Result<bool, InvalidJson> {
    if scan.kind()? != Kind::Array {
        return Ok(scan.skip()?.len() <= 2);
    }
    let mut is_empty = true;
    scan.array(|item| {
        is_empty = false;
        item.skip().map(drop)
    })?;
    Ok(is_empty)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<ItemId> {
        items(text, 0..text.len())
    }

    #[test]
    fn the_contents_of_items_are_recognised() {
        for (item, holds) in [
            (r#"{"type":"item_reference","id":"x"}"#, ItemContents::Reference),
            (r#"{"id":"x"}"#, ItemContents::Reference),
            (r#"{"type":null,"id":"x"}"#, ItemContents::Reference),
            (r#"{"Type":"item_reference","ID":"x","role":"user"}"#, ItemContents::Reference),
            (r#"{"type":"message","type":"item_reference","id":"x"}"#, ItemContents::Reference),
            (
                r#"{"type":"reasoning","id":"x","summary":[{"text":"s"}],"encrypted_content":null}"#,
                ItemContents::Nothing,
            ),
            (r#"{"type":"reasoning","id":"x","summary":[],"encrypted_content":""}"#, ItemContents::Nothing),
            (r#"{"type":"reasoning","id":"x","content":[],"encrypted_content":"e"}"#, ItemContents::Encrypted),
            (
                r#"{"type":"reasoning","id":"x","content":[{"type":"reasoning_text","text":"t"}]}"#,
                ItemContents::Content,
            ),
            (r#"{"type":"image_generation_call","id":"x","result":null}"#, ItemContents::Nothing),
            (r#"{"type":"image_generation_call","id":"x","result":"AAAA"}"#, ItemContents::Content),
            (r#"{"type":"compaction","id":"x","encrypted_content":"e"}"#, ItemContents::Encrypted),
            (r#"{"role":"assistant","id":"x","content":"c"}"#, ItemContents::Content),
            (r#"{"type":"function_call","\u0069d":"x","call_id":"call_1"}"#, ItemContents::Content),
            (r#"{"type":"mcp_approval_response","approval_request_id":"x","approve":true}"#, ItemContents::Content),
        ] {
            let list = format!("[{item}]");
            let all = found(&list);
            assert_eq!(
                all.iter().map(|item_id| (item_id.id.as_str(), item_id.holds)).collect::<Vec<_>>(),
                [("x", holds)],
                "{item}"
            );
        }
        let inside =
            r#"[{"role":"user","content":[{"type":"input_text","id":"no"}]},{"type":"function_call","call_id":"c"}]"#;
        assert_eq!(found(inside), []);
        assert_eq!(found(r#"{"id":"x"}"#).len(), 1, "a lenient server may accept an item outside a list");
    }

    #[test]
    fn an_id_is_left_out_with_its_key_and_one_comma() {
        for (item, expected) in [
            (r#"{"id":"x"}"#, r"{}"),
            (r#"{ "id" : "x" , "a":1}"#, r#"{  "a":1}"#),
            (r#"{"a":1 , "i\u0064": "x"}"#, r#"{"a":1 }"#),
            (r#"{"a":1,"id":"x","b":[",\"id\":"]}"#, r#"{"a":1,"b":[",\"id\":"]}"#),
        ] {
            let [mut item_id]: [ItemId; 1] = found(item).try_into().unwrap();
            item_id.sent = Replacement::None;
            let (range, text) = item_id.edit().unwrap();
            let mut out = item.to_owned();
            out.replace_range(range, &text);
            assert_eq!(out, expected);
        }
    }
}
