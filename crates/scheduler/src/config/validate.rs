//! What upstream refuses in a configuration, in its words.

use k8s_openapi::api::core::v1::TopologySpreadConstraint;
use serde_json::Value;

use super::args::{Args, PluginArgs, ResourceSpec, ShapePoint};
use super::{File, ProfileFile};
use crate::extender::ExtenderConfig;
use crate::plugins::names;

/// Plugins that were there before this version.
const REMOVED: [&str; 4] = ["AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits"];
/// The best score of a shape.
const SHAPE_SCORE_MAX: i64 = 10;

/// Collects faults as field errors.
#[derive(Default)]
struct Faults(Vec<String>);

impl Faults {
    fn invalid(&mut self, path: &str, value: impl Into<Value>, why: &str) {
        self.0.push(format!("{path}: Invalid value: {}: {why}", value.into()));
    }

    fn required(&mut self, path: &str, why: &str) {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        self.0.push(format!("{path}: Required value{why}"));
    }

    fn duplicate(&mut self, path: &str, value: impl Into<Value>) {
        self.0.push(format!("{path}: Duplicate value: {}", value.into()));
    }

    fn forbidden(&mut self, path: &str, why: &str) {
        self.0.push(format!("{path}: Forbidden: {why}"));
    }

    fn unsupported(&mut self, path: &str, value: &str, known: &[&str]) {
        let known: Vec<String> = known.iter().map(|k| format!("\"{k}\"")).collect();
        self.0.push(format!(
            "{path}: Unsupported value: \"{value}\": supported values: {}",
            known.join(", ")
        ));
    }

    fn range(&mut self, path: &str, value: i64, range: (i64, i64)) {
        if value < range.0 || value > range.1 {
            self.invalid(path, value, &format!("not in valid range [{}, {}]", range.0, range.1));
        }
    }
}

pub(super) fn file(file: &File) -> Vec<String> {
    let mut faults = Faults::default();
    if file.client_connection.burst < 0 {
        let burst = file.client_connection.burst;
        faults.invalid("clientConnection.burst", burst, "must be non-negative");
    }
    leader_election(file, &mut faults);
    if file.parallelism.is_some_and(|p| p <= 0) {
        let why = "should be an integer value greater than zero";
        faults.invalid("parallelism", file.parallelism.unwrap_or(0), why);
    }
    for (i, profile) in file.profiles.iter().enumerate() {
        let path = format!("profiles[{i}]");
        self::profile(profile, &path, &mut faults);
        let same = |p: &ProfileFile| p.scheduler_name == profile.scheduler_name;
        if let Some(first) = file.profiles[..i].iter().position(same) {
            let value = format!("profiles[{first}].schedulerName");
            faults.duplicate(&format!("{path}.schedulerName"), value);
        }
    }
    queue_sort(&file.profiles, &mut faults);
    percentage("percentageOfNodesToScore", file.percentage_of_nodes_to_score, &mut faults);
    let initial = file.pod_initial_backoff_seconds.unwrap_or(1);
    if initial <= 0 {
        faults.invalid("podInitialBackoffSeconds", initial, "must be greater than 0");
    }
    let most = file.pod_max_backoff_seconds.unwrap_or(10);
    if most < initial {
        let why = "must be greater than or equal to PodInitialBackoffSeconds";
        faults.invalid("podMaxBackoffSeconds", most, why);
    }
    extenders(&file.extenders, &mut faults);
    faults.0
}

fn leader_election(file: &File, faults: &mut Faults) {
    let election = &file.leader_election;
    if election.leader_elect == Some(false) {
        return;
    }
    let seconds =
        |d: Option<std::time::Duration>, or: u64| d.map_or(or as f64, |d| d.as_secs_f64());
    let (lease, renew, retry) = (
        seconds(election.lease_duration, 15),
        seconds(election.renew_deadline, 10),
        seconds(election.retry_period, 2),
    );
    for (name, value) in
        [("leaseDuration", lease), ("renewDeadline", renew), ("retryPeriod", retry)]
    {
        if value <= 0.0 {
            let path = format!("leaderElection.{name}");
            faults.invalid(&path, format!("{value}s"), "must be greater than zero");
        }
    }
    if lease <= renew {
        let why = "must be greater than `RenewDeadline`";
        faults.invalid("leaderElection.leaseDuration", format!("{renew}s"), why);
    }
    if let Some(lock) = election.resource_lock.as_ref().filter(|l| *l != "leases") {
        let why = "resourceLock value must be \"leases\"";
        faults.invalid("leaderElection.resourceLock", lock.as_str(), why);
    }
    // The lease of a scheduler is upstream's; another would let two schedulers work at once.
    for (name, value, only) in [
        ("resourceName", &election.resource_name, "kube-scheduler"),
        ("resourceNamespace", &election.resource_namespace, "kube-system"),
    ] {
        if let Some(value) = value.as_ref().filter(|v| *v != only) {
            let path = format!("leaderElection.{name}");
            faults.invalid(
                &path,
                value.as_str(),
                &format!("this scheduler supports \"{only}\" only"),
            );
        }
    }
}

