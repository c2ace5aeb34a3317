//! `emptyDir`: a directory that lives as long as the pod.

use std::collections::BTreeSet;

use async_trait::async_trait;
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use crate::kubelet::Shared;
use crate::spec::{quantity, resources, spec_of, uid_of};
use crate::volumes::mounter::NewMount;
use crate::volumes::plugin::{Failed, Ready, SetUp, VolumePlugin};
use crate::volumes::spec::Spec;
use crate::volumes::{Place, escaped, volume_dir};

pub(crate) struct EmptyDir;

#[async_trait]
impl VolumePlugin for EmptyDir {
    fn name(&self) -> &'static str {
        "kubernetes.io/empty-dir"
    }

    fn supports(&self, spec: &Spec) -> bool {
        spec.volume.empty_dir.is_some()
    }

    async fn set_up(&self, of: &SetUp<'_>) -> Result<Ready, Failed> {
        let medium = of.spec.volume.empty_dir.as_ref().and_then(|e| e.medium.as_deref());
        let memory = match medium.unwrap_or("") {
            "" => None,
            "Memory" => Some(memory_size(of.shared, of.pod, of.spec)),
            "HugePages" => return huge_pages(of, self.name(), None).await,
            other => match other.strip_prefix("HugePages-") {
                Some(size) => return huge_pages(of, self.name(), Some(size)).await,
                None => return Err(format!("unknown storage medium {other:?}").into()),
            },
        };
        let place = Place::new(of, self.name(), memory);
        Ok(Ready::at(place.make_off_thread(None).await?))
    }
}

/// A file system of huge pages on the directory.
async fn huge_pages(
    of: &SetUp<'_>,
    plugin: &'static str,
    size: Option<&str>,
) -> Result<Ready, Failed> {
    let size = page_size(of.pod, size)?;
    let (root, name) = (&of.shared.config.root_dir, of.spec.name());
    let target = volume_dir(root, uid_of(of.pod), &escaped(plugin), name);
    let mounter = of.shared.volumes.mounter();
    let failed = |e: std::io::Error| format!("{}: {e}", target.display());
    if mounter.is_mount_point(&target).map_err(failed)? {
        return Ok(Ready::at(target));
    }
    Place::new(of, plugin, None).make_off_thread(None).await?;
    let group = of.group.map(|g| format!(",gid={g}")).unwrap_or_default();
    let mode = if of.group.is_some() { "2777" } else { "777" };
    let data = format!("pagesize={size},mode={mode}{group}");
    let new = NewMount {
        source: "nodev",
        target: &target,
        kind: "hugetlbfs",
        read_only: false,
        data: &data,
    };
    mounter.mount(&new).map_err(failed)?;
    Ok(Ready::at(target))
}

/// The size of the pages that the pod asks for: the medium's, or the only one.
fn page_size(pod: &Pod, medium: Option<&str>) -> Result<String, String> {
    let spec = spec_of(pod);
    let own = spec.resources.iter().flat_map(|r| &r.requests);
    let containers = spec.containers.iter().chain(spec.init_containers.iter().flatten());
    let all = own.chain(containers.flat_map(|c| &c.resources).flat_map(|r| &r.requests));
    let sizes: BTreeSet<&str> =
        all.flatten().filter_map(|(name, _)| name.strip_prefix("hugepages-")).collect();
    let bytes = |text: &str| quantity::units(&Quantity(text.to_owned()));
    let shown = medium.map_or("HugePages".to_owned(), |size| format!("HugePages-{size}"));
    let found = match medium {
        Some(wanted) => sizes.iter().find(|size| bytes(size) == bytes(wanted)),
        None if sizes.len() > 1 => {
            return Err(format!(
                "medium: {shown} can't be used if container requests multiple huge page sizes"
            ));
        }
        None => sizes.first(),
    };
    found.map(|size| (*size).to_owned()).ok_or_else(|| {
        format!("medium {shown}: hugePages storage requested, but there is no resource request for huge pages")
    })
}

/// Most bytes of a volume in memory: its own limit, the pod's, or all that pods may use.
fn memory_size(shared: &Shared, pod: &Pod, spec: &Spec) -> Option<u64> {
    let own = spec.volume.empty_dir.as_ref().and_then(|e| e.size_limit.as_ref());
    let own = own.and_then(quantity::units).and_then(|n| i64::try_from(n).ok());
    let limits = [
        own,
        Some(resources::pod_resources(pod).memory_limit_in_bytes),
        Some(shared.node_resources().allocatable_memory_bytes),
    ];
    let least = limits.into_iter().flatten().filter(|n| *n > 0).min();
    least.and_then(|n| u64::try_from(n).ok())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_medium_of_huge_pages_needs_a_request_for_them() {
        let pod = |requests: serde_json::Value| -> Pod {
            let container = json!({"name": "c", "resources": {"requests": requests}});
            serde_json::from_value(json!({"metadata": {}, "spec": {"containers": [container]}}))
                .unwrap()
        };
        let small = pod(json!({"hugepages-2Mi": "4Mi"}));
        assert_eq!(page_size(&small, None), Ok("2Mi".into()));
        assert_eq!(page_size(&small, Some("2048Ki")), Ok("2Mi".into()));
        assert_eq!(
            page_size(&small, Some("1Gi")).unwrap_err(),
            "medium HugePages-1Gi: hugePages storage requested, but there is no resource request for huge pages"
        );
        let both = pod(json!({"hugepages-2Mi": "4Mi", "hugepages-1Gi": "1Gi"}));
        assert_eq!(
            page_size(&both, None).unwrap_err(),
            "medium: HugePages can't be used if container requests multiple huge page sizes"
        );
        assert!(page_size(&pod(json!({"cpu": "1"})), None).is_err());
    }
}
