//! `bailiwick receipt`: takes a receipt (the edge's signed statement of where a request was processed) and public keys;
//! returns what the receipt says, or why it isn't valid. Also makes new keys for signing receipts.

use std::io::Read;
use std::path::{Path, PathBuf};

use bailiwick_rules::receipt::{Claims, PublicKey, public_keys};
use bailiwick_rules::steer::JurisdictionSource;
use bailiwick_rules::time::{Millis, Timestamp};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use clap::{Args, Subcommand};
use ring::signature::{Ed25519KeyPair, KeyPair};

use crate::program::receipt::{Demands, Verified, verify};
use crate::program::report::Report;

/// The header that carries a receipt.
const HEADER: &str = "x-bailiwick-receipt:";

/// What to do with receipts.
#[derive(Debug, Subcommand)]
pub(crate) enum ReceiptCommand {
    /// Check a receipt of the edge by its public keys, and tell what it says.
    ///
    /// Exit codes: 0 if it is to be believed; 1 if it is not, or if it or the keys can't be read; 2 for wrong usage.
    #[command(after_help = "Examples:
  curl -s https://chat.ai.example.com/.well-known/bailiwick/jwks.json > jwks.json
  bailiwick receipt verify --jwks jwks.json eyJhbGciOiJFZERTQSIs…
  bailiwick receipt verify --jwks jwks.json --file receipt.txt --tenant acme --max-age 24h
  curl -sD- -o answer.json https://chat.ai.example.com/v1/… | bailiwick receipt verify --jwks jwks.json --json")]
    Verify(VerifyArgs),
    /// Make a new private key for the Worker's secret RECEIPT_KEY, as a JSON Web Key. It is stored nowhere.
    #[command(after_help = "Examples:
  bailiwick receipt keygen | npx wrangler secret put RECEIPT_KEY
  openssl genpkey -algorithm ed25519 | npx wrangler secret put RECEIPT_KEY    does as well")]
    Keygen,
}

/// Options of `bailiwick receipt verify`.
#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The receipt; without one, standard input is read: a receipt, or an answer's headers with one among them.
    #[arg(conflicts_with = "file")]
    receipt: Option<String>,
    /// Read the receipt (or headers) from this file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The public keys: the gateway's /.well-known/bailiwick/jwks.json, fetched over a connection you trust; `-` reads
    /// standard input.
    #[arg(long, value_name = "FILE")]
    jwks: PathBuf,
    /// Believe none that was signed longer ago, such as 10m or 24h.
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_age: Option<Millis>,
    /// Believe none but this tenant's, by its name in the rules.
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    /// Print what was signed as JSON.
    #[arg(long)]
    json: bool,
}

fn span(text: &str) -> Result<Millis, String> {
    Millis::parse(text).ok_or_else(|| "write a number and ms, s, m or h, such as 10m".to_owned())
}

/// Runs either command.
pub(crate) fn run(command: &ReceiptCommand, stdin: &mut dyn Read, now: Timestamp) -> Report {
    let done = match command {
        ReceiptCommand::Verify(args) => check(args, stdin, now),
        ReceiptCommand::Keygen => keygen(),
    };
    done.unwrap_or_else(Report::error)
}

/// Reads a receipt and the keys, and verifies the receipt.
fn check(args: &VerifyArgs, stdin: &mut dyn Read, now: Timestamp) -> Result<Report, String> {
    let stdin_holds = |file: &PathBuf| file == Path::new("-");
    if args.receipt.is_none() && args.file.as_ref().is_none_or(stdin_holds) && stdin_holds(&args.jwks) {
        return Ok(Report::misuse("standard input can't hold both: give the receipt or the keys by a file"));
    }
    let keys = keys(&args.jwks, stdin)?;
    let text = match (&args.receipt, &args.file) {
        (Some(receipt), _) => receipt.clone(),
        (None, Some(file)) => read(file, stdin)?,
        (None, None) => read(Path::new("-"), stdin)?,
    };
    let demands = Demands { max_age: args.max_age, tenant: args.tenant.as_deref() };
    let verified = verify(find(&text), &keys, &demands, now).map_err(|doubt| format!("receipt: {doubt}"))?;
    if args.json {
        let json = serde_json::to_string_pretty(&verified.json);
        return json
            .map(|json| Report::fine(json + "\n"))
            .map_err(|error| format!("can't be written as JSON: {error}"));
    }
    Ok(Report::fine(text_of(&verified)))
}

/// Reads a file, or standard input for `-`.
fn read(file: &Path, stdin: &mut dyn Read) -> Result<String, String> {
    if file == Path::new("-") {
        let mut text = String::new();
        let done = stdin.read_to_string(&mut text).map(|_| text);
        return done.map_err(|error| format!("standard input: can't be read: {error}"));
    }
    std::fs::read_to_string(file).map_err(|error| format!("{}: can't be read: {error}", file.display()))
}

