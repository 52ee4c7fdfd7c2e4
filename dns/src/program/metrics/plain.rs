//! The older text format of Prometheus (0.0.4), for clients that don't ask for OpenMetrics. Takes OpenMetrics text,
//! returns the same samples with their families named as this format names them. Called by `api`.

use std::collections::HashMap;

/// Rewrites the lines in which the two formats differ. In the older format, a counter's family has the name of its
/// samples, with `_total`. There are no lines `# EOF` and `# UNIT`.
pub(crate) fn plain(openmetrics: &str) -> String {
    let kinds: HashMap<&str, &str> =
        openmetrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    let mut text = String::with_capacity(openmetrics.len() + 1024);
    for line in openmetrics.lines() {
        let Some((keyword, described)) = line.strip_prefix("# ").and_then(|comment| comment.split_once(' ')) else {
            if !line.starts_with('#') {
                push(&mut text, &[line]);
            }
            continue;
        };
        let (name, rest) = described.split_once(' ').unwrap_or((described, ""));
        let (suffix, kind) = match kinds.get(name).copied() {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some("unknown") | None => ("", "untyped"),
            Some("stateset") => ("", "gauge"),
            Some(same) => ("", same),
        };
        match keyword {
            "HELP" => push(&mut text, &["# HELP ", name, suffix, " ", rest]),
            "TYPE" => push(&mut text, &["# TYPE ", name, suffix, " ", kind]),
            _ => (),
        }
    }
    text
}

fn push(text: &mut String, pieces: &[&str]) {
    text.extend(pieces.iter().copied());
    text.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_have_the_names_of_their_samples() {
        let openmetrics = "# HELP a_queries Asked, in all\n# TYPE a_queries counter\na_queries_total{x=\"# EOF\"} 3\n\
             # HELP a_seconds How long\n# TYPE a_seconds histogram\n# UNIT a_seconds seconds\na_seconds_count 1\n\
             # HELP a_build What\n# TYPE a_build info\na_build_info{v=\"1\"} 1\n# EOF\n";
        let expected = "# HELP a_queries_total Asked, in all\n# TYPE a_queries_total counter\n\
             a_queries_total{x=\"# EOF\"} 3\n\
             # HELP a_seconds How long\n# TYPE a_seconds histogram\na_seconds_count 1\n\
             # HELP a_build_info What\n# TYPE a_build_info gauge\na_build_info{v=\"1\"} 1\n";
        assert_eq!(plain(openmetrics), expected);
    }
}
