//! Files of the API server's flags: audit policy, encryption, authentication, authorization, admission, traces,
//! policies of ABAC, kubeconfig.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((choice, rest)) = input.split_first() else { return };
    let Ok(text) = std::str::from_utf8(rest) else { return };
    // Every reader either takes a file or says what is wrong with it.
    let refusal = match choice % 8 {
        0 => apiserver::audit::Policy::parse(text).err().map(|e| e.to_string()),
        1 => encryption::Configuration::parse(text, choice & 8 != 0).err().map(|e| e.to_string()),
        2 => apiserver::AuthenticationConfiguration::parse(text, &["https://own"])
            .err()
            .map(|e| e.to_string()),
        3 => client::Kubeconfig::parse(text, std::path::Path::new("/kubeconfig")).err().map(|e| e.to_string()),
        4 => apiserver::AuthorizationConfiguration::parse(text, &[]).err().map(|e| e.to_string()),
        5 => {
            let file = |name: &str| Err(format!("{name} is not there"));
            admission::Configuration::read(rest, &file).err()
        }
        6 => match api::yaml::read(rest) {
            Ok(document) => traces::Configuration::parse(&document.value).err(),
            Err(why) => Some(why.to_string()),
        },
        _ => apiserver::Abac::parse(text).err().map(|e| e.to_string()),
    };
    assert!(refusal.is_none_or(|why| !why.is_empty()));
});
