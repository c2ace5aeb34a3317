//! What happens to the volumes of one node.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{AttachedVolume, Node};
use k8s_openapi::api::storage::v1::VolumeAttachment;

use super::volumes::{PLUGIN, Volume, in_use, is_out_of_service, is_ready, reported};
use crate::meta::name;

/// A node that is not healthy and says that a volume is mounted is not believed for longer than this
/// (upstream's `maxWaitForUnmountDuration`).
pub(super) const UNMOUNT_MAX: Duration = Duration::from_secs(360);

/// An attachment that is there.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) attachment: Arc<VolumeAttachment>,
    /// The name that nodes know the volume by; none if the volume is gone.
    pub(super) unique: Option<String>,
}

impl Attached {
    fn name(&self) -> &str {
        name(&self.attachment.metadata)
    }

    fn is_done(&self) -> bool {
        self.attachment.status.as_ref().is_some_and(|status| status.attached)
    }

    fn ends(&self) -> bool {
        self.attachment.metadata.deletion_timestamp.is_some()
    }

    fn trouble(&self) -> Option<&str> {
        self.attachment.status.as_ref()?.attach_error.as_ref()?.message.as_deref()
    }
}

/// The node and its volumes.
pub(super) struct Situation<'a> {
    /// None when it is gone.
    pub(super) node: Option<&'a Node>,
    /// By attachment.
    pub(super) wanted: BTreeMap<String, Volume>,
    pub(super) existing: Vec<Attached>,
    pub(super) unused_for: &'a dyn Fn(&str) -> Duration,
    /// Other nodes that have the volume.
    pub(super) elsewhere: &'a dyn Fn(&Volume) -> Vec<String>,
}

/// An attachment to delete.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Detach {
    pub(super) attachment: String,
    /// The volume, if the node must not have it mounted.
    pub(super) unless_mounted: Option<String>,
}

/// What to do, in this order.
#[derive(Debug, Default)]
pub(super) struct Plan {
    /// The node's `volumesAttached`, if it is to change: a volume is taken from there before it is detached.
    pub(super) report: Option<Vec<AttachedVolume>>,
    pub(super) detach: Vec<Detach>,
    pub(super) attach: Vec<Volume>,
    /// Volumes that other nodes have.
    pub(super) blocked: Vec<(Volume, Vec<String>)>,
    /// Volumes that are attached now.
    pub(super) succeeded: Vec<Volume>,
    /// Volumes whose driver could not attach them, and why.
    pub(super) failed: Vec<(Volume, String)>,
    /// Attachments that are used.
    pub(super) used: Vec<String>,
    /// When to look again, whatever happens.
    pub(super) after: Option<Duration>,
}

pub(super) fn plan(situation: Situation<'_>) -> Plan {
    let mut plan = Plan::default();
    let mut report: Vec<AttachedVolume> = Vec::new();
    for attached in &situation.existing {
        let keeps = match situation.wanted.get(attached.name()) {
            Some(volume) => {
                plan.used.push(attached.name().to_owned());
                plan.look_at(volume, attached, situation.node);
                attached.is_done() && !attached.ends()
            }
            None => plan.give_up(attached, &situation) && attached.is_done(),
        };
        if let (true, Some(unique)) = (keeps, &attached.unique) {
            report.push(AttachedVolume { name: unique.clone(), device_path: String::new() });
        }
    }
    let known = |attachment: &String| situation.existing.iter().any(|a| a.name() == attachment);
    for (attachment, volume) in &situation.wanted {
        if known(attachment) {
            continue;
        }
        let others = (situation.elsewhere)(volume);
        match volume.is_shared || others.is_empty() {
            true => plan.attach.push(volume.clone()),
            false => plan.blocked.push((volume.clone(), others)),
        }
    }
    plan.report = situation.node.and_then(|node| changed(node, report));
    plan
}

impl Plan {
    /// A volume that is needed and has its attachment.
    fn look_at(&mut self, volume: &Volume, attached: &Attached, node: Option<&Node>) {
        let told = node.is_some_and(|node| {
            reported(node).iter().any(|entry| Some(&entry.name) == attached.unique.as_ref())
        });
        match attached.trouble() {
            _ if attached.is_done() && !told => self.succeeded.push(volume.clone()),
            Some(why) if !attached.is_done() => self.failed.push((volume.clone(), why.to_owned())),
            _ => {}
        }
    }

    /// A volume that nobody needs; whether it stays for now, because it is still mounted.
    fn give_up(&mut self, attached: &Attached, situation: &Situation<'_>) -> bool {
        if attached.ends() {
            return false;
        }
        let waited = (situation.unused_for)(attached.name());
        let mounted = situation.node.is_none_or(|node| {
            in_use(node).iter().any(|unique| Some(unique) == attached.unique.as_ref())
        });
        let lost = situation.node.is_some_and(is_out_of_service)
            || waited >= UNMOUNT_MAX && !situation.node.is_some_and(is_ready);
        if mounted && !lost {
            // A node that is healthy says when it has unmounted the volume.
            let left = UNMOUNT_MAX.saturating_sub(waited);
            if !left.is_zero() {
                self.after = self.after.into_iter().chain([left]).min();
            }
            return true;
        }
        let unless_mounted = attached.unique.clone().filter(|_| !lost);
        self.detach.push(Detach { attachment: attached.name().to_owned(), unless_mounted });
        false
    }
}

/// The list with the entries of other plugins; none if the node has it so.
fn changed(node: &Node, mut ours: Vec<AttachedVolume>) -> Option<Vec<AttachedVolume>> {
    let present = reported(node);
    let others = present.iter().filter(|entry| !entry.name.starts_with(PLUGIN)).cloned();
    let mut all: Vec<AttachedVolume> = others.collect();
    ours.sort_by(|a, b| a.name.cmp(&b.name));
    all.extend(ours);
    let names = |list: &[AttachedVolume]| {
        let mut names: Vec<String> = list.iter().map(|entry| entry.name.clone()).collect();
        names.sort();
        names
    };
    (names(&all) != names(present)).then_some(all)
}
