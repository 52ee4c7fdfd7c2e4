//! Drives the attempt machine with real fetches: a [`Run`] and what to send enter, the client's [`Answer`] leaves.
//!
//! Until the machine commits, the client waits for [`Driver::respond`]. After that [`Body::write`] writes the body,
//! each write waiting for the client: the `exchange` reads at most 64 KiB ahead of what the client has taken, so memory is
//! bounded. When the client goes away a write fails or its signal tells; dropping the driver aborts what is in flight.

use core::future::{Future as _, poll_fn};
use core::task::Poll;
use std::collections::VecDeque;
use std::pin::pin;
use std::rc::Rc;

use bailiwick_rules::time::Millis;
use futures_util::future::LocalBoxFuture;
use worker::Env;

use crate::decide::attempt::{Action, AttemptNumber, Event, Run, Task, step};
use crate::decide::breaker::Verdict;
use crate::decide::cooldown;
use crate::decide::envelope::Failure;
use crate::decide::headers::Headers;
use crate::decide::inflight::Reservation;
use crate::decide::keepalive::{self, KeepAlive};
use crate::decide::plan::Target;
use crate::decide::rewrite::disposition::with_sealed_ids;
use crate::decide::rewrite::{self, Content, headers};
use crate::decide::route::query::Query;
use crate::decide::route::{Class, Route};
use crate::decide::source::Source;
use crate::decide::splice::{BatchLines, Ids, NamePlaces, Names, Splice};
use crate::decide::sse::single::AnswerKind;
use crate::decide::sse::without_mark;
use crate::decide::state::sealed_id::{Keyring, Owner};
use crate::runtime::account;
use crate::runtime::clock::{self, Clock};
use crate::runtime::env;
use crate::runtime::exchange::{Arrival, Exchange};
use crate::runtime::held::Writing;
use crate::runtime::memory::{self, Attribution};
use crate::runtime::receipt::ReceiptSigner;
use crate::runtime::reply::{Reply, ResponseInfo};
use crate::runtime::uploads::OutboundUpload;

/// The values of `Content-Encoding` that a fetch of the runtime's leaves nothing to unpack of, in these letters only.
const UNPACKED: &[&str] = &["", "br", "gzip", "identity"];

/// What a batch is made of.
const BATCH_FILE: &str = "the id of one file that was uploaded with the purpose batch";

/// What is sent, to whichever endpoint: made into each endpoint's own request when its turn comes.
pub(crate) struct Job {
    /// Secrets are read when they are sent, and kept nowhere.
    pub(crate) env: Env,
    /// The path.
    pub(crate) route: Route,
    /// The query.
    pub(crate) query: Query,
    /// The client's headers, all of them.
    pub(crate) headers: Headers,
    /// The body. Dropped when an answer is committed.
    pub(crate) body: Option<Rc<Content>>,
    /// A body that streams, to one endpoint.
    pub(crate) upload: Option<OutboundUpload>,
    /// The model, by the client's name.
    pub(crate) model: Option<String>,
    /// Whom a failure is laid to.
    pub(crate) source: Source,
    /// Who signs for it.
    pub(crate) receipt_signer: Option<ReceiptSigner>,
    /// How ids are sealed, and for whom, where the answer holds any.
    pub(crate) ids: Option<(Keyring, Owner)>,
    /// Whether the answer is a list of models that may show other tenants'.
    pub(crate) hides_models: bool,
    /// What the body takes of this isolate's memory.
    pub(crate) hold: Option<Rc<Reservation>>,
    /// How often a client that waits for a stream hears something.
    pub(crate) keepalive: Option<Millis>,
    /// What events are like on this path.
    pub(crate) answer_kind: Option<AnswerKind>,
}

impl Job {
    fn whose(&self) -> Attribution<'_> {
        Attribution { source: self.source, model: self.model.as_deref(), path: self.route.pattern() }
    }
}

