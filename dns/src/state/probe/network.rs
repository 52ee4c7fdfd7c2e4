//! Probes over the network. Takes a monitor and the addresses to try, returns success or a sentence that says what
//! failed. Called by the task of each monitor in [`super`].
//!
//! Each probe opens a new connection, so that it notices a listener that died. Metrics pages are read over connections
//! that stay open. Proxies from the environment are ignored, so that the probe reaches the host of the URL. Redirects
//! aren't followed, because a monitor's secret and authorities are for the endpoint of its URL only.

mod model;
mod page;
mod release;
mod replica;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_host::system::clock::Clock;
use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::release::{CompletionReport, Form, ModelListing, ReleaseSource};
use bailiwick_rules::replica::{ReadFailure, ReplicaReading};
use bailiwick_rules::rules::{HttpProbe, LoadSource, Monitor, Probe, ReplicaSource};
use futures_util::future::try_join_all;
use reqwest::header::{ACCEPT, HOST, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, Url};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use super::authorities::Authorities;
use super::failure::{TlsSettings, by_address, chain, describe};
use super::lookups::Lookups;
use super::{ProbeFailure, ProbeSuccess, Prober, Secrets, Targets};
use model::{CONNECT, RaisedLimits};

/// How much of a response's body is searched, in bytes.
pub(super) const MAX_BODY: usize = 64 << 10;
/// The most addresses that one probe tries if all addresses of a name have to answer.
const MAX_ADDRESSES: usize = 16;

/// Probes over the network. Its three clients serve probes that trust the system's authorities, use the URL's host name
/// and need an answer of any address only. Other probes get a client of their own ([`client_for`]).
#[derive(Debug)]
pub(crate) struct NetworkProber {
    /// For HTTP monitors.
    client: Client,
    /// For monitors that ask a model. Its timeout for connecting is [`CONNECT`].
    model_client: Client,
    /// For metrics pages and for replicas. It keeps connections open, because both are read often.
    page_client: Client,
    lookups: Lookups,
    authorities: Arc<Authorities>,
    secrets: Secrets,
    raised: RaisedLimits,
}

impl NetworkProber {
    /// A prober that verifies TLS with the system's authorities, or with those in a monitor's `ca_file`. Relative paths
    /// of such files start at `directory`.
    ///
    /// # Errors
    /// When TLS can't be set up; the text says why.
    pub(crate) fn new(secrets: Secrets, directory: &Path) -> Result<Self, String> {
        // This returns an error if a provider was installed before. That provider serves as well.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::error::Error| format!("probes can't use TLS: {}", chain(error));
        let (lookups, authorities) = (Lookups::default(), Authorities::new(directory).map_err(|error| failed(&error))?);
        let plain = || builder(authorities.of_system().clone()).dns_resolver(Arc::new(lookups.clone()));
        let client = plain().build().map_err(|error| failed(&error))?;
        let model_client = plain().connect_timeout(CONNECT).build().map_err(|error| failed(&error))?;
        let page_client = plain().pool_max_idle_per_host(1).build().map_err(|error| failed(&error))?;
        let (authorities, raised) = (Arc::new(authorities), RaisedLimits::default());
        Ok(Self { client, model_client, page_client, lookups, authorities, secrets, raised })
    }

    /// Connects over TCP to each group of addresses.
    async fn connect(&self, address: &str, targets: Targets) -> Result<(), String> {
        let groups = groups(targets, &self.lookups.of_address(address).await?)?;
        let connect = async |group: &Vec<SocketAddr>| match TcpStream::connect(&group[..]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(describe_by_address(targets, group, error.to_string(), &error)),
        };
        try_join_all(groups.iter().map(connect)).await.map(drop)
    }

    /// Sends a GET to each group of addresses.
    async fn get(&self, probe: &HttpProbe, targets: Targets) -> Result<(), String> {
        let url = probe.url.as_url();
        let is_plain = targets == Targets::Any && probe.server_name().is_none() && probe.ca_file.is_none();
        if is_plain {
            let client = self.client.clone();
            return self.ask(probe, client, url.clone(), targets, &[]).await;
        }
        let (groups, tls) = self.addresses_and_tls(probe, targets).await?;
        let ask = async |group: &Vec<SocketAddr>| {
            let (client, url) = client_for(probe, tls.clone(), group, None)?;
            self.ask(probe, client, url, targets, group).await
        };
        try_join_all(groups.iter().map(ask)).await.map(drop)
    }

    /// The addresses to try, in groups, and the TLS settings to use.
    async fn addresses_and_tls(
        &self,
        probe: &HttpProbe,
        targets: Targets,
    ) -> Result<(Vec<Vec<SocketAddr>>, ClientConfig), String> {
        let url = probe.url.as_url();
        let tls = self.tls(probe.ca_file.clone()).await?;
        // The name is looked up here, because the probe has to know which address answers.
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        Ok((groups(targets, &self.lookups.of_address(&format!("{host}:{port}")).await?)?, tls))
    }

