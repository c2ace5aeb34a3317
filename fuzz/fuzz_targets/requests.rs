//! Request lines: the path, then the query.
#![no_main]

use http::Method;
use libfuzzer_sys::fuzz_target;
use query::Query;
use request::RequestInfo;

#[allow(dead_code)]
#[path = "../../crates/apiserver/src/query.rs"]
mod query;
#[allow(dead_code)]
#[path = "../../crates/apiserver/src/request.rs"]
mod request;

fuzz_target!(|text: &str| {
    let (path, query) = text.split_once('?').unwrap_or((text, ""));
    let query = Query::parse(query);
    for method in [Method::GET, Method::POST, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let info = RequestInfo::parse(&method, path, query.flag("watch"));
        assert!(info.is_resource || info.resource.is_empty());
    }
    let _ = (query.number("limit"), query.dry_run(), query.field_validation());
    let _ = (query.label_selector(), query.field_selector());
});
