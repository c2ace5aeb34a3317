//! How the kubelet learns of the driver: a socket in its `plugins_registry`, on which it asks for the
//! driver's name and socket (`pluginregistration.Registration`).

use std::path::Path;

use grpc::server::Methods;
use prost::Message;

use crate::identity::NAME;

/// Longest question, in bytes: an error's text.
const MESSAGE_MAX: usize = 64 << 10;

#[derive(Clone, PartialEq, Message)]
struct InfoRequest {}

#[derive(Clone, PartialEq, Message)]
struct PluginInfo {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    endpoint: String,
    #[prost(string, repeated, tag = "4")]
    supported_versions: Vec<String>,
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationStatus {
    #[prost(bool, tag = "1")]
    plugin_registered: bool,
    #[prost(string, tag = "2")]
    error: String,
}

#[derive(Clone, PartialEq, Message)]
struct RegistrationStatusResponse {}

/// The methods of the registration socket of a driver that listens at `socket`.
pub fn registration(socket: &Path) -> Methods {
    let info = PluginInfo {
        kind: "CSIPlugin".into(),
        name: NAME.into(),
        endpoint: socket.to_string_lossy().into_owned(),
        supported_versions: vec!["1.0.0".into()],
    };
    Methods::new(MESSAGE_MAX)
        .unary("/pluginregistration.Registration/GetInfo", move |_: InfoRequest| {
            let info = info.clone();
            async move { Ok(info) }
        })
        .unary(
            "/pluginregistration.Registration/NotifyRegistrationStatus",
            async |status: RegistrationStatus| {
                match status.plugin_registered {
                    true => tracing::info!(driver = NAME, "the kubelet knows the driver"),
                    false => {
                        let error = status.error;
                        tracing::error!(driver = NAME, error, "the kubelet refuses the driver");
                    }
                }
                Ok(RegistrationStatusResponse {})
            },
        )
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::PluginInfo;

    #[test]
    fn the_answer_has_the_fields_of_the_kubelets_api() {
        let info = PluginInfo {
            kind: "a".into(),
            name: "b".into(),
            endpoint: "c".into(),
            supported_versions: vec!["d".into()],
        };
        assert_eq!(info.encode_to_vec(), b"\x0a\x01a\x12\x01b\x1a\x01c\x22\x01d");
    }
}
