//! Which ranges may go.

use std::sync::Arc;

use k8s_openapi::api::networking::v1::{IPAddress, ServiceCIDR};
use serde_json::json;

use super::plan::{READY, TERMINATING, condition, orphans};
use crate::meta::now;

fn cidr(own: &str, range: &str) -> Arc<ServiceCIDR> {
    let value = json!({"metadata": {"name": own}, "spec": {"cidrs": [range]}});
    Arc::new(serde_json::from_value(value).unwrap())
}

fn address(ip: &str) -> Arc<IPAddress> {
    let value = json!({"metadata": {"name": ip,
        "labels": {"ipaddress.kubernetes.io/managed-by": "ipallocator.k8s.io"}}});
    Arc::new(serde_json::from_value(value).unwrap())
}

#[test]
fn a_range_stays_while_addresses_need_it() {
    let own = cidr("own", "10.0.0.0/24");
    let alone = [own.clone()];
    assert!(orphans(&own, &alone, &[address("10.0.0.7")]));
    assert!(!orphans(&own, &alone, &[address("10.9.0.7")]));
    assert!(!orphans(&own, &alone, &[]));
    let within = [own.clone(), cidr("wide", "10.0.0.0/16")];
    assert!(!orphans(&own, &within, &[address("10.0.0.7")]));
    let half = [own.clone(), cidr("half", "10.0.0.0/25")];
    assert!(!orphans(&own, &half, &[address("10.0.0.7")]));
    assert!(orphans(&own, &half, &[address("10.0.0.200")]));
}

#[test]
fn a_condition_is_told_once() {
    let mut of = ServiceCIDR::clone(&cidr("own", "10.0.0.0/24"));
    let ready = condition(&of, READY, now()).unwrap();
    of.status.get_or_insert_default().conditions = Some(vec![ready]);
    assert_eq!(condition(&of, READY, now()), None);
    let ends = condition(&of, TERMINATING, now()).unwrap();
    assert_eq!((ends.status.as_str(), ends.reason.as_str()), ("False", "Terminating"));
}
