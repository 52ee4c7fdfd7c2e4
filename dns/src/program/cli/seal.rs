//! Signed reports of rollouts and drills. Takes a report and a key, returns it signed, alone or in a page; takes a
//! signed report or such a page, returns what was signed. Called by the commands `report` and `verify` of
//! `bailiwick rollout` and of `bailiwick drill`.
//!
//! A page carries the report as data, and the report carries the digest of the rest of the page. So neither can be
//! changed.

use std::path::Path;

use bailiwick_rules::receipt::PublicKey;
use ring::digest::{Context, SHA256};
use serde_json::Value;

use crate::program::jws::{JwsError, Kind, Signer, open};
use crate::state::load::read_text;

/// The kind of signed text. The longest report has some thousand steps with all their looks.
const KIND: Kind = Kind { name: "report", typ: "bailiwick-report+jws", longest: 256 << 20 };
/// The beginning of the report in a page. No browser runs a script of this type, and a signed text has no markup.
const BEGIN: &str = "<script type=\"application/jose\">";
/// The end of the report in a page.
const END: &str = "</script>\n";
/// The end of a page.
const PAGE_END: &str = "</html>\n";
/// The field of the report with the digest of its page.
const PAGE: &str = "page_sha256";

/// A report whose signature was verified.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct VerifiedReport {
    /// The key's name.
    pub(super) kid: String,
    /// The report.
    pub(super) report: Value,
    /// Whether the report was in a page. Then the page is the one that was signed with it.
    pub(super) has_page: bool,
}

/// Why a report isn't believed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SealError {
    /// The signature isn't valid, or of another form.
    #[error(transparent)]
    Jws(#[from] JwsError),
    /// The signed text isn't JSON.
    #[error("it was signed, but isn't a report that this program can read; the program that signed it may be newer")]
    Report,
    /// The page holds no report.
    #[error("the page holds no signed report; `report --html FILE --sign-key FILE` makes one that does")]
    NoReport,
    /// The page isn't the one that was signed with the report.
    #[error("the report in the page is signed, but the page isn't the one it was signed in: it was changed")]
    Page,
}

/// Reads a private key.
///
/// # Errors
/// That it can't be read, or is none.
pub(super) fn signer(file: &Path) -> Result<Signer, String> {
    let name = file.display();
    let text = read_text(file).map_err(|error| format!("{name}: can't be read ({error})"))?;
    Signer::read(&text).ok_or_else(|| {
        format!("{name}: is no private Ed25519 key; name the key file that the Worker's secret RECEIPT_KEY was made of")
    })
}

/// A page without [`PAGE_END`]. A signed page has the signed report between the page and its end.
pub(super) struct Page {
    page: String,
}

impl Page {
    /// A page, which has to lack its end.
    pub(super) fn new(page: String) -> Self {
        Self { page }
    }

    /// The page.
    pub(super) fn plain(self) -> String {
        self.page + PAGE_END
    }

    /// The page with the signed report in it. `None` only if it can't be signed.
    pub(super) fn sealed(self, signer: &Signer, report: Value) -> Option<String> {
        seal_page(signer, &self.page, PAGE_END, report)
    }
}

/// Signs a report.
pub(super) fn seal(signer: &Signer, report: &Value) -> Option<String> {
    signer.sign(KIND, &serde_json::to_vec(report).ok()?)
}

/// Signs a report together with its page, and puts it between the page and its end.
fn seal_page(signer: &Signer, page: &str, end: &str, mut report: Value) -> Option<String> {
    report[PAGE] = digest(page, end).into();
    let signed = seal(signer, &report)?;
    Some(format!("{page}{BEGIN}{signed}{END}{end}"))
}

/// Verifies a signed report, or a page with one.
///
/// # Errors
/// Why it isn't believed.
pub(super) fn unseal(text: &str, keys: &[PublicKey]) -> Result<VerifiedReport, SealError> {
    let page = text.trim_start().starts_with('<');
    let parts = page.then(|| {
        let (before, rest) = text.split_once(BEGIN)?;
        let (signed, after) = rest.split_once(END)?;
        Some((before, signed, after))
    });
    let (signed, around) = match parts {
        None => (text.trim(), None),
        Some(None) => return Err(SealError::NoReport),
        Some(Some((before, signed, after))) => (signed, Some((before, after))),
    };
    let (kid, payload) = open(signed, KIND, keys)?;
    let report: Value = serde_json::from_slice(&payload).map_err(|_| SealError::Report)?;
    if let Some((before, after)) = around
        && report[PAGE].as_str() != Some(&digest(before, after))
    {
        return Err(SealError::Page);
    }
    Ok(VerifiedReport { kid, report, has_page: around.is_some() })
}

