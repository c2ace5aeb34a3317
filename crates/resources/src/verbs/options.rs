//! Options of lists and watches: which revision is asked for, and which combinations make sense
//! (apimachinery `internalversion/validation`, apiserver `storage.ValidateListOptions`).

use api::Status;
use api::status::Cause;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};

use strategy::meta;
use strategy::query::Query;

/// Which state a list shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Position {
    /// The revision; 0 is the present.
    pub revision: u64,
    /// Only what comes after this key.
    pub after: Option<String>,
}

impl Position {
    pub fn of_list(query: &Query, now: u64) -> Result<Position, Status> {
        let text = query.get("resourceVersion").unwrap_or("");
        let how = query.get("resourceVersionMatch").unwrap_or("");
        refuse(list_faults(query, text, how))?;
        if let Some(token) = query.get("continue").filter(|t| !t.is_empty()) {
            if !matches!(text, "" | "0") {
                let why = "specifying resource version is not allowed when using continue";
                return Err(Status::bad_request(why));
            }
            return decode(token)
                .map_err(|why| Status::bad_request(format!("invalid continue token: {why}")));
        }
        let revision = parse_revision(text)?;
        if revision > now {
            return Err(too_new(revision, now));
        }
        // Without a word, a page of a revision is a page of just that one; anything else may be
        // newer, and always is the present.
        let exact = match how {
            "Exact" => true,
            "" => query.number("limit")?.is_some_and(|limit| limit > 0),
            _ => false,
        };
        Ok(Position { revision: if exact { revision } else { 0 }, after: None })
    }

    /// Where a watch begins, and whether the present state is sent first (`None`: unsaid).
    pub fn of_watch(query: &Query, now: u64) -> Result<(u64, Option<bool>), Status> {
        let initial = query.get("sendInitialEvents").filter(|text| !text.is_empty());
        let initial = initial.map(|_| query.flag("sendInitialEvents"));
        refuse(watch_faults(query, initial.is_some()))?;
        let revision = parse_revision(query.get("resourceVersion").unwrap_or(""))?;
        if revision > now {
            return Err(too_new(revision, now));
        }
        Ok((revision, initial))
    }
}

fn refuse(faults: Vec<Cause>) -> Result<(), Status> {
    if faults.is_empty() {
        return Ok(());
    }
    Err(Status::invalid("meta.k8s.io", "ListOptions", "", faults))
}

fn forbidden(field: &str, why: &str) -> Cause {
    meta::cause("FieldValueForbidden", field, format!("Forbidden: {why}"))
}

const MATCH: &str = "resourceVersionMatch";

fn unsupported_match(how: &str, supported: &str) -> Cause {
    let message = format!("Unsupported value: {how:?}: supported values: {supported}");
    meta::cause("FieldValueNotSupported", MATCH, message)
}

fn continues(query: &Query) -> bool {
    query.get("continue").is_some_and(|token| !token.is_empty())
}

