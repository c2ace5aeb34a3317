//! Images that no container uses go when the disk is full, those unused for longest first.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Pod;
use runtime::cri::{ContainerFilter, Image, ImageFilter, ImageSpec};

use crate::images;
use crate::kubelet::Shared;
use crate::node;
use crate::spec::spec_of;

/// What is remembered of each image; lost at a restart, after which all count as just seen.
#[derive(Debug, Default)]
pub(super) struct Images {
    seen: HashMap<String, Seen>,
}

/// What an image's age is held to.
#[derive(Debug, Clone, Copy)]
struct Limits {
    now: Instant,
    age_min: Duration,
    age_max: Option<Duration>,
}

#[derive(Debug, Clone, Copy)]
struct Seen {
    first: Instant,
    used: Instant,
}

impl Images {
    /// Frees down to the lower threshold when the disk is fuller than the upper one.
    pub(super) async fn collect(&mut self, shared: &Shared) {
        let machine = node::machine(shared);
        let used = machine.disk_bytes.saturating_sub(machine.disk_available_bytes);
        let percent = |part: u8| machine.disk_bytes / 100 * u64::from(part);
        let full = used > percent(shared.config.image_gc_high_percent);
        let surplus = used.saturating_sub(percent(shared.config.image_gc_low_percent));
        self.free(shared, if full { surplus } else { 0 }).await;
    }

    /// Those that nobody has used for longer than the greatest age, whatever room there is.
    fn expired(&self, images: &[Image], in_use: &HashSet<String>, limits: &Limits) -> Vec<String> {
        let Some(max) = limits.age_max else { return Vec::new() };
        let free = self.removable(images, in_use, limits).into_iter();
        let old = free.filter(|(_, seen)| limits.now.duration_since(seen.used) > max);
        old.map(|(image, _)| image.id.clone()).collect()
    }

    /// Frees this many bytes, as far as unused images have them.
    pub(super) async fn free(&mut self, shared: &Shared, bytes: u64) {
        let images = shared.images.list_images(ImageFilter::default()).await;
        let containers = shared.runtime.list_containers(ContainerFilter::default()).await;
        let (images, containers) = match (images, containers) {
            (Ok(images), Ok(containers)) => (images, containers),
            (Err(error), _) | (_, Err(error)) => {
                return tracing::warn!(error = error.chain(), "images not looked at");
            }
        };
        let pods = shared.pods.list();
        let volumes = pods.iter().flat_map(|pod| mounted(pod));
        let in_use: HashSet<String> = containers
            .into_iter()
            .flat_map(|c| [c.image_ref, c.image.map(|i| i.image).unwrap_or_default()])
            .chain(volumes)
            .collect();
        let limits = Limits {
            now: Instant::now(),
            age_min: shared.config.image_min_age,
            age_max: shared.config.image_max_age,
        };
        self.note(&images, &in_use, limits.now);
        let mut chosen = self.plan(&images, &in_use, &limits, bytes);
        let expired = self.expired(&images, &in_use, &limits);
        chosen.extend(expired.into_iter().filter(|id| !chosen.contains(id)).collect::<Vec<_>>());
        for id in chosen {
            let spec = ImageSpec { image: id.clone(), ..ImageSpec::default() };
            match shared.images.remove_image(spec).await {
                Ok(()) => {
                    shared.pulled.forget(&id);
                    tracing::info!(image = id, "unused image removed");
                }
                Err(error) => {
                    tracing::warn!(image = id, error = error.chain(), "image not removed")
                }
            }
        }
    }

    fn note(&mut self, images: &[Image], in_use: &HashSet<String>, now: Instant) {
        self.seen.retain(|id, _| images.iter().any(|image| image.id == *id));
        for image in images {
            let seen = self.seen.entry(image.id.clone()).or_insert(Seen { first: now, used: now });
            if is_used(image, in_use) {
                seen.used = now;
            }
        }
    }