/// A run under way.
pub(crate) struct Driver {
    run: Run,
    job: Job,
    info: ResponseInfo,
    exchange: Exchange,
    fetch: FetchState,
    /// The headers of the answer that was committed. Its flight may have ended with the same chunk.
    theirs: Option<Headers>,
    /// Whose timer is armed.
    timer: Option<AttemptNumber>,
    /// The machine's time.
    clock: Clock,
    /// What is being written to the endpoint of the moment.
    writing: Writing,
    /// What puts the client's names into a committed answer that has others.
    splice: Option<Splice>,
    /// What a stored file's object says of it.
    file: Option<StoredFile>,
    /// Whether the client was told no length, and no event tells it either how the answer ended.
    is_unmeasured: bool,
    /// What an answer that is held takes of this isolate's memory, beyond what each may.
    kept: Reservation,
    /// What the client was told instead of an answer: the status, and the word for it.
    failed: Option<(u16, &'static str)>,
    /// When a client that waits is to hear something.
    keepalive: Option<KeepAlive>,
    /// Whether the stream was begun with comments, before anything was committed.
    is_begun: bool,
}

/// What the client is to get. All but a comment are named as the [`Action`] that they come of.
enum Output {
    Commit {
        status: u16,
    },
    /// A comment, as nothing has come for a while.
    Comment,
    Emit(Vec<u8>),
    Finish,
    CutStream,
    Reply(Failure),
}

/// What a client is answered.
pub(crate) enum Answer {
    /// All of it.
    Whole(Reply),
    /// Its beginning, and whoever writes the rest.
    Streamed(Box<Body>),
}

impl Answer {
    /// Its headers, before they are sent.
    pub(crate) fn headers(&mut self) -> &mut Headers {
        match self {
            Self::Whole(reply) => &mut reply.headers,
            Self::Streamed(body) => &mut body.headers,
        }
    }
}

/// A response whose body is under way.
pub(crate) struct Body {
    status: u16,
    headers: Headers,
    /// How many bytes it has, if that is known.
    length: Option<u32>,
    driver: Box<Driver>,
    outputs: VecDeque<Output>,
}

impl Body {
    /// Writes it, to its end.
    #[inline(never)]
    pub(crate) fn write(mut self: Box<Self>) -> LocalBoxFuture<'static, ()> {
        Box::pin(async move {
            if self.driver.exchange.begin(self.status, &self.headers, self.length) {
                drop(self.headers);
                self.driver.pump(self.outputs).await;
            } else {
                let reply = self.driver.fail(&Failure::Internal).await;
                self.driver.exchange.reply(&reply);
            }
        })
    }
}

/// The fetch of the moment.
enum FetchState {
    Idle,
    Sending,
    Reading {
        headers: Headers,
        /// The body has ended. The headers may yet be committed: a short answer is held until its end.
        ended: bool,
    },
}

impl Driver {
    /// A driver of a run that hasn't begun.
    #[inline(never)]
    pub(crate) fn new(task: Task, job: Job, info: ResponseInfo, exchange: Exchange) -> Box<Self> {
        Box::new(Self {
            run: Run::new(task),
            job,
            info,
            exchange,
            fetch: FetchState::Idle,
            theirs: None,
            timer: None,
            clock: Clock::default(),
            writing: Writing::default(),
            splice: None,
            file: None,
            is_unmeasured: false,
            failed: None,
            kept: Reservation::default(),
            keepalive: None,
            is_begun: false,
        })
    }

