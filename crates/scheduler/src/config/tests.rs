//! Configurations that are read, and those that are refused in upstream's words.

use serde_json::{Value, json};

use super::*;
use crate::testing::merge;

fn load(extra: Value) -> Result<Config, String> {
    let mut tree = json!({"apiVersion": API_VERSION, "kind": KIND});
    merge(&mut tree, &extra);
    crate::load_config(&tree)
}

fn profile(extra: Value) -> Value {
    json!({"profiles": [extra]})
}

fn args(name: &str, args: Value) -> Value {
    profile(json!({"pluginConfig": [{"name": name, "args": args}]}))
}

#[test]
fn the_default_is_one_profile_with_upstreams_plugins() {
    let config = load(json!({})).unwrap();
    assert_eq!(config, Config::default());
    assert_eq!(config.scheduler_names().collect::<Vec<_>>(), ["default-scheduler"]);
    assert_eq!((config.initial_backoff.as_secs(), config.max_backoff.as_secs()), (1, 10));
    assert_eq!(config.profiles[0].plugins.multi_point.enabled.len(), 20);
}

#[test]
fn everything_can_be_set() {
    let config = load(json!({
        "leaderElection": {"leaderElect": false, "leaseDuration": "15s"},
        "clientConnection": {"kubeconfig": "/k"},
        "percentageOfNodesToScore": 30, "podInitialBackoffSeconds": 2, "podMaxBackoffSeconds": 20,
        "profiles": [
            {"schedulerName": "one", "percentageOfNodesToScore": 50},
            {"schedulerName": "two", "plugins": {"score": {"disabled": [{"name": "ImageLocality"}],
                "enabled": [{"name": "NodeResourcesFit", "weight": 7}]}}}],
        "extenders": [{"urlPrefix": "http://e/x", "filterVerb": "filter", "weight": 1,
            "httpTimeout": "3s", "managedResources": [{"name": "example.com/gpu",
                "ignoredByScheduler": true}]}]}))
    .unwrap();
    assert_eq!(config.scheduler_names().collect::<Vec<_>>(), ["one", "two"]);
    assert!(!config.leader_elect && config.kubeconfig == "/k");
    let percentages: Vec<usize> =
        config.profiles.iter().map(|p| p.percentage_of_nodes_to_score).collect();
    assert_eq!(percentages, [50, 30]);
    assert_eq!(config.extenders()[0].http_timeout.as_secs(), 3);
    let built = crate::build::profiles(&config, &crate::build::Handle::default()).unwrap();
    let scores = |at: usize| -> Vec<(&str, i64)> {
        let profile = &built[at];
        profile.order.score.iter().map(|(i, w)| (profile.plugins[*i].name(), *w)).collect()
    };
    let one = scores(0);
    assert!(one.contains(&("TaintToleration", 3)) && one.contains(&("NodeResourcesFit", 1)));
    let two = scores(1);
    // What is re-configured for a point comes first there.
    assert_eq!(two[0], ("NodeResourcesFit", 7));
    assert!(two.iter().all(|(name, _)| *name != "ImageLocality"));
}

#[test]
fn a_star_disables_all_of_a_point() {
    let only = profile(json!({"plugins": {"filter": {"disabled": [{"name": "*"}],
        "enabled": [{"name": "NodeName"}]}, "multiPoint": {"disabled": [
            {"name": "DefaultPreemption"}]}}}));
    let config = load(only).unwrap();
    let built = crate::build::profiles(&config, &crate::build::Handle::default()).unwrap();
    let names = |places: &[usize]| -> Vec<&str> {
        places.iter().map(|i| built[0].plugins[*i].name()).collect()
    };
    assert_eq!(names(&built[0].order.filter), ["NodeName"]);
    assert_eq!(names(&built[0].order.post_filter), ["DynamicResources"]);
}

