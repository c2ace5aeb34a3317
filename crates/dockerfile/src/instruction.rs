//! What each instruction says.

use std::time::Duration;

use crate::error::Result;

/// One instruction with its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    pub instruction: Instruction,
    /// First and last line, from 1.
    pub lines: (usize, usize),
    /// The joined line as it is written.
    pub original: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Instruction {
    Add(Transfer),
    /// Names, and values where they are given.
    Arg(Vec<(String, Option<String>)>),
    Cmd(CommandLine),
    Copy(Transfer),
    Entrypoint(CommandLine),
    Env(Vec<(String, String)>),
    Expose(Vec<String>),
    From(From),
    Healthcheck(Healthcheck),
    Label(Vec<(String, String)>),
    Maintainer(String),
    /// The instruction to run later, as text with its heredocs.
    Onbuild(String),
    Run(Run),
    Shell(Vec<String>),
    StopSignal(String),
    User(String),
    Volume(Vec<String>),
    Workdir(String),
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct From {
    pub base: String,
    /// Lower case; empty when the stage has no name.
    pub name: String,
    pub platform: String,
}

/// ADD and COPY.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Transfer {
    pub sources: Vec<String>,
    pub inline: Vec<InlineFile>,
    pub destination: String,
    /// An image or a stage to copy from; empty: the build context.
    pub from: String,
    pub chown: String,
    pub chmod: String,
    pub link: bool,
    pub parents: bool,
    pub exclude: Vec<String>,
    pub checksum: String,
    pub keep_git_dir: Option<bool>,
    pub unpack: Option<bool>,
}

/// A heredoc as a file's content.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InlineFile {
    pub name: String,
    pub content: String,
    pub expand: bool,
}

/// A command: for a shell, or as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CommandLine {
    pub words: Vec<String>,
    /// The words are one text for the shell.
    pub shell: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Network {
    #[default]
    Default,
    None,
    Host,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    pub command: CommandLine,
    pub heredocs: Vec<crate::Heredoc>,
    /// As written: variables in them are known when the step runs.
    pub mounts: Vec<String>,
    pub network: Network,
    /// `--security=insecure`.
    pub insecure: bool,
}

/// How a container's health is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", text]`.
    pub test: Vec<String>,
    pub interval: Duration,
    pub timeout: Duration,
    pub start_period: Duration,
    pub start_interval: Duration,
    pub retries: u32,
}

/// What kind of text is to be expanded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Text {
    /// Quotes and variables.
    Word,
    /// As a word, then split at blanks.
    Words,
    /// Variables only: a file's content.
    Raw,
}

impl Instruction {
    /// Replaces variables where the instruction allows them. RUN, CMD and ENTRYPOINT leave them to the shell.
    pub fn expand(
        &mut self,
        expand: &mut dyn FnMut(&str, Text) -> Result<Vec<String>>,
    ) -> Result<()> {
        let mut word = |text: &mut String, kind: Text| -> Result<()> {
            *text = expand(text, kind)?.pop().unwrap_or_default();
            Ok(())
        };
        match self {
            Instruction::Add(t) | Instruction::Copy(t) => {
                let texts = t.sources.iter_mut().chain(&mut t.exclude);
                let one = [&mut t.destination, &mut t.chown, &mut t.chmod, &mut t.checksum];
                texts.chain(one).try_for_each(|text| word(text, Text::Word))?;
                let inline = t.inline.iter_mut().filter(|f| f.expand);
                inline.map(|f| &mut f.content).try_for_each(|text| word(text, Text::Raw))
            }
            Instruction::Arg(list) => {
                let values = list.iter_mut().map(|(key, value)| {
                    word(key, Text::Word)?;
                    value.as_mut().map_or(Ok(()), |v| word(v, Text::Word))
                });
                values.collect()
            }
            Instruction::Env(list) | Instruction::Label(list) => {
                let texts = list.iter_mut().flat_map(|(key, value)| [key, value]);
                texts.collect::<Vec<_>>().into_iter().try_for_each(|t| word(t, Text::Word))
            }
            Instruction::Volume(list) => {
                list.iter_mut().try_for_each(|text| word(text, Text::Word))
            }
            Instruction::Expose(list) => {
                let split = list.iter().map(|text| expand(text, Text::Words));
                let split: Vec<Vec<String>> = split.collect::<Result<_>>()?;
                *list = split.into_iter().flatten().collect();
                Ok(())
            }
            Instruction::StopSignal(text)
            | Instruction::User(text)
            | Instruction::Workdir(text) => word(text, Text::Word),
            Instruction::Cmd(_)
            | Instruction::Entrypoint(_)
            | Instruction::From(_)
            | Instruction::Healthcheck(_)
            | Instruction::Maintainer(_)
            | Instruction::Onbuild(_)
            | Instruction::Run(_)
            | Instruction::Shell(_) => Ok(()),
        }
    }
}
