//! The pods of a Job.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, EnvVar, EnvVarSource, ObjectFieldSelector, Pod};

use super::FINALIZER;
use super::backoff::{FAILURES, IGNORED_FAILURES, counted};
use super::facts::spec;
use super::indexes::COMPLETION_INDEX;
use super::policy::judge;
use crate::meta::{managed_by, name, namespace};
use crate::pods::from_template;

/// The environment variable with the pod's index.
const INDEX_VARIABLE: &str = "JOB_COMPLETION_INDEX";
/// Longest prefix of a generated name.
const PREFIX_MAX: usize = 63 - 5;

/// A pod of the Job: of `index` if the Job is indexed, in place of `failed`.
pub(crate) fn create(job: &Job, index: Option<i32>, failed: Option<&Pod>) -> Pod {
    let (space, own) = (namespace(&job.metadata), name(&job.metadata));
    let mut pod = from_template(&spec(job).template, space, own, managed_by(job));
    let finalizers = pod.metadata.finalizers.get_or_insert_default();
    if !finalizers.iter().any(|f| f == FINALIZER) {
        finalizers.push(FINALIZER.into());
    }
    let Some(index) = index else { return pod };
    let text = index.to_string();
    pod.metadata.generate_name = Some(prefix(own, index));
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(COMPLETION_INDEX.into(), text.clone());
    if spec(job).backoff_limit_per_index.is_some() {
        let (failures, ignored) = failures_so_far(job, failed);
        annotations.insert(FAILURES.into(), failures.to_string());
        if ignored > 0 {
            annotations.insert(IGNORED_FAILURES.into(), ignored.to_string());
        }
    }
    pod.metadata.labels.get_or_insert_default().insert(COMPLETION_INDEX.into(), text);
    if let Some(spec) = &mut pod.spec {
        spec.hostname = Some(format!("{own}-{index}"));
        let init = spec.init_containers.iter_mut().flatten();
        init.chain(&mut spec.containers).for_each(add_variable);
    }
    pod
}

fn prefix(job: &str, index: i32) -> String {
    let suffix = format!("-{index}-");
    let room = PREFIX_MAX.saturating_sub(suffix.len());
    format!("{}{suffix}", &job[..job.len().min(room)])
}

fn add_variable(container: &mut Container) {
    let env = container.env.get_or_insert_default();
    if env.iter().any(|variable| variable.name == INDEX_VARIABLE) {
        return;
    }
    let field = ObjectFieldSelector {
        field_path: format!("metadata.labels['{COMPLETION_INDEX}']"),
        ..ObjectFieldSelector::default()
    };
    let value_from = EnvVarSource { field_ref: Some(field), ..EnvVarSource::default() };
    env.push(EnvVar { name: INDEX_VARIABLE.into(), value: None, value_from: Some(value_from) });
}

fn failures_so_far(job: &Job, failed: Option<&Pod>) -> (i32, i32) {
    let Some(pod) = failed else { return (0, 0) };
    let ignored = judge(job, pod).ignored;
    let (failures, ignored_failures) = (counted(pod, FAILURES), counted(pod, IGNORED_FAILURES));
    match ignored {
        true => (failures, ignored_failures.saturating_add(1)),
        false => (failures.saturating_add(1), ignored_failures),
    }
}
