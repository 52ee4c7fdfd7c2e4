//! Unary answers (answers that aren't streams) in the attempt machine. Takes the bytes of an answer, holds them until
//! the answer is complete or too large to hold, then commits the answer or fails the attempt. Called by `run`, its
//! parent module.

use super::transitions::later;
use super::{MAX_HELD, State, Step};
use crate::decide::attempt::refusal::{self, Nesting, Success};
use crate::decide::attempt::words::Words;
use crate::decide::attempt::{Expect, Outcome};
use crate::decide::json;
use crate::decide::sse::single::{self, AnswerKind};
use crate::decide::usage::Usage;

/// The most bytes of a successful answer that are held until its end, if there is memory. An answer that breaks off
/// while it is held is tried at another endpoint.
const MAX_WHOLE: usize = 8 << 20;

/// The form that a unary answer must have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum UnaryForm {
    Json,
    /// JSON from which events are made, because the client asked for events.
    Events(AnswerKind),
    /// Binary data such as audio, which a client plays while it arrives.
    Binary,
    /// An answer without a Content-Type.
    Untyped,
    Other,
}

impl Step<'_> {
    /// Begins to hold a unary answer. A body that arrives slowly gets no more time than the headers could have taken.
    pub(super) fn hold(&mut self, status: u16, form: UnaryForm) {
        let (idle, headers) = (self.run.limits().idle.0, self.run.limits().headers_unary.0);
        let sent_ms = self.run.record.attempts.last().map_or(self.now, |attempt| attempt.started_ms);
        let until_ms = later(sent_ms, headers).max(later(self.now, idle)).min(self.run.total_ms);
        self.run.state = State::Hold { status, form, held: Vec::new(), until_ms };
        self.set_timer(idle.min(self.left()));
    }

    /// Passes on a held answer if it has become too large to hold. `before` is the answer's size in bytes before the
    /// last chunk.
    pub(super) fn check_held_size(&mut self, form: UnaryForm, before: usize) {
        let State::Hold { held, .. } = &self.run.state else { return };
        let size = held.len();
        let is_json = matches!(form, UnaryForm::Json | UnaryForm::Events(_));
        if is_json && before < MAX_HELD && size >= MAX_HELD && !json::may_begin_json(held) {
            return self.fail(Outcome::WrongType, true, None);
        }
        let most = match form {
            UnaryForm::Binary => 1,
            UnaryForm::Untyped if is_binary(held) => 1,
            // There is no reason to hold this answer: a stateful request can't be retried, and the client knows the
            // answer's length, so it notices if the answer breaks off.
            UnaryForm::Other if self.run.task.stateful && self.run.has_length => MAX_HELD,
            _ if self.run.is_memory_short => MAX_HELD,
            _ => MAX_WHOLE,
        };
        match form {
            _ if size < most => {}
            UnaryForm::Events(_) => self.fail(Outcome::WrongType, true, None),
            _ => self.pass_held(),
        }
    }

    /// Commits a held answer that isn't complete yet.
    pub(super) fn pass_held(&mut self) {
        let State::Hold { status, form, held, .. } = &mut self.run.state else { return };
        let (status, held) = (*status, core::mem::take(held));
        let nesting = (*form == UnaryForm::Json).then(|| {
            let mut nesting = Nesting::default();
            nesting.follow(&held);
            nesting
        });
        self.run.state = State::Unary { nesting };
        self.commit(status, held, false);
        self.set_timer(self.run.limits().idle.0);
    }

    /// Judges a unary answer that is complete, and commits the answer or fails the attempt.
    pub(super) fn judge_complete(&mut self) {
        let State::Hold { status, form, held, .. } = &mut self.run.state else { return };
        let (status, mut held, form) = (*status, core::mem::take(held), *form);
        // A body may be empty only if the request is about state, or if it is a stored file.
        let may_be_empty = status == 204 && self.run.task.stateful || self.run.task.expect == Expect::File;
        let anything = self.run.task.expect == Expect::Any;
        let mut usage = Usage::default();
        let mut read =
            || core::str::from_utf8(&held).map_or(Success::InvalidJson, |text| refusal::success(text, &mut usage));
        let mut verdict = match matches!(form, UnaryForm::Json | UnaryForm::Events(_)).then(&mut read) {
            _ if held.is_empty() => (!may_be_empty).then_some(Outcome::Empty),
            None | Some(Success::Object) => None,
            Some(Success::Error) => Some(Outcome::ErrorEvent),
            // A bare `null`, a string or a list is JSON too, but not an answer of the model API.
            Some(Success::Other) if anything => None,
            Some(Success::Other | Success::InvalidJson) => Some(Outcome::WrongType),
        };
        if let (None, UnaryForm::Events(answer_kind), Ok(text)) = (verdict, form, core::str::from_utf8(&held)) {
            match single::events(answer_kind, text) {
                Some(events) => held = events,
                None => verdict = Some(Outcome::WrongType),
            }
        }
        match verdict {
            Some(Outcome::ErrorEvent) => self.fail_or_refuse(Words::read(&held), false),
            Some(outcome) => self.fail(outcome, false, None),
            None => {
                self.run.record.usage = usage;
                self.commit(status, held, matches!(form, UnaryForm::Events(_)));
                self.finish();
            }
        }
    }
}

/// The form of an answer whose media type is neither JSON nor events.
pub(super) fn form_of(kind: &str) -> UnaryForm {
    let is_binary = ["audio/", "video/", "image/"].iter().any(|media| kind.starts_with(media));
    if is_binary || kind == "application/octet-stream" { UnaryForm::Binary } else { UnaryForm::Other }
}

/// Whether bytes are binary. An answer without a Content-Type may be audio.
fn is_binary(bytes: &[u8]) -> bool {
    let is_text = |text: &[u8]| !text.iter().any(|&byte| byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r'));
    match core::str::from_utf8(bytes) {
        Ok(_) => !is_text(bytes),
        Err(error) => error.error_len().is_some() || !is_text(&bytes[..error.valid_up_to()]),
    }
}
