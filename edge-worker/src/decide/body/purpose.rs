//! Checks the purpose of an uploaded file. Takes the text of the purpose, returns an error if the service doesn't allow
//! it. Called by `top_level` for the field of a JSON body, and by `multipart` for the part of a form.

use crate::decide::envelope::Failure;

/// What a purpose must be, for the error message.
pub(crate) const PURPOSE: &str = "a word such as assistants or user_data";

/// Checks the purpose of a file. `may_batch` says whether the service allows batches.
pub(crate) fn check_purpose(purpose: &str, may_batch: bool) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-');
    if !(1..=64).contains(&purpose.len()) || !purpose.bytes().all(fits) {
        return Err(Failure::BadField { field: "purpose", expected: PURPOSE });
    }
    if purpose.starts_with("batch") && !may_batch { Err(Failure::Batch) } else { Ok(()) }
}
