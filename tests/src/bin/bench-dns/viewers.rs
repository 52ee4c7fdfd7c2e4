//! This server while a hundred viewers follow its picture. Takes the address of its API, which nobody else uses, opens
//! their connections, and makes 10,000 events an hour. `main` calls it once the server answers. Right answers stay the
//! same: what is forced up is up anyway.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// How many viewers a node allows.
const VIEWERS: usize = 100;
/// The time between two events.
const EVERY: Duration = Duration::from_millis(360);
/// How long the API may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// The token that may write.
pub(crate) const TOKEN: &str = "0123456789abcdef0123456789abcdef";

/// Follows the events of a node, and changes something again and again, until the node ends. Returns when every viewer
/// has heard the first event.
///
/// # Errors
/// When a viewer isn't let in, or hears nothing.
pub(crate) fn follow(api: SocketAddr, region: &'static str) -> Result<(), String> {
    let fault = |error: std::io::Error| format!("viewers: {error}");
    let mut viewers = (0..VIEWERS).map(|_| viewer(api)).collect::<Result<Vec<_>, _>>().map_err(fault)?;
    std::thread::spawn(move || {
        let mut is_forced = false;
        while change(api, region, is_forced).is_ok() {
            is_forced = !is_forced;
            std::thread::sleep(EVERY);
        }
    });
    for viewer in &mut viewers {
        hear(viewer, "override")?;
    }
    for mut viewer in viewers {
        viewer.set_read_timeout(None).map_err(fault)?;
        // Ends with the connection.
        std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while matches!(viewer.read(&mut piece), Ok(1..)) {}
        });
    }
    Ok(())
}

fn viewer(api: SocketAddr) -> std::io::Result<TcpStream> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    write!(stream, "GET /v1/events HTTP/1.1\r\nHost: {api}\r\n\r\n")?;
    Ok(stream)
}

/// Reads until this text has come.
fn hear(viewer: &mut TcpStream, text: &str) -> Result<(), String> {
    let (mut heard, mut piece, began) = (String::new(), [0; 4_096], Instant::now());
    while began.elapsed() < PATIENCE {
        match viewer.read(&mut piece) {
            Ok(length @ 1..) => heard += &String::from_utf8_lossy(&piece[..length]),
            _ => break,
        }
        if !heard.starts_with("HTTP/1.1 200") {
            break;
        }
        if heard.contains(text) {
            return Ok(());
        }
    }
    Err(format!("a viewer heard no {text:?}: {heard}"))
}

/// Forces a region up, or takes that back.
fn change(api: SocketAddr, region: &str, is_forced: bool) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(api)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let (request, body) = match is_forced {
        false => (
            "POST /v1/overrides".to_owned(),
            format!(r#"{{"region":"{region}","status":"up","until":"2099-01-01T00:00:00Z","reason":"viewers"}}"#),
        ),
        true => (format!("DELETE /v1/overrides/{region}"), String::new()),
    };
    write!(
        stream,
        "{request} HTTP/1.1\r\nHost: {api}\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: \
         application/json\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    let is_fine = answer.starts_with("HTTP/1.1 2");
    if is_fine { Ok(()) } else { Err(std::io::Error::other(answer)) }
}