    /// What may go, the longest unused first. A young image may have been pulled for a pod that is
    /// about to start.
    fn removable<'a>(
        &self,
        images: &'a [Image],
        in_use: &HashSet<String>,
        limits: &Limits,
    ) -> Vec<(&'a Image, Seen)> {
        let mut free: Vec<(&Image, Seen)> = images
            .iter()
            .filter(|image| !image.pinned && !is_used(image, in_use))
            .filter_map(|image| Some((image, *self.seen.get(&image.id)?)))
            .filter(|(_, seen)| limits.now.duration_since(seen.first) >= limits.age_min)
            .collect();
        free.sort_by_key(|(image, seen)| (seen.used, seen.first, image.id.clone()));
        free
    }

    /// Which images to remove for so many bytes.
    fn plan(
        &self,
        images: &[Image],
        in_use: &HashSet<String>,
        limits: &Limits,
        bytes: u64,
    ) -> Vec<String> {
        let mut left = bytes;
        let mut chosen = Vec::new();
        for (image, _) in self.removable(images, in_use, limits) {
            if left == 0 {
                break;
            }
            left = left.saturating_sub(image.size);
            chosen.push(image.id.clone());
        }
        chosen
    }
}

/// The images that a pod mounts as volumes, as its spec names them and as the store does.
fn mounted(pod: &Pod) -> Vec<String> {
    let spec = spec_of(pod);
    let images = spec.volumes.iter().flatten().filter_map(|v| v.image.as_ref());
    let names = images.filter_map(|image| image.reference.clone());
    names.flat_map(|name| [images::full_name(&name).unwrap_or_default(), name]).collect()
}

fn is_used(image: &Image, in_use: &HashSet<String>) -> bool {
    let names = image.repo_tags.iter().chain(&image.repo_digests);
    names.chain([&image.id]).any(|name| in_use.contains(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    const AGE_MIN: Duration = Duration::from_secs(120);

    fn at(now: Instant) -> Limits {
        Limits { now, age_min: AGE_MIN, age_max: None }
    }

    fn image(id: &str, size: u64) -> Image {
        Image { id: id.into(), size, repo_tags: vec![format!("r/{id}:1")], ..Image::default() }
    }

    #[test]
    fn the_longest_unused_go_until_there_is_room() {
        let images = [image("a", 10), image("b", 10), image("c", 10), image("used", 10)];
        let pinned = Image { pinned: true, ..image("pinned", 10) };
        let images = [&images[..], &[pinned]].concat();
        let in_use = HashSet::from(["r/used:1".to_owned()]);
        let start = Instant::now();
        let mut known = Images::default();
        known.note(&images, &in_use, start);
        // b was used once more, later.
        let later = start + AGE_MIN;
        known.note(&images, &HashSet::from(["b".to_owned()]), later);
        assert_eq!(known.plan(&images, &in_use, &at(later), 15), ["a", "c"]);
        assert_eq!(known.plan(&images, &in_use, &at(later), 1000), ["a", "c", "b"]);
        assert!(known.plan(&images, &in_use, &at(later), 0).is_empty());
    }

    #[test]
    fn what_nobody_used_for_too_long_goes_though_there_is_room() {
        let images = [image("a", 10), image("b", 10), image("used", 10)];
        let pinned = Image { pinned: true, ..image("pinned", 10) };
        let images = [&images[..], &[pinned]].concat();
        let in_use = HashSet::from(["r/used:1".to_owned()]);
        let start = Instant::now();
        let hours = |n: u64| start + Duration::from_secs(3600 * n);
        let mut known = Images::default();
        known.note(&images, &in_use, start);
        known.note(&images, &HashSet::from(["b".to_owned()]), hours(1));
        let limits = |now, age_max| Limits { age_max, ..at(now) };
        let day = Some(Duration::from_secs(24 * 3600));
        assert!(known.expired(&images, &in_use, &limits(hours(24), day)).is_empty());
        assert_eq!(known.expired(&images, &in_use, &limits(hours(25), day)), ["a"]);
        assert_eq!(known.expired(&images, &in_use, &limits(hours(26), day)), ["a", "b"]);
        assert!(known.expired(&images, &in_use, &limits(hours(99), None)).is_empty());
    }

    #[test]
    fn a_young_image_stays() {
        let (images, start) = ([image("a", 10)], Instant::now());
        let mut known = Images::default();
        known.note(&images, &HashSet::new(), start);
        assert!(known.plan(&images, &HashSet::new(), &at(start + AGE_MIN / 2), 10).is_empty());
    }
}
