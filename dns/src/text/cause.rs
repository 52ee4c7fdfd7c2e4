//! Finds the innermost cause of an error. Called where the outer errors only repeat what was tried.

use std::error::Error;

/// The innermost cause of an error: the error itself if it has no cause.
pub(crate) fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("outer")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn the_innermost_cause_is_found_however_deep_it_lies() {
        let inner = "x".parse::<u8>().unwrap_err();
        assert_eq!(innermost(&inner).to_string(), inner.to_string());
        assert_eq!(innermost(&Outer(inner.clone())).to_string(), inner.to_string());
    }
}
