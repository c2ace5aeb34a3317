//! Device health as drivers report it (`ResourceHealthStatus`). A report that is too old counts as unknown.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::wire::{DeviceHealth, Health};

/// How long a driver's word holds when it does not say.
const TIMEOUT: Duration = Duration::from_secs(30);
/// `v1.ResourceHealthMessageMaxLength`.
const MESSAGE_MAX: usize = 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    health: Health,
    message: String,
    timeout: Duration,
    at: Instant,
}

/// A pool and a device in it.
pub(super) type DeviceKey = (String, String);

/// By driver.
#[derive(Debug, Default)]
pub(super) struct HealthTable(BTreeMap<String, BTreeMap<DeviceKey, Said>>);

/// Upstream cuts bytes; half a character is none of ours.
fn cut(message: String) -> String {
    if message.len() <= MESSAGE_MAX {
        return message;
    }
    let end = message.floor_char_boundary(MESSAGE_MAX - 3);
    format!("{}...", &message[..end])
}

impl HealthTable {
    /// What the driver says of all its devices; returns those that changed.
    pub(super) fn update(
        &mut self,
        driver: &str,
        devices: Vec<DeviceHealth>,
    ) -> BTreeSet<DeviceKey> {
        let now = Instant::now();
        let known = self.0.entry(driver.to_owned()).or_default();
        let (mut changed, mut named) = (BTreeSet::new(), BTreeSet::new());
        for device in devices {
            let health = device.health();
            let seconds = u64::try_from(device.health_check_timeout_seconds).unwrap_or(0);
            let timeout = if seconds == 0 { TIMEOUT } else { Duration::from_secs(seconds) };
            let id = device.device.unwrap_or_default();
            let key = (id.pool_name, id.device_name);
            let said = Said { health, message: cut(device.message), timeout, at: now };
            let same = known.get(&key).is_some_and(|old| Said { at: now, ..old.clone() } == said);
            if !same {
                changed.insert(key.clone());
            }
            named.insert(key.clone());
            known.insert(key, said);
        }
        for (key, said) in known.iter_mut().filter(|(key, _)| !named.contains(*key)) {
            if said.health != Health::Unknown && now - said.at > said.timeout {
                *said = Said {
                    health: Health::Unknown,
                    message: String::new(),
                    at: now,
                    timeout: said.timeout,
                };
                changed.insert(key.clone());
            }
        }
        changed
    }

    /// The driver does not speak any more.
    pub(super) fn clear(&mut self, driver: &str) {
        self.0.remove(driver);
    }

    pub(super) fn get(&self, driver: &str, pool: &str, device: &str) -> (Health, &str) {
        let key = (pool.to_owned(), device.to_owned());
        let said = self.0.get(driver).and_then(|known| known.get(&key));
        match said.filter(|said| said.at.elapsed() <= said.timeout) {
            Some(said) => (said.health, &said.message),
            None => (Health::Unknown, ""),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::DeviceId;
    use super::*;

    fn said(name: &str, health: Health, seconds: i64, message: &str) -> DeviceHealth {
        DeviceHealth {
            device: Some(DeviceId { pool_name: "p".into(), device_name: name.into() }),
            health: health as i32,
            health_check_timeout_seconds: seconds,
            message: message.into(),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_said_holds_for_its_time() {
        let mut table = HealthTable::default();
        let key = |name: &str| ("p".to_owned(), name.to_owned());
        let all = vec![
            said("a", Health::Healthy, 0, ""),
            said("b", Health::Unhealthy, 100, &"é".repeat(600)),
        ];
        assert_eq!(table.update("d", all), [key("a"), key("b")].into());
        assert_eq!(table.get("d", "p", "a"), (Health::Healthy, ""));
        let (health, message) = table.get("d", "p", "b");
        assert_eq!(health, Health::Unhealthy);
        assert!(message.len() <= MESSAGE_MAX && message.ends_with("é..."), "{message}");
        assert_eq!(table.get("d", "p", "c"), (Health::Unknown, ""));
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(table.get("d", "p", "a").0, Health::Unknown);
        assert_eq!(table.get("d", "p", "b").0, Health::Unhealthy);
        // The same again is no news; one that is left out for too long is.
        let again = vec![said("b", Health::Unhealthy, 100, &"é".repeat(600))];
        assert_eq!(table.update("d", again), [key("a")].into());
        table.clear("d");
        assert_eq!(table.get("d", "p", "b").0, Health::Unknown);
    }
}
