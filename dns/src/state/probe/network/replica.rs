//! Asks a source how far a replica's copy is behind its leader. Takes the source, returns a reading, or why there is
//! none. Called by the prober.

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::replica::{ReadFailure, ReplicaReading, longest_answer, read, requests};
use bailiwick_rules::rules::{HttpProbe, HttpUrl, ReplicaReads, ReplicaSource};
use reqwest::header::{CONTENT_ENCODING, HeaderValue};

use super::{NetworkProber, failure, page};

impl NetworkProber {
    /// Sends all requests that a reading needs, and reads the answers together.
    pub(super) async fn replica(&self, source: &ReplicaSource, clock: &Clock) -> Result<ReplicaReading, ReadFailure> {
        let urls = requests(source).map_err(|problem| ReadFailure::Wrong(problem.to_owned()))?;
        let accept = match source.reads {
            ReplicaReads::Prometheus { .. } => page::ACCEPT,
            _ => HeaderValue::from_static("application/json"),
        };
        let mut answers = Vec::with_capacity(urls.len());
        for url in urls {
            let probe = HttpProbe { url: HttpUrl::of_request(url), ..source.http.clone() };
            let answer = self.answer(&probe, accept.clone(), longest_answer(source)).await;
            answers.push(answer.map_err(ReadFailure::Wrong)?);
        }
        let answers: Vec<&[u8]> = answers.iter().map(Vec::as_slice).collect();
        read(source, &answers, clock.now())
    }

    /// The body of one answer. The download stops as soon as it is found to be too long.
    async fn answer(&self, probe: &HttpProbe, accept: HeaderValue, longest: usize) -> Result<Vec<u8>, String> {
        let mut response = self.fetch(probe, accept).await?;
        let status = response.status().as_u16();
        if status != 200 {
            return Err(format!("answered {status}, expected 200"));
        }
        if response.headers().get(CONTENT_ENCODING).is_some_and(|coding| coding != "identity") {
            return Err("the answer is compressed, which wasn't asked for; let it be sent as it is".to_owned());
        }
        let mut body = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(|error| failure(probe, error))? {
            if body.len() + piece.len() > longest {
                return Err(format!("the answer is longer than {} KiB", longest >> 10));
            }
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }
}
