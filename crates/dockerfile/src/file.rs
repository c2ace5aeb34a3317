//! A whole Dockerfile: the arguments before the first stage, the stages, and which of them a target needs.

use std::collections::{BTreeMap, BTreeSet};

use crate::error::{Error, Result};
use crate::expand::Lexer;
use crate::instruction::{From, Instruction, Step};
use crate::mount;
use crate::read::{self, Warning};
use crate::suggest::nearest;
use crate::typed;

#[derive(Clone, Debug)]
pub struct File {
    pub escape: char,
    /// ARG before the first FROM: name and value.
    pub arguments: Vec<GlobalArguments>,
    pub stages: Vec<Stage>,
    pub warnings: Vec<Warning>,
}

/// One ARG before the first FROM.
#[derive(Clone, Debug)]
pub struct GlobalArguments {
    pub line: usize,
    /// Names, and values where they are given.
    pub list: Vec<(String, Option<String>)>,
}

#[derive(Clone, Debug)]
pub struct Stage {
    pub from: From,
    pub lines: (usize, usize),
    pub steps: Vec<Step>,
}

/// What a stage begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Base {
    Scratch,
    Stage(usize),
    Image(String),
}

impl File {
    /// Reads a file; `name` is told in errors.
    pub fn parse(name: &str, bytes: &[u8]) -> Result<File> {
        File::read(bytes).map_err(|e| e.in_file(name))
    }

    fn read(bytes: &[u8]) -> Result<File> {
        let nodes = read::nodes(bytes)?;
        let mut file = File {
            escape: nodes.escape,
            arguments: Vec::new(),
            stages: Vec::new(),
            warnings: nodes.warnings,
        };
        for node in &nodes.nodes {
            let step = typed::step(node)?;
            match (step.instruction.clone(), file.stages.last_mut()) {
                (Instruction::From(from), _) => {
                    file.stages.push(Stage { from, lines: step.lines, steps: Vec::new() });
                }
                (_, Some(stage)) => stage.steps.push(step),
                (Instruction::Arg(list), None) => {
                    let line = step.lines.0;
                    file.arguments.push(GlobalArguments { line, list })
                }
                (_, None) => {
                    return Err(Error::new("no build stage in current context")
                        .with_fix("FROM comes first; only ARG may stand before it")
                        .at_line(step.lines.0));
                }
            }
        }
        if file.stages.is_empty() {
            return Err(Error::new("dockerfile contains no stages to build")
                .with_fix("begin with FROM <image>"));
        }
        Ok(file)
    }

    /// The values of the arguments before the first stage: the file's, replaced by `given`.
    pub fn global_arguments(
        &self,
        predefined: &BTreeMap<String, String>,
        given: &BTreeMap<String, String>,
    ) -> Result<BTreeMap<String, String>> {
        let lexer = Lexer::new(self.escape);
        let mut values = predefined.clone();
        for (key, value) in given {
            if predefined.contains_key(key) {
                values.insert(key.clone(), value.clone());
            }
        }
        for GlobalArguments { line, list } in &self.arguments {
            for (key, default) in list {
                let value = match (given.get(key), default) {
                    (Some(value), _) => value.clone(),
                    (None, Some(text)) => {
                        lexer.word(text, &values).map_err(|e| e.at_line(*line))?
                    }
                    (None, None) => continue,
                };
                values.insert(key.clone(), value);
            }
        }
        Ok(values)
    }

    /// A stage by its name or number, among those before `before`.
    fn find(&self, name: &str, before: usize) -> Option<usize> {
        let lower = name.to_lowercase();
        let named = (0..before).rev().find(|i| self.stages[*i].from.name == lower);
        named.or_else(|| name.parse().ok().filter(|number| *number < before))
    }

    /// What stage `index` begins with.
    pub fn base(&self, index: usize, arguments: &BTreeMap<String, String>) -> Result<Base> {
        let stage = &self.stages[index];
        let expanded = Lexer::new(self.escape).expand(&stage.from.base, arguments);
        let expanded = expanded.map_err(|e| e.at_line(stage.lines.0))?;
        let name = expanded.text;
        if name.is_empty() {
            let unset: Vec<&str> = expanded.unmatched.iter().map(String::as_str).collect();
            return Err(Error::new(format!("base name ({}) should not be blank", stage.from.base))
                .with_fix(format!("give ARG {} a value before the first FROM", unset.join(" ")))
                .at_line(stage.lines.0));
        }
        if name == "scratch" {
            return Ok(Base::Scratch);
        }
        // A base is found by name only: `FROM 0` is an image.
        let lower = name.to_lowercase();
        let found = (0..index).rev().find(|i| self.stages[*i].from.name == lower);
        Ok(found.map_or(Base::Image(name), Base::Stage))
    }

    /// What `--from` and `from=` name, in stage `index`.
    pub fn source(&self, name: &str, index: usize) -> Result<Base> {
        match self.find(name, index) {
            Some(stage) => Ok(Base::Stage(stage)),
            None if name == "scratch" => Ok(Base::Scratch),
            None if name.bytes().all(|b| b.is_ascii_digit()) => Err(Error::new(format!(
                "invalid from flag value {name}: there is no such stage before this one"
            ))
            .with_fix("stages count from 0; name an earlier one, or an image")),
            None => Ok(Base::Image(name.to_owned())),
        }
    }

    /// The stage to build.
    pub fn target(&self, name: Option<&str>) -> Result<usize> {
        let last = self.stages.len() - 1;
        let Some(name) = name.filter(|n| !n.is_empty()) else { return Ok(last) };
        self.find(name, self.stages.len()).ok_or_else(|| {
            let names: Vec<&str> = self.stages.iter().map(|s| s.from.name.as_str()).collect();
            let error = Error::new(format!("target stage {name:?} could not be found"));
            let named: Vec<&str> = names.into_iter().filter(|n| !n.is_empty()).collect();
            match nearest(name, &named) {
                Some(near) => error.with_fix(format!("did you mean {near}?")),
                None => error.with_fix(format!("stages are {}", named.join(", "))),
            }
        })
    }

    /// The stages that `target` needs, itself among them, each after those it needs.
    pub fn needed(
        &self,
        target: usize,
        arguments: &BTreeMap<String, String>,
    ) -> Result<BTreeSet<usize>> {
        let mut needed = BTreeSet::new();
        let mut open = vec![target];
        while let Some(index) = open.pop() {
            if !needed.insert(index) {
                continue;
            }
            let mut sources = vec![self.base(index, arguments)?];
            for step in &self.stages[index].steps {
                sources.extend(self.sources(step, index)?);
            }
            open.extend(sources.into_iter().filter_map(|base| match base {
                Base::Stage(stage) => Some(stage),
                _ => None,
            }));
        }
        Ok(needed)
    }

    /// The stages and images that a step takes files from.
    pub fn sources(&self, step: &Step, index: usize) -> Result<Vec<Base>> {
        let names: Vec<String> = match &step.instruction {
            Instruction::Copy(copy) if !copy.from.is_empty() => vec![copy.from.clone()],
            Instruction::Run(run) => {
                let from = |text: &String| mount::from(text).map_err(|e| e.at_line(step.lines.0));
                let names: Vec<_> = run.mounts.iter().map(from).collect::<Result<_>>()?;
                names.into_iter().filter(|n| !n.is_empty()).collect()
            }
            _ => Vec::new(),
        };
        let source = |name: &String| self.source(name, index).map_err(|e| e.at_line(step.lines.0));
        names.iter().map(source).collect()
    }
}
