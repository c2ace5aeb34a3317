//! The flags of this process with their values, for `/flagz`.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use clap::{ArgMatches, Command};
use telemetry::zpages::Component;

static FLAGS: OnceLock<BTreeMap<String, String>> = OnceLock::new();

/// Keeps the flags of the command that is run.
pub(crate) fn keep(command: &Command, matches: &ArgMatches) {
    let flags = matches
        .subcommand()
        .and_then(|(name, matches)| Some(values(command.find_subcommand(name)?, matches)));
    FLAGS.get_or_init(|| flags.unwrap_or_default());
}

fn values(command: &Command, matches: &ArgMatches) -> BTreeMap<String, String> {
    let arguments = command.get_arguments().filter_map(|argument| {
        let name = argument.get_long()?.to_owned();
        let raw = matches.try_get_raw(argument.get_id().as_str()).ok().flatten();
        let all: Vec<_> = raw.into_iter().flatten().map(|value| value.to_string_lossy()).collect();
        Some((name, all.join(",")))
    });
    arguments.collect()
}

/// What this process tells of itself as one component.
pub(crate) fn component(name: &str) -> Component {
    Component { name: name.to_owned(), flags: FLAGS.get().cloned().unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use clap::{Arg, ArgAction, Command};

    use super::values;

    #[test]
    fn flags_have_their_values_or_defaults() {
        let command = Command::new("c")
            .arg(Arg::new("port").long("secure-port").default_value("6443"))
            .arg(Arg::new("names").long("names").value_delimiter(','))
            .arg(Arg::new("on").long("on").action(ArgAction::SetTrue))
            .arg(Arg::new("unset").long("unset"))
            .arg(Arg::new("positional"));
        let given = ["c", "--names=a,b", "x"];
        let matches = command.clone().try_get_matches_from(given).expect("they are known");
        let told = values(&command, &matches);
        let told: Vec<_> =
            told.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [("names", "a,b"), ("on", "false"), ("secure-port", "6443"), ("unset", "")];
        assert_eq!(told, expected);
    }
}
