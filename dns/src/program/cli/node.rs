//! A client of the API of a running node. Takes a configuration or a URL, returns a [`Node`] that asks the API. Called
//! by `status`, `drain` and all other commands that ask a node.

use std::fmt;
use std::io::IsTerminal;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName};
use reqwest::{Method, StatusCode};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use serde_json::Value;

use crate::program::config::{Api, Config};
use crate::state::load::{read_file, read_text};
use crate::text::cause::innermost;

/// How long an answer may take. A node answers a new override only when the override is on disk, which may take two
/// seconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// Which node, and how it is asked.
#[derive(Debug, Clone, Args)]
pub(crate) struct NodeArgs {
    /// The configuration of the node: its [api] says where the API is and by which token it is written to.
    #[arg(long, value_name = "FILE", default_value = "bailiwick.toml")]
    pub(crate) config: PathBuf,
    /// Where the API is, instead of what the configuration says: http://127.0.0.1:8053.
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
    /// The file of the token to send, instead of what the configuration says.
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

/// A client of a node's API.
pub(crate) struct Node {
    /// The URL of the API, `http://…` or `https://…`, without a slash at the end.
    url: String,
    /// Where the URL comes from, for errors.
    said_by: String,
    token: Option<String>,
    /// How to name a token, for errors if there is none.
    no_token: String,
    /// The file of the certificate that the node has to show.
    certificate: Option<PathBuf>,
    /// How long an answer may take.
    patience: Duration,
}

/// What a node answered.
pub(crate) struct Exchanged {
    /// The status.
    pub(crate) status: StatusCode,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Vec<u8>,
    url: String,
    path: String,
    /// How to name a token, if none was sent.
    no_token: Option<String>,
}

impl Exchanged {
    /// The answer, if it is a success.
    ///
    /// # Errors
    /// The node's messages, or a sentence for the person who typed the command.
    pub(crate) fn success(self) -> Result<Self, Vec<String>> {
        let Self { status, url, path, .. } = &self;
        if status.is_success() {
            return Ok(self);
        }
        let reported = serde_json::from_slice(&self.body).unwrap_or(Value::Null);
        let reported = match &reported["error"]["messages"] {
            Value::Array(messages) => messages.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            _ => reported["error"]["message"].as_str().map(|message| vec![message.to_owned()]).unwrap_or_default(),
        };
        Err(match (*status, &self.no_token) {
            (StatusCode::UNAUTHORIZED, Some(no_token)) => vec![format!("{url} wants a token; {no_token}")],
            (StatusCode::UNAUTHORIZED, None) => vec![format!(
                "{url} doesn't accept the token that was sent; was it changed after the server read it, or is this \
                 another node's?"
            )],
            _ if reported.is_empty() => {
                vec![format!("{url}{path} answered {status}; is it bailiwick's API, and of this version?")]
            }
            _ => reported,
        })
    }
}

/// Whether a request changes something, and so which token it needs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The request only reads.
    Read,
    /// The request changes something.
    Write,
}

impl Node {
    /// Finds the node's API and its token.
    ///
    /// # Errors
    /// What is wrong with the configuration, or that the configuration has no API.
    pub(crate) fn find(args: &NodeArgs, power: Access) -> Result<Self, Vec<String>> {
        let mut node = match &args.api {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => Self {
                url: url.trim_end_matches('/').to_owned(),
                said_by: "--api".to_owned(),
                token: None,
                no_token: "name one with --token-file".to_owned(),
                certificate: None,
                patience: PATIENCE,
            },
            Some(url) => return Err(vec![format!("--api: {url:?} is no URL; write http://127.0.0.1:8053")]),
            None => Self::configured(&args.config, power)?,
        };
        if let Some(file) = &args.token_file {
            node.token = Some(token(file).map_err(|error| vec![error])?);
        }
        Ok(node)
    }

    /// The same client, with another limit for the time that an answer may take.
    pub(crate) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// The node that a configuration file describes, with a token for the API if one is needed.
    fn configured(file: &Path, power: Access) -> Result<Self, Vec<String>> {
        let config = Config::read(file).map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let name = file.display();
        let Some(api) = config.api else {
            let mend = "add [api] with listen = \"127.0.0.1:8053\" and token_file = \"api.token\", or name another \
                node with --api";
            return Err(vec![format!("{name}: this node has no API; {mend}")]);
        };
        if api.listen.port() == 0 {
            let message =
                "port 0 is any free port, which only the server's log and its --ready-file tell; name it with --api";
            return Err(vec![format!("{name}:{}: {message}", api.line)]);
        }
        let scheme = if api.tls.is_some() { "https" } else { "http" };
        let needs_token = power == Access::Write || !crate::program::api::is_loopback(api.listen);
        let chosen = chosen(&api, power).map(Path::to_owned);
        let (token, no_token) = match chosen.filter(|_| needs_token) {
            None => (None, format!("{name} names none that fits in [api]: add token_file = \"api.token\"")),
            Some(file) => (Some(token(&file).map_err(|error| vec![error])?), String::new()),
        };
        Ok(Self {
            url: format!("{scheme}://{}", reachable(api.listen)),
            said_by: format!("{name}:{} says so", api.line),
            token,
            no_token,
            certificate: api.tls.map(|tls| tls.cert),
            patience: PATIENCE,
        })
    }