#[test]
fn what_upstream_refuses_is_refused_in_its_words() {
    let shape = |points: Value| {
        args(
            "NodeResourcesFit",
            json!({"scoringStrategy": {"type": "RequestedToCapacityRatio",
            "requestedToCapacityRatio": {"shape": points}}}),
        )
    };
    let path = "profiles[0].pluginConfig[0].args";
    let cases: Vec<(Value, String)> = vec![
        (json!({"kind": "Pod"}), "no kind \"Pod\" is registered for version".into()),
        (json!({"nope": 1}), "strict decoding error: unknown field `nope`".into()),
        (json!({"parallelism": 0}),
            "parallelism: Invalid value: 0: should be an integer value greater than zero".into()),
        (json!({"percentageOfNodesToScore": 101}),
            "percentageOfNodesToScore: Invalid value: 101: not in valid range [0-100]".into()),
        (json!({"podInitialBackoffSeconds": 0}),
            "podInitialBackoffSeconds: Invalid value: 0: must be greater than 0".into()),
        (json!({"podMaxBackoffSeconds": 0}), "podMaxBackoffSeconds: Invalid value: 0: must be \
            greater than or equal to PodInitialBackoffSeconds".into()),
        (json!({"leaderElection": {"leaderElect": true, "resourceLock": "configmaps"}}),
            "leaderElection.resourceLock: Invalid value: \"configmaps\": resourceLock value must \
             be \"leases\"".into()),
        (json!({"profiles": [{"schedulerName": "a"}, {"schedulerName": "a"}]}),
            "profiles[1].schedulerName: Duplicate value: \"profiles[0].schedulerName\"".into()),
        (json!({"profiles": [{}, {"schedulerName": "a"}]}),
            "profiles[0].schedulerName: Required value".into()),
        (profile(json!({"plugins": {"filter": {"enabled": [{"name": "EBSLimits"}]}}})),
            "profiles[0].plugins.filter.enabled[0]: Invalid value: \"EBSLimits\": was invalid in \
             version \"kubescheduler.config.k8s.io/v1\"".into()),
        (profile(json!({"plugins": {"filter": {"enabled": [{"name": "Nope"}]}}})),
            "FilterPlugin \"Nope\" does not exist".into()),
        (profile(json!({"plugins": {"score": {"enabled": [{"name": "NodeName"}]}}})),
            "plugin \"NodeName\" does not extend ScorePlugin plugin".into()),
        (profile(json!({"plugins": {"filter": {"enabled": [{"name": "NodeName"},
            {"name": "NodeName"}]}}})),
            "plugin \"NodeName\" already registered as \"FilterPlugin\"".into()),
        (profile(json!({"plugins": {"multiPoint": {"disabled": [{"name": "DefaultBinder"}]}}})),
            "at least one bind plugin is needed for profile with scheduler name".into()),
        (profile(json!({"plugins": {"multiPoint": {"disabled": [{"name": "PrioritySort"}]}}})),
            "only one queue sort plugin required for profile with scheduler name".into()),
        (profile(json!({"pluginConfig": [{"name": "NodeResourcesFit"},
            {"name": "NodeResourcesFit"}]})),
            "profiles[0].pluginConfig[1]: Duplicate value: \"NodeResourcesFit\"".into()),
        (args("NodeResourcesFit", json!({"kind": "PodArgs"})),
            "args for plugin NodeResourcesFit were not of type NodeResourcesFitArgs.".into()),
        (args("NodeResourcesFit", json!({"nope": 1})), "unknown field `nope`".into()),
        (args("DefaultPreemption", json!({"minCandidateNodesPercentage": 101})),
            format!("{path}.minCandidateNodesPercentage: Invalid value: 101: not in valid range \
                [0, 100]")),
        (args("DefaultPreemption", json!({"minCandidateNodesPercentage": 0,
            "minCandidateNodesAbsolute": 0})),
            format!("{path}.minCandidateNodesPercentage: Invalid value: 0: cannot be zero at the \
                same time as minCandidateNodesAbsolute")),
        (args("InterPodAffinity", json!({"hardPodAffinityWeight": 101})),
            format!("{path}.hardPodAffinityWeight: Invalid value: 101: not in valid range [0, 100]")),
        (args("NodeResourcesBalancedAllocation", json!({"resources": [{"name": "cpu", "weight": 2}]})),
            format!("{path}.resources[0].weight: Invalid value: 2: must be 1")),
        (args("NodeResourcesFit", json!({"ignoredResourceGroups": ["a/b"]})),
            format!("{path}.ignoredResourceGroups[0]: Invalid value: \"a/b\": resource group name \
                can't contain '/'")),
        (args("NodeResourcesFit", json!({"scoringStrategy": {"type": "Best"}})),
            format!("{path}.scoringStrategy.type: Unsupported value: \"Best\": supported values: \
                \"LeastAllocated\", \"MostAllocated\", \"RequestedToCapacityRatio\"")),
        (args("NodeResourcesFit", json!({"scoringStrategy": {"resources": [
            {"name": "cpu", "weight": 101}]}})),
            format!("{path}.scoringStrategy.resources[0].weight: Invalid value: 101: resource \
                weight of cpu not in valid range (0, 100]")),
        (shape(json!([])), "shape: Required value: at least one point must be specified".into()),
        (shape(json!([{"utilization": 9, "score": 1}, {"utilization": 9, "score": 1}])),
            "shape[1].utilization: Invalid value: 9: values must be sorted in increasing order".into()),
        (shape(json!([{"utilization": 101, "score": 11}])),
            "shape[0].score: Invalid value: 11: not in valid range [0, 10]".into()),
        (args("PodTopologySpread", json!({"defaultConstraints": [{"maxSkew": 1,
            "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}]})),
            format!("{path}.defaultingType: Invalid value: \"System\": when .defaultConstraints \
                are not empty")),
        (args("PodTopologySpread", json!({"defaultingType": "List", "defaultConstraints": [
            {"maxSkew": 0, "topologyKey": "", "whenUnsatisfiable": "Maybe",
                "labelSelector": {}}]})),
            format!("{path}.defaultConstraints[0].maxSkew: Invalid value: 0: not in valid range \
                (0, inf), {path}.defaultConstraints[0].topologyKey: Required value: can not be \
                empty, {path}.defaultConstraints[0].whenUnsatisfiable: Unsupported value: \
                \"Maybe\": supported values: \"DoNotSchedule\", \"ScheduleAnyway\", \
                {path}.defaultConstraints[0].labelSelector: Forbidden: constraint must not define \
                a selector, as they deduced for each pod")),
        (args("DynamicResources", json!({"filterTimeout": "-1s"})),
            format!("{path}.filterTimeout: Invalid value: \"-1s\": must be zero or positive")),
        (args("DynamicResources", json!({"bindingTimeout": "10ms"})),
            format!("{path}.bindingTimeout: Invalid value: \"10ms\": must be at least 1 second")),
        (args("VolumeBinding", json!({"bindTimeoutSeconds": -1})),
            format!("{path}.bindTimeoutSeconds: Invalid value: -1: invalid BindTimeoutSeconds, \
                should not be a negative value")),
        (json!({"extenders": [{"prioritizeVerb": "p"}]}), "extenders[0].weight: Invalid value: 0: \
            must have a positive weight applied to it".into()),
        (json!({"extenders": [{"bindVerb": "a"}, {"bindVerb": "b"}]}), "extenders: Invalid value: \
            \"found 2 extenders implementing bind\": only one extender can implement bind".into()),
        (json!({"extenders": [{"managedResources": [{"name": "cpu"}]}]}),
            "extenders[0].managedResources[0].name: Invalid value: \"cpu\": is an invalid extended \
             resource name".into()),
    ];
    for (config, words) in cases {
        let told = load(config.clone()).expect_err(&config.to_string());
        assert!(told.contains(&words), "{config}:\n{told}\nlacks\n{words}");
    }
}
