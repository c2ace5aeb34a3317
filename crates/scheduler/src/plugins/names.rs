//! Names of plugins, as configurations use them.

pub(crate) const DEFAULT_BINDER: &str = "DefaultBinder";
pub(crate) const DEFAULT_PREEMPTION: &str = "DefaultPreemption";
pub(crate) const DYNAMIC_RESOURCES: &str = "DynamicResources";
pub(crate) const IMAGE_LOCALITY: &str = "ImageLocality";
pub(crate) const INTER_POD_AFFINITY: &str = "InterPodAffinity";
pub(crate) const NODE_AFFINITY: &str = "NodeAffinity";
pub(crate) const NODE_DECLARED_FEATURES: &str = "NodeDeclaredFeatures";
pub(crate) const NODE_NAME: &str = "NodeName";
pub(crate) const NODE_PORTS: &str = "NodePorts";
pub(crate) const NODE_RESOURCES_BALANCED_ALLOCATION: &str = "NodeResourcesBalancedAllocation";
pub(crate) const NODE_RESOURCES_FIT: &str = "NodeResourcesFit";
pub(crate) const NODE_UNSCHEDULABLE: &str = "NodeUnschedulable";
pub(crate) const NODE_VOLUME_LIMITS: &str = "NodeVolumeLimits";
pub(crate) const POD_TOPOLOGY_SPREAD: &str = "PodTopologySpread";
pub(crate) const PRIORITY_SORT: &str = "PrioritySort";
pub(crate) const SCHEDULING_GATES: &str = "SchedulingGates";
pub(crate) const TAINT_TOLERATION: &str = "TaintToleration";
pub(crate) const VOLUME_BINDING: &str = "VolumeBinding";
pub(crate) const VOLUME_RESTRICTIONS: &str = "VolumeRestrictions";
pub(crate) const VOLUME_ZONE: &str = "VolumeZone";
