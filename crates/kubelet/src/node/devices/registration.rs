//! How device plugins make themselves known: by the kubelet's own socket, or by one of theirs in
//! `plugins_registry`.

use std::fs;
use std::io;
use std::os::unix::fs::FileTypeExt as _;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use grpc::Code;
use grpc::server::{Methods, Status};

use super::Devices;
use super::wire::*;
use crate::plugins::{Plugin, PluginHandler};

/// The kubelet's own socket.
const SOCKET: &str = "kubelet.sock";
/// A registration is short.
const MESSAGE_MAX: usize = 64 << 10;

fn invalid_name(name: &str) -> String {
    format!("the ResourceName {name:?} is invalid")
}

/// Sockets of former days: their plugins see them go, and register anew.
fn remove_sockets(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_socket() {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

/// Serves registrations; ends only when that is not possible.
pub(crate) async fn run(devices: Arc<Devices>) {
    let socket = devices.folder.join(SOCKET);
    let bound = fs::create_dir_all(&devices.folder)
        .and_then(|()| remove_sockets(&devices.folder))
        .and_then(|()| grpc::server::bind(&socket));
    let listener = match bound {
        Ok(listener) => listener,
        Err(error) => {
            let socket = socket.display();
            return tracing::error!(%error, %socket, "device plugins cannot register");
        }
    };
    let methods = Methods::new(MESSAGE_MAX).unary(REGISTER, move |request| {
        let devices = devices.clone();
        async move { register(&devices, request).await.map(|()| Empty {}) }
    });
    grpc::server::listen(listener, Arc::new(methods)).await;
}

async fn register(devices: &Arc<Devices>, request: RegisterRequest) -> Result<(), Status> {
    let (name, version) = (&request.resource_name, &request.version);
    devices.figures.registrations.with_label_values(&[name]).inc();
    let refused = |why: String| {
        tracing::error!(resource = name, error = why, "device plugin not registered");
        Status::new(Code::Unknown, why)
    };
    if version != VERSION {
        return Err(refused(format!(
            "requested API version {version:?} is not supported by kubelet. Supported version is [{VERSION:?}]"
        )));
    }
    if !validation::is_extended_resource(name) {
        return Err(refused(invalid_name(name)));
    }
    let socket = devices.folder.join(request.endpoint.trim_start_matches('/'));
    devices.connect(name, &socket).await.map_err(refused)
}

/// Takes plugins of the type `DevicePlugin`.
pub(crate) struct Handler(pub(crate) Arc<Devices>);

#[async_trait]
impl PluginHandler for Handler {
    fn validate(&self, plugin: &Plugin) -> Result<(), String> {
        if !plugin.versions.iter().any(|version| version == VERSION) {
            return Err(format!(
                "manager version, {VERSION}, is not among plugin supported versions [{}]",
                plugin.versions.join(" ")
            ));
        }
        if !validation::is_extended_resource(&plugin.name) {
            let why = invalid_name(&plugin.name);
            return Err(format!("invalid name of device plugin socket: {why}"));
        }
        Ok(())
    }

    async fn register(&self, plugin: &Plugin) -> Result<(), String> {
        self.0.connect(&plugin.name, Path::new(&plugin.endpoint)).await
    }

    async fn deregister(&self, plugin: &Plugin) {
        self.0.disconnect(&plugin.name, None);
    }
}
