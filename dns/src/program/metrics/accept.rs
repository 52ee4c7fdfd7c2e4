//! Chooses the format of metrics for a scraper. Takes the scraper's `Accept` headers (RFC 9110 §12.5.1), returns a
//! [`Format`]. Called by `api`.

/// A format of `/metrics`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// Messages of `io.prometheus.client.MetricFamily`, each with its length before it. It has native histograms.
    Protobuf,
    /// OpenMetrics text.
    OpenMetrics,
    /// The older text format of Prometheus.
    Plain,
}

impl Format {
    /// The format for these `Accept` headers. It is Protobuf if they name Protobuf and prefer it to text, as a
    /// Prometheus with native histograms does. Otherwise it is OpenMetrics if they name that, and else the older
    /// format.
    pub(crate) fn of<'h>(accept: impl Iterator<Item = &'h str>) -> Self {
        let ranges: Vec<Range<'h>> = accept.flat_map(|value| value.split(',')).map(Range::parse).collect();
        let quality = |fits: &dyn Fn(&Range<'_>) -> bool| {
            ranges.iter().filter(|range| fits(range)).map(|range| range.quality).max().unwrap_or(0)
        };
        let protobuf = quality(&|range| {
            range.is("application/vnd.google.protobuf")
                && range.has("proto", "io.prometheus.client.MetricFamily")
                && range.has("encoding", "delimited")
        });
        let open_metrics = quality(&|range| range.is("application/openmetrics-text"));
        let plain = quality(&|range| range.is("text/plain"));
        match () {
            () if protobuf > 0 && protobuf >= open_metrics.max(plain) => Self::Protobuf,
            () if open_metrics > 0 => Self::OpenMetrics,
            () => Self::Plain,
        }
    }

    /// The media type of an answer in this format.
    pub(crate) fn content_type(self) -> &'static str {
        match self {
            Self::Protobuf => {
                "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
            }
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
            Self::Plain => "text/plain; version=0.0.4; charset=utf-8",
        }
    }
}

/// One entry of an `Accept` header.
struct Range<'h> {
    kind: &'h str,
    parameters: Vec<(&'h str, &'h str)>,
    /// The quality value `q`, in thousandths.
    quality: u16,
}

impl<'h> Range<'h> {
    fn parse(text: &'h str) -> Self {
        let mut parts = text.split(';').map(str::trim);
        let kind = parts.next().unwrap_or_default();
        let parameters: Vec<(&str, &str)> = parts.filter_map(|part| part.split_once('=')).collect();
        let quality = parameters.iter().find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
        Self { kind, quality: quality.map_or(1_000, |(_, value)| thousandths(value.trim())), parameters }
    }

    fn is(&self, kind: &str) -> bool {
        self.kind.eq_ignore_ascii_case(kind)
    }

    fn has(&self, name: &str, value: &str) -> bool {
        let same = |(found_name, found_value): &(&str, &str)| {
            found_name.trim().eq_ignore_ascii_case(name) && found_value.trim().trim_matches('"') == value
        };
        self.parameters.iter().any(same)
    }
}

/// A quality such as `0.75` in thousandths; 0 if the text isn't a quality.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to 1,000")]
fn thousandths(text: &str) -> u16 {
    let quality: f64 = text.parse().unwrap_or(0.0);
    if (0.0..=1.0).contains(&quality) { (quality * 1_000.0).round() as u16 } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scraper_gets_the_format_that_it_prefers() {
        const PROTOBUF: &str =
            "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited";
        let of = |accept: &str| Format::of([accept].into_iter());
        let cases = [
            (String::new(), Format::Plain),
            ("*/*".into(), Format::Plain),
            ("text/html, application/openmetrics-text; version=1.0.0".into(), Format::OpenMetrics),
            ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;q=0.9".into(), Format::OpenMetrics),
            ("application/openmetrics-text;q=0".into(), Format::Plain),
            (format!("{PROTOBUF};q=0.6,application/openmetrics-text;q=0.5,*/*;q=0.1"), Format::Protobuf),
            (format!("application/openmetrics-text;q=0.5,text/plain;q=0.4,{PROTOBUF}; q=0.6"), Format::Protobuf),
            (format!("{PROTOBUF};q=0.3,application/openmetrics-text;q=0.5"), Format::OpenMetrics),
            (format!("{PROTOBUF};q=0.3,text/plain;q=0.5"), Format::Plain),
            (format!("{PROTOBUF};q=0"), Format::Plain),
            (format!("{PROTOBUF};q=high"), Format::Plain),
            (
                "application/vnd.google.protobuf; encoding=delimited; proto=\"io.prometheus.client.MetricFamily\""
                    .into(),
                Format::Protobuf,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=text".into(),
                Format::Plain,
            ),
            ("application/vnd.google.protobuf".into(), Format::Plain),
        ];
        for (accept, format) in cases {
            assert_eq!(of(&accept), format, "{accept}");
        }
        assert_eq!(Format::of(["text/plain;q=0.1", PROTOBUF].into_iter()), Format::Protobuf, "two headers");
    }
}
