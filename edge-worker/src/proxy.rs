//! Drives the attempt machine with real fetches: a [`Run`] and what to send enter, the client's [`Response`] leaves.
//!
//! Until the machine commits, the request's handler waits in [`Driver::respond`]. After that [`Driver::pump`] writes the body,
//! each write waiting for the client: nothing is read from the endpoint that the client isn't ready to take, so memory is
//! bounded by a chunk. When the client goes away a write fails or its signal tells; dropping the driver aborts what is in flight.

use core::future::Future;
use core::pin::{Pin, pin};
use std::collections::VecDeque;

use futures_util::future::{Either, pending, select};
use futures_util::stream::{self, Stream, StreamExt};
use worker::js_sys::futures::{JsFuture, spawn_local};
use worker::wasm_bindgen::JsCast;
use worker::web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};
use worker::{
    AbortController, Env, Error, Fetch, Headers, Method, Request, RequestInit, RequestRedirect, Response,
    ResponseBuilder, console_warn, js_sys,
};

use crate::attempt::{Action, AttemptNumber, End, Event, Run, step};
use crate::bell::{Alarm, Gone};
use crate::breaker::Verdict;
use crate::cooldown;
use crate::envelope::Failure;
use crate::feed;
use crate::inflight::Hold;
use crate::memory;
use crate::receipt::Notary;
use crate::reply::{Stamp, respond};
use crate::rewrite::path::Route;
use crate::rewrite::query::Query;
use crate::rewrite::{self, Content, headers};
use crate::splice::{Ids, Names, Splice};
use crate::state::seal::{Keyring, Owner};
use crate::uploads::Outbound;

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
    pub(crate) body: Option<Content>,
    /// A body that streams, to one endpoint.
    pub(crate) upload: Option<Outbound>,
    /// The model, by the client's name.
    pub(crate) model: Option<String>,
    /// Who signs for it.
    pub(crate) notary: Option<Notary>,
    /// How ids are sealed, and for whom, where the answer holds any.
    pub(crate) ids: Option<(Keyring, Owner)>,
    /// What the body takes of this isolate's memory.
    pub(crate) hold: Hold,
}

/// A run under way.
pub(crate) struct Driver {
    run: Run,
    job: Job,
    stamp: Stamp,
    gone: Gone,
    flight: Flight,
    /// The headers of the answer that was committed. Its flight may have ended with the same chunk.
    theirs: Option<Headers>,
    timer: Option<(AttemptNumber, Alarm)>,
    /// What puts the client's names into a committed answer that has others.
    splice: Option<Splice>,
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
    Sending { attempt: AttemptNumber, response: Pin<Box<dyn Future<Output = worker::Result<Response>>>>, abort: Abort },
    Reading { attempt: AttemptNumber, headers: Headers, body: Body, abort: Abort },
}

type Body = Pin<Box<dyn Stream<Item = worker::Result<Vec<u8>>>>>;

/// What a flight brought.
enum Arrival {
    Response(worker::Result<Response>),
    Chunk(Option<worker::Result<Vec<u8>>>),
}

impl Driver {
    /// A driver of a run that hasn't begun.
    pub(crate) fn new(run: Run, job: Job, stamp: Stamp, gone: Gone) -> Self {
        Self { run, job, stamp, gone, flight: Flight::Landed, theirs: None, timer: None, splice: None }
    }

