//! The operator's page: metrics of all threads and of the process at `/metrics`, and `/healthz`. Takes what each thread
//! tells, and joins it. Called by `native_entry`.

use core::convert::Infallible;
use core::fmt::Write as _;
use core::pin::pin;
use core::time::Duration;
use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;

use super::counts::Counts;
use super::reloaded::Reloaded;

/// Who asks a thread for its metrics.
pub(super) type Asked = oneshot::Sender<String>;

/// How long a thread may take to tell its metrics.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a client may take to ask.
const HEADERS: Duration = Duration::from_secs(10);

/// What is told.
pub(super) struct Sources {
    /// The threads.
    pub(super) threads: Vec<mpsc::Sender<Asked>>,
    pub(super) counts: Arc<Counts>,
    pub(super) reloaded: Reloaded,
}

/// Serves metrics until another process does in this one's place. Whoever asked both in turn would see counters jump.
pub(super) async fn serve(listener: TcpListener, sources: Arc<Sources>, mut replaced: watch::Receiver<bool>) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = replaced.wait_for(|is_replaced| *is_replaced) => return,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(Duration::from_millis(50)).await;
            continue;
        };
        let mut replaced = replaced.clone();
        let sources = Arc::clone(&sources);
        let service = service_fn(move |request| answer(request, Arc::clone(&sources)));
        let mut builder = hyper::server::conn::http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(HEADERS);
        tokio::spawn(async move {
            let mut served = pin!(builder.serve_connection(TokioIo::new(stream), service));
            tokio::select! {
                _ = &mut served => return,
                _ = replaced.wait_for(|is_replaced| *is_replaced) => served.as_mut().graceful_shutdown(),
            }
            let _ = served.await;
        });
    }
}

async fn answer(request: Request<Incoming>, sources: Arc<Sources>) -> Result<Response<Full<Bytes>>, Infallible> {
    let reply = |status: StatusCode, kind: &'static str, text: String| {
        let mut response = Response::new(Full::new(Bytes::from(text)));
        *response.status_mut() = status;
        response.headers_mut().insert("content-type", kind.parse().expect("a constant"));
        Ok(response)
    };
    let text = "text/plain; charset=utf-8";
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/metrics") => {
            reply(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", sources.told().await)
        }
        (&Method::GET | &Method::HEAD, "/healthz") => match sources.silent().await {
            0 => reply(StatusCode::OK, text, "ok\n".to_owned()),
            silent => reply(StatusCode::SERVICE_UNAVAILABLE, text, format!("{silent} threads give no answer\n")),
        },
        (_, "/metrics" | "/healthz") => reply(StatusCode::METHOD_NOT_ALLOWED, text, "only GET\n".to_owned()),
        _ => reply(StatusCode::NOT_FOUND, text, "there are /metrics and /healthz\n".to_owned()),
    }
}

impl Sources {
    /// What each thread tells; `None` for one that gives no answer.
    async fn ask(&self) -> Vec<Option<String>> {
        let asking = self.threads.iter().map(|thread| async {
            let (asked, told) = oneshot::channel();
            let answered = async {
                thread.send(asked).await.ok()?;
                told.await.ok()
            };
            timeout(PATIENCE, answered).await.ok()?
        });
        futures_util::future::join_all(asking).await
    }

    /// How many threads give no answer.
    pub(super) async fn silent(&self) -> usize {
        self.ask().await.iter().filter(|told| told.is_none()).count()
    }

    async fn told(&self) -> String {
        let told = self.ask().await;
        let mut text = self.of_process(told.iter().filter(|told| told.is_none()).count());
        text += &joined(told.iter().enumerate().filter_map(|(number, told)| Some((number, told.as_deref()?))));
        text
    }

    fn of_process(&self, silent: usize) -> String {
        let mut text = String::new();
        let mut family = |name: &str, kind: &str, help: &str, samples: &[(String, String)]| {
            let _ = writeln!(text, "# HELP bailiwick_edge_{name} {help}\n# TYPE bailiwick_edge_{name} {kind}");
            for (labels, value) in samples {
                let _ = writeln!(text, "bailiwick_edge_{name}{labels} {value}");
            }
        };
        let plain = |value: u64| [(String::new(), value.to_string())];
        let (all, open) = self.counts.connections();
        family("connections_total", "counter", "Connections that were accepted.", &plain(all));
        family("connections", "gauge", "Connections that are open.", &plain(open));
        let closed: Vec<(String, String)> = self
            .counts
            .closed_by_reason()
            .map(|(reason, count)| (format!("{{reason=\"{reason}\"}}"), count.to_string()))
            .collect();
        family("connections_closed_total", "counter", "Connections that the gateway closed, by why.", &closed);
        let errors = plain(self.counts.accept_errors());
        family("accept_errors_total", "counter", "How often no connection could be accepted.", &errors);
        family("threads_silent", "gauge", "Threads that gave no answer within 2 s.", &plain(silent as u64));
        for (name, says, at) in self.reloaded.times() {
            let (name, help) = (format!("{name}_timestamp_seconds"), format!("{says}, in seconds since 1970."));
            family(&name, "gauge", &help, &[(String::new(), (at.0 / 1_000).to_string())]);
        }
        text
    }
}

/// Joins the metrics of threads: each sample gets the label `thread`, and those of one name stand together.
fn joined<'t>(told: impl Iterator<Item = (usize, &'t str)>) -> String {
    let (mut heads, mut samples) = (Vec::new(), BTreeMap::<String, String>::new());
    for (number, text) in told {
        let mut family = "";
        for line in text.lines() {
            if let Some(head) = line.strip_prefix("# HELP ") {
                family = head.split(' ').next().unwrap_or_default();
                if !samples.contains_key(family) {
                    samples.insert(family.to_owned(), String::new());
                    heads.push((family, Vec::new()));
                }
            }
            if line.starts_with('#') {
                if let Some((_, lines)) = heads.iter_mut().find(|(known, _)| *known == family)
                    && lines.len() < 2
                {
                    lines.push(line);
                }
            } else if let (Some(samples), Some((name, value))) = (samples.get_mut(family), line.rsplit_once(' ')) {
                let labelled = match name.strip_suffix('}') {
                    Some(labels) => format!("{labels},thread=\"{number}\"}}"),
                    None => format!("{name}{{thread=\"{number}\"}}"),
                };
                let _ = writeln!(samples, "{labelled} {value}");
            }
        }
    }
    let mut text = String::new();
    for (family, lines) in heads {
        lines.iter().for_each(|line| text += &format!("{line}\n"));
        text += &samples[family];
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_of_all_threads_stand_together() {
        let one =
            "# HELP a_total All.\n# TYPE a_total counter\na_total{x=\"1 }\"} 3\n# HELP b Now.\n# TYPE b gauge\nb 1\n";
        let two = "# HELP b Now.\n# TYPE b gauge\nb 2\n# HELP c More.\n# TYPE c gauge\nc 4\n";
        assert_eq!(
            joined([(0, one), (3, two)].into_iter()),
            "# HELP a_total All.\n# TYPE a_total counter\na_total{x=\"1 }\",thread=\"0\"} 3\n# HELP b Now.\n\
             # TYPE b gauge\nb{thread=\"0\"} 1\nb{thread=\"3\"} 2\n# HELP c More.\n# TYPE c gauge\nc{thread=\"3\"} 4\n"
        );
    }
}
