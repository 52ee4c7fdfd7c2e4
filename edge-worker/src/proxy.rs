//! Drives the attempt machine with real fetches: a [`Run`] and what to send enter, the client's [`Response`] leaves.
//!
//! Until the machine commits, the request's handler waits in [`Driver::respond`]. After that [`Driver::pump`] writes the body,
//! each write waiting for the client: nothing is read from the endpoint that the client isn't ready to take, so memory is
//! bounded by a chunk. When the client goes away a write fails or its signal tells; dropping the driver aborts what is in flight.

use std::cell::RefCell;
use std::collections::VecDeque;

use worker::js_sys::futures::spawn_local;
use worker::{Env, Headers, Response, ResponseBuilder, console_warn};

use crate::attempt::{Action, AttemptNumber, Budget, End, Event, Run, step};
use crate::body::Inspected;
use crate::cooldown::{self, CoolDowns};
use crate::envelope::Failure;
use crate::feed;
use crate::reply::{Stamp, respond};
use crate::rewrite::path::Route;
use crate::rewrite::query::Query;
use crate::rewrite::{self, headers};
use crate::wire::{Happening, Lines, Wire};

thread_local! {
    /// What this isolate has learnt of endpoints. Plain values, never borrowed across an await.
    static COOL_DOWNS: RefCell<CoolDowns> = RefCell::new(CoolDowns::default());
    static BUDGET: RefCell<Budget> = RefCell::new(Budget::new(feed::now().0));
}

/// Looks at the isolate's cool-downs.
pub(crate) fn cool_downs<T>(look: impl FnOnce(&CoolDowns) -> T) -> T {
    COOL_DOWNS.with_borrow(look)
}

/// What is sent, to whichever endpoint: made into each endpoint's own request when its turn comes.
pub(crate) struct Job {
    /// Secrets are read when they are sent, and kept nowhere.
    pub(crate) env: Env,
    /// The path.
    pub(crate) route: Route,
    /// The query.
    pub(crate) query: Query,
    /// The client's headers, all of them.
    pub(crate) headers: Vec<(String, String)>,
    /// The body. Dropped when an answer is committed.
    pub(crate) body: Option<Inspected>,
    /// The model, by the client's name.
    pub(crate) model: Option<String>,
}

/// A run under way.
pub(crate) struct Driver {
    run: Run,
    job: Job,
    stamp: Stamp,
    wire: Wire,
    flight: Flight,
    /// Whose timer is armed.
    timer: Option<AttemptNumber>,
}

/// What the client is to get.
enum Out {
    Begin { status: u16 },
    Bytes(Vec<u8>),
    End,
    Cut,
    Fail(Failure),
}

/// The fetch of the moment.
enum Flight {
    Landed,
    Sending,
    Reading {
        headers: Lines,
        /// The body has ended. The headers may yet be committed: a short answer is held until its end.
        ended: bool,
    },
}

impl Driver {
    /// A driver of a run that hasn't begun.
    pub(crate) fn new(run: Run, job: Job, stamp: Stamp, wire: Wire) -> Self {
        Self { run, job, stamp, wire, flight: Flight::Landed, timer: None }
    }

    /// Drives the run to its commit or its failure. What follows a commit is driven by the response's body.
    pub(crate) async fn respond(mut self) -> Response {
        let mut outs = self.advance(Event::Start);
        let status = loop {
            match outs.pop_front() {
                Some(Out::Begin { status }) => break status,
                Some(Out::Fail(failure)) => return self.fail(&failure),
                Some(_) => {}
                None if self.run.is_done() => return self.fail(&Failure::Internal),
                None => outs = self.next_outs().await,
            }
        };
        self.job.body = None;
        let allowed = match &self.flight {
            Flight::Reading { headers, .. } => {
                headers::to_client(headers.iter().map(|(name, value)| (name.as_str(), value.as_str())))
            }
            Flight::Sending | Flight::Landed => Vec::new(),
        };
        let headers = self.stamp.served(&allowed, self.run.served_by(), self.run.record());
        if outs.iter().any(|out| matches!(out, Out::End)) {
            let pieces = outs.into_iter().map(|out| if let Out::Bytes(bytes) = out { bytes } else { Vec::new() });
            return respond(status, headers, pieces.reduce(|body, piece| [body, piece].concat()).unwrap_or_default());
        }
        self.stream(status, headers, outs)
    }

