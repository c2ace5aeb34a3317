use serde_json::{Value, json};

use super::status::{finished, infeasible, node_pending, started};
use super::{Growth, growth};

fn claim(wanted: &str, has: &str, resizing: Option<&str>) -> super::PersistentVolumeClaim {
    let mut status = json!({"phase": "Bound", "capacity": {"storage": has},
        "conditions": [{"type": "Other", "status": "True"},
            {"type": "Resizing", "status": "True"}]});
    if let Some(resizing) = resizing {
        status["allocatedResourceStatuses"] = json!({"storage": resizing});
    }
    let claim = json!({"metadata": {"name": "c", "namespace": "n"},
        "spec": {"resources": {"requests": {"storage": wanted}}}, "status": status});
    serde_json::from_value(claim).unwrap()
}

fn volume(has: &str) -> super::PersistentVolume {
    serde_json::from_value(json!({"spec": {"capacity": {"storage": has}}})).unwrap()
}

#[test]
fn a_claim_grows_first_at_the_driver_then_on_the_node() {
    let of = |wanted, has, resizing, volume_has| {
        growth(&claim(wanted, has, resizing), &volume(volume_has))
    };
    assert_eq!(of("1Gi", "1Gi", None, "1Gi"), Growth::None);
    assert_eq!(of("2Gi", "1Gi", None, "1Gi"), Growth::Controller(2 << 30));
    assert_eq!(
        of("2Gi", "1Gi", Some("ControllerResizeInProgress"), "1Gi"),
        Growth::Controller(2 << 30)
    );
    // The volume was grown, and what comes next was not written.
    assert_eq!(
        of("2Gi", "1Gi", Some("ControllerResizeInProgress"), "2Gi"),
        Growth::Controller(2 << 30)
    );
    assert_eq!(of("2Gi", "1Gi", Some("NodeResizePending"), "2Gi"), Growth::Node);
    // It asks for still more meanwhile.
    assert_eq!(of("3Gi", "1Gi", Some("NodeResizePending"), "2Gi"), Growth::Controller(3 << 30));
    // It failed, and asks for less: what it has is enough.
    assert_eq!(of("1Gi", "1Gi", Some("ControllerResizeInfeasible"), "1Gi"), Growth::None);
}

#[test]
fn statuses_of_each_step() {
    let types = |status: &Value| -> Vec<String> {
        let all = status["conditions"].as_array().unwrap().iter();
        all.map(|c| c["type"].as_str().unwrap().to_owned()).collect()
    };
    let claim = claim("2Gi", "1Gi", None);
    let first = started(&claim, 2 << 30);
    assert_eq!(first["allocatedResources"], json!({"storage": "2Gi"}));
    assert_eq!(
        first["allocatedResourceStatuses"],
        json!({"storage": "ControllerResizeInProgress"})
    );
    assert_eq!(types(&first), ["Other", "Resizing"]);
    let pending = node_pending(&claim);
    assert_eq!(types(&pending), ["Other", "FileSystemResizePending"]);
    assert!(
        pending["conditions"][1]["message"].as_str().unwrap().starts_with("Waiting for user to")
    );
    let failed = infeasible(&claim);
    assert_eq!(
        failed["allocatedResourceStatuses"],
        json!({"storage": "ControllerResizeInfeasible"})
    );
    let last = finished(&claim, 2 << 30);
    assert_eq!(
        (types(&last), &last["capacity"]),
        (vec!["Other".to_owned()], &json!({"storage": "2Gi"}))
    );
}
