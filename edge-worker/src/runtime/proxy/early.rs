//! Streams that begin before an endpoint's answer is committed, for services with `keepalive`. Takes the time and the
//! machine's outputs; adds comments for the waiting client, and writes into the stream which endpoint answers, or that
//! the request failed. Called by `proxy`. An answer is committed when its first bytes are sent to the client; then no
//! other endpoint can be tried.

use std::collections::VecDeque;

use super::{Answer, Body, Driver, Output};
use crate::decide::envelope::Failure;
use crate::decide::keepalive;
use crate::decide::sse::without_mark;
use crate::runtime::clock;

impl Driver {
    /// Begins the client's stream before the commit. The run continues while the stream is written.
    #[inline(never)]
    pub(super) fn begin_early(mut self: Box<Self>, mut outputs: VecDeque<Output>) -> Answer {
        self.is_begun = true;
        // A receipt names the endpoint, which isn't known yet.
        self.job.receipt_signer = None;
        outputs.push_front(Output::Comment);
        let headers = self.info.early_stream_headers();
        Answer::Streamed(Box::new(Body { status: 200, headers, length: None, driver: self, outputs }))
    }

    /// Adds a comment for the client if one is due and no answer has begun.
    #[inline(never)]
    pub(super) fn keep_alive(&mut self, outputs: &mut VecDeque<Output>) {
        let now_ms = self.clock.at(clock::now());
        if self.run.is_done() || self.run.served_by().is_some() {
            self.keepalive = None;
        }
        let Some(keepalive) = &mut self.keepalive else { return };
        if keepalive.beat(now_ms) {
            outputs.push_back(Output::Comment);
        }
        self.exchange.set_timer(clock::now().0, keepalive.left(now_ms));
    }

    /// Commits an answer to a stream that began earlier. A comment names the endpoint, because the headers couldn't.
    #[inline(never)]
    pub(super) fn commit_late(&mut self, outputs: &mut VecDeque<Output>) {
        self.job.body = None;
        self.job.reservation = None;
        // A byte-order mark is valid only at the beginning of the stream, and comments came first.
        if let Some(Output::Emit(bytes)) = outputs.front_mut()
            && without_mark(bytes).len() < bytes.len()
        {
            bytes.drain(..3);
        }
        if let Some(target) = self.run.served_by() {
            outputs.push_front(Output::Emit(keepalive::served(target)));
        }
    }

    /// Ends a stream that began early and failed, with one error event.
    #[inline(never)]
    pub(super) fn fail_late(&mut self, failure: &Failure) -> VecDeque<Output> {
        self.failed = Some((failure.status(), failure.own_code()));
        VecDeque::from([Output::Emit(keepalive::failed(failure, self.job.answer_kind)), Output::Finish])
    }
}