    /// Drives the run to its commit or its failure. What follows a commit is driven by the response's body.
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
                    let failure = self.verdict().unwrap_or(Failure::Internal);
                    return Answer::Whole(self.fail(&failure).await);
                }
                None => outputs = self.next_outputs().await,
            }
        };
        if self.wants_length(&outputs) {
            self.file = self.look().await;
        }
        let mut headers = self.headers();
        if let Some(receipt_signer) = self.job.receipt_signer.take()
            && let Err(failure) =
                receipt_signer.sign(&mut headers, status, self.run.served_by(), self.run.record()).await
        {
            return Answer::Whole(self.fail(&failure).await);
        }
        self.answer(status, headers, outputs)
    }

    /// Begins the stream before anything is committed: the rest goes on behind it.
    #[inline(never)]
    fn begin_early(mut self: Box<Self>, mut outputs: VecDeque<Output>) -> Answer {
        self.is_begun = true;
        // It says where the request went, which nobody knows yet.
        self.job.receipt_signer = None;
        outputs.push_front(Output::Comment);
        let headers = self.info.begun();
        Answer::Streamed(Box::new(Body { status: 200, headers, length: None, driver: self, outputs }))
    }

    /// Has the client hear something if that is due, until an answer begins.
    #[inline(never)]
    fn keep_alive(&mut self, outputs: &mut VecDeque<Output>) {
        let now_ms = self.clock.at(clock::now());
        if self.run.is_done() || self.run.served_by().is_some() {
            self.keepalive = None;
        }
        let Some(keepalive) = &mut self.keepalive else { return };
        if keepalive.beat(now_ms) {
            outputs.push_back(Output::Comment);
        }
        self.exchange.arm(clock::now().0, keepalive.left(now_ms));
    }

    /// An answer is committed whose stream was begun earlier: a comment tells whose it is.
    #[inline(never)]
    fn commit_late(&mut self, outputs: &mut VecDeque<Output>) {
        self.job.body = None;
        self.job.hold = None;
        // A byte-order mark is one at the beginning alone.
        if let Some(Output::Emit(bytes)) = outputs.front_mut()
            && without_mark(bytes).len() < bytes.len()
        {
            bytes.drain(..3);
        }
        if let Some(target) = self.run.served_by() {
            outputs.push_front(Output::Emit(keepalive::served(target)));
        }
    }

    /// A stream that was begun early has failed: one event says so.
    #[inline(never)]
    fn fail_late(&mut self, failure: &Failure) -> VecDeque<Output> {
        self.failed = Some((failure.status(), failure.word()));
        VecDeque::from([Output::Emit(keepalive::failed(failure, self.job.answer_kind)), Output::Finish])
    }

    /// The headers of an answer that is committed. What was sent is no longer needed.
    #[inline(never)]
    fn headers(&mut self) -> Headers {
        self.job.body = None;
        self.job.hold = None;
        let mut headers = self.theirs.as_ref().map(headers::to_client).unwrap_or_default();
        if let Some(model) = headers.get("openai-model").and_then(|model| self.renamed(model)) {
            headers.set("openai-model", &model);
        }
        if is_content(&self.job.route) {
            self.rename_file(&mut headers);
        }
        self.info.served(headers, self.run.served_by(), self.run.record())
    }

    /// The client's name in place of an endpoint's, if it has another.
    fn renamed(&self, model: &str) -> Option<String> {
        let target = self.run.served_by()?;
        let asked = self.job.model.as_ref().filter(|&asked| target.model() != Some(asked));
        let found = || target.renamed()?.rfind(|(theirs, _)| *theirs == model).map(|(_, ours)| ours);
        asked.or_else(found).cloned()
    }

    /// Puts the client's ids in place of an endpoint's in the name of a file.
    #[inline(never)]
    fn rename_file(&self, headers: &mut Headers) {
        let (Some(target), Some((keys, owner))) = (self.run.served_by(), self.job.ids.as_ref()) else { return };
        let seal = |id: &str| keys.seal(owner, target.region_id().as_str(), target.id().as_str(), id);
        let asked = self.job.route.ids().next().unwrap_or_default();
        if let Some(value) = headers.get("content-disposition").map(|value| with_sealed_ids(value, asked, seal)) {
            headers.set("content-disposition", &value);
        }
    }

    #[inline(never)]
    fn answer(mut self: Box<Self>, status: u16, headers: Headers, outputs: VecDeque<Output>) -> Answer {
        if outputs.iter().any(|out| matches!(out, Output::Finish)) {
            let pieces = outputs.into_iter().map(|out| if let Output::Emit(bytes) = out { bytes } else { Vec::new() });
            let whole = pieces.reduce(|body, piece| if piece.is_empty() { body } else { [body, piece].concat() });
            return Answer::Whole(Reply::new(status, headers, whole.unwrap_or_default()));
        }
        // What is spliced has another length.
        let length = self.theirs.as_ref().filter(|_| self.splice.is_none()).and_then(announced_length);
        let length = length.or(self.file.as_ref().filter(|_| self.splice.is_none()).and_then(|file| file.bytes));
        self.is_unmeasured = length.is_none() && !headers.get("content-type").is_some_and(is_event_stream);
        Answer::Streamed(Box::new(Body { status, headers, length, driver: self, outputs }))
    }

    /// Writes what the machine emits. Each write waits until the client has taken it.
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
                        self.kept = Reservation::default();
                    }
                }
                Some(Output::Commit { .. }) if self.is_begun => self.commit_late(&mut outputs),
                Some(Output::Commit { .. }) => {}
                Some(Output::Comment) => outputs.push_front(Output::Emit(keepalive::COMMENT.to_vec())),
                Some(Output::Reply(failure)) if self.is_begun => outputs = self.fail_late(&failure),
                Some(Output::CutStream | Output::Reply(_)) => return self.exchange.cut(),
                Some(Output::Finish) => return self.exchange.close(),
                None if self.run.is_done() => return,
                None => outputs = self.next_outputs().await,
            }
        }
    }

    /// Why an upload broke off, if it was refused on its way.
    #[inline(never)]
    fn verdict(&self) -> Option<Failure> {
        self.job.upload.as_ref().and_then(OutboundUpload::verdict)
    }

    /// The answer is an error of our own. The request may have been sent all the same, so it has its receipt too.
    #[inline(never)]
    fn fail<'a>(&'a mut self, failure: &'a Failure) -> LocalBoxFuture<'a, Reply> {
        Box::pin(async move {
            let (status, mut headers) = self.info.failed(failure, Some(self.run.record()));
            self.failed = Some((status, failure.word()));
            if let Some(receipt_signer) = self.job.receipt_signer.take() {
                // An error takes nothing back: it is told with or without.
                let _ = receipt_signer.sign(&mut headers, status, None, self.run.record()).await;
            }
            Reply::new(status, headers, failure.body().into_bytes())
        })
    }

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

    /// Waits for whatever comes first.
    /// `None`: the machine is not done and yet there is nothing to wait for, which would be a mistake of ours.
    async fn next_event(&mut self) -> Option<Event> {
        loop {
            let reading = matches!(self.fetch, FetchState::Reading { ended: false, .. });
            if !reading && !matches!(self.fetch, FetchState::Sending) && self.timer.is_none() {
                return None;
            }
            let arrived = match &self.job.upload {
                None if self.writing.is_under_way() => {
                    next_of_writing(&mut self.exchange, reading, &mut self.writing).await
                }
                None => self.exchange.next(reading).await,
                Some(upload) => next_of_upload(&mut self.exchange, reading, upload).await,
            };
            // An upload that was refused on its way: whatever the endpoint makes of half of it, it is not at fault.
            if self.run.served_by().is_none() && self.verdict().is_some() {
                return Some(Event::ClientGone);
            }
            return Some(match arrived {
                Arrival::Headers { attempt, status, headers } => {
                    if self.wants_purpose(status) {
                        self.file = self.look().await;
                    }
                    self.answered(attempt, status, headers)
                }
                Arrival::Timer => match self.timer.take() {
                    Some(_) if self.is_client_late() => Event::ClientGone,
                    Some(attempt) => Event::Timer { attempt },
                    None => continue,
                },
                Arrival::Event(event) => {
                    match event {
                        Event::FetchError { .. } => self.fetch = FetchState::Idle,
                        Event::Eof { .. } | Event::BodyError { .. } => self.ended(),
                        _ => {}
                    }
                    event
                }
            });
        }
    }

    /// Whether a limit has run out while the client had more to send. Then nobody knows yet what the endpoint would have done.
    fn is_client_late(&mut self) -> bool {
        let is_late = self.run.served_by().is_none() && self.run.is_overdue(self.clock.at(clock::now()));
        is_late && self.job.upload.as_ref().is_some_and(OutboundUpload::blame_client)
    }

    #[inline(never)]
    fn answered(&mut self, attempt: AttemptNumber, status: u16, headers: Headers) -> Event {
        // Nobody asks for a rest who serves.
        let failed = !(200..=299).contains(&status);
        let retry_after_ms = if failed { cooldown::asked_rest(&headers, clock::now()) } else { None };
        let theirs = headers.get("x-request-id").or_else(|| headers.get("apim-request-id"));
        self.info.upstream_id = theirs.filter(|id| is_id(id)).map(str::to_owned);
        let content_type = headers.get("content-type").map(str::to_owned);
        let packed = headers.get("content-encoding").is_some_and(|encoding| !UNPACKED.contains(&encoding));
        self.run.announce(announced_length(&headers).is_some());
        self.fetch = FetchState::Reading { headers, ended: false };
        Event::Headers { attempt, status, content_type, packed, retry_after_ms }
    }

    fn ended(&mut self) {
        if let FetchState::Reading { ended, .. } = &mut self.fetch {
            *ended = true;
        }
    }

    /// One step of the machine, and what it says to do.
    #[inline(never)]
    fn advance(&mut self, event: Event) -> VecDeque<Output> {
        let mut outputs = VecDeque::new();
        match &event {
            Event::Chunk { bytes, .. } if self.run.needs_room(bytes.len()) => self.make_room(bytes.len()),
            Event::Chunk { .. } => {}
            _ => self.pass_over(),
        }
        if event == Event::ClientGone && self.run.record().committed().is_none() {
            self.heard(Verdict::Nothing);
        }
        let now = self.clock.at(clock::now());
        let actions = memory::with(|memory| step(&mut self.run, &mut memory.budget, now, event));
        let whole = actions.contains(&Action::Finish);
        for action in actions {
            self.perform(action, whole, &mut outputs);
        }
        outputs
    }

    /// `whole`: nothing of the body follows these actions.
    fn perform(&mut self, action: Action, whole: bool, outputs: &mut VecDeque<Output>) {
        match action {
            Action::Send { attempt, target } => {
                self.kept = Reservation::default();
                if let Some(target) = self.run.target(target) {
                    memory::with(|memory| memory.sent(target, self.job.source, clock::now()));
                }
                match self.send(attempt, target) {
                    Ok(()) => self.fetch = FetchState::Sending,
                    Err(failure) => outputs.push_back(Output::Reply(failure)),
                }
            }
            Action::Arm { attempt, after_ms } => {
                self.timer = Some(attempt);
                self.exchange.arm(clock::now().0, after_ms);
            }
            Action::Disarm { .. } => self.timer = None,
            Action::Abort { .. } => {
                self.fetch = FetchState::Idle;
                self.writing = Writing::default();
                self.exchange.abort();
            }
            Action::Commit { status, body, as_events, .. } => {
                if let FetchState::Reading { headers, .. } = &mut self.fetch
                    && as_events
                {
                    headers.set("content-type", "text/event-stream; charset=utf-8");
                }
                self.splice = self.splice();
                if let FetchState::Reading { headers, .. } = &mut self.fetch {
                    self.theirs = Some(core::mem::take(headers));
                }
                self.heard(Verdict::Answered);
                let body = match &mut self.splice {
                    Some(splice) if whole => splice.whole(&body),
                    _ => self.spliced(body),
                };
                outputs.extend([Output::Commit { status }, Output::Emit(body)]);
            }
            Action::Emit { bytes } => outputs.push_back(Output::Emit(self.spliced(bytes))),
            Action::EmitTail { bytes } => outputs.extend([Output::Emit(bytes), Output::Finish]),
            Action::CutStream => outputs.push_back(Output::CutStream),
            Action::Finish => {
                self.exchange.leave();
                self.heard(Verdict::Whole);
                if let Some(rest) = self.splice.as_mut().map(Splice::finish).filter(|rest| !rest.is_empty()) {
                    outputs.push_back(Output::Emit(rest));
                }
                outputs.push_back(Output::Finish);
            }
            Action::CoolDown { .. } => {
                memory::with(|memory| memory.cool_down(&action, &self.job.whose(), clock::now()));
            }
            Action::Reply { failure } => {
                // Whoever refuses a request is alive.
                if matches!(failure, Failure::Refused { .. }) {
                    self.heard(Verdict::Answered);
                }
                outputs.push_back(Output::Reply(failure));
            }
        }
    }

    /// Finds room for more of an answer that is held.
    #[inline(never)]
    fn make_room(&mut self, bytes: usize) {
        if self.kept.grow(bytes as u64).is_err() {
            self.run.crowd();
        }
    }

    /// Notes how the endpoint of the moment did.
    #[inline(never)]
    fn heard(&self, verdict: Verdict) {
        let last = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        if let Some(target) = last {
            memory::with(|memory| memory.heard(target, &self.job.whose(), verdict, clock::now()));
        }
    }

    /// Whether it has to be known what a stored file is for: the lines of a batch may have to be changed.
    fn wants_purpose(&self, status: u16) -> bool {
        let last = || self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target));
        is_content(&self.job.route) && status == 200 && last().is_some_and(|target| target.renamed().is_some())
    }

    /// Whether an answer that begins is a stored file whose length nobody has told.
    fn wants_length(&self, outputs: &VecDeque<Output>) -> bool {
        is_content(&self.job.route)
            && self.file.is_none()
            && self.splice.is_none()
            && !outputs.iter().any(|out| matches!(out, Output::Finish))
            && self.theirs.as_ref().is_some_and(|headers| announced_length(headers).is_none())
    }

    /// Asks the endpoint of the moment what it says of the file whose content it sends. Nothing of the content is read meanwhile.
    #[inline(never)]
    fn look(&mut self) -> LocalBoxFuture<'_, Option<StoredFile>> {
        Box::pin(async move {
            let target = self.run.record().attempts.last().and_then(|attempt| self.run.target(attempt.target))?;
            StoredFile::read(&self.look_at(target, self.job.route.ids().next()?).await?)
        })
    }

    /// What an endpoint says of a stored file: nothing where it knows none of that id, `None` where it failed.
    async fn look_at(&self, target: &Target, id: &str) -> Option<Vec<u8>> {
        let secret = target.secret().and_then(|name| env::text(&self.job.env, name));
        let route = Route::parse("GET", &format!("/v1/files/{id}")).ok()?;
        let out = rewrite::outgoing(target, &route, &Query::default(), &Headers::default(), None, secret.as_deref());
        let out = out.ok()?;
        self.exchange.look(out.url.as_str(), &out.headers).await
    }

    /// Refuses to make a batch of another file than one that was uploaded as a batch's input: its lines were never
    /// judged, and not every endpoint compares what a file is for.
    #[inline(never)]
    fn check_batch(&mut self) -> LocalBoxFuture<'_, Result<(), Failure>> {
        Box::pin(async move {
            let ids = self.job.body.as_deref().and_then(Content::json).map(|body| body.ids().collect::<Vec<_>>());
            let wrong = Failure::BadField { field: "input_file_id", expected: BATCH_FILE };
            let (target, id) = match (self.run.target(0), ids.as_deref()) {
                (Some(target), Some([id])) => (target, *id),
                (Some(_), Some([_, _, ..])) => return Err(wrong),
                _ => return Ok(()),
            };
            let object = self.look_at(target, id).await;
            let object = object.ok_or(Failure::EndpointsFailed { retry_after: None, hopeless: false })?;
            // Whoever has no such file will say so itself, and who names no purpose knows none.
            let purpose = StoredFile::read(&object).map(|file| file.purpose).unwrap_or_default();
            if purpose.is_empty() || purpose == "batch" { Ok(()) } else { Err(wrong) }
        })
    }

    /// What has to be changed in the answer of the endpoint that was committed: nothing, most of the time.
    #[inline(never)]
    fn splice(&self) -> Option<Splice> {
        let target = self.run.served_by()?;
        if is_content(&self.job.route) {
            let models = target.models().filter(|_| self.file.as_ref().is_some_and(StoredFile::is_batch))?;
            return Some(Splice::Lines(Box::new(BatchLines::to_client(models))));
        }
        let FetchState::Reading { headers, .. } = &self.fetch else { return None };
        let content_type = headers.get("content-type").unwrap_or_default().to_ascii_lowercase();
        let kind = content_type.split(';').next().unwrap_or_default().trim();
        let events = kind == "text/event-stream";
        if !events && kind != "application/json" && !kind.ends_with("+json") && !kind.is_empty() {
            return None;
        }
        if self.job.hides_models {
            let names = target.renamed().map(|pairs| Names::translated(pairs, NamePlaces::Models, None));
            return Some(Splice::models(names));
        }
        let model = self.job.model.as_deref().filter(|&model| target.model().is_some_and(|theirs| theirs != model));
        let ids = self.job.ids.as_ref().map(|(keys, owner)| Ids {
            keys: keys.clone(),
            owner: owner.clone(),
            region: target.region_id().clone(),
            endpoint: target.id().clone(),
        });
        let is_models = self.job.route.class() == Class::Models;
        let names = match (model, target.renamed()) {
            (Some(model), _) if is_models => Names::of_one(model, NamePlaces::Models),
            (None, Some(pairs)) if is_models => Names::translated(pairs, NamePlaces::Models, None),
            // What is kept was asked for by whatever name, at some other time.
            (None, Some(pairs)) if self.job.model.is_none() => Names::translated(pairs, NamePlaces::Objects, ids),
            _ => Names::new(model, ids)?,
        };
        Some(Splice::new(names, events))
    }

    #[inline(never)]
    fn spliced(&mut self, bytes: Vec<u8>) -> Vec<u8> {
        match &mut self.splice {
            Some(splice) => splice.pass(&bytes),
            None => bytes,
        }
    }

    /// Endpoints that began to rest on another request's word since this one was planned.
    #[inline(never)]
    fn pass_over(&mut self) {
        let (whose, now) = (self.job.whose(), clock::now());
        memory::with(|memory| self.run.pass_over(|target| memory.is_resting(target, &whose, now)));
    }

    /// Sends.
    #[inline(never)]
    fn send(&mut self, attempt: AttemptNumber, target: usize) -> Result<(), Failure> {
        let target = self.run.target(target).ok_or(Failure::Internal)?;
        let secret = target.secret().and_then(|name| env::text(&self.job.env, name));
        let Job { route, query, headers, body, .. } = &self.job;
        let mut out = rewrite::outgoing(target, route, query, headers, body.as_deref(), secret.as_deref())?;
        let written = match (out.written, body) {
            (Some(length), Some(body)) => {
                let (writing, stream) = Writing::begin(body, self.job.hold.as_ref(), target, length)?;
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

impl Drop for Driver {
    /// Tells what became of the run.
    fn drop(&mut self) {
        account::ran(&self.info, self.run.record(), self.failed, self.is_unmeasured);
    }
}

/// What happens next. A body is written meanwhile.
#[inline(never)]
fn next_of_writing<'a>(
    exchange: &'a mut Exchange,
    reading: bool,
    writing: &'a mut Writing,
) -> LocalBoxFuture<'a, Arrival> {
    Box::pin(async move {
        let mut next = pin!(exchange.next(reading));
        poll_fn(|context| {
            writing.poll(context);
            next.as_mut().poll(context)
        })
        .await
    })
}

/// Whether an endpoint's id of a request can be handed on: it is no text that says anything.
fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b':');
    (1..=128).contains(&id.len()) && id.bytes().all(fits)
}

