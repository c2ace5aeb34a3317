//! `x-kubernetes-validations`: CEL rules, compiled once when a definition is installed.

use std::fmt;
use std::sync::{Arc, LazyLock};

use cel::{Context, Env, Program, Value as Cel};
use kinds::At;
use serde_json::Value;

use crate::node::Node;
use crate::values::to_cel;

/// One rule of a place.
pub struct Rule {
    program: Program,
    message_expression: Option<Program>,
    source: Box<str>,
    message: Box<str>,
    reason: Box<str>,
    /// Names of the fields from here to the one that faults are told of.
    field_path: Vec<Box<str>>,
    /// A transition rule: it asks about the former value.
    uses_old: bool,
    /// … and is run without one too, as an empty optional.
    optional_old: bool,
}

impl fmt::Debug for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rule({})", self.source)
    }
}

/// Kubernetes' environment: the standard library, optionals and the extensions it enables.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib().with_optional_support(true);
    for extension in [
        cel::extensions::strings as fn(&mut Env) -> _,
        cel::extensions::lists,
        cel::extensions::math,
        cel::extensions::encoders,
    ] {
        env.add_extension(extension).expect("the library's own extensions agree");
    }
    Arc::new(env)
});

impl Rule {
    pub(crate) fn parse(rule: &Value) -> Result<Rule, String> {
        let text = |key: &str| rule[key].as_str().unwrap_or("").trim();
        let source = text("rule");
        let program = compile(source)?;
        let message_expression = match text("messageExpression") {
            "" => None,
            expression => Some(compile(expression)?),
        };
        let path = text("fieldPath").split('.').filter(|name| !name.is_empty());
        Ok(Rule {
            uses_old: program.references().has_variable("oldSelf"),
            program,
            message_expression,
            source: source.into(),
            message: text("message").into(),
            reason: text("reason").into(),
            field_path: path.map(Into::into).collect(),
            optional_old: rule["optionalOldSelf"] == true,
        })
    }

    /// What faults say when nothing better is known.
    fn default_message(&self) -> String {
        match &*self.message {
            "" => format!("failed rule: {}", self.source),
            message => message.to_owned(),
        }
    }
}

pub(crate) fn compile(source: &str) -> Result<Program, String> {
    ENV.compile(source).map_err(|e| format!("compilation failed: {e}"))
}

/// Runs the rules of one place. A former value that does not exist leaves transition rules out.
pub(crate) fn check(node: &Node, at: &At<'_>) {
    if node.rules.is_empty() || at.is_absent() {
        return;
    }
    let mut context = Context::with_env(ENV.clone());
    crate::library::add_to(&mut context);
    let old = at.old().filter(|old| !old.is_null());
    bind(&mut context, "self", to_cel(node, at.value()));
    if let Some(old) = old {
        bind(&mut context, "oldSelf", to_cel(node, old));
    }
    for rule in &node.rules {
        let runs = !rule.uses_old || old.is_some() || rule.optional_old;
        // What an update leaves alone is not held against it.
        let excused = at.unchanged() && !rule.uses_old;
        if runs && !excused && !rule.source.is_empty() {
            run(rule, node, at, &context);
        }
    }
}

fn bind(context: &mut Context<'_, '_>, name: &str, value: Cel) {
    // Values made from JSON always convert.
    let _ = context.add_variable(name, value);
}

fn run(rule: &Rule, node: &Node, at: &At<'_>, context: &Context<'_, '_>) {
    let shown = Value::from(node.types.first().copied().unwrap_or(""));
    match rule.program.execute(context) {
        Ok(Cel::Bool(true)) => {}
        Ok(_) => fail(rule, node, at, context),
        Err(fault) => {
            let rule = if rule.message.is_empty() { &rule.source } else { &rule.message };
            at.invalid_as(&shown, &format!("{fault} evaluating rule: {rule}"));
        }
    }
}

fn fail(rule: &Rule, node: &Node, at: &At<'_>, context: &Context<'_, '_>) {
    let said = rule.message_expression.as_ref().and_then(|e| e.execute(context).ok());
    let detail = match said {
        Some(Cel::String(text)) if !text.trim().is_empty() && !text.contains('\n') => {
            text.to_string()
        }
        _ => rule.default_message(),
    };
    descend(at, &rule.field_path, &|at| match &*rule.reason {
        "FieldValueForbidden" => at.forbidden(&detail),
        "FieldValueRequired" => at.required(&detail),
        "FieldValueDuplicate" => at.duplicate(),
        // Objects and lists are not shown.
        _ if node.types.iter().any(|t| matches!(*t, "object" | "array")) => {
            at.report("FieldValueInvalid", format!("Invalid value: {detail}"));
        }
        _ => at.invalid(&detail),
    });
}

fn descend(at: &At<'_>, path: &[Box<str>], tell: &dyn Fn(&At<'_>)) {
    match path {
        [] => tell(at),
        [first, rest @ ..] => descend(&at.get(first), rest, tell),
    }
}
