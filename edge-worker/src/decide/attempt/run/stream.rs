//! Answers that are event streams. Takes the events of an answer; commits, extends or ends the answer to the client, or
//! fails the attempt (the request to one endpoint), so that another endpoint is tried. To commit is to send the first
//! bytes of the answer to the client; after that no other endpoint can be tried. Called by `run`, its parent module.

use super::fail::unexplained;
use super::{MAX_HELD, State, Step};
use crate::decide::attempt::words::Words;
use crate::decide::attempt::{End, Outcome};
use crate::decide::sse::{Framed, Meaning};

/// The last event of a stream of choices. The machine adds it if the endpoint didn't send it.
const DONE: &[u8] = b"data: [DONE]\n\n";

impl Step<'_> {
    /// Takes complete events of a stream. The events commit the stream, extend it, end it, or make the attempt fail.
    /// Until the commit, events are held: nothing is sent before the first event with content, so that an endpoint that
    /// fails at once can still be replaced.
    pub(super) fn on_events(&mut self, framed: Framed, was_committed: bool) {
        let Framed { mut bytes, events } = framed;
        let (mut committed, mut may_end, mut end, mut start) = (was_committed, false, None, 0);
        let mut dropped = 0;
        for (upto, meaning) in events {
            let upto = upto - dropped;
            match (committed, meaning) {
                (_, Meaning::Nothing) => {}
                // Heartbeats (events that only show that the endpoint is alive) are dropped, because clients can't read
                // them.
                (_, Meaning::Heartbeat) => {
                    bytes.drain(start..upto);
                    dropped += upto - start;
                    continue;
                }
                (_, Meaning::Content) => committed = self.note_content(),
                (_, Meaning::Final) => (committed, may_end) = (self.note_content(), true),
                (false, Meaning::Error | Meaning::Failed) => {
                    return self.fail_or_refuse(Words::read_event(&bytes[start..upto]), true);
                }
                (false, Meaning::Done) => return self.fail(Outcome::Empty, true, None),
                (true, Meaning::Error) => {
                    let words = Words::read_event(&bytes[start..upto]);
                    bytes.truncate(start);
                    end = Some(Some(words.interrupted()));
                    break;
                }
                (_, Meaning::Completed) | (true, Meaning::Done | Meaning::Failed) => {
                    committed = true;
                    bytes.truncate(upto);
                    end = Some(None);
                    break;
                }
            }
            start = upto;
        }
        self.note_usage();
        if let State::Inspect { status, framer, held, .. } = &mut self.run.state {
            if held.is_empty() {
                *held = bytes;
            } else {
                held.append(&mut bytes);
            }
            if !committed && held.len() + framer.held() < MAX_HELD {
                return;
            }
            let (status, held, framer) = (*status, core::mem::take(held), core::mem::take(framer));
            self.run.state = State::Stream { framer, may_end };
            self.commit(status, held, false);
            if end.is_none() {
                self.set_timer(self.run.limits().idle.0);
            }
        } else {
            if let State::Stream { may_end: already, .. } = &mut self.run.state {
                *already |= may_end;
            }
            self.emit(bytes);
        }
        match end {
            None => {}
            Some(None) => self.finish(),
            Some(Some(failure)) => self.interrupt(End::ErrorEvent, &failure, true),
        }
    }

    /// Records the usage that the events have reported so far.
    fn note_usage(&mut self) {
        if let State::Inspect { framer, .. } | State::Stream { framer, .. } = &self.run.state {
            self.run.record.usage = framer.usage();
        }
    }

    /// Notes an event that carries content, which commits the stream.
    fn note_content(&mut self) -> bool {
        self.run.record.contents.note(self.now);
        true
    }

    /// Judges a stream whose connection ended cleanly. A clean end doesn't prove that the stream is complete. The
    /// stream is complete if its last event announces the end, or if each choice has a finish reason.
    pub(super) fn on_stream_end(&mut self) {
        let choices = self.run.task.choices;
        let (framer, may_end) = match &mut self.run.state {
            State::Inspect { framer, .. } => (framer, false),
            State::Stream { framer, may_end } => (framer, *may_end),
            _ => return,
        };
        let (mut last, mut meaning) = framer.end();
        self.run.record.usage = framer.usage();
        if meaning == Meaning::Heartbeat {
            (last, meaning) = (Vec::new(), Meaning::Nothing);
        }
        let is_whole = match meaning {
            Meaning::Done | Meaning::Completed | Meaning::Final | Meaning::Failed => true,
            Meaning::Content | Meaning::Nothing if framer.is_answered(choices) => {
                last.extend_from_slice(DONE);
                true
            }
            Meaning::Nothing => may_end,
            Meaning::Content | Meaning::Heartbeat | Meaning::Error => false,
        };
        match &mut self.run.state {
            State::Inspect { status, held, .. } => {
                let (status, mut held) = (*status, core::mem::take(held));
                if !is_whole || matches!(meaning, Meaning::Done | Meaning::Failed) {
                    return self.fail(Outcome::Empty, false, None);
                }
                held.append(&mut last);
                self.commit(status, held, false);
                self.finish();
            }
            _ if is_whole => {
                self.emit(last);
                self.finish();
            }
            _ => self.interrupt(End::Interrupted, &unexplained(), false),
        }
    }
}