    /// Sends a request, with `body` as JSON, and returns the JSON of the answer.
    ///
    /// # Errors
    /// Sentences for the person who typed the command.
    pub(crate) fn ask(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value, Vec<String>> {
        let headers = body.map(|_| (CONTENT_TYPE, "application/json".to_owned()));
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = self.exchange(method, path, headers.as_slice(), body.into_bytes())?.success()?;
        serde_json::from_slice(&answer.body)
            .map_err(|_| vec![format!("{}{path} answered no JSON; is it bailiwick's API?", self.url)])
    }

    /// Reads the text at a path, whatever its form.
    ///
    /// # Errors
    /// Sentences for the person who typed the command.
    pub(crate) fn read(&self, path: &str) -> Result<String, Vec<String>> {
        let answer = self.exchange(Method::GET, path, &[], Vec::new())?.success()?;
        Ok(String::from_utf8_lossy(&answer.body).into_owned())
    }

    /// Sends a request with these headers and this body, and returns the answer, whatever its status.
    ///
    /// # Errors
    /// That the node can't be reached.
    pub(crate) fn exchange(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
        body: Vec<u8>,
    ) -> Result<Exchanged, Vec<String>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| vec![format!("the system gives no event queue: {error}")])?;
        runtime.block_on(self.call(method, path, headers, body))
    }

    /// Sends a request to the node and reads the answer.
    async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(HeaderName, String)],
        body: Vec<u8>,
    ) -> Result<Exchanged, Vec<String>> {
        let url = format!("{}{path}", self.url);
        let mut request = self.client()?.request(method, &url);
        if let Some(token) = &self.token {
            request = request.bearer_auth(token);
        }
        for (name, value) in headers {
            request = request.header(name, value);
        }
        if !body.is_empty() {
            request = request.body(body);
        }
        let response = request.send().await.map_err(|error| vec![self.unreachable(&error)])?;
        let (status, headers) = (response.status(), response.headers().clone());
        let body = response.bytes().await.map_err(|error| vec![self.unreachable(&error)])?.to_vec();
        let no_token = self.token.is_none().then(|| self.no_token.clone());
        Ok(Exchanged { status, headers, body, url: self.url.clone(), path: path.to_owned(), no_token })
    }

    /// The HTTP client, which trusts the node's certificate if one is configured.
    fn client(&self) -> Result<reqwest::Client, Vec<String>> {
        // This fails if a provider is installed already, which does no harm.
        let _ = ring::default_provider().install_default();
        let mut client = reqwest::Client::builder().no_proxy().timeout(self.patience);
        if let Some(file) = &self.certificate {
            client = client.tls_backend_preconfigured(pinned(file).map_err(|error| vec![error])?);
        }
        client.build().map_err(|error| vec![format!("TLS can't be set up: {error}")])
    }

    /// The message if the node's API can't be reached.
    fn unreachable(&self, error: &reqwest::Error) -> String {
        let why = match error.is_timeout() {
            true => format!("no answer within {} s", self.patience.as_secs()),
            false => innermost(error).to_string(),
        };
        format!(
            "the API can't be reached at {} ({}): {why}; is the server running there? `bailiwick serve` starts it, \
             --api names another address",
            self.url, self.said_by
        )
    }
}

/// The file of the token that allows as little as this request needs.
fn chosen(api: &Api, power: Access) -> Option<&Path> {
    let reader = api.read_token_files.first().or(api.worker_token_files.first()).map(PathBuf::as_path);
    let writer = api.writers().next();
    match power {
        Access::Write => writer,
        Access::Read => reader.or(writer),
    }
}

/// An address at which this machine can reach a server that listens at `address`.
fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

/// Reads the API's token from the first line of a file.
fn token(file: &Path) -> Result<String, String> {
    let text = read_text(file).map_err(|error| {
        format!(
            "{}: the API's token can't be read ({error}); run this as its owner, or name another with --token-file",
            file.display()
        )
    })?;
    match text.lines().next().map(str::trim) {
        Some(token) if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(token.to_owned()),
        _ => Err(format!("{}:1: holds no token", file.display())),
    }
}

/// TLS that accepts only the certificate in the node's own file, whatever names the certificate has. A server that has
/// the certificate's key is this node.
fn pinned(file: &Path) -> Result<ClientConfig, String> {
    let pem = read_file(file).map_err(|error| format!("{}: can't be read ({error})", file.display()))?;
    let certificate = CertificateDer::pem_slice_iter(&pem).next().and_then(Result::ok);
    let certificate = certificate.ok_or_else(|| format!("{}: holds no certificate", file.display()))?;
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(Pinned { certificate, provider: Arc::clone(&provider) });
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.map_err(|error| format!("TLS can't be set up: {error}"))?;
    Ok(config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth())
}

/// Accepts only one certificate. The server has to prove by its signature that it has the certificate's key.
struct Pinned {
    certificate: CertificateDer<'static>,
    provider: Arc<CryptoProvider>,
}

impl fmt::Debug for Pinned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pinned").finish_non_exhaustive()
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        match *certificate == self.certificate {
            true => Ok(ServerCertVerified::assertion()),
            false => Err(rustls::Error::General(
                "it shows another certificate than the configuration's [api] cert".to_owned(),
            )),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Whether the output goes to a terminal, so that it may have colours. `anstream` removes the colours again if
/// something else forbids them, such as `NO_COLOR`.
pub(super) fn is_terminal() -> bool {
    std::io::stdout().is_terminal()
}