    /// Begins a response whose body [`Driver::pump`] writes.
    fn stream(self, status: u16, headers: Headers, outs: VecDeque<Out>) -> Response {
        let length = match &self.flight {
            Flight::Reading { headers, .. } => announced_length(headers),
            Flight::Sending | Flight::Landed => None,
        };
        let Some(readable) = self.wire.begin(length) else { return self.fail(&Failure::Internal) };
        let response = ResponseBuilder::new().with_status(status).with_headers(headers).stream(readable);
        spawn_local(self.pump(outs));
        response
    }

    /// Writes what the machine emits. Each write waits until the client has taken it.
    async fn pump(mut self, mut outs: VecDeque<Out>) {
        loop {
            match outs.pop_front() {
                Some(Out::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Out::Bytes(bytes)) => {
                    if !self.wire.write(&bytes).await {
                        self.advance(Event::ClientGone);
                        return;
                    }
                }
                Some(Out::Begin { .. }) => {}
                Some(Out::Cut | Out::Fail(_)) => return self.wire.cut(),
                Some(Out::End) => return self.wire.close(),
                None if self.run.is_done() => return,
                None => outs = self.next_outs().await,
            }
        }
    }

    fn fail(&self, failure: &Failure) -> Response {
        self.stamp.failure(failure, Some(self.run.record()))
    }

    async fn next_outs(&mut self) -> VecDeque<Out> {
        match self.next_event().await {
            Some(event) => self.advance(event),
            None => VecDeque::from([Out::Fail(Failure::Internal)]),
        }
    }

