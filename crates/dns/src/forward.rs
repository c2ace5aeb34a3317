//! Questions about other names: asked of the upstreams one after the other, answers remembered.
//!
//! Each question has a socket of its own with a random port and id, so a forged answer has to guess
//! both. Truncated answers are asked again over TCP. Sockets are made in the namespace of the
//! process: the host's upstreams are reachable from there even when pods reach nothing outside.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use hickory_proto::op::{Message, MessageType, Query, ResponseCode};
use hickory_proto::rr::{RData, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout};

/// Where to ask.
#[derive(Debug, Clone, Default)]
pub struct ForwardConfig {
    /// Asked in this order; none: other names are refused at once. [`crate::resolv::upstreams`]
    /// reads them from a resolv.conf.
    pub upstreams: Vec<SocketAddr>,
}

/// The forwarding side. Shared by all servers of a node.
#[derive(Debug)]
pub struct Forward {
    config: ForwardConfig,
    cache: Mutex<Cache>,
}

/// Time one upstream has for its answer: a resolver in a pod waits five seconds in all.
const UPSTREAM_TIME: Duration = Duration::from_millis(1500);
/// Longest time an answer is remembered, whatever its own TTL says.
const MAX_CACHE_SECONDS: u32 = 30;
/// Answers remembered: a few hundred bytes each, so under a megabyte.
const MAX_CACHE_ENTRIES: usize = 1024;
/// Largest answer over UDP that is accepted.
const DATAGRAM_BYTES: usize = 4096;

#[derive(Debug, Default)]
struct Cache {
    entries: HashMap<CacheKey, (Instant, Message)>,
    order: VecDeque<(CacheKey, Instant)>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct CacheKey {
    query: Query,
    /// Answers differ for askers who want signatures or refuse checks.
    dnssec: bool,
    unchecked: bool,
}

impl Forward {
    pub fn new(config: ForwardConfig) -> Self {
        Forward { config, cache: Mutex::new(Cache::default()) }
    }

    /// Whether there is anybody to ask.
    pub fn is_possible(&self) -> bool {
        !self.config.upstreams.is_empty()
    }

    /// The answer to a question as the upstreams give it, with the question's own id.
    pub async fn ask(&self, request: &Message) -> Message {
        let Some(key) = CacheKey::of(request) else { return failed(request) };
        if let Some(mut known) = self.cache().get(&key) {
            known.metadata.id = request.metadata.id;
            known.queries.clone_from(&request.queries);
            return known;
        }
        for upstream in &self.config.upstreams {
            match timeout(UPSTREAM_TIME, exchange(*upstream, request)).await {
                Ok(Ok(answer)) if answer.metadata.response_code != ResponseCode::ServFail => {
                    self.cache().put(key, &answer);
                    return answer;
                }
                Ok(Ok(_)) => tracing::debug!(%upstream, "upstream failed to answer"),
                Ok(Err(e)) => tracing::debug!(%upstream, error = %e, "ask an upstream"),
                Err(_) => tracing::debug!(%upstream, "an upstream did not answer in time"),
            }
        }
        failed(request)
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        // Entries are whole messages: a panic elsewhere leaves none half-written.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl CacheKey {
    fn of(request: &Message) -> Option<Self> {
        let mut query = request.queries.first()?.clone();
        query.name = query.name.to_lowercase();
        let dnssec = request.edns.as_ref().is_some_and(|edns| edns.flags().dnssec_ok);
        Some(CacheKey { query, dnssec, unchecked: request.metadata.checking_disabled })
    }
}

impl Cache {
    /// A remembered answer with the time gone by taken from its records.
    fn get(&mut self, key: &CacheKey) -> Option<Message> {
        let (stored, message) = self.entries.get(key)?;
        let age = u32::try_from(stored.elapsed().as_secs()).unwrap_or(u32::MAX);
        if age >= lifetime(message)? {
            self.entries.remove(key);
            return None;
        }
        let mut message = message.clone();
        let sections = [&mut message.answers, &mut message.authorities, &mut message.additionals];
        for record in sections.into_iter().flatten() {
            record.decrement_ttl(age);
        }
        Some(message)
    }