/// Reads the public keys that sign receipts.
pub(super) fn keys(file: &Path, stdin: &mut dyn Read) -> Result<Vec<PublicKey>, String> {
    let text = read(file, stdin)?;
    let place = if file == Path::new("-") { "standard input".to_owned() } else { file.display().to_string() };
    let set = serde_json::from_str(&text).map_err(|error| format!("{place}: is not JSON: {error}"))?;
    match public_keys(&set) {
        Some(keys) if !keys.is_empty() => Ok(keys),
        Some(_) => Err(format!("{place}: holds no Ed25519 key for signatures; the gateway has no RECEIPT_KEY")),
        None => Err(format!("{place}: is not a JSON Web Key Set such as /.well-known/bailiwick/jwks.json gives")),
    }
}

/// Finds the receipt in a text: the value of the receipt's header if the text has this header, else the whole text.
fn find(text: &str) -> &str {
    let value = |line: &'_ str| -> Option<usize> {
        line.get(..HEADER.len()).filter(|name| name.eq_ignore_ascii_case(HEADER)).map(str::len)
    };
    let header = text.lines().find_map(|line| value(line).map(|length| &line[length..]));
    header.unwrap_or(text).trim()
}

/// What a valid receipt says, as lines of text.
fn text_of(verified: &Verified) -> String {
    let Verified { kid, claims, .. } = verified;
    let Claims { jti, service, revision, rules_sha256, client, attempts, .. } = claims;
    let at = Timestamp(claims.iat.saturating_mul(1000));
    let source = match client.source {
        JurisdictionSource::Tenant => "as its tenant declares",
        JurisdictionSource::Network => "as \"networks\" says",
        JurisdictionSource::Geography => "by geography",
        JurisdictionSource::Unknown => "no country could be learnt",
    };
    let own = if claims.fence_by.as_deref() == Some("tenant") { ", by its tenant's own process_in" } else { "" };
    let mut lines = vec![
        format!("valid      signed by {kid}"),
        format!("request    {jti}, answered with status {}", claims.status),
        format!("signed at  {at}"),
        format!("service    {service}, rules revision {revision}"),
        format!("rules      sha256 {rules_sha256}"),
        format!("tenant     {}", claims.tenant.as_ref().map_or("none", |_| "known by digest; --tenant NAME checks it")),
        format!("client     {}, {source}", names(&client.jurisdictions, client.jurisdictions_more)),
        format!("fence      {}{own}", names(&claims.fence, claims.fence_more)),
    ];
    if !claims.stale.is_empty() || claims.stale_more > 0 {
        lines.push(format!("stale      {}", names(&claims.stale, claims.stale_more)));
    }
    if let Some(sink) = &claims.content_to {
        lines.push(format!("kept       prompt and answer, by the sink {sink}"));
    }
    for (number, attempt) in attempts.iter().enumerate() {
        let (region, endpoint, outcome, ms) = (&attempt.region, &attempt.endpoint, &attempt.outcome, attempt.ms);
        lines.push(format!("sent {:>4}  {region}, {endpoint}: {outcome} after {ms} ms", number + 1));
    }
    if attempts.is_empty() {
        lines.push("sent       nowhere".to_owned());
    }
    lines.push(match &claims.committed {
        Some(by) => format!("answer     {}, {}; in the fence by {}", by.region, by.endpoint, by.jurisdiction),
        None => "answer     an error of the gateway's own".to_owned(),
    });
    lines.join("\n") + "\n"
}

fn names(names: &[String], more: usize) -> String {
    match (names, more) {
        ([], 0) => "none".to_owned(),
        (names, 0) => names.join(", "),
        (names, more) => format!("{} and {more} more", names.join(", ")),
    }
}

fn keygen() -> Result<Report, String> {
    Ok(Report::fine(format!("{}\n", new_key()?.1)))
}

