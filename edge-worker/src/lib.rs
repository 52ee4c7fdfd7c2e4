//! The Worker's entry: an HTTP request enters, a reply leaves; called by the Workers runtime.

use worker::{Context, Env, Request, Response, Result, event};

/// Answers every request with a greeting.
#[event(fetch)]
pub async fn fetch(_request: Request, _env: Env, _context: Context) -> Result<Response> {
    Response::ok("bailiwick-edge\n")
}
