//! The queue of log lines. Takes lines from any thread, and writes them to standard error on a thread of its own.
//! Called by the log's subscriber.
//!
//! Logging never waits and never fails. Lines are lost if the queue is full, because the reader stalls, or if they
//! can't be written, because the reader is gone or the disk is full. Lost lines are counted, and once lines can be
//! written again, the log says how many are missing and where.

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::time::Timestamp;
use tracing_subscriber::fmt::MakeWriter;

use crate::program::logs::LogFormat;

/// The most octets that may wait to be written: some thousands of lines.
const MAX: usize = 1 << 20;
/// How long the writer waits without a new line before it tries again to write that lines are missing.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
/// How long the writer waits before it writes again to a non-blocking reader that takes nothing now.
const WOULD_BLOCK_PAUSE: Duration = Duration::from_millis(20);

/// The numbers of lines lost since the start of this process: lines that found the queue full, and lines that couldn't
/// be written.
static LOST: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Lines lost in this process since its start, by reason.
pub(crate) fn lost_lines() -> [(&'static str, u64); 2] {
    [("full", LOST[0].load(Ordering::Relaxed)), ("unwritable", LOST[1].load(Ordering::Relaxed))]
}

/// The lines that wait to be written.
#[derive(Debug, Default)]
pub(crate) struct LogQueue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    entries: VecDeque<Entry>,
    octets: usize,
    /// The number of lines lost because the queue was full, since a line was last added.
    lost: u64,
    /// Whether the writer has taken an entry that isn't written yet.
    is_writing: bool,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    /// A line with its end.
    Line(Box<[u8]>),
    /// This number of lines is missing here.
    Lost(u64),
}

impl LogQueue {
    /// Starts the thread that writes to `sink`.
    ///
    /// # Errors
    /// When the system can't start a thread.
    pub(crate) fn start(sink: impl Write + Send + 'static, format: LogFormat, clock: Clock) -> io::Result<Arc<Self>> {
        let queue = Arc::new(Self::default());
        let writer = Writer { queue: Arc::clone(&queue), sink, format, clock, missing: 0, is_torn: false };
        std::thread::Builder::new().name("log".to_owned()).spawn(move || writer.run())?;
        Ok(queue)
    }

    /// Adds a line, or counts it as lost. Never waits for the writer.
    pub(crate) fn push(&self, line: &[u8]) {
        let mut state = self.state();
        if state.octets + line.len() > MAX {
            state.lost += 1;
            LOST[0].fetch_add(1, Ordering::Relaxed);
            return;
        }
        if state.lost > 0 {
            let lost = std::mem::take(&mut state.lost);
            state.entries.push_back(Entry::Lost(lost));
        }
        state.octets += line.len();
        state.entries.push_back(Entry::Line(line.into()));
        drop(state);
        self.changed.notify_all();
    }

    /// Waits until all lines are written, for at most `limit`.
    pub(crate) fn finish(&self, limit: Duration) {
        let end = Instant::now() + limit;
        let mut state = self.state();
        while state.is_writing || state.lost > 0 || !state.entries.is_empty() {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for the next entry. `None` if none came within `patience`.
    fn next(&self, patience: Option<Duration>) -> Option<Entry> {
        let mut state = self.state();
        loop {
            if let Some(entry) = state.entries.pop_front() {
                if let Entry::Line(line) = &entry {
                    state.octets -= line.len();
                }
                state.is_writing = true;
                return Some(entry);
            }
            if state.lost > 0 {
                state.is_writing = true;
                return Some(Entry::Lost(std::mem::take(&mut state.lost)));
            }
            let Some(patience) = patience else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let (woken, waited) = self.changed.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() && state.entries.is_empty() && state.lost == 0 {
                return None;
            }
        }
    }

    /// Notes that the entry taken last has been written, or is lost.
    fn written(&self) {
        self.state().is_writing = false;
        self.changed.notify_all();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The state of the thread that writes the lines.
struct Writer<W> {
    queue: Arc<LogQueue>,
    sink: W,
    format: LogFormat,
    clock: Clock,
    /// The number of lost lines that the log doesn't mention yet.
    missing: u64,
    /// Whether only a part of the last line was written, without its end.
    is_torn: bool,
}

impl<W: Write> Writer<W> {
    fn run(mut self) {
        loop {
            let entry = self.queue.next((self.missing > 0).then_some(RETRY_PAUSE));
            match entry {
                Some(Entry::Line(line)) => self.line(&line),
                Some(Entry::Lost(lost)) => {
                    self.missing += lost;
                    self.write_missing();
                }
                None => _ = self.write_missing(),
            }
            self.queue.written();
        }
    }

    fn line(&mut self, line: &[u8]) {
        if !self.write_missing() || self.write(line).is_err() {
            self.missing += 1;
            LOST[1].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Writes how many lines are missing, if any. Returns whether that succeeded.
    fn write_missing(&mut self) -> bool {
        if self.missing > 0 {
            let note = note(self.format, self.clock.now(), self.missing);
            if self.write(note.as_bytes()).is_err() {
                return false;
            }
            self.missing = 0;
        }
        true
    }

    /// Writes a line, after ending a line of which only a part was written.
    fn write(&mut self, line: &[u8]) -> io::Result<()> {
        if self.is_torn {
            self.write_part(b"\n")?;
            self.is_torn = false;
        }
        self.write_part(line)
    }

    /// Writes bytes to the sink, and waits while the sink is full. Notes if a line was written in part only.
    fn write_part(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        let whole = bytes.len();
        while !bytes.is_empty() {
            match self.sink.write(bytes) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(WOULD_BLOCK_PAUSE),
                Err(error) => {
                    self.is_torn |= bytes.len() < whole;
                    return Err(error);
                }
            }
        }
        Ok(())
    }
}

/// The line that is written in place of missing lines.
fn note(format: LogFormat, now: Timestamp, missing: u64) -> String {
    let what = "lines of log are missing here: they could not be written, or not fast enough";
    match format {
        LogFormat::Text => format!("{now}  WARN {missing} {what}\n"),
        LogFormat::Json => {
            format!(
                "{{\"timestamp\":\"{now}\",\"level\":\"WARN\",\"message\":\"{missing} \
                 {what}\",\"missing\":{missing}}}\n"
            )
        }
    }
}

/// Passes lines of the log's subscriber to the queue.
pub(crate) struct Lines(pub(crate) Arc<LogQueue>);

/// A writer for one line.
pub(crate) struct Line<'q>(&'q LogQueue);

impl<'q> MakeWriter<'q> for Lines {
    type Writer = Line<'q>;

    fn make_writer(&'q self) -> Line<'q> {
        Line(&self.0)
    }
}

impl Write for Line<'_> {
    /// Adds a line. The subscriber writes each line with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
