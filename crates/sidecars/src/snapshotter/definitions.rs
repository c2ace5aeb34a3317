//! The definitions of `snapshot.storage.k8s.io/v1`: fields, columns and rules of upstream's API, in words of
//! our own.

use serde_json::{Value, json};

use super::types::GROUP;

const POLICIES: [&str; 2] = ["Delete", "Retain"];

/// All three, as objects of `apiextensions.k8s.io/v1`.
pub fn snapshot_definitions() -> Vec<Value> {
    vec![snapshots(), contents(), classes()]
}

fn text(about: &str) -> Value {
    json!({"type": "string", "description": about})
}

fn flag(about: &str) -> Value {
    json!({"type": "boolean", "description": about})
}

fn number(about: &str) -> Value {
    json!({"type": "integer", "format": "int64", "description": about})
}

fn error() -> Value {
    json!({"type": "object", "description": "The last error, if the snapshot could not be made.",
        "properties": {"message": text("Why."),
            "time": {"type": "string", "format": "date-time", "description": "When."}}})
}

fn immutable(mut schema: Value, field: &str) -> Value {
    schema["x-kubernetes-validations"] =
        json!([{"rule": "self == oldSelf", "message": format!("{field} is immutable")}]);
    schema
}

/// An object of which exactly one field is set, for good.
fn one_of(fields: [(&str, &str); 2], about: &str) -> Value {
    let properties: serde_json::Map<String, Value> = fields
        .iter()
        .map(|(field, about)| ((*field).to_owned(), immutable(text(about), field)))
        .collect();
    let [(one, _), (two, _)] = fields;
    let rule = |rule: String, message: String| json!({"rule": rule, "message": message});
    let exactly = rule(
        format!("has(self.{one}) != has(self.{two})"),
        format!("exactly one of {one} and {two} must be set"),
    );
    let kept = |field: &str| {
        rule(
            format!("!has(oldSelf.{field}) || has(self.{field})"),
            format!("{field} is required once set"),
        )
    };
    json!({"type": "object", "description": about, "properties": properties,
        "x-kubernetes-validations": [kept(one), kept(two), exactly]})
}

fn schema(about: &str, spec: Value, status: Value) -> Value {
    json!({"type": "object", "description": about, "required": ["spec"], "properties": {
        "apiVersion": {"type": "string"}, "kind": {"type": "string"},
        "metadata": {"type": "object"}, "spec": spec, "status": status}})
}

fn column(name: &str, kind: &str, path: &str) -> Value {
    json!({"name": name, "type": kind, "jsonPath": path})
}

fn definition(names: Value, scope: &str, schema: Value, columns: Vec<Value>) -> Value {
    let plural = names["plural"].as_str().unwrap_or_default();
    let mut columns = columns;
    columns.push(column("Age", "date", ".metadata.creationTimestamp"));
    let mut version = json!({"name": "v1", "served": true, "storage": true,
        "schema": {"openAPIV3Schema": schema}, "additionalPrinterColumns": columns});
    if version["schema"]["openAPIV3Schema"]["properties"].get("status").is_some() {
        version["subresources"] = json!({"status": {}});
    }
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{GROUP}"), "annotations":
            {"api-approved.kubernetes.io": "https://github.com/kubernetes-csi/external-snapshotter/pull/814"}},
        "spec": {"group": GROUP, "scope": scope, "names": names, "versions": [version]}})
}

