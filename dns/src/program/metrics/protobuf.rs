//! Metrics in Prometheus' binary format: messages of `io.prometheus.client.MetricFamily`, each with its length before
//! it. Takes the metrics in Prometheus' text format and the sums of what Workers observed; returns bytes. Called by
//! `api`.
//!
//! The text has everything but native histograms (Prometheus' histograms of many sparse buckets). The histograms of
//! what Workers observed are written in both forms: with the classic buckets of the text, and with native buckets from
//! `sums`. The buckets of `sums` have the widths of Prometheus' schema 3. In this schema, bucket `n` ends at 2^(n/8),
//! but `sums` numbers a bucket by its beginning.
//!
//! See *Protocol Buffers: Encoding* for the wire format, and `metrics.proto` of Prometheus' client model for the
//! numbers of the fields.

use std::collections::BTreeMap;

use bailiwick_rules::observe::{Histogram, Sums};

use super::exposition::{HISTOGRAMS, labels, seconds};

/// The schema of native histograms: the bound of each bucket is 2^(1/8) times the bound of the bucket before.
const SCHEMA: i64 = 3;

/// The labels of a series, in the order of their names.
type Labels = BTreeMap<String, String>;

/// All families of a text, with the native histograms of `sums`.
pub(crate) fn protobuf(text: &str, sums: &Sums) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut family: Option<Family> = None;
    for line in text.lines() {
        if let Some((name, help)) = line.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')) {
            family.take().into_iter().for_each(|done| done.write(sums, &mut bytes));
            family = Some(Family { name: name.to_owned(), help: unescaped(help), ..Family::default() });
        } else if let Some((_, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            family.iter_mut().for_each(|family| kind.clone_into(&mut family.kind));
        } else if let (Some(family), Some(sample)) = (&mut family, sample(line)) {
            family.add(sample);
        }
    }
    family.into_iter().for_each(|done| done.write(sums, &mut bytes));
    bytes
}

/// A family of metrics, read from the text.
#[derive(Debug, Default)]
struct Family {
    name: String,
    help: String,
    kind: String,
    /// The series by their labels, without the label `le` of buckets.
    series: BTreeMap<Labels, Series>,
}

/// One series of a family.
#[derive(Debug, Default)]
struct Series {
    value: f64,
    count: u64,
    sum: f64,
    /// Upper bounds with cumulative counts.
    buckets: Vec<(f64, u64)>,
}

/// A line of the text: one value of a series.
struct Sample<'t> {
    name: &'t str,
    labels: Labels,
    value: f64,
}

impl Family {
    /// Adds a line of the text to its series.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts are whole and not negative")]
    fn add(&mut self, mut sample: Sample<'_>) {
        let bound = sample.labels.remove("le").and_then(|le| le.parse::<f64>().ok());
        let series = self.series.entry(sample.labels).or_default();
        match (self.kind.as_str(), sample.name.strip_prefix(self.name.as_str()), bound) {
            ("histogram", Some("_bucket"), Some(bound)) => series.buckets.push((bound, sample.value as u64)),
            ("histogram", Some("_count"), _) => series.count = sample.value as u64,
            ("histogram", Some("_sum"), _) => series.sum = sample.value,
            _ => series.value = sample.value,
        }
    }

    /// The native histograms of this family by their labels. Empty if the family has none.
    fn native_histograms<'s>(&self, sums: &'s Sums) -> BTreeMap<Labels, &'s Histogram> {
        let is_this = |name: &str| self.name.strip_prefix("bailiwick_") == Some(name);
        let Some((.., histogram_of)) = HISTOGRAMS.into_iter().find(|(name, ..)| is_this(name)) else {
            return BTreeMap::new();
        };
        let with_labels = |(key, counts)| {
            let labels = labels(key).into_iter().map(|(name, value)| (name.to_owned(), value.to_owned()));
            (labels.collect(), histogram_of(counts))
        };
        sums.totals().map(with_labels).collect()
    }

    /// Writes the family as one message. The numbers are those of the fields and kinds in `metrics.proto`.
    fn write(self, sums: &Sums, out: &mut Vec<u8>) {
        let native = self.native_histograms(sums);
        let mut message = Message::default();
        message.text(1, &self.name);
        message.text(2, &self.help);
        let (kind, field) = match self.kind.as_str() {
            "counter" => (0, 3),
            "gauge" => (1, 2),
            "histogram" => (4, 7),
            _ => (3, 5),
        };
        message.number(3, kind);
        for (labels, series) in &self.series {
            let mut metric = Message::default();
            for (name, value) in labels {
                let mut pair = Message::default();
                pair.text(1, name);
                pair.text(2, value);
                metric.message(1, &pair);
            }
            let mut value = Message::default();
            if field == 7 {
                series.write(native.get(labels).copied(), &mut value);
            } else {
                value.double(1, series.value);
            }
            metric.message(field, &value);
            message.message(4, &metric);
        }
        varint(message.0.len() as u64, out);
        out.extend(message.0);
    }
}

impl Series {
    /// Writes a histogram with its classic buckets, and with its native buckets if it has some.
    fn write(&self, native: Option<&Histogram>, message: &mut Message) {
        // The sums may have grown since the text was written. The count and sum must fit the native buckets.
        message.number(1, native.map_or(self.count, Histogram::len));
        message.double(2, native.map_or(self.sum, seconds));
        for (bound, count) in &self.buckets {
            let mut bucket = Message::default();
            bucket.number(1, *count);
            bucket.double(2, *bound);
            message.message(3, &bucket);
        }
        if let Some(native) = native {
            write_native(native, message);
        }
    }
}