    /// Waits for whatever comes first.
    /// `None`: the machine is not done and yet there is nothing to wait for, which would be a mistake of ours.
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let reading = matches!(self.flight, Flight::Reading { ended: false, .. });
            if !reading && !matches!(self.flight, Flight::Sending) && self.timer.is_none() {
                return None;
            }
            return Some(match self.wire.next(reading).await {
                Happening::Headers { attempt, status, headers } => self.answered(attempt, status, headers),
                Happening::Refused { attempt } => {
                    self.flight = Flight::Landed;
                    Event::FetchError { attempt }
                }
                Happening::Chunk { attempt, bytes } => Event::Chunk { attempt, bytes },
                Happening::End { attempt } => {
                    self.ended();
                    Event::Eof { attempt }
                }
                Happening::Broken { attempt } => {
                    self.ended();
                    Event::BodyError { attempt }
                }
                Happening::Timer => match self.timer.take() {
                    Some(attempt) => Event::Timer { attempt },
                    None => continue,
                },
                Happening::Gone => Event::ClientGone,
            });
        }
    }

    fn answered(&mut self, attempt: AttemptNumber, status: u16, headers: Lines) -> Event {
        let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
        // Nobody asks for a rest who serves.
        let failed = !(200..=299).contains(&status);
        let retry_after_ms = if failed { cooldown::asked_rest(header, feed::now()) } else { None };
        let content_type = header("content-type");
        self.flight = Flight::Reading { headers, ended: false };
        Event::Headers { attempt, status, content_type, retry_after_ms }
    }

    fn ended(&mut self) {
        if let Flight::Reading { ended, .. } = &mut self.flight {
            *ended = true;
        }
    }

    /// One step of the machine, and what it says to do.
    fn advance(&mut self, event: Event) -> VecDeque<Out> {
        let mut outs = VecDeque::new();
        if !matches!(event, Event::Chunk { .. }) {
            self.pass_over();
        }
        let actions = BUDGET.with_borrow_mut(|budget| step(&mut self.run, budget, feed::now().0, event));
        for action in actions {
            self.perform(action, &mut outs);
        }
        outs
    }

    fn perform(&mut self, action: Action, outs: &mut VecDeque<Out>) {
        match action {
            Action::Send { attempt, target } => match self.send(attempt, target) {
                Ok(()) => self.flight = Flight::Sending,
                Err(failure) => outs.push_back(Out::Fail(failure)),
            },
            Action::Arm { attempt, after_ms } => {
                self.timer = Some(attempt);
                self.wire.arm(feed::now().0, after_ms);
            }
            Action::Disarm { .. } => self.timer = None,
            Action::Abort { .. } => {
                self.flight = Flight::Landed;
                self.wire.abort();
            }
            Action::Commit { status, body, .. } => {
                if let Some(target) = self.run.served_by() {
                    COOL_DOWNS.with_borrow_mut(|cool| {
                        cool.recovered(target.region_id(), target.id(), self.job.model.as_deref());
                    });
                }
                outs.extend([Out::Begin { status }, Out::Bytes(body)]);
            }
            Action::Emit { bytes } => outs.push_back(Out::Bytes(bytes)),
            Action::EmitTail { bytes } => outs.extend([Out::Bytes(bytes), Out::End]),
            Action::CutStream => outs.push_back(Out::Cut),
            Action::Finish => {
                self.wire.leave();
                outs.push_back(Out::End);
            }
            Action::CoolDown { region, endpoint, model, asked_ms } => COOL_DOWNS
                .with_borrow_mut(|cool| cool.rest(&region, &endpoint, model.as_deref(), asked_ms, feed::now())),
            Action::Reply { failure } => outs.push_back(Out::Fail(failure)),
        }
    }

    /// Endpoints that began to rest on another request's word since this one was planned.
    fn pass_over(&mut self) {
        let (model, now) = (self.job.model.as_deref(), feed::now());
        COOL_DOWNS.with_borrow(|cool| {
            self.run.pass_over(|target| cool.is_resting(target.region_id(), target.id(), model, now));
        });
    }

    /// Sends.
    fn send(&mut self, attempt: AttemptNumber, target: usize) -> Result<(), Failure> {
        let target = self.run.target(target).ok_or(Failure::Internal)?;
        let secret = target.secret().and_then(|name| feed::text_of(&self.job.env, name));
        let Job { route, query, headers, body, .. } = &self.job;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let out = rewrite::outgoing(target, route, query, headers, body.as_ref(), secret.as_deref())?;
        self.wire.send(attempt, out.method, out.url.as_str(), &out.headers, out.body.as_deref());
        Ok(())
    }
}

impl Drop for Driver {
    /// Logs what didn't go by itself: fixed fields, all of them from the run's record.
    fn drop(&mut self) {
        let record = self.run.record();
        let smooth = record.attempts.len() == 1
            && record.committed().is_some()
            && matches!(record.end, None | Some(End::Whole | End::ClientGone));
        if smooth {
            return;
        }
        let regions: Vec<&str> = record.attempts.iter().map(|attempt| attempt.region.as_str()).collect();
        let line = serde_json::json!({
            "event": "attempts", "request_id": self.stamp.request_id, "revision": self.stamp.revision,
            "attempts": record.header(), "regions": regions, "skipped": record.skipped.len(),
            "stopped": record.stopped.map(|stop| format!("{stop:?}")), "end": record.end.map(|end| format!("{end:?}")),
        });
        console_warn!("{line}");
    }
}

/// The length of a body that is passed on as it is: none for events, and none for what the runtime unpacks.
fn announced_length(headers: &Lines) -> Option<u32> {
    let header = |name: &str| headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.trim());
    let is_events =
        header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"));
    if is_events || header("content-encoding").is_some() {
        return None;
    }
    header("content-length")?.parse().ok()
}
