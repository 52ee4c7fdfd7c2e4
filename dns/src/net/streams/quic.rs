//! DNS over QUIC: hickory-server's connections hand requests in, our answers go back through its response handle. `listeners` registers it.
//!
//! The answer is made from the raw request by the same function that all transports use. Only then is it decoded into hickory's types, because its
//! response handle takes records and writes them itself: sections, flags and EDNS arrive as decoded, and a test compares both transports.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::op::{Edns, Header, HeaderCounts, Message, MessageType, Metadata, ResponseCode};
use hickory_proto::rr::rdata::opt::{EdnsCode, EdnsOption};
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder, DecodeError};
use hickory_server::net::NetError;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponseBuilder, Queries};
use tracing::debug;

use crate::net::streams::Gate;
use crate::response::respond::Respond;
use crate::response::wire::{BLOCK, HEADER, Outcome, Transport};

/// Answers the requests of hickory's listeners.
pub(crate) struct QuicHandler<R> {
    responder: Arc<R>,
    gate: Arc<Gate>,
}

impl<R> QuicHandler<R> {
    /// A handler that counts its requests in `gate`.
    pub(crate) fn new(responder: Arc<R>, gate: Arc<Gate>) -> Self {
        Self { responder, gate }
    }
}

#[async_trait::async_trait]
impl<R: Respond> RequestHandler for QuicHandler<R> {
    async fn handle_request<H: ResponseHandler, T: Time>(&self, request: &Request, mut handle: H) -> ResponseInfo {
        self.gate.message();
        let from: IpAddr = request.src().ip().to_canonical();
        let mut response = Vec::with_capacity(512);
        let outcome = self.responder.respond(request.as_slice(), from, Transport::Quic, &mut response);
        if matches!(outcome, Outcome::Dropped) {
            return info(request, ResponseCode::NoError);
        }
        let sent = match decode(&response) {
            Ok((queries, message)) => send(&queries, &message, &mut handle).await,
            Err(error) => {
                // A record type hickory knows and finds malformed, which our zone reader let pass.
                debug!(%error, "a response could not be told to hickory");
                let failure = MessageResponseBuilder::from_message_request(request)
                    .error_msg(&request.metadata, ResponseCode::ServFail);
                handle.send_response(failure).await
            }
        };
        sent.unwrap_or_else(|error| {
            debug!(%error, to = %request.src(), "a response could not be sent");
            info(request, ResponseCode::ServFail)
        })
    }
}

/// The response in hickory's types; the question apart, which goes out in the case it came in.
fn decode(response: &[u8]) -> Result<(Queries, Message), DecodeError> {
    let mut decoder = BinDecoder::new(response);
    let header = Header::read(&mut decoder)?;
    let queries = Queries::read(&mut decoder, usize::from(header.counts.queries))?;
    let asked = decoder.index();
    let mut message = Message::from_vec(response)?;
    pad_again(&mut message, asked);
    Ok((queries, message))
}

/// Fits a response's padding to the size that it will have. hickory copies header and question, the first `asked` octets, and lets no name
/// behind them point there.
fn pad_again(message: &mut Message, asked: usize) {
    let is_padded = |edns: &Edns| edns.option(EdnsCode::Padding).is_some();
    if !message.edns.as_ref().is_some_and(is_padded) {
        return;
    }
    let set = |message: &mut Message, octets: usize| {
        if let Some(edns) = &mut message.edns {
            edns.options_mut().remove(EdnsCode::Padding);
            edns.options_mut().insert(EdnsOption::Unknown(EdnsCode::Padding.into(), vec![0; octets]));
        }
    };
    set(message, 0);
    let queries = std::mem::take(&mut message.queries);
    let records = message.to_vec().map(|bare| bare.len() - HEADER);
    message.queries = queries;
    if let Ok(records) = records {
        let bare = asked + records;
        set(message, bare.next_multiple_of(BLOCK) - bare);
    }
}

async fn send<H: ResponseHandler>(
    queries: &Queries,
    message: &Message,
    handle: &mut H,
) -> Result<ResponseInfo, NetError> {
    let response = MessageResponseBuilder::new(queries, message.edns.as_ref()).build(
        message.metadata,
        &message.answers,
        &message.authorities,
        [],
        &message.additionals,
    );
    handle.send_response(response).await
}

/// What hickory wants to hear of a request that got no response of its own.
fn info(request: &Request, code: ResponseCode) -> ResponseInfo {
    let mut metadata = Metadata::new(request.metadata.id, MessageType::Response, request.metadata.op_code);
    metadata.response_code = code;
    Header { metadata, counts: HeaderCounts::default() }.into()
}