    /// Drives the run to its commit or its failure. What follows a commit is driven by the response's body.
    pub(crate) async fn respond(mut self) -> Response {
        let mut outs = self.advance(Event::Start);
        let status = loop {
            match outs.pop_front() {
                Some(Out::Begin { status }) => break status,
                Some(Out::Fail(failure)) => return self.fail(&failure).await,
                Some(_) => {}
                None if self.run.is_done() => return self.fail(&self.verdict().unwrap_or(Failure::Internal)).await,
                None => outs = self.next_outs().await,
            }
        };
        self.job.body = None;
        self.job.hold = Hold::default();
        let theirs = core::mem::take(&mut self.theirs);
        let all: Vec<(String, String)> = theirs.iter().flat_map(Headers::entries).collect();
        let allowed = headers::to_client(all.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        let headers = self.stamp.served(&allowed, self.run.served_by(), self.run.record());
        if let Some(notary) = self.job.notary.take()
            && let Err(failure) = notary.sign(&headers, status, self.run.served_by(), self.run.record()).await
        {
            return self.fail(&failure).await;
        }
        if outs.iter().any(|out| matches!(out, Out::End)) {
            let body = outs.into_iter().flat_map(|out| if let Out::Bytes(bytes) = out { bytes } else { Vec::new() });
            return respond(status, headers, body.collect());
        }
        // What is spliced has another length.
        let length = theirs.as_ref().filter(|_| self.splice.is_none()).and_then(announced_length);
        self.stream(status, headers, length, outs).await
    }

    /// Begins a response whose body [`Driver::pump`] writes.
    async fn stream(mut self, status: u16, headers: Headers, length: Option<f64>, outs: VecDeque<Out>) -> Response {
        let Some((readable, writer)) = pipe(length) else { return self.fail(&Failure::Internal).await };
        let response = ResponseBuilder::new().with_status(status).with_headers(headers).stream(readable);
        spawn_local(self.pump(writer, outs));
        response
    }

    /// Writes what the machine emits. Each write waits until the client has taken it.
    async fn pump(mut self, writer: WritableStreamDefaultWriter, mut outs: VecDeque<Out>) {
        loop {
            match outs.pop_front() {
                Some(Out::Bytes(bytes)) if bytes.is_empty() => {}
                Some(Out::Bytes(bytes)) => {
                    let chunk = js_sys::Uint8Array::from(bytes.as_slice());
                    if JsFuture::from(writer.write_with_chunk(&chunk)).await.is_err() {
                        self.advance(Event::ClientGone);
                        return;
                    }
                }
                Some(Out::Begin { .. }) => {}
                Some(Out::Cut | Out::Fail(_)) => {
                    let _ = JsFuture::from(writer.abort_with_reason(&"the answer broke off".into())).await;
                    return;
                }
                Some(Out::End) => {
                    let _ = JsFuture::from(writer.close()).await;
                    return;
                }
                None if self.run.is_done() => return,
                None => outs = self.next_outs().await,
            }
        }
    }

    /// Why an upload broke off, if it was refused on its way.
    fn verdict(&self) -> Option<Failure> {
        self.job.upload.as_ref().and_then(Outbound::verdict)
    }

    /// The answer is an error of our own. The request may have been sent all the same, so it has its receipt too.
    async fn fail(&mut self, failure: &Failure) -> Response {
        let response = self.stamp.failure(failure, Some(self.run.record()));
        if let Some(notary) = self.job.notary.take() {
            // An error takes nothing back: it is told with or without.
            let _ = notary.sign(response.headers(), response.status_code(), None, self.run.record()).await;
        }
        response
    }

    async fn next_outs(&mut self) -> VecDeque<Out> {
        match self.next_event().await {
            Some(event) => self.advance(event),
            None => VecDeque::from([Out::Fail(Failure::Internal)]),
        }
    }

    /// Waits for whatever comes first. An endpoint's bytes go before a timer that ran out while the client wasn't reading.
    /// `None`: the machine is not done and yet there is nothing to wait for, which would be a mistake of ours.
    async fn next_event(&mut self) -> Option<Event> {
        if matches!(self.flight, Flight::Landed) && self.timer.is_none() {
            return None;
        }
        let waited = {
            let alarm = async {
                match &self.timer {
                    Some((attempt, alarm)) => {
                        alarm.wait().await;
                        *attempt
                    }
                    None => pending().await,
                }
            };
            let (alarm, gone) = (pin!(alarm), pin!(self.gone.wait()));
            match select(pin!(arrival(&mut self.flight)), select(alarm, gone)).await {
                Either::Left((arrived, _)) => Ok(arrived),
                Either::Right((Either::Left((attempt, _)), _)) => Err(Event::Timer { attempt }),
                Either::Right((Either::Right(((), _)), _)) => Err(Event::ClientGone),
            }
        };
        match waited {
            // An upload that was refused on its way: whatever the endpoint makes of half of it, it is not at fault.
            _ if self.run.served_by().is_none() && self.verdict().is_some() => Some(Event::ClientGone),
            Ok(arrived) => self.arrived(arrived),
            Err(event) => {
                self.timer = None;
                Some(event)
            }
        }
    }

    fn arrived(&mut self, arrived: Arrival) -> Option<Event> {
        Some(match (core::mem::replace(&mut self.flight, Flight::Landed), arrived) {
            (Flight::Sending { attempt, abort, .. }, Arrival::Response(Ok(mut response))) => {
                let headers = response.headers().clone();
                let header = |name: &str| headers.get(name).ok().flatten();
                let event = Event::Headers {
                    attempt,
                    status: response.status_code(),
                    content_type: header("content-type"),
                    retry_after_ms: cooldown::asked_rest(header, feed::now()),
                };
                let body: Body = match response.stream() {
                    Ok(body) => Box::pin(body),
                    Err(_) => Box::pin(stream::empty()),
                };
                self.flight = Flight::Reading { attempt, headers, body, abort };
                event
            }
            (Flight::Sending { attempt, .. }, Arrival::Response(Err(_))) => Event::FetchError { attempt },
            (Flight::Reading { attempt, headers, body, abort }, Arrival::Chunk(Some(Ok(bytes)))) => {
                self.flight = Flight::Reading { attempt, headers, body, abort };
                Event::Chunk { attempt, bytes }
            }
            (Flight::Reading { attempt, headers, mut abort, .. }, Arrival::Chunk(end)) => {
                abort.landed();
                // The headers may yet be committed: a short answer is held until its end.
                self.flight = Flight::Reading { attempt, headers, body: Box::pin(stream::pending()), abort };
                if end.is_none() { Event::Eof { attempt } } else { Event::BodyError { attempt } }
            }
            _ => return None,
        })
    }

    /// One step of the machine, and what it says to do.
    fn advance(&mut self, event: Event) -> VecDeque<Out> {
        let mut outs = VecDeque::new();
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            if !matches!(event, Event::Chunk { .. }) {
                self.pass_over();
            }
            if event == Event::ClientGone && self.run.record().committed().is_none() {
                self.heard(Verdict::Nothing);
            }
            let actions = memory::with(|memory| step(&mut self.run, &mut memory.budget, feed::now().0, event));
            for action in actions {
                self.perform(action, &mut outs, &mut events);
            }
        }
        outs
    }

