//! The provider's gRPC service on its unix socket.

use std::future::Future;
use std::os::linux::net::SocketAddrExt as _;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use grpc::{CallError, Channel, Connection, Dial, Settings};
use prost::Message;
use tokio::net::UnixStream;

use super::wire::{
    DecryptRequest, DecryptResponse, EncryptRequest, EncryptResponse, EncryptedObject,
    StatusRequest, StatusResponse,
};
use crate::config::KmsConfiguration;
use crate::metrics::Metrics;

/// Longest answer: annotations and what is around them, with room.
const MESSAGE_MAX: usize = 1 << 20;
/// Between two tries to connect to a socket that is not there (gRPC's "wait for ready").
const PAUSE: Duration = Duration::from_millis(100);

/// Where the provider listens.
#[derive(Debug)]
enum Socket {
    File(PathBuf),
    /// Linux's abstract names.
    Abstract(String),
}

impl Socket {
    /// Of `unix:///path` or `unix:///@name`.
    fn parse(endpoint: &str) -> Result<Socket, String> {
        let rest = endpoint.strip_prefix("unix:");
        let rest =
            rest.ok_or_else(|| format!("invalid endpoint {endpoint:?} for remote KMS provider"))?;
        // Between two slashes and the path stands a host, which does not matter.
        let path = match rest.strip_prefix("//") {
            Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
            None => rest,
        };
        match path.strip_prefix("/@") {
            Some(name) => Ok(Socket::Abstract(name.to_owned())),
            None if path.is_empty() => Err(format!(
                "invalid endpoint {endpoint:?} for remote KMS provider: it has no path"
            )),
            None => Ok(Socket::File(path.into())),
        }
    }

    async fn connect(&self) -> std::io::Result<UnixStream> {
        match self {
            Socket::File(path) => UnixStream::connect(path).await,
            Socket::Abstract(name) => {
                let address = std::os::unix::net::SocketAddr::from_abstract_name(name)?;
                let stream = std::os::unix::net::UnixStream::connect_addr(&address)?;
                stream.set_nonblocking(true)?;
                UnixStream::from_std(stream)
            }
        }
    }
}

impl Dial for Socket {
    fn dial(&self) -> Pin<Box<dyn Future<Output = Result<Connection, String>> + Send + '_>> {
        Box::pin(async move {
            // Until the call's deadline: the provider may be about to start.
            let stream = loop {
                match self.connect().await {
                    Ok(stream) => break stream,
                    Err(error) => {
                        tracing::debug!(%error, socket = ?self, "no connection to a KMS provider");
                        tokio::time::sleep(PAUSE).await;
                    }
                }
            };
            Connection::open(stream, None).await
        })
    }
}

pub(super) struct Service {
    name: String,
    channel: Channel<Socket>,
    deadline: Duration,
    metrics: Arc<Metrics>,
}

impl Service {
    pub(super) fn new(config: &KmsConfiguration, metrics: Arc<Metrics>) -> Result<Service, String> {
        let settings = Settings {
            peer: "the KMS provider",
            origin: "http://localhost".into(),
            headers: &[],
            decorate: None,
            deadline: config.deadline,
            message_max: MESSAGE_MAX,
        };
        let channel = Channel::new(Socket::parse(&config.endpoint)?, settings);
        Ok(Service { name: config.name.clone(), channel, deadline: config.deadline, metrics })
    }

    pub(super) fn deadline(&self) -> Duration {
        self.deadline
    }

    pub(super) async fn status(&self) -> Result<StatusResponse, String> {
        self.call("/v2.KeyManagementService/Status", &StatusRequest {}).await
    }

    pub(super) async fn encrypt(&self, uid: &str, plain: &[u8]) -> Result<EncryptResponse, String> {
        let request = EncryptRequest { plaintext: plain.to_vec(), uid: uid.to_owned() };
        self.call("/v2.KeyManagementService/Encrypt", &request).await
    }

    /// The seed in the envelope of a value.
    pub(super) async fn decrypt(&self, object: &EncryptedObject) -> Result<Vec<u8>, String> {
        let request = DecryptRequest {
            ciphertext: object.encrypted_source.clone(),
            uid: uuid::Uuid::new_v4().to_string(),
            key_id: object.key_id.clone(),
            annotations: object.annotations.clone(),
        };
        let answer: DecryptResponse =
            self.call("/v2.KeyManagementService/Decrypt", &request).await?;
        Ok(answer.plaintext)
    }

    async fn call<Q: Message, A: Message + Default>(
        &self,
        method: &'static str,
        question: &Q,
    ) -> Result<A, String> {
        let begun = std::time::Instant::now();
        let answer: Result<A, CallError> = self.channel.call(method, question).await;
        let code = answer.as_ref().map_or_else(CallError::code_name, |_| "OK".to_owned());
        self.metrics.kms_operation(&self.name, method, &code, begun);
        answer.map_err(|error| error.go_text())
    }
}

#[cfg(test)]
mod tests {
    use super::Socket;

    #[test]
    fn endpoints_are_those_of_upstream() {
        let parsed = |endpoint| Socket::parse(endpoint).map(|socket| format!("{socket:?}"));
        let file = "File(\"/run/kms.sock\")";
        for endpoint in ["unix:///run/kms.sock", "unix:/run/kms.sock", "unix://host/run/kms.sock"] {
            assert_eq!(parsed(endpoint).as_deref(), Ok(file), "{endpoint}");
        }
        assert_eq!(parsed("unix:///@name").as_deref(), Ok("Abstract(\"name\")"));
        for endpoint in ["tcp://1.2.3.4:5", "unix://", "unix:", ""] {
            assert!(parsed(endpoint).is_err(), "{endpoint}");
        }
    }
}
