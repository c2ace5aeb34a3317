//! Selectors of devices: CEL expressions over `device` (`dynamic-resource-allocation/cel`).

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use cel::{Env, Objects, Program, Type, Value};

/// The most that one run may cost (`resource.CELSelectorExpressionMaxCost`).
const COST_MAX: u64 = 1_000_000;
/// Expressions that are kept compiled; when there are more, all are compiled anew as they are asked for.
const KEPT_MAX: usize = 1000;

/// Selectors, compiled when they are first asked for.
#[derive(Debug)]
pub struct Selectors {
    env: Env,
    compiled: Mutex<HashMap<String, Arc<Compiled>>>,
}

type Compiled = Result<Program, String>;

impl Default for Selectors {
    fn default() -> Selectors {
        Selectors::new()
    }
}

impl Selectors {
    pub fn new() -> Selectors {
        const DEVICE: &str = "kubernetes.DRADevice";
        let of_domains = |inner: Type| Type::map(Type::String, Type::map(Type::String, inner));
        let fields: BTreeMap<Box<str>, Type> = [
            ("driver".into(), Type::String),
            ("allowMultipleAllocations".into(), Type::Bool),
            ("attributes".into(), of_domains(Type::Dyn)),
            ("capacity".into(), of_domains(Type::object("kubernetes.Quantity"))),
        ]
        .into();
        let mut objects = Objects::default();
        objects.insert(DEVICE, fields);
        let env = Env::new(Arc::new(objects)).with("device", Type::object(DEVICE)).with_bindings();
        Selectors { env, compiled: Mutex::default() }
    }

    /// Whether the expression is true of the device; if it has no answer, why, in upstream's words.
    pub(crate) fn matches(
        &self,
        expression: &str,
        device: &Value<'static>,
    ) -> Result<bool, String> {
        let compiled = self.get(expression);
        let program = (*compiled).as_ref().map_err(|why| format!("CEL compile error: {why}"))?;
        let outcome = program.run(vec![Some(Ok(device.clone()))], COST_MAX);
        match outcome.value {
            Ok(Value::Bool(yes)) => Ok(yes),
            Ok(other) => Err(format!(
                "CEL runtime error: CEL result of type {} could not be converted to bool",
                other.type_of().name()
            )),
            Err(failure) => Err(format!("CEL runtime error: {failure}")),
        }
    }

    fn get(&self, expression: &str) -> Arc<Compiled> {
        let mut kept = self.compiled.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(expression) {
            return known.clone();
        }
        if kept.len() >= KEPT_MAX {
            kept.clear();
        }
        let compiled = Arc::new(self.compile(expression));
        kept.insert(expression.to_owned(), compiled.clone());
        compiled
    }

    fn compile(&self, expression: &str) -> Compiled {
        let compiled = self.env.compile(expression);
        let compiled = compiled.map_err(|issues| format!("compilation failed: {issues}"))?;
        if !matches!(compiled.output(), Type::Bool | Type::Dyn) {
            let found = compiled.output().declared();
            return Err(format!("must evaluate to bool or the unknown type, not {found}"));
        }
        compiled.program().map_err(|why| format!("program instantiation failed: {why}"))
    }
}