    /// Sends a GET for something that is read over and over, such as a metrics page, and returns the answer.
    async fn fetch(&self, probe: &HttpProbe, accept: HeaderValue) -> Result<Response, String> {
        let (client, url) = if probe.server_name().is_none() && probe.ca_file.is_none() {
            (self.page_client.clone(), probe.url.as_url().clone())
        } else {
            let (groups, tls) = self.addresses_and_tls(probe, Targets::Any).await?;
            client_for(probe, tls, &groups.concat(), None)?
        };
        let request = self.request(probe, &client, url).await?.header(ACCEPT, accept);
        request.send().await.map_err(|error| failure(probe, error))
    }

    /// A GET with the probe's `Host` header and secret.
    async fn request(&self, probe: &HttpProbe, client: &Client, url: Url) -> Result<RequestBuilder, String> {
        let mut request = client.get(url);
        if let Some(host) = host_of(probe) {
            request = request.header(HOST, host);
        }
        if let Some(name) = &probe.secret {
            request = request.bearer_auth(self.secret(name.as_str()).await?);
        }
        Ok(request)
    }

    /// The value of a secret. A disk may hang, so the secret's file is read on a blocking thread.
    async fn secret(&self, name: &str) -> Result<String, String> {
        let (secrets, name) = (self.secrets.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || secrets.get(&name)).await;
        read.unwrap_or_else(|error| Err(format!("the secret isn't read, by a fault of this program ({error})")))
    }

    /// A TLS configuration that trusts the authorities in `ca_file`, or the system's. A disk may hang, so the file is
    /// read on a blocking thread.
    async fn tls(&self, ca_file: Option<String>) -> Result<ClientConfig, String> {
        let Some(path) = ca_file else { return Ok(self.authorities.of_system().clone()) };
        let authorities = Arc::clone(&self.authorities);
        let read = tokio::task::spawn_blocking(move || authorities.of_file(&path)).await;
        let read = read.map_err(|error| format!("ca_file isn't read, by a fault of this program ({error})"))?;
        read.map_err(|fault| fault.to_string())
    }

    /// Sends a GET and checks status and body. `addresses` are the addresses that the client connects to, for error
    /// messages.
    async fn ask(
        &self,
        probe: &HttpProbe,
        client: Client,
        url: Url,
        targets: Targets,
        addresses: &[SocketAddr],
    ) -> Result<(), String> {
        let name = url.host_str().unwrap_or_default().to_owned();
        let tls_settings = TlsSettings { name: &name, ca_file: probe.ca_file.as_deref() };
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            describe_by_address(targets, addresses, describe(&error, tls_settings), &error)
        };
        let request = self.request(probe, &client, url).await?;
        let mut response = request.send().await.map_err(failed)?;
        let failed_at = |text: String| match targets.tested_family() {
            Some(_) => prefixed(addresses, &text),
            None => text,
        };
        let status = response.status().as_u16();
        if !probe.status.contains(&status) {
            return Err(failed_at(format!("answered {status}, expected {}", list(&probe.status))));
        }
        let Some(wanted) = &probe.body_contains else { return Ok(()) };
        let mut body = Vec::new();
        while !contains(&body, wanted.as_bytes()) {
            if body.len() == MAX_BODY {
                return Err(failed_at(format!("the first {MAX_BODY} bytes of the body don't contain {wanted:?}")));
            }
            let chunk = response.chunk().await.map_err(failed)?;
            let Some(chunk) = chunk else { return Err(failed_at(format!("the body doesn't contain {wanted:?}"))) };
            body.extend_from_slice(&chunk[..chunk.len().min(MAX_BODY - body.len())]);
        }
        Ok(())
    }
}

impl Prober for NetworkProber {
    async fn probe(&self, monitor: &Monitor, targets: Targets) -> Result<ProbeSuccess, ProbeFailure> {
        match &monitor.probe {
            Probe::Tcp { address } => self.connect(address, targets).await?,
            Probe::Http(probe) => self.get(probe, targets).await?,
            Probe::OpenAi(probe) => return self.ask_model(probe, targets).await,
        }
        Ok(ProbeSuccess::default())
    }

    async fn read_load(&self, source: &LoadSource) -> Result<EngineReading, String> {
        self.page(source).await
    }

    async fn read_replica(&self, source: &ReplicaSource, clock: &Clock) -> Result<ReplicaReading, ReadFailure> {
        self.replica(source, clock).await
    }

    async fn list_models(&self, source: &ReleaseSource) -> Result<ModelListing, String> {
        self.list(source).await
    }

    async fn ask_prompt(
        &self,
        source: &ReleaseSource,
        prompt: usize,
        form: Form,
    ) -> Result<(CompletionReport, Form), String> {
        self.prompt(source, prompt, form).await
    }
}

