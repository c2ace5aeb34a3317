//! Kinds of which the server fills in no more than a field.

use api::Status;
use serde_json::{Value, json};

use crate::meta;
use crate::{DEFAULT, Hooks, Step};

pub(crate) const JOB: Hooks = Hooks {
    prepare_create: |_, job| {
        validation::generate_job_selector(job);
        Ok(())
    },
    orphans: true,
    warns_of_orphans: true,
    ..DEFAULT
};

pub(crate) const DAEMON_SET: Hooks = Hooks {
    prepare_create: |_, set| {
        validation::count_template(set, None);
        Ok(())
    },
    prepare_update: |step, old, set| {
        if step.row.subresource.is_empty() {
            validation::count_template(set, Some(old));
        }
        Ok(())
    },
    ..DEFAULT
};

pub(crate) const LIMIT_RANGE: Hooks = Hooks { prepare_create: name_limits, ..DEFAULT };

/// Limits may go without a name.
fn name_limits(_: &Step<'_>, limits: &mut Value) -> Result<(), Status> {
    if meta::text(limits, "name").is_empty() {
        let name = uuid::Uuid::new_v4().to_string();
        meta::of(limits).insert("name".into(), name.into());
    }
    Ok(())
}

pub(crate) const VOLUME: Hooks = Hooks {
    prepare_create: |step, volume| {
        volume["status"] =
            json!({"phase": "Pending", "lastPhaseTransitionTime": step.context.now_text()});
        Ok(())
    },
    prepare_update: date_phase,
    returns_deleted: true,
    ..DEFAULT
};

/// A volume tells since when it is in its phase.
fn date_phase(step: &Step<'_>, old: &Value, new: &mut Value) -> Result<(), Status> {
    const SINCE: &str = "lastPhaseTransitionTime";
    if step.row.subresource != "status" || !new["status"].is_object() {
        return Ok(());
    }
    let (before, status) = (&old["status"], &mut new["status"]);
    if before["phase"] != status["phase"] {
        if status[SINCE].is_null() || status[SINCE] == before[SINCE] {
            status[SINCE] = step.context.now_text().into();
        }
    } else if !before[SINCE].is_null() && status.get(SINCE).is_none_or(Value::is_null) {
        status[SINCE] = before[SINCE].clone();
    }
    Ok(())
}

/// References to secrets say no more than their names.
pub(crate) const SERVICE_ACCOUNT: Hooks = Hooks {
    prepare_create: |_, account| {
        name_secrets(account);
        Ok(())
    },
    prepare_update: |_, _, account| {
        name_secrets(account);
        Ok(())
    },
    returns_deleted: true,
    ..DEFAULT
};

fn name_secrets(account: &mut Value) {
    for secret in validation::items_mut(account, "secrets") {
        *secret = match secret.get("name") {
            Some(name) => json!({"name": name}),
            None => json!({}),
        };
    }
}

/// A deployment's labels do not change through its status.
pub(crate) const DEPLOYMENT: Hooks = Hooks {
    prepare_update: |step, old, new| {
        if step.row.subresource == "status" {
            match old["metadata"].get("labels") {
                Some(labels) => new["metadata"]["labels"] = labels.clone(),
                None => drop(meta::of(new).remove("labels")),
            }
        }
        Ok(())
    },
    generation_metadata: "annotations",
    ..DEFAULT
};

/// A secret that is written without a type keeps its own.
pub(crate) const SECRET: Hooks = Hooks {
    prepare_update: |_, old, new| {
        validation::set_default(new, "type", old["type"].clone());
        Ok(())
    },
    ..DEFAULT
};

/// An APIService without a service is served here, and so is available.
pub(crate) const API_SERVICE: Hooks = Hooks {
    prepare_create: |step, service| {
        if service["spec"]["service"].is_null() {
            service["status"] = json!({"conditions": [{
                "type": "Available", "status": "True", "lastTransitionTime": step.context.now_text(),
                "reason": "Local", "message": "Local APIServices are always available",
            }]});
        }
        Ok(())
    },
    unconditional: false,
    ..DEFAULT
};
