//! Performs the actions of the attempt machine. The machine (`decide/attempt`) decides without any I/O which endpoint
//! is asked next and what the client gets. A [`Driver`] runs the machine for one request. Its exchange makes the
//! fetches and talks to the client, through JavaScript. Takes an [`Action`], changes the driver and its exchange, and
//! adds to the outputs what the client gets. Called by [`Driver::advance`].
//!
//! Most functions are `#[inline(never)]`. Otherwise `wasm-opt` puts each function into its only caller, and the runtime
//! takes longer to compile the one large function that every request runs.

use std::collections::VecDeque;

use super::{Driver, FetchState, Job, Output};
use crate::decide::attempt::{Action, AttemptNumber};
use crate::decide::breaker::Verdict;
use crate::decide::envelope::Failure;
use crate::decide::inflight::Reservation;
use crate::decide::rewrite;
use crate::decide::splice::Splice;
use crate::runtime::clock;
use crate::runtime::held::Writing;
use crate::runtime::memory;

impl Driver {
    /// Performs one action. `whole` says that the endpoint's body is complete after the actions of this step.
    pub(super) fn perform(&mut self, action: Action, whole: bool, outputs: &mut VecDeque<Output>) {
        match action {
            Action::Send { attempt, target } => {
                // An answer of the attempt before may have been held back. It is dropped, so its memory is free again.
                self.held_reservation = Reservation::default();
                self.note_sent(target);
                if self.job.metering.is_some() {
                    self.charge(target);
                }
                match self.send(attempt, target) {
                    Ok(()) => self.fetch = FetchState::Sending,
                    Err(failure) => outputs.push_back(Output::Reply(failure)),
                }
            }
            Action::SetTimer { attempt, after_ms } => {
                self.timer = Some(attempt);
                self.exchange.set_timer(clock::now().0, after_ms);
            }
            Action::CancelTimer { .. } => self.timer = None,
            Action::Abort { .. } => {
                self.fetch = FetchState::Idle;
                self.writing = Writing::default();
                self.exchange.abort();
            }
            Action::Commit { status, body, as_events, .. } => {
                self.status = Some(status);
                let body = self.commit(body, as_events, whole);
                outputs.extend([Output::Commit { status }, Output::Emit(body)]);
            }
            Action::Emit { bytes } => {
                let bytes = if self.job.metering.is_some() { self.pass_events(bytes) } else { bytes };
                outputs.push_back(Output::Emit(self.spliced(bytes)));
            }
            // The tail is an error event that the Worker made, so it has no names to replace. The `CoolDown` before it
            // has noted the fault, so no verdict follows.
            Action::EmitTail { bytes } => outputs.extend([Output::Emit(bytes), Output::Finish]),
            Action::CutStream => outputs.push_back(Output::CutStream),
            Action::Finish => {
                // The fetch isn't aborted, but no more of it is read.
                self.exchange.leave();
                self.note_verdict(Verdict::Whole);
                // The splice may have held back the beginning of a name.
                if let Some(rest) = self.splice.as_mut().map(Splice::finish).filter(|rest| !rest.is_empty()) {
                    outputs.push_back(Output::Emit(rest));
                }
                outputs.push_back(Output::Finish);
            }
            Action::CoolDown { ref region, ref endpoint, .. } => {
                // The next attempt may have begun already. Then the failed attempt isn't the last of the record.
                let mut attempts = self.run.record().attempts.iter().rev();
                let failed = attempts.find(|attempt| attempt.region == *region && attempt.endpoint == *endpoint);
                let target = failed.and_then(|attempt| self.run.target(attempt.target));
                let attribution = self.job.attribution();
                memory::with(|memory| memory.cool_down(&action, target, &attribution, clock::now()));
            }
            Action::Reply { failure } => {
                // An endpoint that refuses a request is alive: the refusal counts as an answer.
                if matches!(failure, Failure::Refused { .. }) {
                    self.note_verdict(Verdict::Answered);
                }
                outputs.push_back(Output::Reply(failure));
            }
        }
    }

    /// Reads the headers of a committed answer, and returns the first bytes of its body as the client gets them.
    /// `whole` says that these bytes are the complete body.
    fn commit(&mut self, body: Vec<u8>, as_events: bool, whole: bool) -> Vec<u8> {
        if let FetchState::Reading { headers, .. } = &mut self.fetch
            && as_events
        {
            headers.set("content-type", "text/event-stream; charset=utf-8");
        }
        // The splice is found by the headers of the fetch, so before they are taken. The events are begun by the taken
        // headers. Usage is removed before names are replaced, as in `Action::Emit`.
        self.find_splice();
        if let FetchState::Reading { headers, .. } = &mut self.fetch {
            self.upstream_headers = Some(core::mem::take(headers));
        }
        self.note_verdict(Verdict::Answered);
        let body = if self.job.metering.is_some() {
            self.begin_events();
            self.pass_events(body)
        } else {
            body
        };
        match &mut self.splice {
            Some(splice) if whole => splice.whole(&body),
            _ => self.spliced(body),
        }
    }

    /// Notes that the request is sent to an endpoint: in the log of contents, if the service keeps prompts; in the
    /// isolate's memory, for the breakers; and in the observation, which counts requests for the DNS nodes.
    #[inline(never)]
    fn note_sent(&mut self, target: usize) {
        let Some(target) = self.run.target(target) else { return };
        if let Some(content) = self.info.logged.as_ref().and_then(|logged| logged.content.as_ref())
            && let Some(json) = self.job.body.as_ref().and_then(|body| body.json())
        {
            content.borrow_mut().keep_prompt(json.as_bytes());
        }
        memory::with(|memory| memory.note_sent(target, self.job.sender, clock::now()));
        if let Some(observation) = &mut self.job.observation {
            let bytes = self.job.body.as_ref().map_or(0, |body| body.size());
            observation.note_sent(target, self.job.model.as_deref(), bytes);
        }
    }

    /// Notes in the isolate's memory how the current attempt went.
    #[inline(never)]
    pub(super) fn note_verdict(&self, verdict: Verdict) {
        let last = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        if let Some(target) = last {
            memory::with(|memory| memory.note(target, &self.job.attribution(), verdict, clock::now()));
        }
    }

    /// Sends the request to an endpoint. The body goes in one of three ways: as bytes; in chunks by [`Writing`], if it
    /// is large; or streamed from the client, if it is an upload.
    #[inline(never)]
    fn send(&mut self, attempt: AttemptNumber, target: usize) -> Result<(), Failure> {
        let target = self.run.target(target).ok_or(Failure::Internal)?;
        let secret = target.secret().and_then(|name| self.job.env.text(name));
        let Job { route, query, headers, body, .. } = &self.job;
        let mut out = rewrite::outgoing(target, route, query, headers, body.as_deref(), secret.as_deref())?;
        let logged = self.info.logged.as_ref();
        if let Some(traceparent) = logged.and_then(|one| one.traceparent(&self.info.request_id, attempt.into())) {
            out.headers.set("traceparent", &traceparent);
        }
        let written = match (out.written, body) {
            (Some(length), Some(body)) => {
                let (writing, stream) = Writing::begin(body, self.job.reservation.as_ref(), target, length)?;
                self.writing = writing;
                Some(stream)
            }
            _ => None,
        };
        let uploaded = self.job.upload.as_ref().and_then(|upload| {
            out.headers.push("content-type", upload.content_type());
            upload.body()
        });
        self.exchange.send(
            attempt,
            out.method,
            out.url.as_str(),
            &out.headers,
            out.body.as_deref(),
            written.or(uploaded),
        );
        Ok(())
    }
}