    fn perform(&mut self, action: Action, outs: &mut VecDeque<Out>, events: &mut VecDeque<Event>) {
        match action {
            Action::Send { attempt, target } => {
                if let Some(target) = self.run.target(target) {
                    memory::with(|memory| memory.sent(target, feed::now()));
                }
                match self.send(attempt, target) {
                    Ok(flight) => self.flight = flight,
                    Err(Some(failure)) => outs.push_back(Out::Fail(failure)),
                    Err(None) => events.push_back(Event::FetchError { attempt }),
                }
            }
            Action::Arm { attempt, after_ms } => self.timer = Some((attempt, Alarm::after(after_ms))),
            Action::Disarm { .. } => self.timer = None,
            Action::Abort { .. } => self.flight = Flight::Landed,
            Action::Commit { status, body, .. } => {
                if let Flight::Reading { headers, .. } = &self.flight {
                    self.theirs = Some(headers.clone());
                }
                self.splice = self.splice();
                self.heard(Verdict::Answered);
                outs.extend([Out::Begin { status }, Out::Bytes(self.spliced(body))]);
            }
            Action::Emit { bytes } => outs.push_back(Out::Bytes(self.spliced(bytes))),
            Action::EmitTail { bytes } => outs.extend([Out::Bytes(bytes), Out::End]),
            Action::CutStream => outs.push_back(Out::Cut),
            Action::Finish => {
                self.heard(Verdict::Whole);
                if let Some(rest) = self.splice.as_mut().map(Splice::finish).filter(|rest| !rest.is_empty()) {
                    outs.push_back(Out::Bytes(rest));
                }
                outs.push_back(Out::End);
            }
            Action::CoolDown { .. } => memory::with(|memory| memory.cool_down(&action, feed::now())),
            Action::Reply { failure } => {
                // Whoever refuses a request is alive.
                if matches!(failure, Failure::Refused { .. }) {
                    self.heard(Verdict::Answered);
                }
                outs.push_back(Out::Fail(failure));
            }
        }
    }

    /// Notes how the endpoint of the moment did.
    fn heard(&self, verdict: Verdict) {
        let last = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        if let Some(target) = last {
            memory::with(|memory| memory.heard(target, self.job.model.as_deref(), verdict, feed::now()));
        }
    }

    /// What has to be changed in the answer of the endpoint that was committed: nothing, most of the time.
    fn splice(&self) -> Option<Splice> {
        let target = self.run.served_by()?;
        let Flight::Reading { headers, .. } = &self.flight else { return None };
        let content_type = headers.get("content-type").ok().flatten().unwrap_or_default().to_ascii_lowercase();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let events = kind == "text/event-stream";
        if !events && kind != "application/json" && !kind.ends_with("+json") && !kind.is_empty() {
            return None;
        }
        let model = self.job.model.as_deref().filter(|&model| target.model().is_some_and(|theirs| theirs != model));
        let ids = self.job.ids.as_ref().map(|(keys, owner)| Ids {
            keys: keys.clone(),
            owner: owner.clone(),
            region: target.region_id().clone(),
            endpoint: target.id().clone(),
        });
        Some(Splice::new(Names::new(model, ids)?, events))
    }

