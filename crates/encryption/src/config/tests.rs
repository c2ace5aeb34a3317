use super::{Configuration, generate};

const SECRET: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// A file with these entries.
fn file(resources: &str) -> String {
    format!(
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfiguration\nresources: {resources}"
    )
}

/// The fault of a file with these entries.
fn refused(resources: &str) -> String {
    let parsed = Configuration::parse(&file(resources), false);
    let told = parsed.expect_err(resources).to_string();
    told.strip_prefix("error while parsing file: ").expect("its own prefix").to_owned()
}

/// The fault of a file with this provider.
fn provider(provider: &str) -> String {
    refused(&format!("[{{resources: [secrets], providers: [{provider}]}}]"))
}

#[test]
fn a_generated_file_is_valid() {
    let made = generate().expect("random bytes");
    let config = Configuration::parse(&made, false).expect("valid");
    assert_eq!(config.resources[0].resources, ["secrets"]);
    assert_ne!(made, generate().expect("random bytes"), "each has a key of its own");
}

#[test]
fn all_providers_are_read() {
    let keys = format!("{{keys: [{{name: a, secret: {SECRET}}}]}}");
    let kms = "kms: {apiVersion: v2, name: k, endpoint: unix:///run/kms.sock, timeout: 1m30s}";
    let config = format!(
        "[{{resources: [secrets, '*.apps'], providers: [{{aesgcm: {keys}}}, {{aescbc: {keys}}}, \
         {{secretbox: {keys}}}, {{{kms}}}, {{identity: {{}}}}]}}]"
    );
    let config = Configuration::parse(&file(&config), true).expect("valid");
    let kms = config.resources[0].providers[3].kms.as_ref().expect("a KMS provider");
    assert_eq!(kms.deadline.as_secs(), 90);
}

#[test]
fn files_of_another_kind_or_with_unknown_fields_are_refused() {
    for text in [
        "",
        "null",
        "[]",
        "kind: EncryptionConfiguration\nresources: []",
        "apiVersion: apiserver.config.k8s.io/v1\nkind: EncryptionConfig\nresources: []",
        "apiVersion: v1\nkind: EncryptionConfiguration\nresources: []",
        &(file("[]") + "\nmore: 1"),
        &file("[{resources: [secrets], provider: [{identity: {}}]}]"),
        &file("[{resources: [secrets], providers: [{identity: {a: b}}]}]"),
        &file("[{resources: [secrets], providers: [{rot13: {}}]}]"),
    ] {
        assert!(Configuration::parse(text, false).is_err(), "{text}");
    }
}

#[test]
fn entries_are_checked() {
    let cases = [
        ("[]", "resources: Required value: at least one resources is required"),
        (
            "[{providers: [{identity: {}}]}]",
            "resources[0].resources: Required value: at least one resources[0].resources is required",
        ),
        (
            "[{resources: [secrets]}]",
            "resources[0].providers: Required value: at least one resources[0].providers is required",
        ),
        (
            "[{}]",
            "[resources[0].resources: Required value: at least one resources[0].resources is required, \
             resources[0].providers: Required value: at least one resources[0].providers is required]",
        ),
    ];
    for (entries, expected) in cases {
        assert_eq!(refused(entries), expected);
    }
}

#[test]
fn names_of_resources_are_checked() {
    let cases = [
        ("Secrets", "resource name should not contain capital letters"),
        (
            "*",
            "use '*.' to encrypt all the resources from core API group or *.* to encrypt all resources",
        ),
        ("apiserveripinfo", "resources which do not have REST API/s cannot be encrypted"),
        ("serviceipallocations", "resources which do not have REST API/s cannot be encrypted"),
        (
            "servicenodeportallocations",
            "resources which do not have REST API/s cannot be encrypted",
        ),
        (
            "*.events.k8s.io",
            "'*.events.k8s.io' objects are stored using the 'events' API group in etcd. Use 'events' instead in \
             the config file",
        ),
        ("*.extensions", "'extensions' group has been removed and cannot be used for encryption"),
        ("secrets.*", "encrypting the same resource across groups is not supported"),
    ];
    for (name, why) in cases {
        let told =
            refused(&format!("[{{resources: ['{name}'], providers: [{{identity: {{}}}}]}}]"));
        assert_eq!(told, format!("resources[0].resources[0]: Invalid value: {name:?}: {why}"));
    }
}

#[test]
fn resources_of_one_entry_do_not_overlap() {
    let doubled = "the same resource cannot be specified multiple times";
    let masked = "using overlapping resources such as 'secrets' and '*.' in the same resource list is not allowed \
                  as they will be masked";
    let cases = [
        ("secrets, secrets", vec![doubled]),
        ("secrets, '*.'", vec![masked]),
        ("deployments.apps, '*.apps'", vec![masked]),
        ("secrets, '*.*'", vec![masked]),
        ("'*.', '*.'", vec![doubled, masked]),
    ];
    for (names, expected) in cases {
        let told = refused(&format!("[{{resources: [{names}], providers: [{{identity: {{}}}}]}}]"));
        for why in &expected {
            assert!(told.contains(why), "{names}: {told}");
        }
        assert_eq!(told.matches("Invalid value").count(), expected.len(), "{told}");
    }
    let fine = file("[{resources: [secrets, configmaps, '*.apps'], providers: [{identity: {}}]}]");
    assert!(Configuration::parse(&fine, false).is_ok());
}

