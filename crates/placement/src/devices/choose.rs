//! Which devices a container gets: those that init containers before it had, then those near to the NUMA nodes
//! that were chosen for it, then what its plugin prefers.

use super::{Asking, DeviceTable, Names};
use crate::mask::Hint;

/// What the plugin is to be asked before the choice is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    pub available: Names,
    /// Chosen already.
    pub must_include: Names,
    pub size: usize,
    /// The next devices come from here, preferred ones first.
    from: Names,
    /// After those, in this order.
    then: Vec<Names>,
    needed: usize,
}

/// The devices of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// It has them already.
    Nothing,
    /// A plugin that has preferences is asked for them; [`DeviceTable::choose_preferred`] makes the choice.
    Ask(Preference),
    Chosen(Names),
}

/// Takes up to `needed` devices; whether there were enough.
fn take(chosen: &mut Names, needed: &mut usize, from: &Names) -> bool {
    let new: Vec<_> = from.difference(chosen).take(*needed).cloned().collect();
    *needed -= new.len();
    chosen.extend(new);
    *needed == 0
}

/// Available devices: near to the hint's NUMA nodes, near to others, near to none.
struct ByAffinity {
    aligned: Names,
    unaligned: Names,
    elsewhere: Names,
}

impl DeviceTable {
    /// What the container has of the resource already; an error when that is another number.
    fn already(&self, asking: Asking<'_>) -> Result<Option<Names>, String> {
        let Some(devices) = self.given.ids(asking) else { return Ok(None) };
        if devices.len() != asking.count {
            return Err(format!(
                "pod {:?} container {:?} changed request for resource {:?} from {} to {}",
                asking.uid,
                asking.container,
                asking.resource,
                devices.len(),
                asking.count
            ));
        }
        Ok(Some(devices))
    }

    /// Begins to choose. Errors are upstream's words.
    pub fn choose(&mut self, asking: Asking<'_>, affinity: Hint) -> Result<Choice, String> {
        let resource = asking.resource;
        let already = self.already(asking)?;
        let Some(registered) = self.registered.get(resource) else {
            return Err(format!("cannot allocate unregistered device {resource}"));
        };
        if registered.healthy.is_empty() {
            return Err(format!(
                "no healthy devices present; cannot allocate unhealthy devices {resource}"
            ));
        }
        if let Some(devices) = already {
            return match registered.healthy.is_superset(&devices) {
                true => Ok(Choice::Nothing),
                false => Err(format!(
                    "previously allocated devices are no longer healthy; cannot allocate unhealthy devices {resource}"
                )),
            };
        }
        if asking.count == 0 {
            return Ok(Choice::Nothing);
        }
        let (mut chosen, mut needed) = (Names::new(), asking.count);
        if take(&mut chosen, &mut needed, &self.reusable(asking.uid, resource)) {
            return Ok(self.chosen(resource, chosen));
        }
        let in_use = self.allocated.get(resource).cloned().unwrap_or_default();
        let available: Names = registered.healthy.difference(&in_use).cloned().collect();
        if available.len() < needed {
            return Err(format!(
                "requested number of devices unavailable for {resource}. Requested: {needed}, Available: {}",
                available.len()
            ));
        }
        let split = self.by_affinity(resource, &available, affinity);
        Ok(self.ask(asking, chosen, needed, available, split))
    }

    fn ask(
        &mut self,
        asking: Asking<'_>,
        mut chosen: Names,
        mut needed: usize,
        available: Names,
        split: ByAffinity,
    ) -> Choice {
        let size = asking.count;
        let with = |from: &Names, chosen: &Names| from.union(chosen).cloned().collect();
        if needed < split.aligned.len() {
            let (available, from) = (with(&split.aligned, &chosen), split.aligned.clone());
            let then = vec![split.aligned];
            let must_include = chosen;
            return Choice::Ask(Preference { available, must_include, size, from, then, needed });
        }
        // All that are near come first; the plugin has a say in the rest.
        if take(&mut chosen, &mut needed, &split.aligned) {
            return self.chosen(asking.resource, chosen);
        }
        Choice::Ask(Preference {
            available: with(&available, &chosen),
            must_include: chosen,
            size,
            from: available,
            then: vec![split.unaligned, split.elsewhere],
            needed,
        })
    }

    fn chosen(&mut self, resource: &str, chosen: Names) -> Choice {
        self.reserve(resource, &chosen);
        Choice::Chosen(chosen)
    }

    fn reserve(&mut self, resource: &str, chosen: &Names) {
        let all = self.allocated.entry(resource.to_owned()).or_default();
        all.extend(chosen.iter().cloned());
    }

    /// Makes the choice, given what the plugin prefers (nothing, if it has no preferences).
    pub fn choose_preferred(
        &mut self,
        resource: &str,
        asked: Preference,
        preferred: &Names,
    ) -> Result<Names, String> {
        let (mut chosen, mut needed) = (asked.must_include, asked.needed);
        let wanted: Names = preferred.intersection(&asked.from).cloned().collect();
        let enough = std::iter::once(&wanted)
            .chain(&asked.then)
            .any(|from| take(&mut chosen, &mut needed, from));
        if !enough {
            return Err(format!(
                "unexpectedly allocated less resources than required. Requested: {}, Got: {}",
                asked.size,
                asked.size - needed
            ));
        }
        self.reserve(resource, &chosen);
        Ok(chosen)
    }

    fn by_affinity(&self, resource: &str, available: &Names, affinity: Hint) -> ByAffinity {
        let Some(mask) = affinity.nodes.filter(|_| self.has_topology(resource)) else {
            let elsewhere = available.clone();
            return ByAffinity { aligned: Names::new(), unaligned: Names::new(), elsewhere };
        };
        let near = |node: i64| usize::try_from(node).is_ok_and(|node| mask.contains(node));
        let all = &self.all[resource];
        let nodes_of = |id: &String| all.get(id).map(|d| d.nodes.as_slice()).unwrap_or_default();
        let mut split =
            ByAffinity { aligned: Names::new(), unaligned: Names::new(), elsewhere: Names::new() };
        for id in available {
            let nodes = nodes_of(id);
            let list = match (nodes.is_empty(), nodes.iter().any(|node| near(*node))) {
                (true, _) => &mut split.elsewhere,
                (_, true) => &mut split.aligned,
                _ => &mut split.unaligned,
            };
            list.insert(id.clone());
        }
        split
    }
}