fn percentage(path: &str, value: Option<i64>, faults: &mut Faults) {
    if let Some(value) = value.filter(|v| !(0..=100).contains(v)) {
        faults.invalid(path, value, "not in valid range [0-100]");
    }
}

fn profile(profile: &ProfileFile, path: &str, faults: &mut Faults) {
    if profile.scheduler_name.as_ref().is_none_or(String::is_empty) {
        faults.required(&format!("{path}.schedulerName"), "");
    }
    let at = format!("{path}.percentageOfNodesToScore");
    percentage(&at, profile.percentage_of_nodes_to_score, faults);
    if let Some(plugins) = &profile.plugins {
        for (point, _, _, set) in plugins.points() {
            for (i, plugin) in set.enabled.iter().enumerate() {
                if REMOVED.contains(&plugin.name.as_str()) {
                    let at = format!("{path}.plugins.{point}.enabled[{i}]");
                    faults.invalid(&at, plugin.name.as_str(), &removed());
                }
            }
        }
    }
    for (i, args) in profile.plugin_config.iter().enumerate() {
        let at = format!("{path}.pluginConfig[{i}]");
        if profile.plugin_config[..i].iter().any(|other| other.name == args.name) {
            faults.duplicate(&at, args.name.as_str());
        }
        if REMOVED.contains(&args.name.as_str()) {
            faults.invalid(&at, args.name.as_str(), &removed());
        } else {
            plugin_args(args, &format!("{at}.args"), faults);
        }
    }
}

fn removed() -> String {
    let version = super::API_VERSION;
    format!(
        "was invalid in version \"{version}\" (KubeSchedulerConfiguration is version \"{version}\")"
    )
}

fn queue_sort(profiles: &[ProfileFile], faults: &mut Faults) {
    let sort =
        |p: &ProfileFile| p.plugins.as_ref().map(|p| p.queue_sort.clone()).unwrap_or_default();
    let first = profiles.first().map(sort).unwrap_or_default();
    if first.enabled.len() > 1 {
        let count = i64::try_from(first.enabled.len()).unwrap_or(i64::MAX);
        let path = "profiles[0].plugins.queueSort.Enabled";
        faults.invalid(path, count, "only one queue sort plugin can be enabled");
    }
    for (i, profile) in profiles.iter().enumerate().skip(1) {
        if sort(profile) != first {
            let names: Vec<String> = sort(profile).enabled.into_iter().map(|p| p.name).collect();
            let path = format!("profiles[{i}].plugins.queueSort");
            faults.invalid(&path, names, "must be the same for all profiles");
        }
    }
}

fn plugin_args(args: &Args, path: &str, faults: &mut Faults) {
    let all = match PluginArgs::of(std::slice::from_ref(args)) {
        Ok(all) => all,
        Err(why) => return faults.0.push(why),
    };
    match args.name.as_str() {
        names::DEFAULT_PREEMPTION => preemption(&all, path, faults),
        names::INTER_POD_AFFINITY => {
            let weight = all.inter_pod_affinity.hard_pod_affinity_weight;
            faults.range(&format!("{path}.hardPodAffinityWeight"), weight, (0, 100));
        }
        names::NODE_AFFINITY => node_affinity(&all, path, faults),
        names::NODE_RESOURCES_BALANCED_ALLOCATION => {
            balanced(&all.balanced.resources, path, faults);
        }
        names::NODE_RESOURCES_FIT => fit(&all, path, faults),
        names::POD_TOPOLOGY_SPREAD => spread(&all, path, faults),
        names::DYNAMIC_RESOURCES => dynamic_resources(args, path, faults),
        names::VOLUME_BINDING => {
            let seconds = all.volume_binding.bind_timeout_seconds;
            if seconds < 0 {
                let why = "invalid BindTimeoutSeconds, should not be a negative value";
                faults.invalid(&format!("{path}.bindTimeoutSeconds"), seconds, why);
            }
            if all.volume_binding.shape.is_some() {
                let why = "unexpected field `shape`, remove it or turn on the feature gate \
                           StorageCapacityScoring";
                faults.invalid(&format!("{path}.shape"), args.args["shape"].clone(), why);
            }
        }
        _ => {}
    }
}

