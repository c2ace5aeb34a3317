//! LimitRanger: defaults and bounds of what containers, pods and claims may ask for.

use api::quantity::Quantity;
use serde_json::{Map, Value, json};
use validation::{items, items_mut, text};

/// Tells in a pod what was filled in.
const ANNOTATION: &str = "kubernetes.io/limit-ranger";

/// Fills a pod's resources in from the defaults of the namespace's limit ranges.
pub fn default_pod(pod: &mut Value, ranges: &[Value]) {
    let mut said = Vec::new();
    for range in ranges {
        let mut limits = Map::new();
        let mut requests = Map::new();
        for limit in items(&range["spec"], "limits").filter(|l| l["type"] == "Container") {
            limits.extend(limit["default"].as_object().cloned().unwrap_or_default());
            requests.extend(limit["defaultRequest"].as_object().cloned().unwrap_or_default());
        }
        let mut range_said = Vec::new();
        for (list, word) in [("containers", "container"), ("initContainers", "init container")] {
            for container in items_mut(&mut pod["spec"], list) {
                let name = text(&container["name"]).to_owned();
                for (key, values) in [("requests", &requests), ("limits", &limits)] {
                    let set = fill(&mut container["resources"], key, values);
                    if !set.is_empty() {
                        let what = key.trim_end_matches('s');
                        range_said.push(format!("{} {what} for {word} {name}", set.join(", ")));
                    }
                }
            }
        }
        if !range_said.is_empty() {
            said = range_said;
        }
    }
    if !said.is_empty() {
        let text = format!("LimitRanger plugin set: {}", said.join("; "));
        pod["metadata"]["annotations"][ANNOTATION] = text.into();
    }
}

/// Sets what is absent; the names of what was set.
fn fill(resources: &mut Value, key: &str, values: &Map<String, Value>) -> Vec<String> {
    let mut set = Vec::new();
    for (name, value) in values {
        if !resources.is_object() {
            *resources = json!({});
        }
        if resources[key][name].is_null() {
            resources[key][name] = value.clone();
            set.push(name.clone());
        }
    }
    // Looking may have left a null behind.
    if let Some(map) = resources.as_object_mut().filter(|map| map.get(key) == Some(&Value::Null)) {
        map.remove(key);
    }
    set
}

/// Why a pod may not be; none when it may.
pub fn check_pod(pod: &Value, ranges: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    for limit in ranges.iter().flat_map(|range| items(&range["spec"], "limits")) {
        match text(&limit["type"]) {
            "Container" => {
                for list in ["containers", "initContainers"] {
                    for container in items(&pod["spec"], list) {
                        let resources = &container["resources"];
                        check(limit, &resources["requests"], &resources["limits"], &mut faults);
                    }
                }
            }
            "Pod" => {
                let of = |key: &str| pod_total(&pod["spec"], key);
                check(limit, &of("requests"), &of("limits"), &mut faults);
            }
            _ => {}
        }
    }
    faults
}

/// Why a claim may not be: only its requests count.
pub fn check_claim(claim: &Value, ranges: &[Value]) -> Vec<String> {
    let mut faults = Vec::new();
    let requests = &claim["spec"]["resources"]["requests"];
    let limits = ranges.iter().flat_map(|range| items(&range["spec"], "limits"));
    for limit in limits.filter(|l| l["type"] == "PersistentVolumeClaim") {
        each(&limit["min"], |name, bound| at_least(limit, name, bound, requests, &Value::Null))
            .for_each(|fault| faults.push(fault));
        each(&limit["max"], |name, bound| {
            let kind = text(&limit["type"]);
            match amount(&requests[name]) {
                None => Some(format!(
                    "maximum {name} usage per {kind} is {bound}.  No request is specified"
                )),
                Some(asked) if asked > bound => Some(format!(
                    "maximum {name} usage per {kind} is {bound}, but request is {asked}"
                )),
                Some(_) => None,
            }
        })
        .for_each(|fault| faults.push(fault));
    }
    faults
}

fn amount(value: &Value) -> Option<Quantity> {
    Quantity::parse(value.as_str()?).ok()
}

fn as_f64(amount: Quantity) -> f64 {
    amount.milli_value() as f64 / 1000.0
}

/// The faults that a rule finds with each bound of a list.
fn each<'a>(
    bounds: &'a Value,
    rule: impl Fn(&str, Quantity) -> Option<String> + 'a,
) -> impl Iterator<Item = String> + 'a {
    let all = bounds.as_object().into_iter().flatten();
    all.filter_map(move |(name, bound)| rule(name, amount(bound)?))
}

fn check(limit: &Value, requests: &Value, limits: &Value, faults: &mut Vec<String>) {
    faults.extend(each(&limit["min"], |n, b| at_least(limit, n, b, requests, limits)));
    faults.extend(each(&limit["max"], |n, b| at_most(limit, n, b, requests, limits)));
    faults
        .extend(each(&limit["maxLimitRequestRatio"], |n, b| ratio(limit, n, b, requests, limits)));
}

fn at_least(
    limit: &Value,
    name: &str,
    bound: Quantity,
    requests: &Value,
    limits: &Value,
) -> Option<String> {
    let head = format!("minimum {name} usage per {} is {bound}", text(&limit["type"]));
    let Some(asked) = amount(&requests[name]) else {
        return Some(format!("{head}.  No request is specified"));
    };
    if asked < bound {
        return Some(format!("{head}, but request is {asked}"));
    }
    let most = amount(&limits[name]).filter(|most| *most < bound)?;
    Some(format!("{head}, but limit is {most}"))
}

