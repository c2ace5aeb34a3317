//! Addresses of `up`'s nodes, pods and Services have no route from the host: a client there that dials
//! them would send its packets, and its credentials, to the default gateway. Unreachable routes in
//! the host's main table answer instead: at once, and without leaving the machine.

use anyhow::{Context, Result};
use ipnet::IpNet;
use network::netlink::route::Route;

use super::progress::say;
use super::start::remove_file;
use super::{ClusterPaths, POD_CIDR, SERVICE_CIDR};

/// A cluster's routes are told from another's, of the same ranges, by their metric.
fn metric(paths: &ClusterPaths) -> u32 {
    let hash = paths
        .name
        .bytes()
        .fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(b)).wrapping_mul(0x0100_0193));
    1000 + hash % 1_000_000
}

/// Adds the routes where a default route would be taken otherwise. A range that the host uses itself
/// is left alone.
pub(super) fn add(paths: &ClusterPaths, nodes: &[IpNet]) -> Result<()> {
    let mut route = Route::open(None).context("open the host's routes")?;
    let mut ranges: Vec<IpNet> = nodes.to_vec();
    ranges.extend([POD_CIDR.parse::<IpNet>()?, SERVICE_CIDR.parse()?]);
    let used = route.destinations().context("list the host's routes")?;
    let leads_out = used.iter().any(|to| to.prefix_len() == 0);
    let overlaps = |range: &IpNet| {
        used.iter().any(|to| to.prefix_len() > 0 && (to.contains(range) || range.contains(to)))
    };
    let (kept, added): (Vec<_>, Vec<_>) = ranges.into_iter().partition(overlaps);
    for range in kept {
        say(&format!("          {range} is routed on this host already, and stays so"));
    }
    if !leads_out || added.is_empty() {
        return Ok(());
    }
    std::fs::write(paths.routes_mark(), words(&added))
        .context("write into the cluster's folder")?;
    for range in &added {
        route
            .add_unreachable(*range, metric(paths))
            .context("close the host's way to the nodes")?;
    }
    say(&format!(
        "          unreachable from this host, by routes that `down` removes: {}",
        words(&added)
    ));
    Ok(())
}

fn words(ranges: &[IpNet]) -> String {
    ranges.iter().map(IpNet::to_string).collect::<Vec<_>>().join(" ")
}

/// Takes the routes away. Idempotent.
pub(super) fn remove(paths: &ClusterPaths) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(paths.routes_mark()) else { return Ok(()) };
    let mut route = Route::open(None).context("open the host's routes")?;
    for range in text.split_whitespace().filter_map(|word| word.parse().ok()) {
        route.delete_unreachable(range, metric(paths)).context("remove the host's routes")?;
    }
    remove_file(&paths.routes_mark())
}
