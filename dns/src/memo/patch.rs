//! Makes a response from a kept answer. Takes the kept answer and a query, returns the response with the query's own
//! id, flags, case of the name and client subnet. Also removes these parts from a response that is to be kept. Called
//! by [`super::Memo`] on a hit, and when it keeps an answer.

use smallvec::SmallVec;

use super::pattern::{Answers, Pattern};
use super::query::{self, Query};
use super::table::Entry;
use crate::response::answer::Origin;
use crate::response::wire::{Class, HEADER, Outcome, TC};

/// A kept answer that fits a query.
pub(super) struct Hit<'k> {
    pub(super) source: HitSource<'k>,
    /// The prefix length around the client for which the answer is valid: the SCOPE PREFIX-LENGTH of RFC 7871 §6.
    pub(super) scope: u8,
    /// The origin (country, and whether the resolver sent a subnet) under which a steered answer is counted.
    pub(super) origin: Origin,
}

/// Where a kept answer comes from.
#[derive(Clone, Copy)]
pub(super) enum HitSource<'k> {
    Entry(&'k Entry),
    Pattern(&'k Pattern, Answers<'k>),
}

impl Hit<'_> {
    /// The class by which the rate limiter counts the answer.
    pub(super) fn class(&self) -> Class {
        match self.source {
            HitSource::Entry(entry) => entry.kind,
            HitSource::Pattern(_, answers) => answers.class(),
        }
    }

    /// Overwrites `out` with the answer to this query. Truncates the answer if it has more octets than `limit`.
    pub(super) fn write(&self, query: &Query<'_>, packet: &[u8], limit: usize, out: &mut Vec<u8>) -> Outcome {
        let question_end = query.question_end();
        out.clear();
        out.extend_from_slice(&packet[..question_end]);
        // The id, the question and the flags RD and CD are copied from the query.
        let [flags, more_flags] = match self.source {
            HitSource::Entry(entry) => {
                let (head, tail) = entry.wire.bytes().split_at(question_end);
                out.extend_from_slice(tail);
                out[4..HEADER].copy_from_slice(&head[4..HEADER]);
                [head[2], head[3]]
            }
            HitSource::Pattern(pattern, answers) => {
                let count = answers.write(out);
                pattern.write(question_end, out);
                out[6..8].copy_from_slice(&count.to_be_bytes());
                out[8..HEADER].copy_from_slice(&pattern.counts());
                pattern.flags()
            }
        };
        out[2] = flags | packet[2] & query::RD;
        out[3] = more_flags | packet[3] & query::CD;
        let truncated = out.len() + query.option_length() > limit;
        if truncated {
            // The OPT record always comes last in a kept answer.
            let opt = out.len() - query.opt_length();
            out.copy_within(opt.., question_end);
            out.truncate(question_end + query.opt_length());
            out[2] |= TC;
            out[6..HEADER].copy_from_slice(&[0, 0, 0, 0, 0, u8::from(query.has_edns())]);
        }
        if let Some(ecs) = query.ecs {
            // The OPT has no options yet, so its last two octets are the length of its options. That is at most 24, so
            // only the low octet is set.
            let end = out.len();
            let option = &packet[packet.len() - query.option_length()..];
            out[end - 1] = option.len().to_le_bytes()[0];
            out.extend_from_slice(option);
            out[end + 7] = if ecs.source == 0 { 0 } else { self.scope };
        }
        self.outcome(query, truncated)
    }

    /// What metrics and logs note about this answer.
    fn outcome(&self, query: &Query<'_>, truncated: bool) -> Outcome {
        let (rcode, service, region, keepable) = match self.source {
            HitSource::Entry(entry) => (entry.rcode, entry.service, entry.region, true),
            HitSource::Pattern(_, answers) => (answers.rcode(), None, None, matches!(answers, Answers::Static(_))),
        };
        Outcome::Answered {
            rcode,
            qtype: Some(query.qtype),
            truncated,
            service,
            region,
            origin: self.origin,
            class: self.class(),
            keepable: keepable && !truncated,
        }
    }
}

/// A response without the parts that belong to this query only: the client subnet, the id, the flags RD and CD, the
/// case of the name.
pub(super) fn bare(query: &Query<'_>, response: &[u8]) -> SmallVec<[u8; super::LONGEST]> {
    let mut bare = SmallVec::from_slice(&response[..response.len() - query.option_length()]);
    bare[..2].fill(0);
    bare[2] &= !query::RD;
    bare[3] &= !query::CD;
    bare[HEADER..HEADER + query.name.as_wire().len()].make_ascii_lowercase();
    if query.ecs.is_some()
        && let Some(length) = bare.last_chunk_mut::<2>()
    {
        *length = [0; 2];
    }
    bare
}
