//! Wire forms, against bytes that were put down by hand from the specification's field numbers.

use prost::Message as _;

use super::*;

fn map(of: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    of.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn a_volume_is_asked_for_in_the_specifications_fields() {
    let request = CreateVolumeRequest {
        name: "a".into(),
        capacity_range: Some(CapacityRange { required_bytes: 1, limit_bytes: 300 }),
        volume_capabilities: vec![VolumeCapability {
            access_type: Some(AccessType::Mount(MountVolume {
                fs_type: "x".into(),
                mount_flags: vec!["ro".into()],
                volume_mount_group: String::new(),
            })),
            access_mode: Some(AccessMode { mode: Mode::SingleNodeWriter as i32 }),
        }],
        parameters: map(&[("k", "v")]),
        secrets: secrets([("s".to_owned(), "t".to_owned())]),
        volume_content_source: Some(VolumeContentSource {
            kind: Some(ContentSource::Volume(VolumeSource { volume_id: "i".into() })),
        }),
        accessibility_requirements: Some(TopologyRequirement {
            requisite: vec![],
            preferred: vec![Topology { segments: map(&[("z", "1")]) }],
        }),
        mutable_parameters: map(&[("m", "n")]),
    };
    let wire: &[&[u8]] = &[
        b"\x0a\x01a",
        b"\x12\x05\x08\x01\x10\xac\x02",
        b"\x1a\x0d\x12\x07\x0a\x01x\x12\x02ro\x1a\x02\x08\x01",
        b"\x22\x06\x0a\x01k\x12\x01v",
        b"\x2a\x06\x0a\x01s\x12\x01t",
        b"\x32\x05\x12\x03\x0a\x01i",
        b"\x3a\x0a\x12\x08\x0a\x06\x0a\x01z\x12\x011",
        b"\x42\x06\x0a\x01m\x12\x01n",
    ];
    assert_eq!(request.encode_to_vec(), wire.concat());
    assert_eq!(CreateVolumeRequest::decode(&wire.concat()[..]), Ok(request));
}

#[test]
fn wrapped_numbers_and_truths_tell_zero_from_absent() {
    let ready = |ready| ProbeResponse { ready }.encode_to_vec();
    assert_eq!(ready(None), b"");
    assert_eq!(ready(Some(false)), b"\x0a\x00");
    assert_eq!(ready(Some(true)), b"\x0a\x02\x08\x01");
    let capacity = GetCapacityResponse {
        available_capacity: 5,
        maximum_volume_size: Some(0),
        minimum_volume_size: Some(7),
    };
    assert_eq!(capacity.encode_to_vec(), b"\x08\x05\x12\x00\x1a\x02\x08\x07");
}

#[test]
fn capabilities_are_messages_in_messages() {
    let controller = ControllerServiceCapability {
        rpc: Some(ControllerRpc { kind: ControllerRpcType::GetSnapshot as i32 }),
    };
    assert_eq!(controller.encode_to_vec(), b"\x0a\x02\x08\x0f");
    let online = VolumeExpansion { kind: VolumeExpansionType::Online as i32 };
    let plugin = PluginCapability { kind: Some(PluginCapabilityKind::VolumeExpansion(online)) };
    assert_eq!(plugin.encode_to_vec(), b"\x12\x02\x08\x01");
    let node =
        NodeServiceCapability { rpc: Some(NodeRpc { kind: NodeRpcType::VolumeMountGroup as i32 }) };
    assert_eq!(node.encode_to_vec(), b"\x0a\x02\x08\x06");
}

#[test]
fn a_snapshot_and_the_nodes_answers() {
    let snapshot = Snapshot {
        size_bytes: 1,
        snapshot_id: "a".into(),
        source_volume_id: "b".into(),
        creation_time: Some(Timestamp { seconds: 2, nanos: 3 }),
        ready_to_use: true,
        group_snapshot_id: "g".into(),
    };
    let wire = b"\x08\x01\x12\x01a\x1a\x01b\x22\x04\x08\x02\x10\x03\x28\x01\x32\x01g";
    assert_eq!(snapshot.encode_to_vec(), wire);
    let stats = NodeGetVolumeStatsResponse {
        usage: vec![VolumeUsage { available: 1, total: 3, used: 2, unit: UsageUnit::Bytes as i32 }],
        volume_condition: Some(VolumeCondition { abnormal: true, message: "m".into() }),
    };
    let wire = b"\x0a\x08\x08\x01\x10\x03\x18\x02\x20\x01\x12\x05\x08\x01\x12\x01m";
    assert_eq!(stats.encode_to_vec(), wire);
    let info = NodeGetInfoResponse {
        node_id: "n".into(),
        max_volumes_per_node: 4,
        accessible_topology: Some(Topology { segments: map(&[("k", "v")]) }),
    };
    assert_eq!(info.encode_to_vec(), b"\x0a\x01n\x10\x04\x1a\x08\x0a\x06\x0a\x01k\x12\x01v");
}

#[test]
fn publishing_has_the_specifications_fields() {
    let request = NodePublishVolumeRequest {
        volume_id: "v".into(),
        publish_context: map(&[("p", "q")]),
        staging_target_path: "/s".into(),
        target_path: "/t".into(),
        volume_capability: Some(VolumeCapability {
            access_type: Some(AccessType::Block(BlockVolume {})),
            access_mode: Some(AccessMode { mode: Mode::SingleNodeSingleWriter as i32 }),
        }),
        readonly: true,
        secrets: secrets([("s".to_owned(), "t".to_owned())]),
        volume_context: map(&[("c", "d")]),
    };
    let wire: &[&[u8]] = &[
        b"\x0a\x01v",
        b"\x12\x06\x0a\x01p\x12\x01q",
        b"\x1a\x02/s",
        b"\x22\x02/t",
        b"\x2a\x06\x0a\x00\x1a\x02\x08\x06",
        b"\x30\x01",
        b"\x3a\x06\x0a\x01s\x12\x01t",
        b"\x42\x06\x0a\x01c\x12\x01d",
    ];
    assert_eq!(request.encode_to_vec(), wire.concat());
}

#[test]
fn no_debug_form_shows_a_secret() {
    let secrets = secrets([("password".to_owned(), "hunter2".to_owned())]);
    let request = NodeStageVolumeRequest { secrets, ..Default::default() };
    let shown = format!("{request:?}");
    assert!(shown.contains("password: ***stripped***"), "{shown}");
    assert!(!format!("{request:#?}{shown}").contains("hunter2"));
}
