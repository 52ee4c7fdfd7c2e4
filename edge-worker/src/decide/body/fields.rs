//! Says which keys of the model API's JSON hold ids. Takes a key, returns the meaning of its value. Requests and
//! answers share this table. Called by `keys` and `splice`.

use crate::decide::json::reads_as;

/// The meaning of a key's value.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    /// The id of an object at an endpoint.
    Id,
    /// A list of such ids.
    Ids,
    /// The client's own data. Its keys have no meaning here.
    Opaque,
    /// Anything else.
    Other,
}

const IDS: &[(&str, Field)] = &[
    ("batch_id", Field::Id),
    ("container_id", Field::Id),
    ("error_file_id", Field::Id),
    ("file_id", Field::Id),
    ("fine_tuning_job_id", Field::Id),
    ("input_file_id", Field::Id),
    ("output_file_id", Field::Id),
    ("previous_response_id", Field::Id),
    ("response_id", Field::Id),
    ("training_file", Field::Id),
    ("upload_id", Field::Id),
    ("validation_file", Field::Id),
    ("vector_store_id", Field::Id),
    ("file_ids", Field::Ids),
    ("part_ids", Field::Ids),
    ("result_files", Field::Ids),
    ("vector_store_ids", Field::Ids),
    ("attributes", Field::Opaque),
    ("metadata", Field::Opaque),
    ("parameters", Field::Opaque),
    ("schema", Field::Opaque),
];

/// The meaning of the value of `key`, in upper or lower case. A server that ignores case must not get an id that is
/// still sealed (in the form that only the edge can read).
#[must_use]
pub(crate) fn field(key: &str) -> Field {
    if key.is_ascii() && !(6..=20).contains(&key.len()) {
        return Field::Other;
    }
    IDS.iter().find(|(name, _)| reads_as(key, name)).map_or(Field::Other, |(_, field)| *field)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_of_the_table_is_found() {
        for (name, expected) in IDS {
            assert_eq!(field(name), *expected);
            assert_eq!(field(&name.to_ascii_uppercase()), *expected);
            assert_eq!(field(&name.replace('s', "\u{17f}")), *expected);
        }
        assert_eq!((field("id"), field("item_id"), field("content")), (Field::Other, Field::Other, Field::Other));
    }
}