fn snapshots() -> Value {
    let source = one_of(
        [
            ("persistentVolumeClaimName", "The claim whose volume is copied."),
            ("volumeSnapshotContentName", "A snapshot that is there already."),
        ],
        "What the snapshot is made of.",
    );
    let class = json!({"type": "string", "description": "The class; the default one when absent.",
        "x-kubernetes-validations": [{"rule": "size(self) > 0",
            "message": "volumeSnapshotClassName must not be the empty string when set"}]});
    let spec = json!({"type": "object", "required": ["source"],
        "properties": {"source": source, "volumeSnapshotClassName": class}});
    let size = json!({"description": "The least size of a volume made of it.",
        "anyOf": [{"type": "integer"}, {"type": "string"}], "x-kubernetes-int-or-string": true});
    let status = json!({"type": "object", "properties": {
        "boundVolumeSnapshotContentName": text("The content that it is bound to."),
        "creationTime": {"type": "string", "format": "date-time", "description": "When it was made."},
        "readyToUse": flag("Whether volumes can be made of it."),
        "restoreSize": size, "error": error(),
        "volumeGroupSnapshotName": text("The group that it was made with.")}});
    let names = json!({"kind": "VolumeSnapshot", "listKind": "VolumeSnapshotList",
        "plural": "volumesnapshots", "singular": "volumesnapshot", "shortNames": ["vs"]});
    let columns = vec![
        column("ReadyToUse", "boolean", ".status.readyToUse"),
        column("SourcePVC", "string", ".spec.source.persistentVolumeClaimName"),
        column("SourceSnapshotContent", "string", ".spec.source.volumeSnapshotContentName"),
        column("RestoreSize", "string", ".status.restoreSize"),
        column("SnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        column("SnapshotContent", "string", ".status.boundVolumeSnapshotContentName"),
        column("CreationTime", "date", ".status.creationTime"),
    ];
    definition(
        names,
        "Namespaced",
        schema("A snapshot that a user asks for.", spec, status),
        columns,
    )
}

fn contents() -> Value {
    let source = one_of(
        [
            ("volumeHandle", "The volume that is copied, by the driver's name for it."),
            ("snapshotHandle", "The snapshot that is there, by the driver's name for it."),
        ],
        "What the snapshot is made of.",
    );
    let reference = json!({"type": "object", "x-kubernetes-map-type": "atomic",
        "description": "The VolumeSnapshot that it is bound to.",
        "properties": {"apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "name": {"type": "string"}, "namespace": {"type": "string"}, "uid": {"type": "string"},
            "resourceVersion": {"type": "string"}, "fieldPath": {"type": "string"}},
        "x-kubernetes-validations": [{"rule": "has(self.name) && has(self.__namespace__)",
            "message": "both spec.volumeSnapshotRef.name and spec.volumeSnapshotRef.namespace must be set"}]});
    let policy = json!({"type": "string", "enum": POLICIES,
        "description": "Whether the driver's snapshot goes with this object."});
    let spec = json!({"type": "object",
        "required": ["deletionPolicy", "driver", "source", "volumeSnapshotRef"],
        "properties": {"deletionPolicy": policy, "driver": text("The CSI driver."), "source": source,
            "sourceVolumeMode": immutable(text("The mode of the volume."), "sourceVolumeMode"),
            "volumeSnapshotClassName": text("The class that it was made with."),
            "volumeSnapshotRef": reference}});
    let status = json!({"type": "object", "properties": {
        "snapshotHandle": text("The driver's name for the snapshot."),
        "creationTime": number("When it was made, in nanoseconds since 1970."),
        "restoreSize": {"type": "integer", "format": "int64", "minimum": 0,
            "description": "The least size of a volume made of it, in bytes."},
        "readyToUse": flag("Whether volumes can be made of it."), "error": error(),
        "volumeGroupSnapshotHandle": text("The driver's name for its group.")}});
    let names = json!({"kind": "VolumeSnapshotContent", "listKind": "VolumeSnapshotContentList",
        "plural": "volumesnapshotcontents", "singular": "volumesnapshotcontent",
        "shortNames": ["vsc", "vscs"]});
    let columns = vec![
        column("ReadyToUse", "boolean", ".status.readyToUse"),
        column("RestoreSize", "integer", ".status.restoreSize"),
        column("DeletionPolicy", "string", ".spec.deletionPolicy"),
        column("Driver", "string", ".spec.driver"),
        column("VolumeSnapshotClass", "string", ".spec.volumeSnapshotClassName"),
        column("VolumeSnapshot", "string", ".spec.volumeSnapshotRef.name"),
        column("VolumeSnapshotNamespace", "string", ".spec.volumeSnapshotRef.namespace"),
    ];
    definition(names, "Cluster", schema("A snapshot that is there.", spec, status), columns)
}

fn classes() -> Value {
    let schema = json!({"type": "object", "description": "How snapshots are made.",
        "required": ["deletionPolicy", "driver"], "properties": {
            "apiVersion": {"type": "string"}, "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "driver": text("The CSI driver."),
            "deletionPolicy": {"type": "string", "enum": POLICIES,
                "description": "Whether driver's snapshots go with their contents."},
            "parameters": {"type": "object", "additionalProperties": {"type": "string"},
                "description": "For the driver."}}});
    let names = json!({"kind": "VolumeSnapshotClass", "listKind": "VolumeSnapshotClassList",
        "plural": "volumesnapshotclasses", "singular": "volumesnapshotclass",
        "shortNames": ["vsclass", "vsclasses"]});
    let columns = vec![
        column("Driver", "string", ".driver"),
        column("DeletionPolicy", "string", ".deletionPolicy"),
    ];
    definition(names, "Cluster", schema, columns)
}
