//! Rules of the configuration, each with its words, and the files that it is read from.

use super::*;

fn provider(change: impl FnOnce(&mut Provider)) -> Vec<String> {
    let mut provider = Provider {
        name: "p".into(),
        match_images: vec!["*.example.com".into()],
        default_cache_duration: Some("10m".into()),
        api_version: V1.into(),
        ..Provider::default()
    };
    change(&mut provider);
    check(&[provider])
}

fn attributes(change: impl FnOnce(&mut TokenAttributes)) -> Vec<String> {
    let mut own = TokenAttributes {
        service_account_token_audience: "a".into(),
        cache_type: "Token".into(),
        require_service_account: Some(true),
        ..TokenAttributes::default()
    };
    change(&mut own);
    provider(|p| p.token_attributes = Some(own))
}

#[test]
fn providers_that_break_the_rules_are_refused_in_upstreams_words() {
    assert!(provider(|_| {}).is_empty());
    assert_eq!(check(&[]), ["providers: Required value: at least 1 item in plugins is required"]);
    let name = |text: &str| provider(|p| p.name = text.into()).remove(0);
    assert_eq!(
        name("a/b"),
        r#"providers.name: Invalid value: "a/b": provider name cannot contain '/'"#
    );
    assert_eq!(
        name("a b"),
        r#"providers.name: Invalid value: "a b": provider name cannot contain spaces"#
    );
    assert_eq!(name("."), r#"providers.name: Invalid value: ".": provider name cannot be '.'"#);
    assert_eq!(name(".."), r#"providers.name: Invalid value: "..": provider name cannot be '..'"#);
    assert_eq!(provider(|p| p.api_version.clear()), ["providers.apiVersion: Required value"]);
    assert_eq!(
        provider(|p| p.api_version = "v9".into()),
        [
            r#"providers.apiVersion: Unsupported value: "v9": supported values: "credentialprovider.kubelet.k8s.io/v1", "credentialprovider.kubelet.k8s.io/v1alpha1", "credentialprovider.kubelet.k8s.io/v1beta1""#
        ]
    );
    assert_eq!(
        provider(|p| p.match_images.clear()),
        ["providers.matchImages: Required value: at least 1 item in matchImages is required"]
    );
    assert_eq!(
        provider(|p| p.match_images = vec!["%invalid%".into()]),
        [
            r#"providers.matchImages: Invalid value: "%invalid%": match image is invalid: parse "https://%invalid%": invalid URL escape "%in""#
        ]
    );
    assert_eq!(
        provider(|p| p.default_cache_duration = None),
        ["providers.defaultCacheDuration: Required value"]
    );
    assert_eq!(
        provider(|p| p.default_cache_duration = Some("-1m".into())),
        [
            r#"providers.defaultCacheDuration: Invalid value: "-1m": must be greater than or equal to 0"#
        ]
    );
}

#[test]
fn token_attributes_that_break_the_rules_are_refused() {
    let at = "providers.tokenAttributes";
    assert!(attributes(|_| {}).is_empty());
    let one = |faults: Vec<String>| {
        assert_eq!(faults.len(), 1, "{faults:?}");
        faults[0].clone()
    };
    assert_eq!(
        one(attributes(|a| a.service_account_token_audience.clear())),
        format!("{at}.serviceAccountTokenAudience: Required value")
    );
    assert_eq!(
        one(attributes(|a| a.require_service_account = None)),
        format!("{at}.requireServiceAccount: Required value")
    );
    assert_eq!(
        one(attributes(|a| a.cache_type.clear())),
        format!(
            "{at}.cacheType: Required value: cacheType is required to be set when tokenAttributes is specified. Supported values are: ServiceAccount, Token"
        )
    );
    assert_eq!(
        one(attributes(|a| a.cache_type = "X".into())),
        format!(
            r#"{at}.cacheType: Unsupported value: "X": supported values: "ServiceAccount", "Token""#
        )
    );
    let keys = |list: &[&str]| list.iter().map(|k| (*k).to_owned()).collect::<Vec<_>>();
    let needed = |a: &mut TokenAttributes, list: &[&str]| {
        a.required_service_account_annotation_keys = keys(list);
    };
    assert_eq!(
        one(attributes(|a| {
            a.require_service_account = Some(false);
            needed(a, &["k"]);
        })),
        format!(
            "{at}.requiredServiceAccountAnnotationKeys: Forbidden: requireServiceAccount cannot be false when requiredServiceAccountAnnotationKeys is set"
        )
    );
    assert_eq!(
        one(attributes(|a| needed(a, &["k", "k"]))),
        format!(r#"{at}.requiredServiceAccountAnnotationKeys: Duplicate value: "k""#)
    );
    let said = one(attributes(|a| needed(a, &["a b"])));
    assert!(
        said.starts_with(&format!(
            r#"{at}.requiredServiceAccountAnnotationKeys: Invalid value: "a b": "#
        )),
        "{said}"
    );
    assert_eq!(
        one(attributes(|a| {
            needed(a, &["k"]);
            a.optional_service_account_annotation_keys = keys(&["k"]);
        })),
        format!(
            r#"{at}: Invalid value: ["k"]: annotation keys cannot be both required and optional"#
        )
    );
}

#[test]
fn only_the_first_version_has_token_attributes() {
    let faults = provider(|p| {
        p.api_version = "credentialprovider.kubelet.k8s.io/v1beta1".into();
        p.token_attributes = Some(TokenAttributes {
            service_account_token_audience: "a".into(),
            cache_type: "Token".into(),
            require_service_account: Some(true),
            ..TokenAttributes::default()
        });
    });
    let why = "tokenAttributes is only supported for";
    assert_eq!(faults, [format!("providers.tokenAttributes: Forbidden: {why} {V1} API version")]);
}

#[test]
fn files_and_folders_are_read_and_joined() {
    let dir = tempfile::tempdir().unwrap();
    let put = |name: &str, text: &str| fs::write(dir.path().join(name), text).unwrap();
    let said = |path: &Path| load(path).unwrap_err();
    assert_eq!(said(Path::new("")), "credential provider config path is empty");
    assert!(said(&dir.path().join("none")).starts_with("unable to access path"));
    assert!(said(dir.path()).starts_with("no configuration files found in directory"));
    let file = |name: &str| {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig\nproviders:\n- name: {name}\n  matchImages: [a.example.com]\n  defaultCacheDuration: 1h30m\n  apiVersion: {V1}\n"
        )
    };
    put("b.yaml", &file("two"));
    put("a.yml", &file("one"));
    put("c.txt", "nothing");
    let (all, hash) = load(dir.path()).unwrap();
    assert_eq!(all.iter().map(|p| p.name.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert_eq!(all[0].cache_duration(), Duration::from_secs(5400));
    assert!(hash.starts_with("sha256:") && hash.len() == 71, "{hash}");
    put("d.json", &file("one"));
    assert_eq!(said(dir.path()), "duplicate provider name \"one\" found in configuration file(s)");
    let one = dir.path().join("a.yml");
    for (text, why) in [
        ("kind: Pod", "failed to decode \"Pod\" (wrong Kind)".to_owned()),
        (
            "apiVersion: x/v1\nkind: CredentialProviderConfig",
            "failed to decode CredentialProviderConfig, unexpected Group: x".to_owned(),
        ),
        (
            &format!("{}  more: 1\n", file("one")),
            "strict decoding error: unknown field `more`".to_owned(),
        ),
        (
            "apiVersion: kubelet.config.k8s.io/v1\nkind: CredentialProviderConfig",
            "failed to validate credential provider config: providers: Required value".to_owned(),
        ),
    ] {
        put("a.yml", text);
        let said = said(&one);
        assert!(said.contains(&why), "{said}");
    }
}

#[test]
fn durations_are_gos() {
    for (text, nanos) in [
        ("0", 0),
        ("10m", 600_000_000_000),
        ("1h30m", 5_400_000_000_000),
        ("1.5s", 1_500_000_000),
        ("-2ms", -2_000_000),
    ] {
        assert_eq!(go_duration(text), Some(nanos), "{text}");
    }
    for text in ["", "5", "m", "1d", "1 s", "-"] {
        assert_eq!(go_duration(text), None, "{text}");
    }
}