fn dynamic_resources(args: &Args, path: &str, faults: &mut Faults) {
    // Decoding has shown that these are durations.
    let of = |field: &str| args.args[field].as_str().and_then(|t| api::duration::parse(t).ok());
    if of("filterTimeout").is_some_and(|d| d.negative) {
        let given = args.args["filterTimeout"].clone();
        faults.invalid(&format!("{path}.filterTimeout"), given, "must be zero or positive");
    }
    let least = std::time::Duration::from_secs(1);
    if of("bindingTimeout").is_some_and(|d| d.negative || d.length < least) {
        let given = args.args["bindingTimeout"].clone();
        faults.invalid(&format!("{path}.bindingTimeout"), given, "must be at least 1 second");
    }
}

fn preemption(all: &PluginArgs, path: &str, faults: &mut Faults) {
    let args = &all.preemption;
    let percentage = format!("{path}.minCandidateNodesPercentage");
    let absolute = format!("{path}.minCandidateNodesAbsolute");
    faults.range(&percentage, args.min_candidate_nodes_percentage, (0, 100));
    if args.min_candidate_nodes_absolute < 0 {
        faults.invalid(&absolute, args.min_candidate_nodes_absolute, "not in valid range [0, inf)");
    }
    if args.min_candidate_nodes_percentage == 0 && args.min_candidate_nodes_absolute == 0 {
        let why = "cannot be zero at the same time as minCandidateNodesAbsolute";
        faults.invalid(&percentage, 0, why);
        let why = "cannot be zero at the same time as minCandidateNodesPercentage";
        faults.invalid(&absolute, 0, why);
    }
}

fn node_affinity(all: &PluginArgs, path: &str, faults: &mut Faults) {
    let Some(affinity) = &all.node_affinity.added_affinity else { return };
    let required = affinity.required_during_scheduling_ignored_during_execution.as_ref();
    let preferred = affinity.preferred_during_scheduling_ignored_during_execution.as_ref();
    let base = format!("{path}.addedAffinity");
    let hard =
        required.into_iter().flat_map(|r| &r.node_selector_terms).enumerate().map(|(i, t)| {
            let at = "requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms";
            (format!("{base}.{at}[{i}]"), t)
        });
    let soft = preferred.into_iter().flatten().enumerate().map(|(i, t)| {
        let at = "preferredDuringSchedulingIgnoredDuringExecution";
        (format!("{base}.{at}[{i}].preference"), &t.preference)
    });
    for (at, term) in hard.chain(soft) {
        let expressions = term.match_expressions.iter().flatten().enumerate();
        let fields = term.match_fields.iter().flatten().enumerate();
        let expressions = expressions.map(|(i, r)| (format!("{at}.matchExpressions[{i}]"), r));
        for (at, r) in expressions.chain(fields.map(|(i, r)| (format!("{at}.matchFields[{i}]"), r)))
        {
            let known = ["In", "NotIn", "Exists", "DoesNotExist", "Gt", "Lt"];
            if !known.contains(&r.operator.as_str()) {
                faults.unsupported(&format!("{at}.operator"), &r.operator, &known);
            }
        }
    }
}

fn balanced(resources: &[ResourceSpec], path: &str, faults: &mut Faults) {
    for (i, resource) in resources.iter().enumerate() {
        let at = format!("{path}.resources[{i}]");
        if resources[..i].iter().any(|other| other.name == resource.name) {
            faults.duplicate(&format!("{at}.name"), resource.name.as_str());
        }
        if resource.weight != 1 {
            faults.invalid(&format!("{at}.weight"), resource.weight, "must be 1");
        }
    }
}

fn fit(all: &PluginArgs, path: &str, faults: &mut Faults) {
    for (i, name) in all.fit.ignored_resources.iter().enumerate() {
        label_name(&format!("{path}.ignoredResources[{i}]"), name, faults);
    }
    for (i, group) in all.fit.ignored_resource_groups.iter().enumerate() {
        let at = format!("{path}.ignoredResourceGroups[{i}]");
        if group.contains('/') {
            faults.invalid(&at, group.as_str(), "resource group name can't contain '/'");
        }
        label_name(&at, group, faults);
    }
    let strategy = &all.fit.scoring_strategy;
    let at = format!("{path}.scoringStrategy");
    let known = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"];
    if !known.contains(&strategy.kind.as_str()) {
        faults.unsupported(&format!("{at}.type"), &strategy.kind, &known);
    }
    for (i, resource) in strategy.resources.iter().enumerate() {
        if !(1..=100).contains(&resource.weight) {
            let why = format!("resource weight of {} not in valid range (0, 100]", resource.name);
            faults.invalid(&format!("{at}.resources[{i}].weight"), resource.weight, &why);
        }
    }
    let ratio = format!("{at}.requestedToCapacityRatio");
    match (&strategy.requested_to_capacity_ratio, strategy.kind.as_str()) {
        (None, "RequestedToCapacityRatio") => {
            faults.required(&ratio, "must be specified when type is RequestedToCapacityRatio");
        }
        (Some(param), "RequestedToCapacityRatio") => {
            shape(&param.shape, &format!("{ratio}.shape"), faults);
        }
        (Some(_), _) => {
            faults.forbidden(&ratio, "must be nil when type is not RequestedToCapacityRatio");
        }
        (None, _) => {}
    }
}

