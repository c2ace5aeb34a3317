//! Variables, and steps from values into their fields, entries and items.

use super::{Machine, Outcome, Slot};
use crate::error::{Error, Failure};
use crate::plan::{Path, PathStep, Root, StepKey};
use crate::value::Value;

impl<'v> Machine<'_, 'v> {
    pub(super) fn path(&mut self, path: &'v Path) -> Outcome<'v> {
        let value = self.resolve(path);
        let own = match path.root {
            Root::Conditional(_) => 0,
            _ => u64::from(!path.test_only),
        };
        if !matches!(value, Err(Failure::CostExceeded)) {
            self.charge(own)?;
        }
        value
    }

    pub(super) fn resolve(&mut self, path: &'v Path) -> Outcome<'v> {
        let value = match &path.root {
            Root::Slot(slot) => self.slot(*slot)?,
            Root::Take(slot) => self.take(*slot)?,
            Root::Value(node) => self.eval(node)?,
            Root::Conditional(conditional) => self.conditional(conditional)?,
        };
        if path.steps.is_empty() {
            return Ok(value);
        }
        self.steps(path, value)
    }

    fn slot(&mut self, slot: usize) -> Outcome<'v> {
        match &self.slots[slot] {
            Slot::Value(value) => Ok(value.clone()?),
            Slot::Later(node) => {
                let node = *node;
                let value = self.attempt(node)?;
                self.slots[slot] = Slot::Value(value.clone());
                Ok(value?)
            }
            Slot::Empty => {
                let name = self.names.get(slot).map_or("", |name| name);
                Err(Error::new(format!("no such attribute(s): {name}")).into())
            }
        }
    }

    fn take(&mut self, slot: usize) -> Outcome<'v> {
        if matches!(self.slots[slot], Slot::Later(_)) {
            self.slot(slot)?;
        }
        match std::mem::replace(&mut self.slots[slot], Slot::Value(Ok(Value::Null))) {
            Slot::Value(value) => Ok(value?),
            _ => Ok(Value::Null),
        }
    }

    /// Steps from an optional, or after an optional step, give an optional.
    fn steps(&mut self, path: &'v Path, value: Value<'v>) -> Outcome<'v> {
        let (mut value, mut optional) = match value {
            Value::Optional(None) if path.test_only => return Ok(Value::Bool(false)),
            Value::Optional(None) => return Ok(Value::Optional(None)),
            Value::Optional(Some(inner)) => ((*inner).clone(), true),
            other => (other, false),
        };
        let last = path.steps.len() - 1;
        for (at, step) in path.steps.iter().enumerate() {
            optional |= step.optional;
            let tested = path.test_only && at == last;
            match self.step(step, &value, optional, tested)? {
                Some(next) => value = next,
                None if path.test_only => return Ok(Value::Bool(false)),
                None => return Ok(Value::Optional(None)),
            }
        }
        Ok(match (path.test_only, optional) {
            (true, _) => Value::Bool(true),
            (false, true) => Value::some(value),
            (false, false) => value,
        })
    }

    /// A variable of the composition; whether it is there is known without its value.
    fn variable(
        &mut self,
        key: &Value<'_>,
        lenient: bool,
        tested: bool,
    ) -> Result<Option<Value<'v>>, Failure> {
        let name = key.as_str().unwrap_or("");
        let known = self.composition.as_mut().filter(|all| all.has(name));
        match known {
            Some(_) if tested => Ok(Some(Value::Null)),
            Some(all) => Ok(Some(all.value(name)?)),
            None if lenient => Ok(None),
            None => Err(Error::no_key(&plain(key)).into()),
        }
    }

    /// The value one step further; `None` if it is not there and need not be.
    fn step(
        &mut self,
        step: &'v PathStep,
        value: &Value<'v>,
        optional: bool,
        tested: bool,
    ) -> Result<Option<Value<'v>>, Failure> {
        let found = match &step.key {
            StepKey::Const(key) if matches!(value, Value::Variables) => {
                self.variable(key, optional || tested, tested)
            }
            StepKey::Const(key) => at(value, key, optional || tested),
            StepKey::Path(path) => self.resolve(path).and_then(|key| at(value, &key, optional)),
            StepKey::Value(node) => self.eval(node).and_then(|key| at(value, &key, optional)),
        };
        let seen = !optional || found.as_ref().is_ok_and(Option::is_some);
        if seen && found.as_ref().err() != Some(&Failure::CostExceeded) {
            self.charge(1)?;
        }
        found
    }
}

/// A field, entry or item. What is not there is an error, unless `lenient`.
fn at<'v>(value: &Value<'v>, key: &Value<'_>, lenient: bool) -> Result<Option<Value<'v>>, Failure> {
    let missing = |error: Error| if lenient { Ok(None) } else { Err(error.into()) };
    match value {
        Value::Map(map) => match map.find(key)? {
            Some(found) => Ok(Some(found)),
            None => match map.missing() {
                Some(empty) => Ok(Some(empty)),
                None => missing(Error::no_key(&plain(key))),
            },
        },
        Value::List(list) => {
            let index = index_of(key)?;
            match usize::try_from(index).ok().filter(|at| *at < list.len()) {
                Some(at) => Ok(Some(list.get(at)?)),
                None => missing(Error::new(format!("index out of bounds: {}", plain(key)))),
            }
        }
        _ => missing(Error::no_key(&plain(key))),
    }
}

/// A key as Go prints it.
fn plain(key: &Value<'_>) -> String {
    match key {
        Value::String(text) => text.to_string(),
        Value::Uint(number) => number.to_string(),
        Value::Double(number) => number.to_string(),
        other => other.to_string(),
    }
}

fn index_of(key: &Value<'_>) -> Result<i64, Error> {
    match key {
        Value::Int(at) => Ok(*at),
        Value::Uint(at) => i64::try_from(*at)
            .map_err(|_| Error::new(format!("unsupported index value {at} in list"))),
        Value::Double(at) if at.fract() == 0.0 && at.abs() < 9e18 => Ok(*at as i64),
        Value::Double(at) => Err(Error::new(format!("unsupported index value {at} in list"))),
        other => {
            Err(Error::new(format!("unsupported index type '{}' in list", other.type_of().name())))
        }
    }
}
