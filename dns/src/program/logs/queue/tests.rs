//! Tests of the queue of log lines with a reader that stalls or fails.

use super::*;

const NOW: Timestamp = Timestamp(1_800_000_000_000);
const LONG: Duration = Duration::from_secs(20);

/// What was written to the sink, and what happens to the next writes.
#[derive(Debug, Default)]
struct Shown {
    text: String,
    /// Whether the reader takes nothing, so that a write waits.
    stalls: bool,
    /// After this many more octets, the disk is full; `None` for no limit.
    room: Option<usize>,
}

#[derive(Clone, Default)]
struct Sink(Arc<(Mutex<Shown>, Condvar)>);

impl Sink {
    fn set(&self, change: impl FnOnce(&mut Shown)) {
        change(&mut self.0.0.lock().unwrap());
        self.0.1.notify_all();
    }

    fn text(&self) -> String {
        self.0.0.lock().unwrap().text.clone()
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut shown = self.0.1.wait_while(self.0.0.lock().unwrap(), |shown| shown.stalls).unwrap();
        let take = shown.room.map_or(bytes.len(), |room| room.min(bytes.len()));
        if take == 0 {
            return Err(ErrorKind::StorageFull.into());
        }
        shown.room = shown.room.map(|room| room - take);
        shown.text.push_str(std::str::from_utf8(&bytes[..take]).unwrap());
        Ok(take)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn queue(sink: &Sink, format: LogFormat) -> Arc<LogQueue> {
    let clock = Clock::fixed(NOW);
    LogQueue::start(sink.clone(), format, clock).unwrap()
}

#[test]
fn lines_are_written_in_their_order() {
    let sink = Sink::default();
    let queue = queue(&sink, LogFormat::Text);
    (0..1000).for_each(|number| queue.push(format!("{number}\n").as_bytes()));
    queue.finish(LONG);
    assert_eq!(sink.text(), (0..1000).map(|number| format!("{number}\n")).collect::<String>());
}

#[test]
fn a_stalled_reader_delays_no_writer_and_the_gap_is_logged_at_its_place() {
    let sink = Sink::default();
    sink.set(|shown| shown.stalls = true);
    let queue = queue(&sink, LogFormat::Text);
    let line = format!("{}\n", "x".repeat(999));
    let before = lost_lines()[0].1;
    let begun = Instant::now();
    // The writer thread holds at most one line.
    (0..3000).for_each(|_| queue.push(line.as_bytes()));
    queue.finish(Duration::from_millis(50));
    assert!(begun.elapsed() < LONG, "a thread that logs doesn't wait, and the end waits only briefly");
    let lost = lost_lines()[0].1 - before;
    assert!((3000 - 1049 - 1..3000).contains(&lost), "{lost}");
    sink.set(|shown| shown.stalls = false);
    queue.finish(LONG);
    queue.push(b"after\n");
    queue.finish(LONG);
    let text = sink.text();
    let tail: Vec<&str> = text.lines().rev().take(2).collect();
    assert!(tail[0] == "after" && tail[1].contains(&format!("WARN {lost} lines of log are missing here")), "{tail:?}");
}

#[test]
fn what_can_not_be_written_is_counted_and_told_once_it_can_be() {
    let sink = Sink::default();
    let queue = queue(&sink, LogFormat::Json);
    sink.set(|shown| shown.room = Some(10));
    let before = lost_lines()[1].1;
    for line in ["first\n", "second\n", "third\n"] {
        queue.push(line.as_bytes());
    }
    queue.finish(LONG);
    assert_eq!(sink.text(), "first\nseco");
    assert!(lost_lines()[1].1 - before >= 2);
    sink.set(|shown| shown.room = None);
    queue.push(b"fourth\n");
    queue.finish(LONG);
    let text = sink.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines.len(), lines[0], lines[1], lines[3]), (4, "first", "seco", "fourth"));
    let reported: serde_json::Value = serde_json::from_str(lines[2]).unwrap();
    assert_eq!(reported["missing"], 2);
    assert_eq!(reported["level"], "WARN");
}

#[test]
fn a_gap_is_logged_even_if_no_line_follows() {
    let sink = Sink::default();
    let queue = queue(&sink, LogFormat::Text);
    sink.set(|shown| shown.room = Some(0));
    queue.push(b"lost\n");
    queue.finish(LONG);
    sink.set(|shown| shown.room = None);
    let begun = Instant::now();
    while sink.text().is_empty() {
        assert!(begun.elapsed() < LONG);
        std::thread::yield_now();
    }
    assert!(sink.text().contains("1 lines of log are missing here"), "{}", sink.text());
}