    fn put(&mut self, key: CacheKey, message: &Message) {
        if lifetime(message).is_none() {
            return;
        }
        let now = Instant::now();
        self.entries.insert(key.clone(), (now, message.clone()));
        self.order.push_back((key, now));
        while self.order.len() > MAX_CACHE_ENTRIES {
            let Some((oldest, stored)) = self.order.pop_front() else { break };
            // The same question may have been remembered anew since.
            if self.entries.get(&oldest).is_some_and(|(at, _)| *at == stored) {
                self.entries.remove(&oldest);
            }
        }
    }
}

/// Seconds an answer may be remembered; nothing: not at all.
fn lifetime(message: &Message) -> Option<u32> {
    let code = message.metadata.response_code;
    if message.metadata.truncation
        || !matches!(code, ResponseCode::NoError | ResponseCode::NXDomain)
    {
        return None;
    }
    let positive = message.answers.iter().map(|record| record.ttl).min();
    let negative = message.authorities.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    });
    let seconds = positive.or(negative)?.min(MAX_CACHE_SECONDS);
    (seconds > 0).then_some(seconds)
}

/// One question to one upstream: UDP first, TCP when the answer does not fit.
async fn exchange(upstream: SocketAddr, request: &Message) -> io::Result<Message> {
    let mut question = request.clone();
    question.metadata.id = random_id();
    let bytes = question.to_vec().map_err(io::Error::other)?;
    let mut answer = over_udp(upstream, &bytes, &question).await?;
    if answer.metadata.truncation {
        answer = over_tcp(upstream, &bytes, &question).await?;
    }
    answer.metadata.id = request.metadata.id;
    Ok(answer)
}

async fn over_udp(upstream: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let any = match upstream {
        SocketAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        SocketAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(upstream).await?;
    socket.send(bytes).await?;
    let mut buffer = vec![0; DATAGRAM_BYTES];
    loop {
        let count = socket.recv(&mut buffer).await?;
        // What does not answer the question is somebody's guess: wait for the real one.
        if let Ok(answer) = Message::from_vec(&buffer[..count])
            && answers(&answer, question)
        {
            return Ok(answer);
        }
    }
}

async fn over_tcp(upstream: SocketAddr, bytes: &[u8], question: &Message) -> io::Result<Message> {
    let mut stream = TcpStream::connect(upstream).await?;
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), bytes].concat()).await?;
    let length = stream.read_u16().await?;
    let mut buffer = vec![0; usize::from(length)];
    stream.read_exact(&mut buffer).await?;
    let answer = Message::from_vec(&buffer).map_err(io::Error::other)?;
    if answers(&answer, question) {
        Ok(answer)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidData, "an answer to another question"))
    }
}

fn answers(answer: &Message, question: &Message) -> bool {
    answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries == question.queries
}

fn failed(request: &Message) -> Message {
    let mut answer = Message::response(request.metadata.id, request.metadata.op_code);
    answer.metadata.response_code = ResponseCode::ServFail;
    answer.metadata.recursion_desired = request.metadata.recursion_desired;
    answer.queries.clone_from(&request.queries);
    answer
}

/// An id nobody can foresee: the standard library's hash keys come from the kernel's randomness.
fn random_id() -> u16 {
    use std::hash::{BuildHasher, RandomState};
    let [a, b, ..] = RandomState::new().hash_one(std::thread::current().id()).to_ne_bytes();
    u16::from_ne_bytes([a, b])
}

/// The question whose records an alias of `kind` needs from elsewhere.
pub(crate) fn question_for(
    request: &Message,
    target: &hickory_proto::rr::Name,
    kind: RecordType,
) -> Message {
    let mut question = request.clone();
    question.queries = vec![Query::query(target.clone(), kind)];
    question.answers.clear();
    question.authorities.clear();
    question.additionals.clear();
    question
}
