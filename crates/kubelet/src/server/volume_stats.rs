//! How full the volumes of drivers are: in `/stats/summary`, and as metrics by claim.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::text::Family;
use crate::kubelet::Shared;
use crate::spec::{namespace_of, uid_of};
use crate::volumes::csi::{VolumeFigures, figures_of_pod};

/// Time for all drivers of the node. One that does not answer costs its figures, not the page.
const WAIT: Duration = Duration::from_secs(5);

/// By the pods' uids.
pub(super) async fn of_pods(
    shared: &Shared,
    pods: impl IntoIterator<Item = &Arc<Pod>>,
) -> HashMap<String, Vec<VolumeFigures>> {
    let asked = pods.into_iter().map(|pod| async move {
        let figures = tokio::time::timeout(WAIT, figures_of_pod(shared, pod)).await;
        (uid_of(pod).to_owned(), figures.unwrap_or_default())
    });
    futures::future::join_all(asked).await.into_iter().collect()
}

/// One volume as `/stats/summary` shows it.
pub(super) fn shown(figures: &VolumeFigures, namespace: &str, now: &Value) -> Value {
    let mut out = json!({"time": now, "name": figures.volume});
    if let Some(claim) = &figures.claim {
        out["pvcRef"] = json!({"name": claim, "namespace": namespace});
    }
    let fields = [
        ("capacityBytes", figures.capacity),
        ("usedBytes", figures.used),
        ("availableBytes", figures.available),
        ("inodes", figures.inodes),
        ("inodesUsed", figures.inodes_used),
        ("inodesFree", figures.inodes_free),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            out[name] = json!(value);
        }
    }
    if let Some(abnormal) = figures.abnormal {
        out["volumeHealthStats"] = json!({"abnormal": abnormal});
    }
    out
}

/// `kubelet_volume_stats_*`.
pub(super) async fn metrics(shared: &Shared) -> String {
    let pods = shared.pods.list();
    let figures = of_pods(shared, &pods).await;
    let by_pod = pods.iter().flat_map(|pod| {
        let own = figures.get(uid_of(pod)).into_iter().flatten();
        own.filter_map(move |f| Some((namespace_of(pod).to_owned(), f.claim.clone()?, f)))
    });
    // A claim that several pods have is told once.
    let claims: std::collections::BTreeMap<_, _> = by_pod.map(|(n, c, f)| ((n, c), f)).collect();
    type Get = fn(&VolumeFigures) -> Option<u64>;
    let families: [(&'static str, &str, Get); 7] = [
        ("kubelet_volume_stats_capacity_bytes", "Capacity in bytes of the volume", |f| f.capacity),
        ("kubelet_volume_stats_available_bytes", "Number of available bytes in the volume", |f| {
            f.available
        }),
        ("kubelet_volume_stats_used_bytes", "Number of used bytes in the volume", |f| f.used),
        ("kubelet_volume_stats_inodes", "Maximum number of inodes in the volume", |f| f.inodes),
        ("kubelet_volume_stats_inodes_free", "Number of free inodes in the volume", |f| {
            f.inodes_free
        }),
        ("kubelet_volume_stats_inodes_used", "Number of used inodes in the volume", |f| {
            f.inodes_used
        }),
        (
            "kubelet_volume_stats_health_status_abnormal",
            "Abnormal volume health status. The count is either 1 or 0. 1 indicates the volume is unhealthy, 0 indicates volume is healthy",
            |f| f.abnormal.map(u64::from),
        ),
    ];
    let mut text = String::new();
    for (name, help, get) in families {
        let mut family = Family::new(name, "gauge", help);
        for ((namespace, claim), figures) in &claims {
            if let Some(value) = get(figures) {
                let labels = [("namespace", namespace.as_str()), ("persistentvolumeclaim", claim)];
                family.put(&labels, value as f64, None);
            }
        }
        text += &family.text();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_driver_tells_is_shown() {
        let figures = VolumeFigures {
            volume: "v".into(),
            claim: Some("data".into()),
            capacity: Some(100),
            used: Some(40),
            ..VolumeFigures::default()
        };
        assert_eq!(
            shown(&figures, "ns", &json!("now")),
            json!({"time": "now", "name": "v", "pvcRef": {"name": "data", "namespace": "ns"},
                "capacityBytes": 100, "usedBytes": 40})
        );
        let ill = VolumeFigures { claim: None, abnormal: Some(true), ..figures };
        let shown = shown(&ill, "ns", &json!("now"));
        assert_eq!(
            (&shown["volumeHealthStats"]["abnormal"], &shown["pvcRef"]),
            (&json!(true), &Value::Null)
        );
    }
}
