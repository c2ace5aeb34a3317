//! DenyServiceExternalIPs: no Service gets new external addresses, with which it could take over traffic.
//!
//! Rule: `plugin/pkg/admission/network/denyserviceexternalips`.

use serde_json::Value;
use validation::items;

use crate::attributes::{Attributes, Operation};
use crate::plugin::{Decision, Plugin};

pub(crate) struct DenyServiceExternalIps;

impl Plugin for DenyServiceExternalIps {
    fn name(&self) -> &'static str {
        "DenyServiceExternalIPs"
    }

    fn handles(&self, request: &Attributes<'_>) -> bool {
        let writes = matches!(request.operation, Operation::Create | Operation::Update);
        writes && request.path() == ("", "services", "")
    }

    fn validate<'a>(&'a self, request: &'a Attributes<'a>, service: &'a Value) -> Decision<'a> {
        let had = |ip: &Value| {
            request.old.is_some_and(|old| items(&old["spec"], "externalIPs").any(|own| own == ip))
        };
        match items(&service["spec"], "externalIPs").all(had) {
            true => Decision::ALLOWED,
            false => {
                let why = "Use of external IPs is denied by admission control";
                Err(request.forbid(service, why)).into()
            }
        }
    }
}
