//! What is to become of an IPAddress object, given the Service that it names.

use std::net::IpAddr;
use std::time::Duration;

use api::Object;

use super::{addresses, parent};

/// How long an address may be without its Service: as long as a request may take.
const GRACE: Duration = Duration::from_secs(60);
/// How long an address may be another one's than its Service has: a failed request that is about
/// to give it back.
const WRONG_GRACE: Duration = Duration::from_secs(5);

/// What is to become of an address.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Fine,
    /// Looked at again after this time.
    Wait(Duration),
    /// Deleted, and why: an event's message.
    Leaked(&'static str, String),
}

/// The verdict on an address of ours that is `age` old, given its Service, if that exists.
pub(super) fn judge(
    address: &Object,
    service: Option<&Object>,
    age: Duration,
    newer: bool,
) -> Verdict {
    let name = &address.meta().name;
    let tree = address.to_value();
    let Some((namespace, parent)) = parent(&tree) else {
        let text = format!(
            "IPAddress {name} appears to have been modified, not referencing a Service: cleaning up"
        );
        return Verdict::Leaked("IPAddressNotAllocated", text);
    };
    let left = |grace: Duration| grace.checked_sub(age).filter(|left| !left.is_zero());
    let Some(service) = service else {
        return match left(GRACE) {
            Some(left) => Verdict::Wait(left),
            None => Verdict::Leaked(
                "IPAddressNotAllocated",
                format!(
                    "IPAddress: {name} for Service {namespace}/{parent} appears to have leaked: cleaning up"
                ),
            ),
        };
    };
    let ip: Option<IpAddr> = name.parse().ok();
    if ip.is_some_and(|ip| addresses(service).contains(&ip)) {
        return Verdict::Fine;
    }
    // A Service that gets its first address on a change is changed after the address is made.
    let external = service.to_value()["spec"]["type"] == "ExternalName";
    let grace = if external { GRACE } else { WRONG_GRACE };
    match left(grace).filter(|_| external || newer) {
        Some(left) => Verdict::Wait(left),
        None => Verdict::Leaked(
            "IPAddressWrongReference",
            format!(
                "IPAddress: {name} for Service {namespace}/{parent} has a wrong reference; cleaning up"
            ),
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use api::Object;
    use serde_json::{Value, json};

    use super::{GRACE, Verdict, WRONG_GRACE, judge};

    fn address(parent: Value) -> Object {
        Object::new(
            &json!({"metadata": {"name": "10.0.0.1"}, "spec": {"parentRef": parent}}),
            1,
            &[],
        )
    }

    fn service(kind: &str, ip: &str) -> Object {
        Object::new(
            &json!({"metadata": {"namespace": "ns", "name": "a"}, "spec": {"type": kind, "clusterIPs": [ip]}}),
            1,
            &[],
        )
    }

    fn reason(verdict: Verdict) -> &'static str {
        match verdict {
            Verdict::Leaked(reason, _) => reason,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_address_may_wait_for_its_service_for_a_minute() {
        let second = Duration::from_secs(1);
        let own = address(json!({"resource": "services", "namespace": "ns", "name": "a"}));
        let gone = |age| judge(&own, None, age, true);
        assert_eq!(gone(GRACE - second), Verdict::Wait(second));
        assert_eq!(reason(gone(GRACE)), "IPAddressNotAllocated");
        let (right, other) = (service("ClusterIP", "10.0.0.1"), service("ClusterIP", "10.0.0.2"));
        assert_eq!(judge(&own, Some(&right), GRACE, false), Verdict::Fine);
        // A failed request gives it back within seconds; one that is old is wrong.
        let wrong = |age, newer| judge(&own, Some(&other), age, newer);
        assert_eq!(wrong(Duration::ZERO, true), Verdict::Wait(WRONG_GRACE));
        assert_eq!(reason(wrong(Duration::ZERO, false)), "IPAddressWrongReference");
        assert_eq!(reason(wrong(WRONG_GRACE, true)), "IPAddressWrongReference");
        let external = service("ExternalName", "");
        assert_eq!(judge(&own, Some(&external), GRACE - second, false), Verdict::Wait(second));
        let changed = address(
            json!({"group": "example.com", "resource": "things", "namespace": "ns", "name": "a"}),
        );
        assert_eq!(reason(judge(&changed, None, Duration::ZERO, true)), "IPAddressNotAllocated");
    }
}
