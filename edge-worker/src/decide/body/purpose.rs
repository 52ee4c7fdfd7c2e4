//! Checks the purpose of an uploaded file. Takes its text, returns whether it is one. Called for the field of a JSON
//! body and for the part of a form.

use crate::decide::envelope::Failure;

/// What a purpose must be, for the error message.
pub(crate) const PURPOSE: &str = "a word such as assistants or user_data";

/// Checks what a file is for.
pub(crate) fn check_purpose(purpose: &str, may_batch: bool) -> Result<(), Failure> {
    let fits = |byte: u8| byte.is_ascii_lowercase() || matches!(byte, b'_' | b'-');
    if !(1..=64).contains(&purpose.len()) || !purpose.bytes().all(fits) {
        return Err(Failure::BadField { field: "purpose", expected: PURPOSE });
    }
    if purpose.starts_with("batch") && !may_batch { Err(Failure::Batch) } else { Ok(()) }
}
