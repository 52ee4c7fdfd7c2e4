//! Decides what follows a failed attempt (a request to one endpoint that gave no answer for the client): another
//! endpoint is tried, or the client gets an error. Takes the status and the words of the endpoint's error: words are
//! the texts, codes and hints that its body has. Called by the transitions of [`super::step`].

use super::super::refusal::{self, Fault};
use super::super::words::{ErrorMeaning, Words};
use super::{State, Step};
use crate::decide::attempt::{Action, Outcome};
use crate::decide::envelope::Failure;

impl Step<'_> {
    /// Handles an answer with an error status, once its body was read as far as needed.
    pub(super) fn refused(&mut self, abort: bool) {
        let State::Refusal { status, retry_after_ms, held } = core::mem::replace(&mut self.run.state, State::Done)
        else {
            return;
        };
        let words = Words::read(&held);
        match refusal::by_body(status, &words, self.run.task.stateful) {
            Fault::Client => self.refuse(status, words, abort),
            fault => self.fail_by(fault, status, abort, retry_after_ms.or(words.retry_after_ms)),
        }
    }

    /// Handles an error inside a successful answer. If the error says that the request is at fault, the client gets the
    /// error, because every endpoint would refuse the request. Otherwise the attempt fails.
    pub(super) fn fail_or_refuse(&mut self, words: Words, abort: bool) {
        if words.is_clients() { self.refuse(400, words, abort) } else { self.fail(Outcome::ErrorEvent, abort, None) }
    }

    /// Refuses the request with the endpoint's words. If the endpoint can't decrypt the request's encrypted reasoning,
    /// tries the other endpoints first.
    pub(super) fn refuse(&mut self, status: u16, words: Words, abort: bool) {
        self.cancel_timer();
        if abort {
            self.out.push(Action::Abort { attempt: self.run.current() });
        }
        self.outcome(Outcome::Refused(status));
        // Another endpoint may have encrypted the reasoning in an earlier turn, while this endpoint was at rest
        // (avoided for a while after failures).
        if words.known == Some(ErrorMeaning::EncryptedContent) && !self.run.task.stateful {
            self.run.decrypt_failure = Some(Box::new(words.refused(status)));
            return self.next();
        }
        self.run.state = State::Done;
        self.out.push(Action::Reply { failure: words.refused(status) });
    }

    /// The attempt failed because of the answer's status, and perhaps its body.
    pub(super) fn fail_by(&mut self, fault: Fault, status: u16, abort: bool, retry_after_ms: Option<u64>) {
        let outcome = match fault {
            Fault::Model if self.run.task.model.is_some() => Outcome::NoModel,
            Fault::Model | Fault::Path => Outcome::NoPath,
            Fault::Quota => Outcome::NoQuota,
            Fault::Endpoint | Fault::Client => Outcome::Status(status),
        };
        if matches!(outcome, Outcome::Status(_)) {
            self.run.shortest_retry_after_ms = self.run.shortest_retry_after_ms.into_iter().chain(retry_after_ms).min();
        }
        self.fail(outcome, abort, retry_after_ms);
    }
}

/// The failure for an interruption that the endpoint didn't explain.
pub(super) fn unexplained() -> Failure {
    Failure::Interrupted { kind: None, code: None, param: None }
}