/// Writes the native buckets: the spans of neighbouring buckets, and for each bucket the difference of its count from
/// the count before.
fn write_native(histogram: &Histogram, message: &mut Message) {
    message.number(5, zigzag(SCHEMA));
    message.number(7, histogram.zero());
    let mut spans: Vec<(i64, u64)> = Vec::new();
    let (mut deltas, mut before, mut next) = (Vec::new(), 0_i64, None);
    for (index, count) in histogram.buckets() {
        let (bucket, count) = (i64::from(index) + 1, i64::try_from(count).unwrap_or(i64::MAX));
        match (next, spans.last_mut()) {
            (Some(next), Some((_, length))) if next == bucket => *length += 1,
            _ => spans.push((bucket - next.unwrap_or(0), 1)),
        }
        next = Some(bucket + 1);
        deltas.push(count - before);
        before = count;
    }
    if spans.is_empty() {
        // An empty span marks an empty histogram as native.
        spans.push((0, 0));
    }
    for (offset, length) in spans {
        let mut span = Message::default();
        span.number(1, zigzag(offset));
        span.number(2, length);
        message.message(12, &span);
    }
    deltas.into_iter().for_each(|delta| message.number(13, zigzag(delta)));
}

/// A message, to which fields are appended.
#[derive(Debug, Default)]
struct Message(Vec<u8>);

impl Message {
    fn key(&mut self, field: u64, form: u64) {
        varint(field << 3 | form, &mut self.0);
    }

    fn number(&mut self, field: u64, value: u64) {
        self.key(field, 0);
        varint(value, &mut self.0);
    }

    fn double(&mut self, field: u64, value: f64) {
        self.key(field, 1);
        self.0.extend(value.to_le_bytes());
    }

    fn text(&mut self, field: u64, text: &str) {
        self.bytes(field, text.as_bytes());
    }

    fn message(&mut self, field: u64, message: &Self) {
        self.bytes(field, &message.0);
    }

    fn bytes(&mut self, field: u64, bytes: &[u8]) {
        self.key(field, 2);
        varint(bytes.len() as u64, &mut self.0);
        self.0.extend(bytes);
    }
}

/// Writes a number with seven bits in each byte, the lowest bits first.
#[expect(clippy::cast_possible_truncation, reason = "the rest has seven bits")]
fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Encodes a signed number so that small numbers, positive or negative, stay short.
fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63).cast_unsigned()
}

/// Reads a line such as `name{label="value"} 1`. `None` if the line has another form.
fn sample(line: &str) -> Option<Sample<'_>> {
    if line.starts_with('#') {
        return None;
    }
    let (series, value) = line.rsplit_once(' ')?;
    let (name, labels) = match series.split_once('{') {
        Some((name, rest)) => (name, read_labels(rest.strip_suffix('}')?)?),
        None => (series, Labels::new()),
    };
    Some(Sample { name, labels, value: value.parse().ok()? })
}

/// Reads the labels between `{` and `}`.
fn read_labels(mut rest: &str) -> Option<Labels> {
    let mut labels = Labels::new();
    while let Some((name, quoted)) = rest.split_once("=\"") {
        let mut is_escaped = false;
        let end = quoted.find(|c| {
            let ends = c == '"' && !is_escaped;
            is_escaped = c == '\\' && !is_escaped;
            ends
        })?;
        labels.insert(name.to_owned(), unescaped(&quoted[..end]));
        rest = quoted[end + 1..].strip_prefix(',').unwrap_or(&quoted[end + 1..]);
    }
    rest.is_empty().then_some(labels)
}

/// A text of the format without its escapes: `\n`, `\\` and `\"`.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => match chars.next() {
                Some('n') => plain.push('\n'),
                Some(other) => plain.push(other),
                None => plain.push('\\'),
            },
            _ => plain.push(c),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_as_short_as_they_can_be() {
        let bytes = |value| {
            let mut out = Vec::new();
            varint(value, &mut out);
            out
        };
        assert_eq!((bytes(0), bytes(127), bytes(300)), (vec![0], vec![127], vec![0xac, 2]));
        assert_eq!(bytes(u64::MAX).len(), 10);
        assert_eq!([0, -1, 1, -2, i64::MAX, i64::MIN].map(zigzag), [0, 1, 2, 3, u64::MAX - 1, u64::MAX]);
    }

    #[test]
    fn a_line_is_read_whatever_its_labels_hold() {
        let read = sample(r#"a_total{x="1,y=\"2\"",z="\\ }{ \n"} 3"#).unwrap();
        let labels = [("x", "1,y=\"2\""), ("z", "\\ }{ \n")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!((read.name, read.labels, read.value), ("a_total", Labels::from(labels), 3.0));
        assert_eq!(sample("a 1.5").unwrap().value, 1.5);
        for bad in ["", "# TYPE a gauge", "a", "a{x=\"1} 2", "a{x} 2", "a b"] {
            assert!(sample(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn neighbours_share_a_span_and_counts_are_told_by_their_differences() {
        let mut times = Histogram::default();
        // The buckets that end at 1 s, at 2^(1/8) s, and at 2 s.
        for us in [0, 1_000_000, 1_000_000, 1_050_000, 2_000_000] {
            times.count(us);
        }
        let mut message = Message::default();
        write_native(&times, &mut message);
        let mut expected = Message::default();
        expected.number(5, 6);
        expected.number(7, 1);
        for (offset, length) in [(0, 2), (6, 1)] {
            let mut span = Message::default();
            span.number(1, zigzag(offset));
            span.number(2, length);
            expected.message(12, &span);
        }
        [2, -1, 0].into_iter().for_each(|delta| expected.number(13, zigzag(delta)));
        assert_eq!(message.0, expected.0);
    }
}