fn list_faults(query: &Query, revision: &str, how: &str) -> Vec<Cause> {
    let mut faults = Vec::new();
    let mut forbid = |when: bool, why: &str| {
        if when {
            faults.push(forbidden(MATCH, why));
        }
    };
    let given = !how.is_empty();
    forbid(
        given && revision.is_empty(),
        "resourceVersionMatch is forbidden unless resourceVersion is provided",
    );
    forbid(
        given && continues(query),
        "resourceVersionMatch is forbidden when continue is provided",
    );
    let exact_zero = how == "Exact" && revision == "0";
    forbid(exact_zero, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    if !matches!(how, "" | "Exact" | "NotOlderThan") {
        faults.push(unsupported_match(how, r#""Exact", "NotOlderThan", """#));
    }
    if query.get("sendInitialEvents").is_some_and(|text| !text.is_empty()) {
        let why = "sendInitialEvents is forbidden for list";
        faults.push(forbidden("sendInitialEvents", why));
    }
    faults
}

fn watch_faults(query: &Query, initial: bool) -> Vec<Cause> {
    let how = query.get(MATCH).unwrap_or("");
    let mut faults = Vec::new();
    let mut forbid = |when: bool, why: &str| {
        if when {
            faults.push(forbidden(MATCH, why));
        }
    };
    forbid(
        initial && how != "NotOlderThan",
        "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
    );
    let given = !how.is_empty();
    forbid(
        given && !initial,
        "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
    );
    let both = given && continues(query);
    if given && how != "NotOlderThan" {
        faults.push(unsupported_match(how, r#""NotOlderThan""#));
    }
    if both {
        let why = "resourceVersionMatch is forbidden when continue is provided";
        faults.push(forbidden(MATCH, why));
    }
    faults
}

/// A revision as clients write it; nothing is 0.
fn parse_revision(text: &str) -> Result<u64, Status> {
    if text.is_empty() {
        return Ok(0);
    }
    text.parse().map_err(|_| {
        let why = "strconv.ParseUint: parsing: invalid syntax";
        let cause = meta::invalid("resourceVersion", &text.into(), why);
        Status::invalid("", "", "", vec![cause])
    })
}

fn too_new(asked: u64, now: u64) -> Status {
    let message = format!("Timeout: Too large resource version: {asked}, current: {now}");
    let cause = meta::cause("ResourceVersionTooLarge", "", "Too large resource version");
    Status::timeout(message).with_retry_after(1).with_causes(vec![cause])
}

/// A continue token, in upstream's layout.
#[derive(Serialize, Deserialize)]
struct Token {
    v: String,
    /// The list's revision; -1 goes on with the present state, whatever it is by now.
    rv: i64,
    /// The key after which to go on, and a zero byte: the first key that may follow.
    start: String,
}

fn decode(token: &str) -> Result<Position, String> {
    let invalid = |why: String| format!("continue key is not valid: {why}");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|e| invalid(e.to_string()))?;
    let token: Token = serde_json::from_slice(&bytes).map_err(|e| invalid(e.to_string()))?;
    let version = "(version meta.k8s.io/v1)";
    match (token.v.as_str(), token.rv, token.start.as_str()) {
        ("meta.k8s.io/v1", 0, _) => {
            Err(invalid(format!("incorrect encoded start resourceVersion {version}")))
        }
        ("meta.k8s.io/v1", _, "") => Err(invalid(format!("encoded start key empty {version}"))),
        ("meta.k8s.io/v1", revision, start) => Ok(Position {
            revision: u64::try_from(revision).unwrap_or(0),
            after: Some(start.trim_end_matches('\0').to_owned()),
        }),
        (other, ..) => {
            Err(invalid(format!("server does not recognize this encoded version {other}")))
        }
    }
}

/// The token of what follows `last` in the list of this revision; `None` is whatever is then present.
pub fn continue_token(revision: Option<u64>, last: &str) -> String {
    let rv = revision.and_then(|r| i64::try_from(r).ok()).unwrap_or(-1);
    let token = Token { v: "meta.k8s.io/v1".into(), rv, start: format!("{last}\0") };
    // Three plain fields: there is no way for this to fail.
    URL_SAFE_NO_PAD.encode(serde_json::to_vec(&token).unwrap_or_default())
}

/// The list's revision is no longer known. A reader of pages gets a token to go on all the same,
/// knowing that what changed meanwhile may show.
pub fn list_expired(position: &Position) -> Status {
    let Some(last) = &position.after else {
        return Status::gone("The resourceVersion for the provided list is too old.");
    };
    let mut status = Status::gone(
        "The provided continue parameter is too old to display a consistent list result. You can \
         start a new list without the continue parameter, or use the continue token in this \
         response to retrieve the remainder of the results. Continuing with the provided token \
         results in an inconsistent list - objects that were created, modified, or deleted between \
         the time the first chunk was returned and now may show up in the list.",
    );
    status.metadata.continue_token = continue_token(None, last);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(query: &str) -> Result<Position, String> {
        Position::of_list(&Query::parse(query), 100).map_err(|status| status.message)
    }

    #[test]
    fn a_list_names_its_revision() {
        let at = |revision| Ok(Position { revision, after: None });
        assert_eq!(list(""), at(0));
        assert_eq!(list("resourceVersion=0"), at(0));
        assert_eq!(list("resourceVersion=50"), at(0));
        assert_eq!(list("resourceVersion=50&limit=2"), at(50));
        assert_eq!(list("resourceVersion=50&limit=2&resourceVersionMatch=NotOlderThan"), at(0));
        assert_eq!(list("resourceVersion=50&resourceVersionMatch=Exact"), at(50));
        let token = continue_token(Some(7), "a/b");
        let on = Position { revision: 7, after: Some("a/b".into()) };
        assert_eq!(list(&format!("continue={token}")), Ok(on.clone()));
        assert_eq!(list(&format!("continue={token}&resourceVersion=0")), Ok(on));
        let now = continue_token(None, "a/b");
        assert_eq!(list(&format!("continue={now}")).map(|p| p.revision), Ok(0));
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let refused = |query: &str, words: &str| {
            let message = list(query).expect_err(query);
            assert!(message.contains(words), "{query}: {message}");
        };
        refused("resourceVersion=101", "Too large resource version: 101, current: 100");
        refused("resourceVersionMatch=Exact", "forbidden unless resourceVersion is provided");
        refused("resourceVersionMatch=Exact&resourceVersion=0", r#""exact" is forbidden"#);
        refused("resourceVersionMatch=New&resourceVersion=1", r#"Unsupported value: "New""#);
        refused("sendInitialEvents=true", "sendInitialEvents is forbidden for list");
        refused("continue=e30", "invalid continue token: continue key is not valid: missing field");
        let token = continue_token(Some(7), "a/b");
        refused(&format!("continue={token}&resourceVersion=7"), "not allowed when using continue");
        let both = "resourceVersionMatch is forbidden when continue is provided";
        refused(&format!("continue={token}&resourceVersion=7&resourceVersionMatch=Exact"), both);
    }
}
