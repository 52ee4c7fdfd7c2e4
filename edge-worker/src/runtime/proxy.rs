//! Drives the attempt machine with real fetches. The machine decides which endpoint is asked next and what the client
//! gets; this file does it. Takes a [`Task`] and a [`Job`], returns the client's [`Answer`]. Called by `serve`.
//!
//! The machine commits when it passes the first part of an answer to the client: from then on no other endpoint is
//! tried. Until the commit, the client waits for [`Driver::respond`]. Then [`Body::write`] writes the body. Each write
//! waits for the client, and the `exchange` reads at most 64 KiB ahead, so memory is bounded. If the client closes the
//! connection, a write fails or the request's abort signal fires. Dropping the driver aborts the fetch in flight.

mod actions;
mod early;
mod metering;
mod splicing;
mod stored_file;
mod waiting;

use std::collections::VecDeque;
use std::rc::Rc;

use bailiwick_rules::time::Millis;
use futures_util::future::LocalBoxFuture;

use crate::decide::admission::Slot;
use crate::decide::attempt::{Action, AttemptNumber, Event, Run, Task, step};
use crate::decide::breaker::Verdict;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::inflight::Reservation;
use crate::decide::keepalive::{self, KeepAlive};
use crate::decide::logs::is_kept_type;
use crate::decide::rewrite::{Content, headers};
use crate::decide::route::Route;
use crate::decide::route::query::Query;
use crate::decide::sender::Sender;
use crate::decide::splice::Splice;
use crate::decide::sse::single::AnswerKind;
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::platform::Env;
use crate::runtime::account;
use crate::runtime::clock::{self, Clock};
use crate::runtime::exchange::Exchange;
use crate::runtime::held::Writing;
use crate::runtime::logs::LogSender;
use crate::runtime::memory::{self, Attribution};
use crate::runtime::observe::Observation;
use crate::runtime::receipt::{self, ReceiptSigner};
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::uploads::OutboundUpload;
pub(crate) use metering::{Metering, add_budget_headers, budget_of};
use stored_file::{StoredFile, is_content};

/// The request to send. It is adapted to each endpoint at the time when the endpoint is asked.
pub(crate) struct Job {
    /// The Worker's environment. Secrets are read from it when they are sent, and never stored.
    pub(crate) env: Env,
    /// The path.
    pub(crate) route: Route,
    /// The query.
    pub(crate) query: Query,
    /// All headers of the client.
    pub(crate) headers: Headers,
    /// The body. It is dropped when an answer is committed.
    pub(crate) body: Option<Rc<Content>>,
    /// An upload, which is streamed to one endpoint.
    pub(crate) upload: Option<OutboundUpload>,
    /// The client's name of the model.
    pub(crate) model: Option<String>,
    /// The client to whom failures of endpoints are attributed.
    pub(crate) sender: Sender,
    /// The signer of the receipt, if there is one.
    pub(crate) receipt_signer: Option<ReceiptSigner>,
    /// The keys and the owner to seal ids with, if the answer may hold ids.
    pub(crate) ids: Option<(Keyring, Owner)>,
    /// Whether the answer is a list of models that may hold other tenants' models.
    pub(crate) hides_models: bool,
    /// The memory that is reserved for the body.
    pub(crate) reservation: Option<Rc<Reservation>>,
    /// The interval between comments to a client that waits for a stream; `None` for no comments.
    pub(crate) keepalive: Option<Millis>,
    /// The kind of answer on this path, which decides the form of its events.
    pub(crate) answer_kind: Option<AnswerKind>,
    /// Whether the runtime itself passes the rest of a committed stream to the client, if nothing in the stream has to
    /// be changed.
    pub(crate) pipes: bool,
    /// The request's charges to quotas, if the rules have any.
    pub(crate) metering: Option<Box<Metering>>,
    /// Counts the request for the DNS nodes, if they want counts.
    pub(crate) observation: Option<Observation>,
    /// Sends the request's event, if the rules have sinks.
    pub(crate) log_sender: Option<LogSender>,
    /// Counts the request as in flight until it is dropped, if the number of the tenant's requests is limited.
    pub(crate) slot: Option<Slot>,
}

impl Job {
    /// The client, model and path that a failure is attributed to.
    fn attribution(&self) -> Attribution<'_> {
        Attribution { sender: self.sender, model: self.model.as_deref(), path: self.route.pattern() }
    }
}