/// A new Ed25519 key: its public part, and the whole key as a JSON Web Key (RFC 8037).
pub(super) fn new_key() -> Result<(PublicKey, serde_json::Value), String> {
    let mut seed = [0_u8; 32];
    getrandom::fill(&mut seed).map_err(|error| format!("the system gives no random bytes: {error}"))?;
    let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| "the key can't be made".to_owned())?;
    let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| "the key can't be made".to_owned())?;
    let mut jwk = PublicKey(public).to_jwk();
    jwk["d"] = URL_SAFE_NO_PAD.encode(seed).into();
    Ok((PublicKey(public), jwk))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bailiwick_rules::receipt::{Attempt, ClientClaim, compact, tenant_digest};

    const NOW: Timestamp = Timestamp(1_796_104_800_000);

    fn args(receipt: Option<String>, jwks: &Path) -> VerifyArgs {
        VerifyArgs { receipt, file: None, jwks: jwks.to_owned(), max_age: None, tenant: None, json: false }
    }

    fn verify_text(args: VerifyArgs, stdin: &str) -> Report {
        run(&ReceiptCommand::Verify(args), &mut stdin.as_bytes(), NOW)
    }

    /// A key made by `keygen`, and a receipt signed with it.
    fn made() -> (String, String) {
        let jwk = keygen().unwrap().output;
        let parsed: serde_json::Value = serde_json::from_str(&jwk).unwrap();
        let seed = URL_SAFE_NO_PAD.decode(parsed["d"].as_str().unwrap()).unwrap();
        let pair = Ed25519KeyPair::from_seed_and_public_key(&seed, &PublicKey::from_jwk(&parsed).unwrap().0).unwrap();
        let attempt = Attempt {
            region: "fra".into(),
            endpoint: "fra-1".into(),
            arm: None,
            outcome: "timeout".into(),
            ms: 15_000,
        };
        let claims = Claims {
            jti: "id".into(),
            iat: NOW.0 / 1000,
            service: "chat".into(),
            tenant: Some(tenant_digest("id", "acme")),
            revision: 7,
            rules_sha256: "ab".into(),
            client: ClientClaim {
                jurisdictions: vec!["eu".into()],
                jurisdictions_more: 0,
                source: JurisdictionSource::Geography,
            },
            fence_by: None,
            fence: vec!["fra".into()],
            fence_more: 2,
            stale: vec!["kb;lag=75s".to_owned()],
            stale_more: 0,
            content_to: Some("eu".to_owned()),
            attempts: vec![attempt],
            committed: None,
            status: 504,
        };
        let input = claims.signing_input(parsed["kid"].as_str().unwrap()).unwrap();
        (jwk, compact(&input, pair.sign(input.as_bytes()).as_ref()))
    }

    #[test]
    fn a_receipt_comes_by_argument_file_input_or_among_headers() {
        let (jwk, receipt) = made();
        let folder = tempfile::tempdir().unwrap();
        let (keys, file) = (folder.path().join("jwks.json"), folder.path().join("receipt"));
        std::fs::write(&keys, &jwk).unwrap();
        std::fs::write(&file, format!("{receipt}\n")).unwrap();
        let headers = format!("HTTP/1.1 200 OK\r\nX-Bailiwick-Receipt: {receipt}\r\nserver: x\r\n\r\n");
        let by_file = VerifyArgs { file: Some(file), ..args(None, &keys) };
        for reported in [
            verify_text(args(Some(receipt.clone()), &keys), ""),
            verify_text(args(Some(receipt.clone()), Path::new("-")), &jwk),
            verify_text(args(None, &keys), &headers),
            verify_text(by_file, ""),
        ] {
            assert_eq!(reported.errors, Vec::<String>::new());
            let kept = "stale      kb;lag=75s\nkept       prompt and answer, by the sink eu\n";
            let sent = format!("{kept}sent    1  fra, fra-1: timeout after 15000 ms\n");
            assert!(reported.output.contains(&format!("fence      fra and 2 more\n{sent}")), "{}", reported.output);
            assert!(reported.output.contains("answer     an error of the gateway's own\n"), "{}", reported.output);
        }
        let json = verify_text(VerifyArgs { json: true, ..args(Some(receipt), &keys) }, "");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&json.output).unwrap()["service"], "chat");
    }

    #[test]
    fn the_exit_code_tells_a_doubt_from_wrong_usage() {
        let (jwk, receipt) = made();
        let stdin = Path::new("-");
        assert_eq!(verify_text(args(Some(receipt.clone()), stdin), &jwk).code(), 0);
        assert_eq!(verify_text(args(Some("bearer".into()), stdin), &jwk).code(), 1);
        assert_eq!(verify_text(args(Some(receipt), Path::new("/nowhere/jwks")), "").code(), 1);
        assert_eq!(verify_text(args(None, stdin), &jwk).code(), 2);
        assert_eq!(verify_text(VerifyArgs { file: Some("-".into()), ..args(None, stdin) }, &jwk).code(), 2);
    }

    #[test]
    fn what_is_wrong_is_told_by_place() {
        let (jwk, receipt) = made();
        let error = |args: VerifyArgs, stdin: &str| verify_text(args, stdin).errors.remove(0);
        let stdin = Path::new("-");
        let some = Some(receipt.clone());
        assert!(error(args(None, stdin), &jwk).contains("can't hold both"));
        assert!(error(args(some.clone(), stdin), "no").starts_with("standard input: is not JSON"));
        assert!(error(args(some.clone(), stdin), "{\"keys\":[]}").contains("no Ed25519 key"));
        assert!(error(args(some.clone(), stdin), "{}").contains("not a JSON Web Key Set"));
        assert!(error(args(some.clone(), Path::new("/nowhere/jwks")), "").starts_with("/nowhere/jwks: can't be read"));
        assert!(
            error(args(some.clone(), stdin), &keygen().unwrap().output).contains("receipt: the key set has no key")
        );
        let tenant = VerifyArgs { tenant: Some("globe".into()), ..args(some, stdin) };
        assert!(error(tenant, &jwk).contains("not a receipt of tenant globe"));
        assert!(error(args(Some("bearer".into()), stdin), &jwk).contains("not a compact JWS"));
    }
}
