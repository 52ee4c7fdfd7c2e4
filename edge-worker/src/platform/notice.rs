//! The reports of the platform's side of an exchange. Takes a number, returns a [`Notice`]. Called by
//! `runtime`; `exchange` puts each notice into its inbox. Notices about an endpoint's answer have the names of the
//! attempt machine's events ([`Event`](crate::decide::attempt::Event)).

/// One report of the platform. For the Workers runtime, notice.js has the same numbers and names, and a test compares
/// them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Notice {
    /// An endpoint's status and headers.
    Headers = 0,
    /// The endpoint gave no answer at all.
    FetchError = 1,
    /// Bytes of the endpoint's body.
    Chunk = 2,
    /// The clean end of the endpoint's body.
    Eof = 3,
    /// The endpoint's body broke off.
    BodyError = 4,
    /// The timer ran out.
    Timer = 5,
    /// The client closed the connection.
    ClientGone = 6,
    /// The client has taken everything that was written.
    Written = 7,
    /// A write to the client failed.
    WriteFailed = 8,
    /// The client's whole body.
    RequestBody = 9,
    /// The client's body couldn't be read.
    RequestFailed = 10,
    /// The last chunk of the endpoint's body, and its end.
    LastChunk = 11,
    /// A piece of the client's body.
    RequestChunk = 12,
    /// The end of the client's body.
    RequestEof = 13,
    /// No piece of the client's body came in time.
    RequestTimeout = 14,
    /// The result of fetching a small document while an answer is in flight.
    Document = 15,
}

/// All notices, each at the index of its number. The Workers runtime tells them by number.
#[cfg(any(test, target_arch = "wasm32"))]
const NOTICES: [Notice; 16] = [
    Notice::Headers,
    Notice::FetchError,
    Notice::Chunk,
    Notice::Eof,
    Notice::BodyError,
    Notice::Timer,
    Notice::ClientGone,
    Notice::Written,
    Notice::WriteFailed,
    Notice::RequestBody,
    Notice::RequestFailed,
    Notice::LastChunk,
    Notice::RequestChunk,
    Notice::RequestEof,
    Notice::RequestTimeout,
    Notice::Document,
];

#[cfg(any(test, target_arch = "wasm32"))]
impl Notice {
    /// The notice with this number; `None` for an unknown number.
    pub(crate) fn of(number: u8) -> Option<Self> {
        NOTICES.get(usize::from(number)).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The name of a notice in notice.js: `RequestEof` becomes `REQUEST_EOF`.
    fn constant(notice: Notice) -> String {
        let name = format!("{notice:?}");
        let words = name.char_indices().flat_map(|(at, letter)| {
            let separator = (at > 0 && letter.is_ascii_uppercase()).then_some('_');
            separator.into_iter().chain([letter.to_ascii_uppercase()])
        });
        words.collect()
    }

    #[test]
    fn names_and_numbers_are_those_of_the_javascript() {
        let script = include_str!("workers/notice.js");
        let constants = script.lines().filter_map(|line| line.strip_prefix("export const ")?.strip_suffix(';'));
        let mut numbers: Vec<(u8, String)> = constants
            .map(|pair| pair.split_once(" = ").unwrap())
            .map(|(name, number)| (number.parse().unwrap(), name.to_owned()))
            .collect();
        numbers.sort();
        let ours: Vec<(u8, String)> = NOTICES.into_iter().map(|notice| (notice as u8, constant(notice))).collect();
        assert_eq!(numbers, ours);
        assert!(ours.iter().all(|(number, name)| constant(Notice::of(*number).unwrap()) == *name));
        assert_eq!(Notice::of(16), None);
    }
}
