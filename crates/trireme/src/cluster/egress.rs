//! `--egress nat`: pods reach the outside through the host, or it is said why they do not.

use anyhow::Result;
use network::egress::masquerade_pods;
use network::{EgressConfig, EgressNat, Fabric};

use super::progress::say;
use super::{ClusterPaths, POD_CIDR, SERVICE_CIDR, pod_cidr};

/// Connects the fabric to the host's network; says so and goes on when that cannot be had.
pub(super) fn enable(paths: &ClusterPaths, fabric: &Fabric) -> Option<EgressNat> {
    match connect(paths, fabric) {
        Ok(egress) => Some(egress),
        Err(error) => {
            say(&format!("          pods will not reach the outside: {error:#}"));
            None
        }
    }
}

fn connect(paths: &ClusterPaths, fabric: &Fabric) -> Result<EgressNat> {
    // Clusters side by side need links of their own.
    let number = paths.name.bytes().fold(0u16, |n, b| n.wrapping_mul(31).wrapping_add(b.into()));
    let egress = EgressNat::enable(fabric, None, &EgressConfig::new(&paths.name, number))?;
    match route(fabric) {
        Ok(()) => Ok(egress),
        Err(error) => {
            egress.remove()?;
            Err(error)
        }
    }
}

/// Every node goes out by the fabric, and its pods under the node's address: the fabric knows no
/// way back to pods.
fn route(fabric: &Fabric) -> Result<()> {
    let mut cluster = vec![POD_CIDR.parse()?, SERVICE_CIDR.parse()?];
    cluster.extend(fabric.config().cidrs.clone());
    for node in fabric.nodes() {
        fabric.set_default_route(node.index)?;
        masquerade_pods(Some(&node.ns), &[pod_cidr(node.index).parse()?], &cluster)?;
    }
    Ok(())
}

/// Takes away what a killed cluster has left on the host. There may be nothing.
pub(super) fn remove_leftovers(paths: &ClusterPaths) -> Result<()> {
    Ok(EgressNat::of(None, &paths.name).remove()?)
}
