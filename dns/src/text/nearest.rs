//! Suggests names. Takes a mistyped name and the names that exist, returns the one that was probably meant, or a
//! sentence about it. Used in messages of the configuration, the command line and the API.

/// The known name that is most similar to `wrong`, if it is similar enough to have been meant.
#[must_use]
pub(crate) fn nearest<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
    let distance = |name: &str| strsim::damerau_levenshtein(&wrong.to_ascii_lowercase(), &name.to_ascii_lowercase());
    let (distance, name) = known.into_iter().map(|name| (distance(name), name)).min()?;
    let allowed = (wrong.chars().count().max(name.chars().count()) / 3).max(1);
    (distance <= allowed).then_some(name)
}

/// How to mend a mistyped name: the most similar known name, or all known names.
#[must_use]
pub(crate) fn suggestion<'n>(wrong: &str, known: impl IntoIterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    match nearest(wrong, known.iter().copied()) {
        Some(name) => format!("did you mean \"{name}\"?"),
        None if known.is_empty() => "there are none".to_owned(),
        None => format!("known are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mistyped_name_is_answered_by_the_nearest_or_by_all() {
        assert_eq!(suggestion("uk-lodnon", ["eu-frankfurt", "uk-london"]), "did you mean \"uk-london\"?");
        assert_eq!(suggestion("mars", ["eu-frankfurt", "uk-london"]), "known are eu-frankfurt, uk-london");
        assert_eq!(suggestion("mars", []), "there are none");
    }

    #[test]
    fn only_a_near_name_was_meant() {
        let known = ["listen", "rules", "geoip", "state_dir"];
        assert_eq!(nearest("lisetn", known), Some("listen"));
        assert_eq!(nearest("Rules", known), Some("rules"));
        assert_eq!(nearest("state-dir", known), Some("state_dir"));
        assert_eq!(nearest("listener_addresses", known), None);
        assert_eq!(nearest("x", []), None);
    }
}