/// One run of the attempt machine, with its exchange.
pub(crate) struct Driver {
    run: Run,
    job: Job,
    info: ResponseInfo,
    exchange: Exchange,
    fetch: FetchState,
    /// The endpoint's headers of the committed answer. They are kept because the fetch may have ended with the same
    /// chunk.
    upstream_headers: Option<Headers>,
    /// The attempt whose timer runs.
    timer: Option<AttemptNumber>,
    /// The machine's time.
    clock: Clock,
    /// The body that is being written to the current endpoint.
    writing: Writing,
    /// Puts the client's names into a committed answer, if it needs them.
    splice: Option<Splice>,
    /// The properties of a stored file, as its endpoint reports them.
    file: Option<StoredFile>,
    /// Whether the client can't notice that the answer is incomplete, because it has no length and isn't an event
    /// stream.
    is_unmeasured: bool,
    /// The memory that is reserved for an answer that is held back, beyond what each answer may take without a
    /// reservation.
    held_reservation: Reservation,
    /// The status of the committed answer.
    status: Option<u16>,
    /// The failure that the client got instead of an answer: its status and its code.
    failed: Option<(u16, &'static str)>,
    /// When a waiting client gets the next comment.
    keepalive: Option<KeepAlive>,
    /// Whether the stream began with comments, before the commit.
    is_begun: bool,
}

/// What the client gets next. Each variant except `Comment` has the name of the [`Action`] that causes it.
enum Output {
    Commit {
        status: u16,
    },
    /// A comment that keeps a waiting client connected.
    Comment,
    Emit(Vec<u8>),
    Finish,
    CutStream,
    Reply(Failure),
}

/// The answer to a client.
pub(crate) enum Answer {
    /// A complete response.
    Whole(Reply),
    /// A response whose body is written later, by [`Body::write`].
    Streamed(Box<Body>),
}

impl Answer {
    /// The answer's headers, before they are sent.
    pub(crate) fn headers(&mut self) -> &mut Headers {
        match self {
            Self::Whole(reply) => &mut reply.headers,
            Self::Streamed(body) => &mut body.headers,
        }
    }
}

/// A response whose body isn't complete yet.
pub(crate) struct Body {
    status: u16,
    headers: Headers,
    /// The body's length in bytes, if known.
    length: Option<u32>,
    driver: Box<Driver>,
    outputs: VecDeque<Output>,
}

impl Body {
    /// Sends the response, and writes its body to the end.
    #[inline(never)]
    pub(crate) fn write(mut self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            if self.driver.exchange.begin(self.status, &self.headers, self.length) {
                drop(self.headers);
                self.driver.pump(self.outputs).await;
            } else {
                self.driver.is_begun = false;
                let reply = self.driver.fail(&Failure::Internal).await;
                self.driver.exchange.reply(&reply);
            }
        })
    }
}

/// The state of the current fetch.
enum FetchState {
    Idle,
    Sending,
    Reading {
        headers: Headers,
        /// Whether the body has ended. The headers may still be committed, because a short answer is held until its
        /// end.
        ended: bool,
    },
}

impl Driver {
    /// Makes the driver of a run that hasn't begun.
    #[inline(never)]
    pub(crate) fn new(task: Task, job: Job, info: ResponseInfo, exchange: Exchange) -> Box<Self> {
        Box::new(Self {
            run: Run::new(task),
            job,
            info,
            exchange,
            fetch: FetchState::Idle,
            upstream_headers: None,
            timer: None,
            clock: Clock::default(),
            writing: Writing::default(),
            splice: None,
            file: None,
            is_unmeasured: false,
            status: None,
            failed: None,
            held_reservation: Reservation::default(),
            keepalive: None,
            is_begun: false,
        })
    }

    /// Drives the run to its commit or its failure. After the commit, [`Body::write`] drives the run to its end.
    pub(crate) async fn respond(mut self: Box<Self>) -> Answer {
        if self.job.route.is(&["batches"])
            && let Err(failure) = self.check_batch().await
        {
            return Answer::Whole(self.fail(&failure).await);
        }
        let mut outputs = self.advance(Event::Start);
        if let Some(every) = self.job.keepalive {
            self.keepalive = Some(KeepAlive::new(every, self.clock.at(clock::now())));
            self.keep_alive(&mut outputs);
        }
        let status = loop {
            match outputs.pop_front() {
                Some(Output::Commit { status }) => break status,
                Some(Output::Comment) => return self.begin_early(outputs),
                Some(Output::Reply(failure)) => return Answer::Whole(self.fail(&failure).await),
                Some(_) => {}
                None if self.run.is_done() => {
                    let failure = self.upload_failure().unwrap_or(Failure::Internal);
                    return Answer::Whole(self.fail(&failure).await);
                }
                None => outputs = self.next_outputs().await,
            }
        };
        if self.wants_length(&outputs) {
            self.file = self.fetch_stored_file().await;
        }
        let mut headers = self.headers();
        if let Some(receipt_signer) = self.job.receipt_signer.take()
            && let Err(failure) =
                receipt_signer.sign(&mut headers, status, self.run.served_by(), self.run.record()).await
        {
            return Answer::Whole(self.fail(&failure).await);
        }
        self.note_receipt(&headers);
        self.answer(status, headers, outputs)
    }

