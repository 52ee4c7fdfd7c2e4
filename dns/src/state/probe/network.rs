//! Takes a monitor and the addresses to try, returns success or a sentence that says what failed. Called by the task
//! of each monitor in [`super`].
//!
//! Each probe opens a new connection, so that it notices a listener that died. Pages with loads are read over
//! connections that are kept. Proxies from the environment are ignored, so that the named host is reached. No redirect
//! is followed: secrets and certificates are for the named endpoint only.

mod model;
mod page;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bailiwick_rules::health::AddressFamily;
use bailiwick_rules::load::EngineReading;
use bailiwick_rules::rules::{HttpProbe, LoadSource, Monitor, Probe};
use futures_util::future::try_join_all;
use reqwest::header::{HOST, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Url};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use super::authorities::Authorities;
use super::failure::{Asked, by_address, chain, describe};
use super::lookups::Lookups;
use super::{Passed, ProbeFailure, Prober, Secrets, Targets};
use model::{CONNECT, Raised};

/// How much of a response's body is searched, in bytes.
pub(super) const MAX_BODY: usize = 64 << 10;
/// The most addresses of a name that one probe tries if all of them have to answer.
const MAX_ADDRESSES: usize = 16;

/// Probes over the network.
#[derive(Debug)]
pub(crate) struct NetworkProber {
    /// For plain monitors: they trust the system's authorities, use the URL's host name and accept any address.
    client: Client,
    /// For plain monitors that ask a model: as the first, but a connection has to come about sooner.
    asking: Client,
    /// For plain sources of loads. They are asked too often for a new connection each time.
    keeping: Client,
    lookups: Lookups,
    authorities: Arc<Authorities>,
    secrets: Secrets,
    raised: Raised,
}

impl NetworkProber {
    /// A prober that verifies TLS with the system's authorities, or with the file that a monitor names. A relative path
    /// starts at `directory`.
    ///
    /// # Errors
    /// When TLS can't be set up; the text says why.
    pub(crate) fn new(secrets: Secrets, directory: &Path) -> Result<Self, String> {
        // This fails if a provider is already installed, which does no harm.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let failed = |error: &dyn std::error::Error| format!("probes can't use TLS: {}", chain(error));
        let (lookups, authorities) = (Lookups::default(), Authorities::new(directory).map_err(|error| failed(&error))?);
        let plain = || builder(authorities.of_system().clone()).dns_resolver(Arc::new(lookups.clone()));
        let client = plain().build().map_err(|error| failed(&error))?;
        let asking = plain().connect_timeout(CONNECT).build().map_err(|error| failed(&error))?;
        let keeping = plain().pool_max_idle_per_host(1).build().map_err(|error| failed(&error))?;
        let (authorities, raised) = (Arc::new(authorities), Raised::default());
        Ok(Self { client, asking, keeping, lookups, authorities, secrets, raised })
    }