/// Divides a name's addresses into groups. In each group, at least one address has to answer.
fn groups(targets: Targets, addresses: &[SocketAddr]) -> Result<Vec<Vec<SocketAddr>>, String> {
    let of_family = |family: AddressFamily| -> Result<Vec<SocketAddr>, String> {
        let is_of_family = |address: &&SocketAddr| address.is_ipv4() == (family == AddressFamily::Ipv4);
        let matching: Vec<SocketAddr> = addresses.iter().filter(is_of_family).copied().collect();
        if matching.is_empty() { Err(format!("the name has no {family} address")) } else { Ok(matching) }
    };
    Ok(match targets {
        Targets::Any => vec![addresses.to_vec()],
        Targets::AnyOf(family) => vec![of_family(family)?],
        Targets::AllOf(family) => {
            let mut matching = of_family(family)?;
            matching.sort_unstable();
            matching.dedup();
            matching.into_iter().take(MAX_ADDRESSES).map(|address| vec![address]).collect()
        }
    })
}

/// The text of a failure. The text names the address if all addresses have to answer.
fn describe_by_address(
    targets: Targets,
    addresses: &[SocketAddr],
    failure: String,
    error: &(dyn std::error::Error + 'static),
) -> String {
    match targets.tested_family() {
        Some(family) => by_address(&prefixed(addresses, &failure), error, family),
        None => failure,
    }
}

/// A failure's text, with the first of the addresses before it.
fn prefixed(addresses: &[SocketAddr], failure: &str) -> String {
    addresses.first().map_or_else(|| failure.to_owned(), |address| format!("{address}: {failure}"))
}

/// Why a request failed, or the rest of its answer didn't come.
fn failure(probe: &HttpProbe, error: reqwest::Error) -> String {
    let name = probe.url.as_url().host_str().unwrap_or_default();
    describe(&error.without_url(), TlsSettings { name, ca_file: probe.ca_file.as_deref() })
}

/// A client that connects only to these addresses, and the URL for its requests. `connect` is the timeout for
/// connecting.
fn client_for(
    probe: &HttpProbe,
    tls: ClientConfig,
    addresses: &[SocketAddr],
    connect: Option<Duration>,
) -> Result<(Client, Url), String> {
    let mut url = probe.url.as_url().clone();
    // The client takes the TLS server name from the URL, so the URL gets the probe's server name. The addresses are set
    // below.
    if let Some(name) = probe.server_name().filter(|_| url.scheme() == "https") {
        url.set_host(Some(name.as_str())).map_err(|error| format!("{name} can't stand in a URL: {error}"))?;
    }
    let mut building = builder(tls);
    if let Some(connect) = connect {
        building = building.connect_timeout(connect);
    }
    if let Some(name) = url.domain() {
        building = building.resolve_to_addrs(name, addresses);
    }
    let client = building.build().map_err(|error| format!("probes can't use TLS: {}", chain(&error)))?;
    Ok((client, url))
}

/// The `Host` header, if it may differ from the host of the URL that [`client_for`] returns.
fn host_of(probe: &HttpProbe) -> Option<HeaderValue> {
    let text = match (&probe.host, &probe.sni) {
        (Some(host), _) => host.to_string(),
        (None, Some(_)) => probe.url.as_url().authority().to_owned(),
        (None, None) => return None,
    };
    HeaderValue::try_from(text).ok()
}

/// The settings that all clients have in common.
fn builder(tls: ClientConfig) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .user_agent(concat!("bailiwick/", env!("CARGO_PKG_VERSION"), " (health check)"))
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .pool_max_idle_per_host(0)
}

/// Whether the body contains the text.
fn contains(body: &[u8], wanted: &[u8]) -> bool {
    wanted.is_empty() || body.windows(wanted.len()).any(|window| window == wanted)
}

/// The status codes, joined by "or".
fn list(status: &[u16]) -> String {
    status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_group_has_to_answer() {
        let addresses: Vec<SocketAddr> =
            ["192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"].map(|text| text.parse().unwrap()).to_vec();
        let grouped = |targets, addresses: &[SocketAddr]| {
            let groups = groups(targets, addresses)?;
            Ok::<_, String>(
                groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect::<Vec<Vec<_>>>(),
            )
        };
        let (v4, v6) = (AddressFamily::Ipv4, AddressFamily::Ipv6);
        assert_eq!(grouped(Targets::Any, &addresses).unwrap().concat().len(), 4);
        assert_eq!(grouped(Targets::AnyOf(v4), &addresses).unwrap(), [["192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1"]]);
        assert_eq!(grouped(Targets::AllOf(v4), &addresses).unwrap(), [["192.0.2.1:1"], ["192.0.2.2:1"]]);
        assert_eq!(grouped(Targets::AllOf(v6), &addresses).unwrap(), [["[2001:db8::1]:1"]]);
        for targets in [Targets::AnyOf(v6), Targets::AllOf(v6)] {
            assert_eq!(grouped(targets, &addresses[..1]).unwrap_err(), "the name has no IPv6 address");
        }
        let many: Vec<SocketAddr> = (1..=99).map(|n| SocketAddr::from(([192, 0, 2, n], 1))).collect();
        assert_eq!(groups(Targets::AllOf(v4), &many).unwrap().len(), MAX_ADDRESSES);
    }
}