#[test]
fn an_element_has_one_provider() {
    let path = "resources[0].providers[0]: Invalid value: ";
    assert_eq!(
        provider("{}"),
        format!(
            "{path}{{}}: provider does not contain any of the expected providers: KMS, AESGCM, AESCBC, Secretbox, \
             Identity"
        )
    );
    let two =
        provider(&format!("{{identity: {{}}, aescbc: {{keys: [{{name: a, secret: {SECRET}}}]}}}}"));
    let why = "more than one provider specified in a single element, should split into different list elements";
    assert_eq!(two, format!("{path}REDACTED: {why}"));
    assert!(!two.contains(SECRET));
}

#[test]
fn keys_are_checked() {
    let at = |field: &str| format!("resources[0].providers[0].{field}");
    let cases = [
        ("{aesgcm: {}}", at("aesgcm.keys: Required value: at least one keys is required")),
        (
            "{aescbc: {keys: [{secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}",
            at("aescbc.keys[0].name: Required value: name is a mandatory field for a key"),
        ),
        (
            "{secretbox: {keys: [{name: a}]}}",
            at("secretbox.keys[0].secret: Required value: secret is a mandatory field for a key"),
        ),
        (
            "{aesgcm: {keys: [{name: a, secret: 'not base64'}]}}",
            at(
                "aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secrets must be base64 encoded",
            ),
        ),
        (
            "{aesgcm: {keys: [{name: a, secret: c2hvcnQ=}]}}",
            at(
                "aesgcm.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got 5, \
                expected one of [16 24 32]",
            ),
        ),
        (
            "{secretbox: {keys: [{name: a, secret: MDEyMzQ1Njc4OWFiY2RlZg==}]}}",
            at(
                "secretbox.keys[0].secret: Invalid value: \"REDACTED\": secret is not of the expected length, got \
                16, expected one of [32]",
            ),
        ),
    ];
    for (given, expected) in cases {
        assert_eq!(provider(given), expected);
    }
}

#[test]
fn kms_providers_are_checked() {
    let kms = |fields: &str| provider(&format!("{{kms: {{{fields}}}}}"));
    let at = |field: &str| format!("resources[0].providers[0].kms.{field}");
    let good = "apiVersion: v2, name: k, endpoint: 'unix:///k'";
    let cases = [
        (
            "apiVersion: v2, endpoint: 'unix:///k'".to_owned(),
            at("name: Required value: name is a mandatory field for a provider"),
        ),
        (
            "apiVersion: v2, name: 'a:b', endpoint: 'unix:///k'".to_owned(),
            at("name: Invalid value: \"a:b\": invalid KMS provider name a:b, must not contain ':'"),
        ),
        (
            format!("{good}, timeout: 0s"),
            at("timeout: Invalid value: \"0s\": timeout should be a positive value"),
        ),
        (
            format!("{good}, timeout: -3s"),
            at("timeout: Invalid value: \"-3s\": timeout should be a positive value"),
        ),
        (
            "apiVersion: v2, name: k".to_owned(),
            at("endpoint: Invalid value: \"\": endpoint is a mandatory field for a kms"),
        ),
        (
            "apiVersion: v2, name: k, endpoint: 'tcp://1.2.3.4:5'".to_owned(),
            at(
                "endpoint: Invalid value: \"tcp://1.2.3.4:5\": unsupported scheme \"tcp\" for KMS provider, only \
                unix is supported",
            ),
        ),
        (
            format!("{good}, cachesize: 10"),
            at("cachesize: Invalid value: 10: cachesize is not supported in v2"),
        ),
        (
            "name: k, endpoint: 'unix:///k', cachesize: 0".to_owned(),
            at(
                "cachesize: Invalid value: 0: cachesize should be a positive value, or negative to disable",
            ),
        ),
        (
            "apiVersion: v3, name: k, endpoint: 'unix:///k'".to_owned(),
            at(
                "apiVersion: Invalid value: \"v3\": unsupported apiVersion apiVersion for KMS provider, only v1 \
                and v2 are supported",
            ),
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(kms(&fields), expected, "{fields}");
    }
}

#[test]
fn names_of_kms_providers_are_unique() {
    let two = |version: &str| {
        let kms = format!("{{kms: {{apiVersion: {version}, name: k, endpoint: 'unix:///k'}}}}");
        file(&format!("[{{resources: [secrets], providers: [{kms}, {kms}]}}]"))
    };
    let expected = "duplicate KMS provider name k, names must be unique";
    let refused = |version, reload| Configuration::parse(&two(version), reload).err();
    assert!(refused("v2", false).expect("refused").to_string().contains(expected));
    assert!(refused("v1", true).expect("refused").to_string().contains(expected));
    assert_eq!(refused("v1", false), None, "v1 may repeat one when the file is not followed");
}
