//! What the CSIDriver object says of a driver. A driver without one is as upstream's defaults have it.

use client::Client;
use k8s_openapi::api::storage::v1::{CSIDriver, TokenRequest};

/// How a volume's group is set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum GroupPolicy {
    ReadWriteOnceWithFsType,
    File,
    None,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Facts {
    pub(super) attach_required: bool,
    pub(super) pod_info: bool,
    pub(super) republish: bool,
    pub(super) tokens: Vec<TokenRequest>,
    pub(super) tokens_in_secrets: bool,
    pub(super) group_policy: GroupPolicy,
    /// `None`: there is no CSIDriver object.
    pub(super) modes: Option<Vec<String>>,
}

impl Facts {
    pub(super) async fn of(client: &Client, driver: &str) -> Result<Facts, String> {
        match client.get::<CSIDriver>("", driver).await {
            Ok(object) => Facts::read(&object),
            Err(error) if error.is_not_found() => Ok(Facts::unknown()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn unknown() -> Facts {
        Facts {
            attach_required: true,
            pod_info: false,
            republish: false,
            tokens: Vec::new(),
            tokens_in_secrets: false,
            group_policy: GroupPolicy::ReadWriteOnceWithFsType,
            modes: None,
        }
    }

    fn read(object: &CSIDriver) -> Result<Facts, String> {
        let spec = &object.spec;
        Ok(Facts {
            attach_required: spec.attach_required != Some(false),
            pod_info: spec.pod_info_on_mount == Some(true),
            republish: spec.requires_republish == Some(true),
            tokens: spec.token_requests.clone().unwrap_or_default(),
            tokens_in_secrets: spec.service_account_token_in_secrets == Some(true),
            group_policy: match spec.fs_group_policy.as_deref().unwrap_or_default() {
                "ReadWriteOnceWithFSType" => GroupPolicy::ReadWriteOnceWithFsType,
                "File" => GroupPolicy::File,
                "None" => GroupPolicy::None,
                _ => {
                    let text = "expected valid fsGroupPolicy, received nil value or empty string";
                    return Err(super::said(text));
                }
            },
            modes: Some(spec.volume_lifecycle_modes.clone().unwrap_or_default()),
        })
    }

    /// `mode` is `Persistent` or `Ephemeral`.
    pub(super) fn allows(&self, driver: &str, mode: &str) -> Result<(), String> {
        match &self.modes {
            None if mode == "Persistent" => Ok(()),
            None => Err(format!(
                "volume mode {mode:?} not supported by driver {driver} (no CSIDriver object)"
            )),
            Some(modes) if modes.iter().any(|m| m == mode) => Ok(()),
            Some(modes) => {
                let modes: Vec<String> = modes.iter().map(|m| format!("{m:?}")).collect();
                Err(format!(
                    "volume mode {mode:?} not supported by driver {driver} (only supports [{}])",
                    modes.join(" ")
                ))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(spec: serde_json::Value) -> Result<Facts, String> {
        Facts::read(&serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    #[test]
    fn modes_that_a_driver_does_not_have_are_refused() {
        let unknown = Facts::unknown();
        assert_eq!(unknown.allows("d", "Persistent"), Ok(()));
        assert_eq!(
            unknown.allows("d", "Ephemeral").unwrap_err(),
            "volume mode \"Ephemeral\" not supported by driver d (no CSIDriver object)"
        );
        let both = json!({"fsGroupPolicy": "File", "volumeLifecycleModes": ["Persistent"]});
        let known = facts(both).unwrap();
        assert_eq!(
            known.allows("d", "Ephemeral").unwrap_err(),
            "volume mode \"Ephemeral\" not supported by driver d (only supports [\"Persistent\"])"
        );
        assert!(known.attach_required && known.group_policy == GroupPolicy::File);
    }

    #[test]
    fn an_object_without_a_group_policy_is_not_guessed_at() {
        assert!(facts(json!({})).unwrap_err().contains("expected valid fsGroupPolicy"));
    }
}
