//! Serves the driver on a unix socket, for `csi-sanity` and other clients: `serve SOCKET ROOT`.

use std::path::PathBuf;
use std::sync::Arc;

use localdisk::{Config, Driver, methods};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args_os().skip(1).map(PathBuf::from);
    let (Some(socket), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: serve SOCKET ROOT".into());
    };
    let config = Config { root, node: "node-1".into(), volumes_max: 8, version: "example".into() };
    let listener = grpc::server::bind(&socket)?;
    grpc::server::listen(listener, Arc::new(methods(&Driver::open(config)?))).await;
    Ok(())
}
