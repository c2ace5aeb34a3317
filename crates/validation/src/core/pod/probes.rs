//! Probes and lifecycle handlers.

use super::Pod;
use crate::check::At;
use crate::formats;
use crate::shared::{port_number, port_or_name};

/// The three kinds of probes, which differ in one rule each.
pub(super) fn probes(container: &At<'_>, pod: &Pod<'_>) {
    for kind in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let at = container.get(kind);
        if at.is_absent() {
            continue;
        }
        probe(&at, pod);
        let (success, grace) =
            (at.get("successThreshold"), at.get("terminationGracePeriodSeconds"));
        if kind == "readinessProbe" {
            if !grace.is_absent() {
                grace.invalid("must not be set for readinessProbes");
            }
        } else if success.number() != 1 {
            success.invalid_number("must be 1");
        }
    }
}

fn probe(probe: &At<'_>, pod: &Pod<'_>) {
    handler(probe, &["exec", "httpGet", "tcpSocket", "grpc"], pod);
    for field in [
        "initialDelaySeconds",
        "timeoutSeconds",
        "periodSeconds",
        "successThreshold",
        "failureThreshold",
    ] {
        probe.get(field).non_negative();
    }
    let grace = probe.get("terminationGracePeriodSeconds");
    if grace.int().is_some_and(|seconds| seconds <= 0) {
        grace.invalid("must be greater than 0");
    }
}

pub(super) fn lifecycle(container: &At<'_>, pod: &Pod<'_>) {
    let lifecycle = container.get("lifecycle");
    for hook in ["postStart", "preStop"] {
        let at = lifecycle.get(hook);
        if !at.is_absent() {
            handler(&at, &["exec", "httpGet", "tcpSocket", "sleep"], pod);
        }
    }
    let signal = lifecycle.get("stopSignal");
    if !signal.is_absent() {
        stop_signal(&signal, pod);
    }
}

/// Exactly one way to act, of those that are possible here.
fn handler(at: &At<'_>, kinds: &[&str], pod: &Pod<'_>) {
    let mut found = false;
    for kind in kinds {
        let action = at.get(kind);
        if action.is_absent() {
            continue;
        }
        if found {
            action.forbidden("may not specify more than 1 handler type");
            continue;
        }
        found = true;
        match *kind {
            "exec" => drop(action.get("command").need()),
            "httpGet" => http_get(&action),
            "tcpSocket" => port_or_name(&action.get("port")),
            "grpc" => port_number(&action.get("port")),
            _ => sleep(&action, pod),
        }
    }
    if !found {
        at.required("must specify a handler type");
    }
}

fn http_get(action: &At<'_>) {
    action.get("path").need();
    port_or_name(&action.get("port"));
    action.get("scheme").one_of(&["HTTP", "HTTPS"]);
    let headers = action.get("httpHeaders");
    for header in headers.items() {
        for fault in formats::header_name(header.get("name").text()) {
            headers.invalid_as(&header.get("name").text().into(), &fault);
        }
    }
}

fn sleep(action: &At<'_>, pod: &Pod<'_>) {
    let Some(grace) = pod.grace else { return };
    let seconds = action.get("seconds").number();
    if seconds < 0 || seconds > grace {
        let detail =
            format!("must be non-negative and less than terminationGracePeriodSeconds ({grace})");
        action.invalid_as(&seconds.into(), &detail);
    }
}

/// Sorted as upstream lists them.
static SIGNALS: [&str; 65] = [
    "SIGABRT",
    "SIGALRM",
    "SIGBUS",
    "SIGCHLD",
    "SIGCLD",
    "SIGCONT",
    "SIGFPE",
    "SIGHUP",
    "SIGILL",
    "SIGINT",
    "SIGIO",
    "SIGIOT",
    "SIGKILL",
    "SIGPIPE",
    "SIGPOLL",
    "SIGPROF",
    "SIGPWR",
    "SIGQUIT",
    "SIGRTMAX",
    "SIGRTMAX-1",
    "SIGRTMAX-10",
    "SIGRTMAX-11",
    "SIGRTMAX-12",
    "SIGRTMAX-13",
    "SIGRTMAX-14",
    "SIGRTMAX-2",
    "SIGRTMAX-3",
    "SIGRTMAX-4",
    "SIGRTMAX-5",
    "SIGRTMAX-6",
    "SIGRTMAX-7",
    "SIGRTMAX-8",
    "SIGRTMAX-9",
    "SIGRTMIN",
    "SIGRTMIN+1",
    "SIGRTMIN+10",
    "SIGRTMIN+11",
    "SIGRTMIN+12",
    "SIGRTMIN+13",
    "SIGRTMIN+14",
    "SIGRTMIN+15",
    "SIGRTMIN+2",
    "SIGRTMIN+3",
    "SIGRTMIN+4",
    "SIGRTMIN+5",
    "SIGRTMIN+6",
    "SIGRTMIN+7",
    "SIGRTMIN+8",
    "SIGRTMIN+9",
    "SIGSEGV",
    "SIGSTKFLT",
    "SIGSTOP",
    "SIGSYS",
    "SIGTERM",
    "SIGTRAP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGUSR1",
    "SIGUSR2",
    "SIGVTALRM",
    "SIGWINCH",
    "SIGXCPU",
    "SIGXFSZ",
];

fn stop_signal(signal: &At<'_>, pod: &Pod<'_>) {
    match pod.os {
        None => signal.forbidden("may not be set for containers with empty `spec.os.name`"),
        Some("windows") => drop(signal.one_of(&["SIGKILL", "SIGTERM"])),
        Some("linux") => drop(signal.one_of(&SIGNALS)),
        Some(_) => {}
    }
}