    fn spliced(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match &mut self.splice {
            Some(splice) => splice.pass(&bytes),
            None => bytes,
        }
    }

    /// Endpoints that began to rest on another request's word since this one was planned.
    fn pass_over(&mut self) {
        let (model, now) = (self.job.model.as_deref(), feed::now());
        memory::with(|memory| self.run.pass_over(|target| memory.is_resting(target, model, now)));
    }

    /// Sends. An error without a failure is the runtime's refusal to make the request.
    fn send(&self, attempt: AttemptNumber, target: usize) -> Result<Flight, Option<Failure>> {
        let target = self.run.target(target).ok_or(Some(Failure::Internal))?;
        let secret = target.secret().and_then(|name| feed::text_of(&self.job.env, name));
        let Job { route, query, headers, body, .. } = &self.job;
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        let mut outgoing = rewrite::outgoing(target, route, query, headers, body.as_ref(), secret.as_deref())?;
        let body = match &self.job.upload {
            None => outgoing.body.take().map(|bytes| js_sys::Uint8Array::from(bytes.as_slice()).into()),
            Some(upload) => {
                outgoing.headers.push(("content-type".to_owned(), upload.content_type().to_owned()));
                upload.body()
            }
        };

        let mut init = RequestInit::new();
        init.with_method(Method::from(outgoing.method.to_owned()))
            .with_headers(outgoing.headers.iter().map(|(name, value)| (name, value)).collect())
            // A redirect could lead out of the fence: it is seen as a failed attempt.
            .with_redirect(RequestRedirect::Manual)
            .with_body(body);
        let request = Request::new_with_init(outgoing.url.as_str(), &init).map_err(|_| None)?;
        let abort = Abort::default();
        let signal = abort.0.as_ref().map(AbortController::signal);
        let response = async move {
            match signal {
                Some(signal) => Fetch::Request(request).send_with_signal(&signal).await,
                None => Err(Error::BodyUsed),
            }
        };
        Ok(Flight::Sending { attempt, response: Box::pin(response), abort })
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

/// What the flight brings next; nothing, if there is none.
async fn arrival(flight: &mut Flight) -> Arrival {
    match flight {
        Flight::Landed => pending().await,
        Flight::Sending { response, .. } => Arrival::Response(response.await),
        Flight::Reading { body, .. } => Arrival::Chunk(body.next().await),
    }
}

/// The two ends of one of the runtime's own pipes: of so many bytes, if that is known.
///
/// The length matters when an answer breaks off. workerd ends a chunked body as if it were whole, whatever happens to the
/// stream behind it; one of a known length it cuts, and the client sees it. Streams of events say by an event how they ended.
pub(crate) fn pipe(length: Option<f64>) -> Option<(ReadableStream, WritableStreamDefaultWriter)> {
    let (name, arguments) = match length {
        Some(length) => ("FixedLengthStream", js_sys::Array::of1(&length.into())),
        None => ("IdentityTransformStream", js_sys::Array::new()),
    };
    let constructor = js_sys::Reflect::get(&js_sys::global(), &name.into()).ok()?;
    let pipe = js_sys::Reflect::construct(constructor.dyn_ref::<js_sys::Function>()?, &arguments).ok()?;
    let pipe: TransformStream = pipe.unchecked_into();
    Some((pipe.readable(), pipe.writable().get_writer().ok()?))
}

/// The length of a body that is passed on as it is: none for events, and none for what the runtime unpacks.
fn announced_length(headers: &Headers) -> Option<f64> {
    let header = |name: &str| headers.get(name).ok().flatten();
    let is_events =
        header("content-type").is_some_and(|kind| kind.to_ascii_lowercase().starts_with("text/event-stream"));
    if is_events || header("content-encoding").is_some() {
        return None;
    }
    header("content-length")?.trim().parse::<u32>().ok().map(f64::from)
}

/// Aborts its fetch when it is dropped: dropping the future alone doesn't.
struct Abort(Option<AbortController>);

impl Default for Abort {
    fn default() -> Self {
        Self(Some(AbortController::default()))
    }
}

impl Abort {
    /// The fetch has ended by itself.
    fn landed(&mut self) {
        self.0 = None;
    }
}

impl Drop for Abort {
    fn drop(&mut self) {
        if let Some(controller) = self.0.take() {
            controller.abort();
        }
    }
}
