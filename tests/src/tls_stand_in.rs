//! A stand-in for a health endpoint behind a front that goes by names: it speaks TLS with certificates of a private
//! authority, answers 200 where both the server name of TLS and `Host` are its own, and remembers what it was asked
//! for.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ServerConfig, ServerConnection, Stream};

/// A private certificate authority.
#[derive(Debug)]
pub struct Authority {
    params: CertificateParams,
    key: KeyPair,
    /// Its certificate in PEM.
    pub pem: String,
}

/// A certificate with its key.
#[derive(Debug)]
pub struct Issued {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Authority {
    /// A new one of this name.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        Self { params, key, pem }
    }

    /// A certificate for these names and addresses and its key, both in PEM.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn issue_pem(&self, names: &[&str]) -> (String, String) {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let params = CertificateParams::new(names).expect("names");
        (params.signed_by(&key, &issuer).expect("a certificate").pem(), key.serialize_pem())
    }

    /// A certificate for this name, valid until the end of `year`.
    ///
    /// # Panics
    /// If it can't be made.
    #[must_use]
    pub fn issue(&self, name: &str, year: i32) -> Issued {
        let mut params = CertificateParams::new([name.to_owned()]).expect("a name");
        params.not_after = rcgen::date_time_ymd(year, 12, 31);
        let key = KeyPair::generate().expect("a key");
        let issuer = Issuer::from_params(&self.params, &self.key);
        let certificate = params.signed_by(&key, &issuer).expect("a certificate");
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Issued { chain: vec![certificate.der().clone()], key }
    }
}

/// What one request asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AskedFor {
    /// The server name of TLS.
    pub sni: Option<String>,
    /// The `Host` header.
    pub host: Option<String>,
}

/// A listener on loopback with a thread of its own; ends when dropped.
#[derive(Debug)]
pub struct TlsStandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// What it calls itself: the server name and the `Host`.
    own: AskedFor,
    /// Where it sends everybody, if it does.
    redirect: Option<String>,
    ended: AtomicBool,
    asked: Mutex<Vec<AskedFor>>,
}

impl TlsStandIn {
    /// Starts one that serves this server name and `Host`.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn start(sni: &str, host: &str, issued: Issued) -> Self {
        Self::begin(sni, host, issued, None)
    }

    /// Starts one that sends everybody to this URL.
    ///
    /// # Panics
    /// If no port is free.
    #[must_use]
    pub fn redirecting(name: &str, issued: Issued, to: String) -> Self {
        Self::begin(name, name, issued, Some(to))
    }

    fn begin(sni: &str, host: &str, issued: Issued, redirect: Option<String>) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let config = config.expect("versions").with_no_client_auth().with_single_cert(issued.chain, issued.key);
        let config = Arc::new(config.expect("a certificate"));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("its address");
        let own = AskedFor { sni: Some(sni.to_owned()), host: Some(host.to_owned()) };
        let shared = Shared { own, redirect, ended: AtomicBool::new(false), asked: Mutex::default() };
        let shared = Arc::new(shared);
        let seen = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if seen.ended.load(Ordering::SeqCst) {
                    return;
                }
                // A client that distrusts the certificate leaves.
                let _ = answer(stream, Arc::clone(&config), &seen);
            }
        });
        Self { address, shared }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A URL of it by its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}/health", self.address)
    }

    /// What it was asked for so far, by clients that trusted it.
    ///
    /// # Panics
    /// Never: nothing panics while it is noted.
    #[must_use]
    pub fn asked(&self) -> Vec<AskedFor> {
        self.shared.asked.lock().expect("a lock").clone()
    }
}

fn answer(mut tcp: TcpStream, config: Arc<ServerConfig>, shared: &Shared) -> std::io::Result<()> {
    tcp.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut tls = ServerConnection::new(config).map_err(std::io::Error::other)?;
    let mut stream = Stream::new(&mut tls, &mut tcp);
    let mut host = None;
    let mut reader = BufReader::new(&mut stream).take(8192);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        if let Some((_, value)) = line.split_once(": ").filter(|(name, _)| name.eq_ignore_ascii_case("host")) {
            host = Some(value.to_owned());
        }
    }
    drop(reader);
    let asked = AskedFor { sni: stream.conn.server_name().map(str::to_owned), host };
    let status = match (&shared.redirect, asked == shared.own) {
        (Some(to), _) => format!("302 Found\r\nlocation: {to}"),
        (None, true) => "200 OK".to_owned(),
        (None, false) => "421 Misdirected Request".to_owned(),
    };
    shared.asked.lock().map_err(|error| std::io::Error::other(error.to_string()))?.push(asked);
    write!(stream, "HTTP/1.1 {status}\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok")?;
    stream.flush()?;
    stream.conn.send_close_notify();
    stream.flush()
}

impl Drop for TlsStandIn {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        // Wakes the thread out of `accept`.
        let _ = TcpStream::connect(self.address);
    }
}
