//! A client and a driver over a unix socket.

#![allow(clippy::unwrap_used, clippy::expect_used)]

use std::sync::Arc;

use csi::server::{Controller, Identity, Node};
use csi::v1::*;
use csi::{Client, server};
use grpc::server::Status;
use grpc::{CallError, Code, Tasks};

struct Driver;

impl Identity for Driver {
    async fn get_plugin_info(
        &self,
        _: GetPluginInfoRequest,
    ) -> Result<GetPluginInfoResponse, Status> {
        Ok(GetPluginInfoResponse { name: "it.example.com".into(), ..Default::default() })
    }
}

impl Controller for Driver {
    async fn delete_volume(
        &self,
        request: DeleteVolumeRequest,
    ) -> Result<DeleteVolumeResponse, Status> {
        let known = request.secrets.iter().any(|s| s.key == "token" && s.value == "right");
        match known {
            true => Ok(DeleteVolumeResponse {}),
            false => Err(Status::new(Code::PermissionDenied, "wrong token")),
        }
    }
}

impl Node for Driver {}

fn served(directory: &tempfile::TempDir) -> (Client, Tasks) {
    let driver = Arc::new(Driver);
    let methods = server::identity(server::methods(), &driver);
    let methods = server::node(server::controller(methods, &driver), &driver);
    let path = directory.path().join("csi.sock");
    let listener = grpc::server::bind(&path).unwrap();
    let tasks = Tasks::default();
    tasks.spawn("driver", grpc::server::listen(listener, Arc::new(methods)));
    (Client::new(path), tasks)
}

#[tokio::test]
async fn methods_reach_the_driver_by_their_services() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _tasks) = served(&directory);
    let info = client.get_plugin_info(&GetPluginInfoRequest {}).await.unwrap();
    assert_eq!(info.name, "it.example.com");
    let delete = |token: &str| DeleteVolumeRequest {
        volume_id: "v".into(),
        secrets: secrets([("token".to_owned(), token.to_owned())]),
    };
    client.delete_volume(&delete("right")).await.unwrap();
    let error = client.delete_volume(&delete("wrong")).await.unwrap_err();
    assert_eq!(error.go_text(), "rpc error: code = PermissionDenied desc = wrong token");
}

#[tokio::test]
async fn what_a_driver_does_not_have_is_unimplemented() {
    let directory = tempfile::tempdir().unwrap();
    let (client, _tasks) = served(&directory);
    let error = client.node_get_info(&NodeGetInfoRequest {}).await.unwrap_err();
    assert_eq!(
        error.go_text(),
        "rpc error: code = Unimplemented desc = method NodeGetInfo not implemented"
    );
    let group = GroupControllerGetCapabilitiesRequest {};
    let error = client.group_controller_get_capabilities(&group).await.unwrap_err();
    assert_eq!(error.code_name(), "Unimplemented");
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_an_error_that_names_it() {
    let directory = tempfile::tempdir().unwrap();
    let client = Client::new(directory.path().join("none.sock"));
    let error = client.probe(&ProbeRequest {}).await.unwrap_err();
    assert!(matches!(&error, CallError::Unreachable(why) if why.contains("none.sock")), "{error}");
}