fn shape(points: &[ShapePoint], path: &str, faults: &mut Faults) {
    if points.is_empty() {
        return faults.required(path, "at least one point must be specified");
    }
    for (i, pair) in points.windows(2).enumerate() {
        if pair[0].utilization >= pair[1].utilization {
            let at = format!("{path}[{}].utilization", i + 1);
            let why = "values must be sorted in increasing order";
            faults.invalid(&at, pair[1].utilization, why);
            break;
        }
    }
    for (i, point) in points.iter().enumerate() {
        faults.range(&format!("{path}[{i}].utilization"), point.utilization, (0, 100));
        faults.range(&format!("{path}[{i}].score"), point.score, (0, SHAPE_SCORE_MAX));
    }
}

fn spread(all: &PluginArgs, path: &str, faults: &mut Faults) {
    let args = &all.spread;
    let at = format!("{path}.defaultingType");
    let kind = args.defaulting_type.as_str();
    if !["System", "List"].contains(&kind) {
        faults.unsupported(&at, kind, &["System", "List"]);
    } else if kind == "System" && !args.default_constraints.is_empty() {
        faults.invalid(&at, kind, "when .defaultConstraints are not empty");
    }
    for (i, constraint) in args.default_constraints.iter().enumerate() {
        let at = format!("{path}.defaultConstraints[{i}]");
        default_constraint(constraint, &at, faults);
        let same = |c: &TopologySpreadConstraint| {
            c.topology_key == constraint.topology_key
                && c.when_unsatisfiable == constraint.when_unsatisfiable
        };
        if args.default_constraints[..i].iter().any(same) {
            let value =
                format!("{{{}, {}}}", constraint.topology_key, constraint.when_unsatisfiable);
            faults.duplicate(&at, value);
        }
    }
}

fn default_constraint(constraint: &TopologySpreadConstraint, at: &str, faults: &mut Faults) {
    if constraint.max_skew <= 0 {
        let why = "not in valid range (0, inf)";
        faults.invalid(&format!("{at}.maxSkew"), constraint.max_skew, why);
    }
    match constraint.topology_key.as_str() {
        "" => faults.required(&format!("{at}.topologyKey"), "can not be empty"),
        key => label_name(&format!("{at}.topologyKey"), key, faults),
    }
    let actions = ["DoNotSchedule", "ScheduleAnyway"];
    match constraint.when_unsatisfiable.as_str() {
        "" => faults.required(&format!("{at}.whenUnsatisfiable"), "can not be empty"),
        action if actions.contains(&action) => {}
        action => faults.unsupported(&format!("{at}.whenUnsatisfiable"), action, &actions),
    }
    if constraint.label_selector.is_some() {
        let why = "constraint must not define a selector, as they deduced for each pod";
        faults.forbidden(&format!("{at}.labelSelector"), why);
    }
}

fn label_name(path: &str, name: &str, faults: &mut Faults) {
    for why in api::names::qualified_name(name) {
        faults.invalid(path, name, &why);
    }
}

fn extenders(all: &[ExtenderConfig], faults: &mut Faults) {
    let mut managed: Vec<&str> = Vec::new();
    for (i, extender) in all.iter().enumerate() {
        let path = format!("extenders[{i}]");
        if !extender.prioritize_verb.is_empty() && extender.weight <= 0 {
            let why = "must have a positive weight applied to it";
            faults.invalid(&format!("{path}.weight"), extender.weight, why);
        }
        for (j, resource) in extender.managed_resources.iter().enumerate() {
            let at = format!("{path}.managedResources[{j}].name");
            let name = resource.name.as_str();
            let faulty = api::names::qualified_name(name);
            if !faulty.is_empty() {
                label_name(&at, name, faults);
            } else if !is_extended(name) {
                faults.invalid(&at, name, "is an invalid extended resource name");
            }
            if managed.contains(&name) {
                faults.invalid(&at, name, "duplicate extender managed resource name");
            }
            managed.push(name);
        }
    }
    let binders = all.iter().filter(|e| !e.bind_verb.is_empty()).count();
    if binders > 1 {
        let found = format!("found {binders} extenders implementing bind");
        faults.invalid("extenders", found, "only one extender can implement bind");
    }
}

/// A name of a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    let native = !name.contains('/') || name.contains("kubernetes.io/");
    !native
        && !name.starts_with("requests.")
        && api::names::qualified_name(&format!("requests.{name}")).is_empty()
}
