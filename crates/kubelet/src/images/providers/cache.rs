//! Credentials that plugins gave, by what they are for.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::exec::KeyType;

/// User and password by pattern of images.
pub(super) type Credentials = BTreeMap<String, (String, String)>;

/// The service account that the credentials belong to; empty without one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(super) struct AccountKey {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) annotations: BTreeMap<String, String>,
    /// Of the very token, where its credentials are no other's.
    pub(super) token: String,
}

/// What they are for: angle brackets are in no image's name.
const GLOBAL: &str = "<global>";

#[derive(Debug, Default)]
pub(super) struct Cache(HashMap<(String, AccountKey), (Credentials, Instant)>);

fn registry(repository: &str) -> &str {
    repository.split('/').next().unwrap_or(repository)
}

impl Cache {
    /// Of the image, of its registry, or of all.
    pub(super) fn get(&self, repository: &str, account: &AccountKey) -> Option<Credentials> {
        let now = Instant::now();
        let mut keys = [repository, registry(repository), GLOBAL].into_iter();
        keys.find_map(|key| {
            let found = self.0.get(&(key.to_owned(), account.clone()));
            found.filter(|(_, until)| *until >= now).map(|(known, _)| known.clone())
        })
    }

    pub(super) fn put(
        &mut self,
        repository: &str,
        key: KeyType,
        account: &AccountKey,
        credentials: Credentials,
        duration: Duration,
    ) {
        let now = Instant::now();
        self.0.retain(|_, (_, until)| *until >= now);
        let key = match key {
            KeyType::Image => repository,
            KeyType::Registry => registry(repository),
            KeyType::Global => GLOBAL,
        };
        // A time that no clock can name does not come.
        let until = now.checked_add(duration).unwrap_or(now);
        self.0.insert((key.to_owned(), account.clone()), (credentials, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn credentials_hold_for_their_time_and_place() {
        let mut cache = Cache::default();
        let (nobody, account) =
            (AccountKey::default(), AccountKey { name: "a".into(), ..AccountKey::default() });
        let of =
            |user: &str| Credentials::from([("r".to_owned(), (user.to_owned(), String::new()))]);
        let second = Duration::from_secs(1);
        cache.put("r/a", KeyType::Image, &nobody, of("image"), second);
        cache.put("r/a", KeyType::Registry, &nobody, of("registry"), second * 2);
        cache.put("r/a", KeyType::Global, &nobody, of("global"), second * 3);
        cache.put("r/a", KeyType::Registry, &account, of("account"), second * 9);
        assert_eq!(cache.get("r/a", &nobody), Some(of("image")));
        assert_eq!(cache.get("r/b", &nobody), Some(of("registry")));
        assert_eq!(cache.get("s/b", &nobody), Some(of("global")));
        assert_eq!(cache.get("r/a", &account), Some(of("account")));
        assert_eq!(cache.get("s/a", &account), None);
        tokio::time::advance(second * 2 + Duration::from_millis(1)).await;
        assert_eq!(cache.get("r/a", &nobody), Some(of("global")));
        tokio::time::advance(second).await;
        assert_eq!(cache.get("r/a", &nobody), None);
    }
}
