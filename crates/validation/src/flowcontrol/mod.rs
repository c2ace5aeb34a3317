//! Flow schemas and priority levels.

mod level;
mod schema;

use crate::check::At;

pub(crate) use level::KIND as LEVEL;
pub(crate) use schema::KIND as SCHEMA;

fn conditions(object: &At<'_>) {
    let status = object.get("status");
    let list = status.get("conditions");
    let all = list.value().as_array().map_or(&[][..], Vec::as_slice);
    for (at, condition) in list.items().enumerate() {
        let kind = condition.get("type");
        if all[..at].iter().any(|before| before["type"] == *kind.value()) {
            kind.duplicate();
        }
        kind.need();
    }
}