/// The digest of a page around its report. The first length fixes the report's place: moved into a title or a comment,
/// the same bytes would show a reader something else.
fn digest(before: &str, after: &str) -> String {
    let mut context = Context::new(&SHA256);
    context.update(&u64::try_from(before.len()).unwrap_or(u64::MAX).to_be_bytes());
    [before, after].iter().for_each(|part| context.update(part.as_bytes()));
    context.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::program::cli::receipt::new_key;

    fn key() -> (Signer, PublicKey) {
        let (public, jwk) = new_key().expect("a key");
        (Signer::read(&jwk.to_string()).expect("a key"), public)
    }

    const PAGE_TEXT: &str = "<!doctype html><html><h1>Rollout fp8</h1>\n";

    #[test]
    fn a_report_is_believed_by_its_key_alone_and_by_itself_or_in_its_page() {
        let ((signer, public), report) = (key(), json!({ "rollout": "fp8", "steps": [] }));
        let signed = seal(&signer, &report).expect("signed");
        let opened = unseal(&format!(" {signed}\n"), &[public]).expect("believed");
        assert_eq!((&opened.report, opened.has_page), (&report, false));
        assert!(matches!(unseal(&signed, &[key().1]), Err(SealError::Jws(JwsError::UnknownKey { .. }))));
        let page = seal_page(&signer, PAGE_TEXT, "</html>\n", report).expect("signed");
        let opened = unseal(&page, &[public]).expect("believed");
        assert_eq!((&opened.report["rollout"], opened.has_page), (&json!("fp8"), true));
        assert_eq!(unseal(PAGE_TEXT, &[public]), Err(SealError::NoReport));
        // Another page around a good report, also one that was signed without any.
        assert_eq!(unseal(&page.replace("fp8<", "fp4<"), &[public]), Err(SealError::Page));
        let alone = format!("{PAGE_TEXT}{BEGIN}{signed}{END}</html>\n");
        assert_eq!(unseal(&alone, &[public]), Err(SealError::Page));
    }

    #[test]
    fn a_report_in_a_page_stays_where_it_was_put() {
        let ((signer, public), end) = (key(), "<hr>\n</html>\n");
        let page = seal_page(&signer, PAGE_TEXT, end, json!({ "rollout": "fp8" })).expect("signed");
        let block = page.strip_prefix(PAGE_TEXT).and_then(|rest| rest.strip_suffix(end)).expect("the report's block");
        let around = format!("{PAGE_TEXT}{end}");
        let believed = (0..=around.len()).filter(|place| {
            let (before, after) = around.split_at(*place);
            unseal(&format!("{before}{block}{after}"), &[public]).is_ok()
        });
        assert_eq!(believed.collect::<Vec<_>>(), [PAGE_TEXT.len()]);
    }

    #[test]
    fn a_receipt_is_no_report() {
        let (signer, public) = key();
        let kind = Kind { typ: bailiwick_rules::receipt::TYPE, ..KIND };
        let receipt = signer.sign(kind, b"{}").expect("signed");
        assert_eq!(unseal(&receipt, &[public]), Err(JwsError::Header(KIND).into()));
    }

    proptest! {
        #[test]
        fn no_byte_of_a_signed_page_can_be_changed(position in any::<prop::sample::Index>(), byte in 32_u8..127) {
            let (signer, public) = key();
            let report = json!({ "rollout": "fp8", "ended": "done" });
            let mut bytes = seal_page(&signer, PAGE_TEXT, "</html>\n", report).expect("signed").into_bytes();
            let position = position.index(bytes.len());
            prop_assume!(bytes[position] != byte);
            bytes[position] = byte;
            prop_assert!(unseal(&String::from_utf8_lossy(&bytes), &[public]).is_err());
        }
    }
}
