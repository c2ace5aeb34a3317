//! One request to one response: checks, cluster answers, forwarding, aliases, sizes.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use hickory_proto::op::{Edns, Message, MessageType, Metadata, OpCode, ResponseCode};
use hickory_proto::rr::{DNSClass, Name, Record, RecordType};

use crate::answer::{Answer, answer, soa};
use crate::forward::{Forward, question_for};
use crate::index::Index;

/// What all listeners of a node share.
#[derive(Debug)]
pub(crate) struct Responder {
    pub index: Arc<RwLock<Index>>,
    pub zone: Name,
    pub forward: Forward,
    pub turn: AtomicUsize,
}

/// Either a response, or a question that needs others to answer.
#[derive(Debug)]
pub(crate) enum Reply {
    Now(Box<Message>),
    /// Ask upstream; the response so far (an alias) takes the answer in.
    Later {
        request: Box<Message>,
        so_far: Option<Box<Message>>,
    },
}

/// Bytes of a UDP answer to a client that does not say how much it takes.
const PLAIN_UDP_BYTES: u16 = 512;
/// Bytes of a UDP answer at most: larger ones are fragmented on the way, and fragments get lost.
const MAX_UDP_BYTES: u16 = 1232;
/// Links of an alias chain inside the cluster that are followed; a longer one is a loop.
const MAX_ALIASES: usize = 8;
/// Bytes of a DNS header.
const HEADER_BYTES: usize = 12;

impl Responder {
    /// Looks at a request. Nothing: it is not worth an answer (garbage, or an answer itself).
    pub(crate) fn begin(&self, bytes: &[u8]) -> Option<Reply> {
        let request = match Message::from_vec(bytes) {
            Ok(request) => request,
            Err(_) => return malformed(bytes).map(|answer| Reply::Now(Box::new(answer))),
        };
        if request.metadata.message_type != MessageType::Query {
            return None;
        }
        let refuse = |code| Some(Reply::Now(Box::new(self.response(&request, code))));
        if request.metadata.op_code != OpCode::Query {
            return refuse(ResponseCode::NotImp);
        }
        if request.edns.as_ref().is_some_and(|edns| edns.version() > 0) {
            return refuse(ResponseCode::BADVERS);
        }
        let [query] = request.queries.as_slice() else { return refuse(ResponseCode::FormErr) };
        if !matches!(query.query_class, DNSClass::IN | DNSClass::ANY) {
            return refuse(ResponseCode::Refused);
        }
        let (name, kind) = (query.name.clone(), query.query_type);
        Some(self.resolve(request, name, kind))
    }

    /// Finishes what [`Responder::begin`] could not answer at once.
    pub(crate) async fn finish(&self, request: &Message, so_far: Option<Box<Message>>) -> Message {
        let mut answer = self.forward.ask(request).await;
        answer.metadata.recursion_available = true;
        match so_far {
            None => answer,
            Some(mut so_far) => {
                so_far.metadata.response_code = answer.metadata.response_code;
                so_far.answers.append(&mut answer.answers);
                *so_far
            }
        }
    }

    /// The response in bytes, cut to what a UDP client takes.
    pub(crate) fn encode_udp(request: &[u8], response: &Message) -> Option<Vec<u8>> {
        let asked = Message::from_vec(request).ok().and_then(|request| request.edns);
        let limit = asked.map_or(PLAIN_UDP_BYTES, |edns| edns.max_payload());
        let limit = usize::from(limit.clamp(PLAIN_UDP_BYTES, MAX_UDP_BYTES));
        let bytes = encode(response)?;
        if bytes.len() <= limit { Some(bytes) } else { encode(&response.truncate()) }
    }

    fn resolve(&self, request: Message, name: Name, kind: RecordType) -> Reply {
        let mut response = self.response(&request, ResponseCode::NoError);
        let mut name = name;
        for _ in 0..MAX_ALIASES {
            match self.look_up(&name, kind) {
                Some(Answer::Alias { record, target }) => {
                    response.metadata.authoritative = true;
                    response.add_answer(*record);
                    name = target;
                }
                Some(Answer::Elsewhere) => return self.elsewhere(request, response, &name, kind),
                Some(known) => {
                    self.fill(&mut response, known);
                    return Reply::Now(Box::new(response));
                }
                None => break,
            }
        }
        response.metadata.response_code = ResponseCode::ServFail;
        Reply::Now(Box::new(response))
    }

    fn elsewhere(
        &self,
        request: Message,
        mut so_far: Message,
        name: &Name,
        kind: RecordType,
    ) -> Reply {
        let is_alias = !so_far.answers.is_empty();
        if !self.forward.is_possible() {
            if !is_alias {
                so_far.metadata.response_code = ResponseCode::Refused;
            }
            return Reply::Now(Box::new(so_far));
        }
        if is_alias {
            let question = question_for(&request, name, kind);
            return Reply::Later { request: Box::new(question), so_far: Some(Box::new(so_far)) };
        }
        Reply::Later { request: Box::new(request), so_far: None }
    }

    /// Nothing: the index is not complete yet, and the name is not in it.
    fn look_up(&self, name: &Name, kind: RecordType) -> Option<Answer> {
        // Each change is applied wholly before the lock is given back, panic or not.
        let index = self.index.read().unwrap_or_else(PoisonError::into_inner);
        let found = answer(&index, &self.zone, name, kind);
        let missing = matches!(found, Answer::NoName | Answer::NoData);
        (!missing || index.is_synced()).then_some(found)
    }

    fn fill(&self, response: &mut Message, known: Answer) {
        response.metadata.authoritative = true;
        match known {
            Answer::Records { mut answers, additionals } => {
                self.rotate(&mut answers);
                response.add_answers(answers);
                response.add_additionals(additionals);
            }
            Answer::NoName => {
                response.metadata.response_code = ResponseCode::NXDomain;
                response.add_authority(soa(&self.zone));
            }
            Answer::NoData => {
                response.add_authority(soa(&self.zone));
            }
            Answer::Elsewhere | Answer::Alias { .. } => {}
        }
    }

    /// Another record first each time: many clients take the first.
    fn rotate(&self, records: &mut [Record]) {
        if records.len() > 1 {
            let turn = self.turn.fetch_add(1, Ordering::Relaxed);
            records.rotate_left(turn % records.len());
        }
    }

    fn response(&self, request: &Message, code: ResponseCode) -> Message {
        let mut response = Message::response(request.metadata.id, request.metadata.op_code);
        response.metadata = Metadata::response_from_request(&request.metadata);
        response.metadata.recursion_available = self.forward.is_possible();
        response.metadata.response_code = code;
        response.queries.clone_from(&request.queries);
        if let Some(asked) = &request.edns {
            let mut edns = Edns::new();
            edns.set_max_payload(MAX_UDP_BYTES).set_dnssec_ok(asked.flags().dnssec_ok);
            edns.set_rcode_high(code.high());
            response.set_edns(edns);
        }
        response
    }
}

pub(crate) fn encode(message: &Message) -> Option<Vec<u8>> {
    match message.to_vec() {
        Ok(bytes) => Some(bytes),
        Err(e) => {
            tracing::warn!(error = %e, "encode a DNS response");
            None
        }
    }
}

/// "Format error", when there is at least a question's header to answer.
fn malformed(bytes: &[u8]) -> Option<Message> {
    let is_query = bytes.len() >= HEADER_BYTES && bytes[2] & 0x80 == 0;
    let id = u16::from_be_bytes(*bytes.first_chunk()?);
    is_query.then(|| Message::error_msg(id, OpCode::Query, ResponseCode::FormErr))
}