    /// Makes the headers of a committed answer. Drops the request, which is no longer needed.
    #[inline(never)]
    fn headers(&mut self) -> Headers {
        self.job.body = None;
        self.job.reservation = None;
        let mut headers = self.upstream_headers.as_ref().map(headers::to_client).unwrap_or_default();
        if self.run.served_by().is_some_and(|target| target.quota().is_some()) {
            headers::drop_limits(&mut headers);
        }
        self.add_limit_headers(&mut headers);
        if let Some(model) = headers.get("openai-model").and_then(|model| self.renamed(model)) {
            headers.set("openai-model", &model);
        }
        if is_content(&self.job.route) {
            self.rename_file(&mut headers);
        }
        self.info.answer_headers(headers, self.run.served_by(), self.run.record())
    }

    /// The client's name of a model, if the endpoint's name for it differs.
    fn renamed(&self, model: &str) -> Option<String> {
        let target = self.run.served_by()?;
        let requested = self.job.model.as_ref().filter(|&requested| target.model() != Some(requested));
        let by_their_name = || target.renamed()?.rfind(|(theirs, _)| *theirs == model).map(|(_, ours)| ours);
        requested.or_else(by_their_name).cloned()
    }

    /// The answer to begin: whole if it has ended already, otherwise streamed.
    #[inline(never)]
    fn answer(mut self: Box<Self>, status: u16, headers: Headers, outputs: VecDeque<Output>) -> Answer {
        if outputs.iter().any(|out| matches!(out, Output::Finish)) {
            let pieces = outputs.into_iter().map(|out| if let Output::Emit(bytes) = out { bytes } else { Vec::new() });
            let whole = pieces.reduce(|body, piece| if piece.is_empty() { body } else { [body, piece].concat() });
            return Answer::Whole(Reply::new(status, headers, whole.unwrap_or_default()));
        }
        // A splice changes names in the body, and so its length.
        let length = self.upstream_headers.as_ref().filter(|_| self.splice.is_none()).and_then(announced_length);
        let length = length.or(self.file.as_ref().filter(|_| self.splice.is_none()).and_then(|file| file.bytes));
        self.is_unmeasured = length.is_none() && !headers.get("content-type").is_some_and(is_event_stream);
        Answer::Streamed(Box::new(Body { status, headers, length, driver: self, outputs }))
    }

    /// Writes to the client what the machine emits. Each write waits until the client has taken it.
    async fn pump(&mut self, mut outputs: VecDeque<Output>) {
        loop {
            match outputs.pop_front() {
                Some(Output::Emit(bytes)) if bytes.is_empty() => {}
                Some(Output::Emit(bytes)) => {
                    if !self.exchange.write(&bytes).await {
                        self.advance(Event::ClientGone);
                        return;
                    }
                    if outputs.is_empty() {
                        self.held_reservation = Reservation::default();
                    }
                }
                Some(Output::Commit { .. }) if self.is_begun => self.commit_late(&mut outputs),
                Some(Output::Commit { .. }) => {}
                Some(Output::Comment) => outputs.push_front(Output::Emit(keepalive::COMMENT.to_vec())),
                Some(Output::Reply(failure)) if self.is_begun => outputs = self.fail_late(&failure),
                Some(Output::CutStream | Output::Reply(_)) => return self.exchange.cut().await,
                Some(Output::Finish) => return self.exchange.close().await,
                None if self.run.is_done() => return,
                None if self.exchange.may_pipe() && self.run.is_streaming() => {
                    if !self.pipe().await {
                        self.advance(Event::ClientGone);
                        return;
                    }
                }
                None => outputs = self.next_outputs().await,
            }
        }
    }

