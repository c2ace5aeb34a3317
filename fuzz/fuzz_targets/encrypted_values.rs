//! Values in a store that somebody else may have written: whatever they are, they open or are refused, and what was
//! written opens.
#![no_main]

use std::sync::OnceLock;

use encryption::Encryption;
use store::{Place, Transformer as _};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";
const PLACE: Place<'static> =
    Place { key: "/registry/secrets/ns/name", authenticated: "/registry/secrets/ns/name" };

/// One encryption for each provider that writes.
fn encryptions() -> &'static [Encryption; 4] {
    static MADE: OnceLock<[Encryption; 4]> = OnceLock::new();
    MADE.get_or_init(|| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        let key = format!("{{keys: [{{name: k, secret: {SECRET}}}]}}");
        let mut providers = [
            format!("aesgcm: {key}"),
            format!("aescbc: {key}"),
            format!("secretbox: {key}"),
            "identity: {}".to_owned(),
        ];
        [0, 1, 2, 3].map(|_| {
            providers.rotate_left(1);
            let text = format!(
                "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\n\
                 resources: [{{resources: [secrets], providers: [{{{}}}]}}]",
                providers.join("}, {")
            );
            let tasks = tasks::Tasks::new();
            let made = Encryption::new(&text, false, "fuzz", &tasks);
            runtime.block_on(made).expect("a configuration")
        })
    })
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((choice, value)) = input.split_first() else { return };
    let encryption = &encryptions()[usize::from(*choice) % 4];
    let prefixes = ["", "k8s:enc:aesgcm:v1:k:", "k8s:enc:aescbc:v1:k:", "k8s:enc:secretbox:v1:k:"];
    for prefix in prefixes {
        drop(encryption.transform_from_storage(PLACE, [prefix.as_bytes(), value].concat()));
    }
    if !value.starts_with(store::ENCRYPTED) {
        let kept = encryption.transform_to_storage(PLACE, value.to_vec()).expect("it is written");
        let opened = encryption.transform_from_storage(PLACE, kept.bytes).expect("it is read");
        assert_eq!((opened.value.as_slice(), opened.stamp), (value, kept.stamp));
    }
});