/// What happens next, or that the upload is refused on its way. It is carried on meanwhile.
#[inline(never)]
fn next_of_upload<'a>(
    exchange: &'a mut Exchange,
    reading: bool,
    upload: &'a OutboundUpload,
) -> LocalBoxFuture<'a, Arrival> {
    Box::pin(async move {
        let mut next = pin!(exchange.next(reading));
        poll_fn(|context| {
            let is_refused = upload.poll(context).is_ready();
            match next.as_mut().poll(context) {
                Poll::Pending if is_refused => Poll::Ready(Arrival::Event(Event::ClientGone)),
                arrived => arrived,
            }
        })
        .await
    })
}

/// What a stored file's object says of it.
struct StoredFile {
    /// Its length, where that is told.
    bytes: Option<u32>,
    /// What it is for.
    purpose: String,
}

impl StoredFile {
    /// Reads `{"bytes": …, "purpose": …}`.
    fn read(object: &[u8]) -> Option<Self> {
        let object: serde_json::Value = serde_json::from_slice(object).ok()?;
        let bytes = object.get("bytes").and_then(serde_json::Value::as_u64).and_then(|bytes| u32::try_from(bytes).ok());
        let purpose = object.get("purpose").and_then(serde_json::Value::as_str).unwrap_or_default();
        Some(Self { bytes, purpose: purpose.to_owned() })
    }

    /// Whether it is what a batch asks, or what came of one.
    fn is_batch(&self) -> bool {
        self.purpose.starts_with("batch")
    }
}

/// Whether a path is that of a stored file's content.
fn is_content(route: &Route) -> bool {
    matches!(route.segments(), [files, _, content] if files == "files" && content == "content")
}

fn is_event_stream(kind: &str) -> bool {
    kind.to_ascii_lowercase().starts_with("text/event-stream")
}

/// The length of a body that is passed on as it is: none for events, and none for what the runtime unpacks.
fn announced_length(headers: &Headers) -> Option<u32> {
    if headers.get("content-type").is_some_and(is_event_stream) || headers.get("content-encoding").is_some() {
        return None;
    }
    headers.get("content-length")?.trim().parse().ok()
}
