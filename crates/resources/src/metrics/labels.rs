//! What a request is counted under (upstream's `CleanScope`, `CanonicalVerb`, `CleanVerb`).

use auth::RequestInfo;
use http::Method;

use strategy::query::Query;

/// The labels of one request.
#[derive(Debug, Clone, Copy)]
pub struct Labels<'a> {
    verb: &'static str,
    dry_run: &'static str,
    info: &'a RequestInfo,
    scope: &'static str,
}

const COMPONENT: &str = "apiserver";
const CONNECTED: [&str; 5] = ["log", "exec", "portforward", "attach", "proxy"];

impl<'a> Labels<'a> {
    pub fn of(
        info: &'a RequestInfo,
        query: &Query,
        method: &Method,
        content_type: &str,
    ) -> Labels<'a> {
        let scope = scope(info);
        let verb = verb(info, method, scope, content_type);
        let dry_run = match query.get("dryRun") {
            None => "",
            Some("All") => "All",
            Some(_) => "invalid",
        };
        Labels { verb, dry_run, info, scope }
    }

    pub fn reads(&self) -> bool {
        matches!(self.verb, "GET" | "LIST")
    }

    pub fn is_dry(&self) -> bool {
        !self.dry_run.is_empty()
    }

    /// In the order of `apiserver_request_total`, without the code.
    pub fn request(&self) -> [&str; 8] {
        let [verb, group, version, resource, subresource, scope, component] = self.stream();
        [verb, self.dry_run, group, version, resource, subresource, scope, component]
    }

    pub fn request_with_code<'b>(&'b self, code: &'b str) -> [&'b str; 9] {
        let [a, b, c, d, e, f, g, h] = self.request();
        [a, b, c, d, e, f, g, h, code]
    }

    /// In the order of `apiserver_longrunning_requests`.
    pub fn stream(&self) -> [&str; 7] {
        let info = self.info;
        match info.is_resource {
            true => [
                self.verb,
                &info.group,
                &info.version,
                &info.resource,
                &info.subresource,
                self.scope,
                COMPONENT,
            ],
            false => [self.verb, "", "", "", &info.path, self.scope, COMPONENT],
        }
    }

    pub fn with_code<'b>(&'b self, code: &'b str) -> [&'b str; 8] {
        let [a, b, c, d, e, f, g] = self.stream();
        [a, b, c, d, e, f, g, code]
    }
}

fn scope(info: &RequestInfo) -> &'static str {
    match info {
        info if !info.name.is_empty() || info.verb == "create" => "resource",
        info if !info.namespace.is_empty() => "namespace",
        info if info.is_resource => "cluster",
        _ => "",
    }
}

fn verb(info: &RequestInfo, method: &Method, scope: &str, content_type: &str) -> &'static str {
    if info.is_resource && CONNECTED.contains(&info.subresource.as_str()) {
        return "CONNECT";
    }
    match *method {
        Method::GET | Method::HEAD => match (info.verb, scope) {
            ("watch", _) => "WATCH",
            (_, "resource" | "") => "GET",
            _ => "LIST",
        },
        Method::PATCH if content_type == "application/apply-patch+yaml" => "APPLY",
        Method::PATCH => "PATCH",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: Method, path: &str, query: &str) -> (String, Vec<String>) {
        let query = Query::parse(query);
        let info = RequestInfo::parse(&method, path, query.flag("watch"));
        let labels = Labels::of(&info, &query, &method, "application/apply-patch+yaml");
        (labels.verb.to_owned(), labels.request()[1..7].iter().map(|&l| l.to_owned()).collect())
    }

    #[test]
    fn requests_are_counted_as_upstream_counts_them() {
        let pods = "/api/v1/namespaces/a/pods";
        let cases = [
            (Method::GET, pods, "", "LIST", "namespace"),
            (Method::GET, "/api/v1/pods", "watch=1", "WATCH", "cluster"),
            (Method::GET, "/api/v1/namespaces/a/pods/p", "", "GET", "resource"),
            (Method::POST, pods, "", "POST", "resource"),
            (Method::PATCH, "/api/v1/namespaces/a/pods/p", "", "APPLY", "resource"),
            (Method::DELETE, pods, "", "DELETE", "namespace"),
            (Method::GET, "/api/v1/namespaces/a/pods/p/log", "", "CONNECT", "resource"),
            (Method::GET, "/healthz", "", "GET", ""),
        ];
        for (method, path, query, verb, scope) in cases {
            let (is, labels) = of(method, path, query);
            assert_eq!((is.as_str(), labels[5].as_str()), (verb, scope), "{path}?{query}");
        }
        let (_, labels) =
            of(Method::PUT, "/apis/apps/v1/namespaces/a/deployments/d/status", "dryRun=All");
        assert_eq!(labels, ["All", "apps", "v1", "deployments", "status", "resource"]);
        assert_eq!(of(Method::GET, "/healthz", "").1, ["", "", "", "", "/healthz", ""]);
    }
}
