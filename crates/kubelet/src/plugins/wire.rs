//! `pluginregistration.Registration`, by the field numbers of upstream's `api.proto`.

use std::path::Path;
use std::time::Duration;

use csi::Socket;
use grpc::{CallError, Channel, Settings};
use prost::Message;

/// Upstream's limit for either call is a second; a machine under load needs more.
const DEADLINE: Duration = Duration::from_secs(5);
/// What a plugin says of itself is short.
const MESSAGE_MAX: usize = 64 << 10;

#[derive(Clone, PartialEq, Message)]
pub(super) struct InfoRequest {}

#[derive(Clone, PartialEq, Message)]
pub(super) struct PluginInfo {
    #[prost(string, tag = "1")]
    pub(super) kind: String,
    #[prost(string, tag = "2")]
    pub(super) name: String,
    #[prost(string, tag = "3")]
    pub(super) endpoint: String,
    #[prost(string, repeated, tag = "4")]
    pub(super) supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    pub(super) plugin_registered: bool,
    #[prost(string, tag = "2")]
    pub(super) error: String,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct RegistrationStatusResponse {}

pub(super) const GET_INFO: &str = "/pluginregistration.Registration/GetInfo";
pub(super) const NOTIFY: &str = "/pluginregistration.Registration/NotifyRegistrationStatus";

/// A plugin's registration socket.
pub(super) struct Registration(Channel<Socket>);

impl Registration {
    pub(super) fn new(socket: &Path) -> Registration {
        let settings = Settings {
            peer: "the plugin",
            origin: "http://localhost".into(),
            headers: &[("grpc-timeout", "5S")],
            decorate: None,
            deadline: DEADLINE,
            message_max: MESSAGE_MAX,
        };
        Registration(Channel::new(Socket(socket.to_owned()), settings))
    }

    pub(super) async fn info(&self) -> Result<PluginInfo, CallError> {
        self.0.call(GET_INFO, &InfoRequest {}).await
    }

    pub(super) async fn notify(&self, status: &RegistrationStatus) -> Result<(), CallError> {
        self.0.call::<_, RegistrationStatusResponse>(NOTIFY, status).await.map(drop)
    }
}
