//! One entry of a `map<string, string>` of secrets: on the wire a map is a repeated message of key and value.
//! It is a type of its own so that no log line, error or panic can show a value.

use std::fmt;

use prost::Message;

/// A secret's key and value. Its debug form has no value.
#[derive(Clone, PartialEq, Eq, Message)]
#[prost(skip_debug)]
pub struct Secret {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(string, tag = "2")]
    pub value: String,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The placeholder of upstream's protosanitizer.
        write!(f, "{}: ***stripped***", self.key)
    }
}

/// A map of secrets for a request.
pub fn secrets(of: impl IntoIterator<Item = (String, String)>) -> Vec<Secret> {
    of.into_iter().map(|(key, value)| Secret { key, value }).collect()
}
