//! Turns log events into lines: text for people, JSON for programs. Installed by `logs`.
//!
//! A field whose name begins with `json.` is for programs only, because the message says the same to people. The text
//! form leaves out such a field, and the JSON form writes it without the prefix.

use std::fmt;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::field::{RecordFields, VisitOutput};
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// The beginning of the names of fields that are for programs.
const FOR_PROGRAMS: &str = "json.";

/// Fields as text, without those for programs.
#[derive(Debug)]
pub(super) struct TextFields;

impl<'w> FormatFields<'w> for TextFields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = ForPeople(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct ForPeople<'w>(DefaultVisitor<'w>);

impl Visit for ForPeople<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if !field.name().starts_with(FOR_PROGRAMS) {
            self.0.record_debug(field, value);
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if !field.name().starts_with(FOR_PROGRAMS) {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        if !field.name().starts_with(FOR_PROGRAMS) {
            self.0.record_error(field, value);
        }
    }
}

/// One JSON object on each line: `timestamp`, `level`, every field, `target`.
#[derive(Debug)]
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let mut fields = ForPrograms(Vec::new());
        event.record(&mut fields);
        let level = event.metadata().level();
        write!(writer, "{{\"timestamp\":{},\"level\":\"{level}\"", Value::from(timestamp))?;
        for (name, value) in fields.0 {
            write!(writer, ",{}:{value}", Value::from(name))?;
        }
        writeln!(writer, ",\"target\":{}}}", Value::from(event.metadata().target()))
    }
}

struct ForPrograms(Vec<(&'static str, Value)>);

impl ForPrograms {
    /// Adds a field, unless there is one of the same name.
    fn add(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = name.strip_prefix(FOR_PROGRAMS).unwrap_or(name);
        // An object must not have a name twice, so the first field of a name is kept.
        if !self.0.iter().any(|(known, _)| *known == name) {
            self.0.push((name, value));
        }
    }
}

impl Visit for ForPrograms {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.add(field, Value::from(format!("{value:?}")));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.add(field, Value::from(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.add(field, Value::from(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.add(field, Value::from(value));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.add(field, Value::from(value));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.add(field, Value::from(value));
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use tracing_subscriber::fmt::MakeWriter;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Lines {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    impl Lines {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    fn tell() {
        tracing::warn!(
            json.event = "region_down",
            json.region = "fra",
            failure = Some("re\"fused"),
            count = 3,
            "fra is {}",
            "down"
        );
        tracing::info!(error = %fmt::Error, "plain");
    }

    #[test]
    fn text_is_what_it_was_and_knows_nothing_of_fields_for_programs() {
        for ansi in [false, true] {
            let (ours, theirs) = (Lines::default(), Lines::default());
            let log = tracing_subscriber::fmt().with_ansi(ansi).without_time().with_target(false);
            tracing::subscriber::with_default(log.fmt_fields(TextFields).with_writer(ours.clone()).finish(), tell);
            let log = tracing_subscriber::fmt().with_ansi(ansi).without_time().with_target(false);
            tracing::subscriber::with_default(log.with_writer(theirs.clone()).finish(), || {
                tracing::warn!(failure = Some("re\"fused"), count = 3, "fra is {}", "down");
                tracing::info!(error = %fmt::Error, "plain");
            });
            assert!(!ours.text().is_empty());
            assert_eq!(ours.text(), theirs.text());
        }
    }

    #[test]
    fn json_has_every_field_by_itself() {
        let lines = Lines::default();
        let log = tracing_subscriber::fmt().event_format(JsonLines).with_writer(lines.clone());
        tracing::subscriber::with_default(log.finish(), tell);
        let reported: Vec<Value> = lines.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let first = &reported[0];
        assert_eq!(
            (&first["event"], &first["region"], &first["count"]),
            (&"region_down".into(), &"fra".into(), &3.into())
        );
        assert_eq!((&first["failure"], &first["message"]), (&"re\"fused".into(), &"fra is down".into()));
        assert_eq!((&first["level"], &reported[1]["message"]), (&"WARN".into(), &"plain".into()));
        assert!(first["timestamp"].as_str().unwrap().ends_with('Z'), "{first}");
        assert!(first["target"].as_str().unwrap().starts_with("bailiwick_dns"), "{first}");
    }
}