    /// Connects by TCP.
    async fn connect(&self, address: &str, targets: Targets) -> Result<(), String> {
        let groups = groups(targets, &self.lookups.of_address(address).await?)?;
        let connect = async |some: &Vec<SocketAddr>| match TcpStream::connect(&some[..]).await {
            Ok(_) => Ok(()),
            Err(error) => Err(describe_by_address(targets, some, error.to_string(), &error)),
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
        let (groups, tls) = self.ways(probe, targets).await?;
        let ask = async |some: &Vec<SocketAddr>| {
            let (client, url) = client_for(probe, tls.clone(), some, None)?;
            self.ask(probe, client, url, targets, some).await
        };
        try_join_all(groups.iter().map(ask)).await.map(drop)
    }

    /// The addresses to try, in groups, and the TLS settings to use.
    async fn ways(&self, probe: &HttpProbe, targets: Targets) -> Result<(Vec<Vec<SocketAddr>>, ClientConfig), String> {
        let url = probe.url.as_url();
        let tls = self.tls(probe.ca_file.clone()).await?;
        // The probe has to know which address answers, so the name is looked up here.
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        Ok((groups(targets, &self.lookups.of_address(&format!("{host}:{port}")).await?)?, tls))
    }

    /// A GET with what the probe adds to it.
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

    /// The value of a secret. A disk may hang, so its file is looked at on a blocking thread.
    async fn secret(&self, name: &str) -> Result<String, String> {
        let (secrets, name) = (self.secrets.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || secrets.get(&name)).await;
        read.unwrap_or_else(|error| Err(format!("the secret isn't read, by a fault of this program ({error})")))
    }

    /// The TLS settings for `ca_file`, or the system's. A disk may hang, so the file is read on a blocking thread.
    async fn tls(&self, ca_file: Option<String>) -> Result<ClientConfig, String> {
        let Some(path) = ca_file else { return Ok(self.authorities.of_system().clone()) };
        let authorities = Arc::clone(&self.authorities);
        let read = tokio::task::spawn_blocking(move || authorities.of_file(&path)).await;
        let read = read.map_err(|error| format!("ca_file isn't read, by a fault of this program ({error})"))?;
        read.map_err(|fault| fault.to_string())
    }

    /// Sends a GET and checks status and body.
    async fn ask(
        &self,
        probe: &HttpProbe,
        client: Client,
        url: Url,
        targets: Targets,
        by: &[SocketAddr],
    ) -> Result<(), String> {
        let name = url.host_str().unwrap_or_default().to_owned();
        let asked = Asked { name: &name, ca_file: probe.ca_file.as_deref() };
        let failed = |error: reqwest::Error| {
            let error = error.without_url();
            describe_by_address(targets, by, describe(&error, asked), &error)
        };
        let request = self.request(probe, &client, url).await?;
        let mut response = request.send().await.map_err(failed)?;
        let failed_at = |text: String| if targets.tested_family().is_some() { prefixed(by, &text) } else { text };
        let answered = response.status().as_u16();
        if !probe.status.contains(&answered) {
            return Err(failed_at(format!("answered {answered}, expected {}", list(&probe.status))));
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
    async fn probe(&self, monitor: &Monitor, targets: Targets) -> Result<Passed, ProbeFailure> {
        match &monitor.probe {
            Probe::Tcp { address } => self.connect(address, targets).await?,
            Probe::Http(probe) => self.get(probe, targets).await?,
            Probe::OpenAi(probe) => return self.ask_model(probe, targets).await,
        }
        Ok(Passed::default())
    }

    async fn read_load(&self, source: &LoadSource) -> Result<EngineReading, String> {
        self.page(source).await
    }
}

/// Divides a name's addresses into groups. One address of each group has to answer.
fn groups(targets: Targets, addresses: &[SocketAddr]) -> Result<Vec<Vec<SocketAddr>>, String> {
    let of = |family: AddressFamily| -> Result<Vec<SocketAddr>, String> {
        let is_of = |address: &&SocketAddr| address.is_ipv4() == (family == AddressFamily::Ipv4);
        let found: Vec<SocketAddr> = addresses.iter().filter(is_of).copied().collect();
        if found.is_empty() { Err(format!("the name has no {family} address")) } else { Ok(found) }
    };
    Ok(match targets {
        Targets::Any => vec![addresses.to_vec()],
        Targets::AnyOf(family) => vec![of(family)?],
        Targets::AllOf(family) => {
            let mut found = of(family)?;
            found.sort_unstable();
            found.dedup();
            found.into_iter().take(MAX_ADDRESSES).map(|one| vec![one]).collect()
        }
    })
}

/// The text of a failure. It names the address if all addresses have to answer.
fn describe_by_address(
    targets: Targets,
    by: &[SocketAddr],
    failure: String,
    error: &(dyn std::error::Error + 'static),
) -> String {
    match targets.tested_family() {
        Some(family) => by_address(&prefixed(by, &failure), error, family),
        None => failure,
    }
}

/// A failure's text with the address before it.
fn prefixed(by: &[SocketAddr], failure: &str) -> String {
    by.first().map_or_else(|| failure.to_owned(), |address| format!("{address}: {failure}"))
}

/// A client that connects only to these addresses, within `connect` if that is given, and the URL to give it.
fn client_for(
    probe: &HttpProbe,
    tls: ClientConfig,
    addresses: &[SocketAddr],
    connect: Option<Duration>,
) -> Result<(Client, Url), String> {
    let mut url = probe.url.as_url().clone();
    // The client takes the TLS server name from the URL, so it is set there. The addresses are set below.
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

/// The `Host` header, if it differs from the host of the URL that the client gets.
fn host_of(probe: &HttpProbe) -> Option<HeaderValue> {
    let text = match (&probe.host, &probe.sni) {
        (Some(host), _) => host.to_string(),
        (None, Some(_)) => probe.url.as_url().authority().to_owned(),
        (None, None) => return None,
    };
    HeaderValue::try_from(text).ok()
}

/// What all clients have in common.
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

/// The statuses, joined by "or".
fn list(status: &[u16]) -> String {
    status.iter().map(u16::to_string).collect::<Vec<_>>().join(" or ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_of_each_group_has_to_answer() {
        let addresses: Vec<SocketAddr> =
            ["192.0.2.2:1", "[2001:db8::1]:1", "192.0.2.1:1", "192.0.2.2:1"].map(|one| one.parse().unwrap()).to_vec();
        let told = |targets, addresses: &[SocketAddr]| {
            let told = groups(targets, addresses)?;
            Ok::<_, String>(
                told.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect::<Vec<Vec<_>>>(),
            )
        };
        let (v4, v6) = (AddressFamily::Ipv4, AddressFamily::Ipv6);
        assert_eq!(told(Targets::Any, &addresses).unwrap().concat().len(), 4);
        assert_eq!(told(Targets::AnyOf(v4), &addresses).unwrap(), [["192.0.2.2:1", "192.0.2.1:1", "192.0.2.2:1"]]);
        assert_eq!(told(Targets::AllOf(v4), &addresses).unwrap(), [["192.0.2.1:1"], ["192.0.2.2:1"]]);
        assert_eq!(told(Targets::AllOf(v6), &addresses).unwrap(), [["[2001:db8::1]:1"]]);
        for targets in [Targets::AnyOf(v6), Targets::AllOf(v6)] {
            assert_eq!(told(targets, &addresses[..1]).unwrap_err(), "the name has no IPv6 address");
        }
        let many: Vec<SocketAddr> = (1..=99).map(|n| SocketAddr::from(([192, 0, 2, n], 1))).collect();
        assert_eq!(groups(Targets::AllOf(v4), &many).unwrap().len(), MAX_ADDRESSES);
    }
}