fn at_most(
    limit: &Value,
    name: &str,
    bound: Quantity,
    requests: &Value,
    limits: &Value,
) -> Option<String> {
    let head = format!("maximum {name} usage per {} is {bound}", text(&limit["type"]));
    let Some(most) = amount(&limits[name]) else {
        return Some(format!("{head}.  No limit is specified"));
    };
    if most > bound {
        return Some(format!("{head}, but limit is {most}"));
    }
    let asked = amount(&requests[name]).filter(|asked| *asked > bound)?;
    Some(format!("{head}, but request is {asked}"))
}

fn ratio(
    limit: &Value,
    name: &str,
    bound: Quantity,
    requests: &Value,
    limits: &Value,
) -> Option<String> {
    let head = format!("{name} max limit to request ratio per {} is {bound}", text(&limit["type"]));
    let asked = amount(&requests[name]).filter(|asked| !asked.is_zero());
    let Some(asked) = asked else {
        return Some(format!("{head}, but no request is specified or request is 0"));
    };
    let Some(most) = amount(&limits[name]).filter(|most| !most.is_zero()) else {
        return Some(format!("{head}, but no limit is specified or limit is 0"));
    };
    let found = as_f64(most) / as_f64(asked);
    (found > as_f64(bound)).then(|| format!("{head}, but provided ratio is {found:.6}"))
}

/// What a pod asks for as a whole: its containers together, or its largest init container if that
/// is more; sidecars count with both (component-helpers `PodRequests`).
pub fn pod_total(spec: &Value, key: &str) -> Value {
    let mut total: Amounts = Amounts::default();
    items(spec, "containers").for_each(|c| total.add(&c["resources"][key]));
    let (mut sidecars, mut largest) = (Amounts::default(), Amounts::default());
    for container in items(spec, "initContainers") {
        let own = &container["resources"][key];
        if container["restartPolicy"] == "Always" {
            total.add(own);
            sidecars.add(own);
            largest.at_least(&sidecars);
        } else {
            let mut during = sidecars.clone();
            during.add(own);
            largest.at_least(&during);
        }
    }
    total.at_least(&largest);
    // Amounts for the pod as a whole replace the sums.
    for (name, value) in spec["resources"][key].as_object().into_iter().flatten() {
        total.0.extend(amount(value).map(|amount| (name.clone(), amount)));
    }
    let texts = total.0.into_iter().map(|(name, amount)| (name, amount.to_string().into()));
    Value::Object(texts.collect())
}

/// Amounts by resource.
#[derive(Debug, Clone, Default)]
struct Amounts(std::collections::BTreeMap<String, Quantity>);

impl Amounts {
    fn add(&mut self, list: &Value) {
        for (name, value) in list.as_object().into_iter().flatten() {
            let Some(more) = amount(value) else { continue };
            let sum = self.0.get(name).map_or(more, |have| *have + more);
            self.0.insert(name.clone(), sum);
        }
    }

    fn at_least(&mut self, other: &Amounts) {
        for (name, theirs) in &other.0 {
            let ours = self.0.entry(name.clone()).or_insert(*theirs);
            if *ours < *theirs {
                *ours = *theirs;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(limit: Value) -> Vec<Value> {
        vec![json!({"spec": {"limits": [limit]}})]
    }

    #[test]
    fn defaults_are_filled_in_and_told() {
        let ranges = range(
            json!({"type": "Container", "default": {"cpu": "1"}, "defaultRequest": {"cpu": "500m", "memory": "1Gi"}}),
        );
        let mut pod = json!({"metadata": {}, "spec": {"containers": [{"name": "c", "resources": {"requests": {"cpu": "2"}}}]}});
        default_pod(&mut pod, &ranges);
        let want = json!({"requests": {"cpu": "2", "memory": "1Gi"}, "limits": {"cpu": "1"}});
        assert_eq!(pod["spec"]["containers"][0]["resources"], want);
        let said =
            "LimitRanger plugin set: memory request for container c; cpu limit for container c";
        assert_eq!(pod["metadata"]["annotations"][ANNOTATION], said);
    }

    #[test]
    fn bounds_hold_for_containers_pods_and_claims() {
        let pod = json!({"spec": {
            "containers": [{"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "4"}}}, {"resources": {"requests": {"cpu": "1"}, "limits": {"cpu": "1"}}}],
            "initContainers": [{"resources": {"requests": {"cpu": "1"}}, "restartPolicy": "Always"}],
        }});
        let limit = json!({"type": "Pod", "max": {"cpu": "2"}});
        assert_eq!(
            check_pod(&pod, &range(limit)),
            ["maximum cpu usage per Pod is 2, but limit is 5"]
        );
        let limit = json!({"type": "Container", "maxLimitRequestRatio": {"cpu": "2"}});
        let faults = check_pod(&pod, &range(limit));
        assert_eq!(
            faults[0],
            "cpu max limit to request ratio per Container is 2, but provided ratio is 4.000000"
        );
        assert_eq!(pod_total(&pod["spec"], "requests"), json!({"cpu": "3"}));
        let claim = json!({"spec": {"resources": {"requests": {"storage": "1Gi"}}}});
        let limit = json!({"type": "PersistentVolumeClaim", "min": {"storage": "2Gi"}});
        assert_eq!(
            check_claim(&claim, &range(limit)),
            ["minimum storage usage per PersistentVolumeClaim is 2Gi, but request is 1Gi"]
        );
    }
}