    /// Lets the runtime pass the rest of a stream that needs no change. False if the client has gone.
    #[inline(never)]
    fn pipe(&mut self) -> LocalBoxFuture<'_, bool> {
        Box::pin(async move {
            self.timer = None;
            let rest = self.run.pipe().unwrap_or_default();
            let is_taken = (rest.is_empty() || self.exchange.write(&rest).await) && self.exchange.flush().await;
            if is_taken {
                self.exchange.pipe();
            }
            is_taken
        })
    }

    /// The failure of an upload that was refused while it was sent.
    #[inline(never)]
    fn upload_failure(&self) -> Option<Failure> {
        self.job.upload.as_ref().and_then(OutboundUpload::failure)
    }

    /// Answers with an error of the Worker. The error has a receipt too, because the request may have been sent to
    /// endpoints before.
    #[inline(never)]
    fn fail<'a>(&'a mut self, failure: &'a Failure) -> LocalBoxFuture<'a, Reply> {
        Box::pin(async move {
            let (status, mut headers) = self.info.failure_headers(failure, Some(self.run.record()));
            self.failed = Some((status, failure.own_code()));
            if let Some(receipt_signer) = self.job.receipt_signer.take() {
                // The error is sent even if its receipt can't be signed.
                let _ = receipt_signer.sign(&mut headers, status, None, self.run.record()).await;
                self.note_receipt(&headers);
            }
            Reply::new(status, headers, failure.body().into_bytes())
        })
    }

    /// Waits for the next event, and returns what to do after it.
    async fn next_outputs(&mut self) -> VecDeque<Output> {
        let mut outputs = match self.next_event().await {
            Some(event) => self.advance(event),
            None => VecDeque::from([Output::Reply(Failure::Internal)]),
        };
        if self.keepalive.is_some() {
            self.keep_alive(&mut outputs);
        }
        outputs
    }

    /// Makes one step of the machine, and performs its actions.
    #[inline(never)]
    fn advance(&mut self, event: Event) -> VecDeque<Output> {
        let mut outputs = VecDeque::new();
        match &event {
            Event::Chunk { bytes, .. } if self.run.needs_room(bytes.len()) => self.make_room(bytes.len()),
            Event::Chunk { .. } => {}
            _ => {
                self.skip_resting();
                self.withhold(event == Event::Start);
            }
        }
        if event == Event::ClientGone && self.run.record().committed().is_none() {
            self.note_verdict(Verdict::Nothing);
        }
        let now = self.clock.at(clock::now());
        let actions = memory::with(|memory| step(&mut self.run, &mut memory.budget, now, event));
        let whole = actions.contains(&Action::Finish);
        for action in actions {
            self.perform(action, whole, &mut outputs);
        }
        self.keep_answer(&outputs);
        outputs
    }

    /// Keeps what the client gets of an answer, if the service keeps answers.
    #[inline(never)]
    fn keep_answer(&self, outputs: &VecDeque<Output>) {
        let Some(content) = self.info.logged.as_ref().and_then(|logged| logged.content.as_ref()) else { return };
        let kind = self.upstream_headers.as_ref().and_then(|headers| headers.get("content-type"));
        if !kind.is_some_and(is_kept_type) {
            return;
        }
        for output in outputs {
            if let Output::Emit(bytes) = output {
                content.borrow_mut().keep_answer(bytes);
            }
        }
    }

    /// Notes that the client gets a receipt, so that what the service keeps may be told.
    #[inline(never)]
    fn note_receipt(&self, headers: &Headers) {
        if let Some(content) = self.info.logged.as_ref().and_then(|logged| logged.content.as_ref())
            && receipt::is_in(headers)
        {
            content.borrow_mut().note_receipt();
        }
    }

    /// Reserves memory for more of a held answer.
    #[inline(never)]
    fn make_room(&mut self, bytes: usize) {
        if self.held_reservation.grow(bytes as u64).is_err() {
            self.run.note_memory_short();
        }
    }

    /// Skips endpoints that began to rest after this request was planned, because of other requests.
    #[inline(never)]
    fn skip_resting(&mut self) {
        let (attribution, now) = (self.job.attribution(), clock::now());
        memory::with(|memory| self.run.skip_resting(|target| memory.is_resting(target, &attribution, now)));
    }
}

impl Drop for Driver {
    /// Counts and logs how the run ended.
    fn drop(&mut self) {
        self.settle_all();
        let code = account::ran(&self.info, self.run.record(), self.failed, self.is_unmeasured);
        if let Some(log_sender) = self.job.log_sender.take() {
            // A stream that began early has told the client so, however it ended.
            let status = if self.is_begun { Some(200) } else { self.failed.map(|(status, _)| status).or(self.status) };
            log_sender.ran(&self.info, &self.run, self.job.model.as_deref(), code, status);
        }
        if let Some(observation) = self.job.observation.take() {
            observation.end(&self.info, &self.run, self.job.model.as_deref(), code);
        }
    }
}

fn is_event_stream(kind: &str) -> bool {
    kind.to_ascii_lowercase().starts_with("text/event-stream")
}

/// The length of a body that passes unchanged. `None` for events, and for a body that the runtime decompresses.
fn announced_length(headers: &Headers) -> Option<u32> {
    if headers.get("content-type").is_some_and(is_event_stream) || headers.get("content-encoding").is_some() {
        return None;
    }
    headers.get("content-length")?.trim().parse().ok()
}
