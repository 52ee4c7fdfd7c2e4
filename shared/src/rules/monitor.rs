//! The fields of the rules that say how the health of a region or an endpoint is checked. Read by [`super::read`]; used
//! by the DNS server's probes.

use schemars::JsonSchema;

use super::{Authority, HostName, HttpUrl, SecretName, Style};
use crate::health::{AddressFamily, Thresholds};
use crate::time::Millis;

/// A health check.
#[derive(Clone, Debug, PartialEq)]
pub struct Monitor {
    /// What is tried.
    pub probe: Probe,
    /// Which addresses of a name are tried. `None` if the document doesn't say, which means [`Family::Any`].
    pub family: Option<Family>,
    /// Time between the starts of two probes.
    pub interval: Millis,
    /// How long one probe may take.
    pub timeout: Millis,
    /// How many results change the status.
    pub thresholds: Thresholds,
}

/// By which addresses of a name a monitor tries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
#[schemars(rename_all = "lowercase")]
pub enum Family {
    /// Whichever answers.
    #[default]
    Any,
    /// Whichever IPv4 address answers.
    Ipv4,
    /// Whichever IPv6 address answers.
    Ipv6,
    /// All of them, each family with a health of its own: the records of a dead family are withheld.
    Both,
}

/// What a monitor tries.
#[derive(Clone, Debug, PartialEq)]
pub enum Probe {
    /// A TCP connection.
    Tcp {
        /// `host:port` or `[v6]:port`.
        address: String,
    },
    /// An HTTP GET. The response's status and body are checked. A redirect counts as a failure.
    Http(HttpProbe),
    /// One token of a model. Its [`Monitor::timeout`] is how long the token is awaited.
    OpenAi(Box<ModelProbe>),
}

impl Probe {
    /// The HTTP request that it sends, if it sends one.
    #[must_use]
    pub fn http(&self) -> Option<&HttpProbe> {
        match self {
            Self::Tcp { .. } => None,
            Self::Http(http) => Some(http),
            Self::OpenAi(model) => Some(&model.http),
        }
    }

    /// What it asks of a model, if it asks one.
    #[must_use]
    pub fn model(&self) -> Option<&ModelProbe> {
        if let Self::OpenAi(model) = self { Some(model) } else { None }
    }

    /// The family of the probe's address; `None` if the probe names a host.
    #[must_use]
    pub fn address_family(&self) -> Option<AddressFamily> {
        let is_ipv4 = match self {
            Self::Tcp { address } => address.parse::<core::net::SocketAddr>().ok()?.is_ipv4(),
            Self::Http(_) | Self::OpenAi(_) => match self.http()?.url.as_url().host()? {
                url::Host::Domain(_) => return None,
                url::Host::Ipv4(_) => true,
                url::Host::Ipv6(_) => false,
            },
        };
        Some(if is_ipv4 { AddressFamily::Ipv4 } else { AddressFamily::Ipv6 })
    }
}

/// The HTTP request that a monitor sends, and the response that it expects.
#[derive(Clone, Debug, PartialEq)]
pub struct HttpProbe {
    /// `http` or `https`; TLS is verified.
    pub url: HttpUrl,
    /// Statuses that mean success.
    pub status: Vec<u16>,
    /// Text that the body has to contain.
    pub body_contains: Option<String>,
    /// The name of the secret sent as a bearer token.
    pub secret: Option<SecretName>,
    /// The `Host` header to send instead of the URL's host.
    pub host: Option<Authority>,
    /// The TLS server name to use instead of `host` or the URL's host. The certificate has to be valid for it.
    pub sni: Option<HostName>,
    /// A file on the DNS node. Its certificate authorities are trusted instead of the system's.
    pub ca_file: Option<String>,
}

impl HttpProbe {
    /// The TLS server name, if it isn't the URL's host: `sni`, else the name in `host`.
    #[must_use]
    pub fn server_name(&self) -> Option<&HostName> {
        self.sni.as_ref().or_else(|| self.host.as_ref()?.name())
    }
}

/// How many tokens one probe counts as in its budget: 48 of a prompt within a usual chat template, and the 16 that a
/// reasoning model may need.
pub const PROBE_TOKENS: u64 = 64;

/// What a monitor of type `openai` asks for.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelProbe {
    /// Where chat completions are asked for, by which names and authorities, and the name of the credential.
    pub http: HttpProbe,
    /// The base URL below which the endpoint's API is.
    pub base: HttpUrl,
    /// Azure's version of the API.
    pub api_version: Option<String>,
    /// How the credential is sent.
    pub style: Style,
    /// The model, by the name that the endpoint knows.
    pub model: String,
    /// How many tokens its probes may use. Absent: as many as they need.
    pub budget: Option<ProbeBudget>,
}

/// How many tokens the probes of one monitor may use on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProbeBudget {
    /// Tokens of prompts and answers together; at least [`PROBE_TOKENS`].
    pub tokens: u64,
    /// The span that they are for.
    pub per: Millis,
}
