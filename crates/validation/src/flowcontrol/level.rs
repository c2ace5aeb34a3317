//! Priority levels: how many requests run at once, and how others wait.

use serde_json::{Value, json};

use super::conditions;
use crate::check::At;
use crate::golang;
use crate::value::set_default;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind =
    Kind { default, create: level, update: level, status: conditions, again: true, ..PLAIN };

/// Bits of a hash from which a hand is dealt.
const HASH_BITS: f64 = 60.0;

fn default(object: &mut Value) {
    let Some(spec) = object.get_mut("spec").filter(|s| s.is_object()) else { return };
    if let Some(exempt) = spec.get_mut("exempt").filter(|e| e.is_object()) {
        set_default(exempt, "nominalConcurrencyShares", 0);
        set_default(exempt, "lendablePercent", 0);
    }
    let Some(limited) = spec.get_mut("limited").filter(|l| l.is_object()) else { return };
    set_default(limited, "nominalConcurrencyShares", 30);
    set_default(limited, "lendablePercent", 0);
    let queuing = limited.pointer_mut("/limitResponse/queuing").filter(|q| q.is_object());
    let Some(queuing) = queuing else { return };
    for (field, value) in [("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)] {
        if queuing[field].as_i64().unwrap_or(0) == 0 {
            queuing[field] = value.into();
        }
    }
}

fn level(object: &At<'_>) {
    const OLD: &str = "flowcontrol.k8s.io/preserve-zero-concurrency-shares";
    let (meta, at) = (object.get("metadata"), object.get("spec"));
    let annotations = meta.get("annotations");
    if annotations.value().get(OLD).is_some() {
        annotations.forbidden(&format!("annotation '{OLD}' is forbidden"));
    }
    let name = meta.get("name");
    spec(&at, name.text());
    mandatory(&at, name.text());
    conditions(object);
}

fn mandatory(at: &At<'_>, name: &str) {
    const TYPE: &str = "flowcontrol.PriorityLevelConfigurationSpec";
    match name {
        "exempt" => {
            let mut have = at.value().clone();
            have.as_object_mut().map(|h| h.remove("exempt"));
            if !golang::same(&have, &json!({"type": "Exempt"})) {
                at.invalid_struct(
                    TYPE,
                    "spec of 'exempt' except the 'spec.exempt' field must equal the fixed value",
                );
            }
        }
        "catch-all" => {
            let fixed = json!({"type": "Limited", "limited": {
                "nominalConcurrencyShares": 5, "lendablePercent": 0, "limitResponse": {"type": "Reject"},
            }});
            if !golang::same(at.value(), &fixed) {
                at.invalid_struct(TYPE, "spec of 'catch-all' must equal the fixed value");
            }
        }
        _ => {}
    }
}

fn spec(spec: &At<'_>, name: &str) {
    let (kind, limited, exempt) = (spec.get("type"), spec.get("limited"), spec.get("exempt"));
    if (name == "exempt") != (kind.text() == "Exempt") {
        kind.invalid_text("must be 'Exempt' if and only if `name` is 'exempt'");
    }
    match kind.text() {
        "Exempt" => {
            if !limited.is_absent() {
                limited.forbidden("must be nil if the type is not Limited");
            }
            shares(&exempt);
        }
        "Limited" => {
            if !exempt.is_absent() {
                exempt.forbidden("must be nil if the type is Limited");
            }
            if limited.is_absent() {
                limited.required("must not be empty when type is Limited");
            } else {
                self::limited(&limited);
            }
        }
        _ => kind.not_supported(&["Exempt", "Limited"]),
    }
}

fn shares(at: &At<'_>) {
    let shares = at.get("nominalConcurrencyShares");
    if shares.number() < 0 {
        shares.invalid("must be a non-negative integer");
    }
    percent(&at.get("lendablePercent"));
}

fn percent(at: &At<'_>) {
    if at.int().is_some_and(|n| !(0..=100).contains(&n)) {
        at.invalid("must be between 0 and 100, inclusive");
    }
}

fn limited(at: &At<'_>) {
    let shares = at.get("nominalConcurrencyShares");
    if shares.number() < 0 {
        shares.invalid("must be a non-negative integer");
    }
    response(&at.get("limitResponse"));
    percent(&at.get("lendablePercent"));
    let borrowing = at.get("borrowingLimitPercent");
    if borrowing.number() < 0 {
        borrowing.invalid("if specified, must be a non-negative integer");
    }
}

fn response(at: &At<'_>) {
    let (kind, queuing) = (at.get("type"), at.get("queuing"));
    match kind.text() {
        "Reject" => {
            if !queuing.is_absent() {
                queuing.forbidden("must be nil if limited.limitResponse.type is not Limited");
            }
        }
        "Queue" if queuing.is_absent() => {
            queuing.required("must not be empty if limited.limitResponse.type is Limited");
        }
        "Queue" => queues(&queuing),
        _ => kind.not_supported(&["Queue", "Reject"]),
    }
}

fn queues(at: &At<'_>) {
    let (length, queues, hand) = (at.get("queueLengthLimit"), at.get("queues"), at.get("handSize"));
    if length.number() <= 0 {
        length.invalid_number("must be positive");
    }
    if queues.number() <= 0 {
        queues.invalid_number("must be positive");
    } else if queues.number() > 10_000_000 {
        queues.invalid("must not be greater than 10000000");
    }
    let (deck, dealt) = (queues.number(), hand.number());
    if dealt <= 0 {
        hand.invalid_number("must be positive");
    } else if dealt > deck {
        hand.invalid(&format!("should not be greater than queues ({deck})"));
    } else if entropy(deck, dealt) > HASH_BITS {
        hand.invalid(&format!("required entropy bits of deckSize {deck} and handSize {dealt} should not be greater than 60"));
    }
}

/// Bits needed to deal that many different cards.
fn entropy(deck: i64, hand: i64) -> f64 {
    let bits = (deck as f64).log2() * hand as f64;
    bits.ceil()
}
