//! The ConfigMap `kube-system/extension-apiserver-authentication`: extension API servers read there
//! whose client certificates this server trusts.

use client::{Error, Tasks};
use http::Method;
use serde_json::{Value, json};

use super::{call, ensure};
use crate::aggregate::FrontProxy;
use crate::server::Server;

const NAME: &str = "extension-apiserver-authentication";
const KEY: &str = "client-ca-file";
/// Writes that lose a race against another server.
const RETRIES: usize = 10;

impl Server {
    /// Publishes the authority of client certificates, beside those that other servers published.
    pub async fn publish_client_ca(&self, ca_pem: &str, tasks: &Tasks) -> Result<(), Error> {
        let client = self.own_client(tasks);
        let target = format!("/api/v1/namespaces/kube-system/configmaps/{NAME}");
        let object = json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": NAME, "namespace": "kube-system"}, "data": {KEY: ca_pem},
        });
        ensure(&client, "configmaps", &object).await?;
        for attempt in 1.. {
            let found = call(&client, Method::GET, target.clone(), &json!({})).await?;
            let mut present: Value = serde_json::from_slice(&found.body)
                .map_err(|source| Error::Decode { target: target.clone(), source })?;
            let before = present.clone();
            if let Some(combined) = combined(present["data"][KEY].as_str().unwrap_or(""), ca_pem) {
                present["data"][KEY] = combined.into();
            }
            if let Some(proxy) = self.parts.aggregator.front_proxy() {
                publish_front_proxy(&mut present["data"], &proxy);
            }
            if present == before {
                return Ok(());
            }
            match call(&client, Method::PUT, target.clone(), &present).await {
                Err(e) if e.is_conflict() && attempt < RETRIES => {}
                other => return other.map(drop),
            }
        }
        unreachable!("the loop ends by returning")
    }
}

impl Server {
    /// Another certificate towards extension servers, for connections made from now on. One that cannot be used
    /// changes nothing.
    pub fn replace_front_proxy(&self, front_proxy: FrontProxy) -> Result<(), String> {
        front_proxy.check()?;
        self.parts.aggregator.replace_front_proxy(front_proxy);
        Ok(())
    }
}

/// Adds whose front proxies are believed, and the headers in which they tell the user.
fn publish_front_proxy(data: &mut Value, proxy: &FrontProxy) {
    const CA: &str = "requestheader-client-ca-file";
    if let Some(combined) = combined(data[CA].as_str().unwrap_or(""), &proxy.ca_pem) {
        data[CA] = combined.into();
    }
    let lists = [
        ("requestheader-allowed-names", json!(proxy.allowed_names)),
        ("requestheader-extra-headers-prefix", json!(["X-Remote-Extra-"])),
        ("requestheader-group-headers", json!(["X-Remote-Group"])),
        ("requestheader-uid-headers", json!(["X-Remote-Uid"])),
        ("requestheader-username-headers", json!(["X-Remote-User"])),
    ];
    for (key, list) in lists {
        data[key] = list.to_string().into();
    }
}

/// The bundle with one more authority; none when it has it already.
fn combined(bundle: &str, ca_pem: &str) -> Option<String> {
    let ca = ca_pem.trim();
    if ca.is_empty() || bundle.contains(ca) {
        return None;
    }
    let gap = if bundle.is_empty() || bundle.ends_with('\n') { "" } else { "\n" };
    Some(format!("{bundle}{gap}{ca}\n"))
}

#[cfg(test)]
mod tests {
    use super::combined;

    #[test]
    fn authorities_are_added_once() {
        assert_eq!(combined("", "A\n").as_deref(), Some("A\n"));
        assert_eq!(combined("A", "B\n").as_deref(), Some("A\nB\n"));
        assert_eq!(combined("A\nB\n", "B\n"), None);
    }
}
