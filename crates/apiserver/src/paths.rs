//! `GET /`: the paths that the server answers.

use api::registry::Resource;

/// Paths that depend neither on resources nor on health checks.
const FIXED: [&str; 16] = [
    "/.well-known/openid-configuration",
    "/api",
    "/apis",
    "/apis/",
    "/debug/api_priority_and_fairness/dump_priority_levels",
    "/debug/api_priority_and_fairness/dump_queues",
    "/flagz",
    "/metrics",
    "/metrics/slis",
    "/openapi/v2",
    "/openapi/v3",
    "/openapi/v3/",
    "/openid/v1/jwks",
    "/statusz",
    "/version",
    "/api/v1",
];

/// All paths, those of health checks among them, sorted.
pub(crate) fn all(rows: &[&'static Resource], checks: Vec<String>) -> Vec<String> {
    let mut paths: Vec<String> = FIXED.map(str::to_owned).into();
    for row in rows.iter().filter(|row| !row.group.is_empty()) {
        paths.push(format!("/apis/{}", row.group));
        paths.push(format!("/apis/{}/{}", row.group, row.version));
    }
    paths.extend(checks);
    paths.sort_unstable();
    paths.dedup();
    paths
}

#[cfg(test)]
mod tests {
    use api::registry::Registry;

    #[test]
    fn groups_versions_and_checks_are_listed() {
        let rows: Vec<_> = Registry::built_in().rows().iter().collect();
        let paths = super::all(&rows, vec!["/healthz/etcd".into()]);
        for path in ["/apis/apps", "/apis/autoscaling/v2", "/healthz/etcd"] {
            assert!(paths.iter().any(|listed| listed == path), "{path}");
        }
        assert!(paths.is_sorted());
    }
}
