//! The environment that expressions are compiled in (apiserver `plugin/cel/compile.go`).

use std::sync::{Arc, LazyLock};

use cel::{Env, Objects, Program, Type, VARIABLES_TYPE, Variable};

const REQUEST: &str = "kubernetes.AdmissionRequest";
const NAMESPACE: &str = "kubernetes.Namespace";

/// The optional variables of an expression.
#[derive(Debug, Clone, Copy, Default)]
pub struct Given {
    pub authorizer: bool,
    /// `Object{…}`, `JSONPatch{…}` and `jsonpatch.escapeKey`.
    pub patches: bool,
}

impl Given {
    pub const NOTHING: Given = Given { authorizer: false, patches: false };
    pub const AUTHORIZER: Given = Given { authorizer: true, patches: false };
    pub const PATCHES: Given = Given { authorizer: true, patches: true };
}

/// An expression as it was written, and what became of it.
#[derive(Debug)]
pub struct Expression {
    pub text: Box<str>,
    pub(crate) program: Result<Program, String>,
}

impl Expression {
    /// Why it does not compile.
    pub fn fault(&self) -> Option<&str> {
        self.program.as_ref().err().map(String::as_str)
    }
}

/// Compiles the expressions of one policy or webhook.
#[derive(Debug)]
pub struct Compiler {
    objects: Objects,
    /// `params` may be named.
    params: bool,
    /// `variables` may be named.
    composed: bool,
    /// The types of `object`, `oldObject` and `params`, where they are known.
    types: [Type; 2],
    variables: Vec<Variable>,
}

impl Compiler {
    /// For the match conditions of a webhook.
    pub fn of_webhook() -> Compiler {
        Compiler::of_conditions(false)
    }

    /// Without variables; `params` says whether `params` may be named.
    pub fn of_conditions(params: bool) -> Compiler {
        let types = [Type::Dyn, Type::Dyn];
        let objects = TYPES.clone();
        Compiler { objects, params, composed: false, types, variables: Vec::new() }
    }

    /// For a policy; `params` says whether it declares a kind of parameters.
    pub fn of_policy(params: bool) -> Compiler {
        let mut this = Compiler { composed: true, ..Compiler::of_conditions(params) };
        this.objects.insert(VARIABLES_TYPE, []);
        this
    }

    /// For type checking: with the type of `object` and `oldObject`, and that of `params` where the policy
    /// declares a kind of parameters; the inner `None` says that nothing is known of it.
    pub(crate) fn typed(
        object: (&Type, &Objects),
        params: Option<Option<(&Type, &Objects)>>,
    ) -> Compiler {
        let mut this = Compiler::of_policy(params.is_some());
        this.objects.extend(object.1);
        let params = params.flatten();
        if let Some((_, objects)) = params {
            this.objects.extend(objects);
        }
        this.types = [object.0.clone(), params.map_or(Type::Dyn, |(ty, _)| ty.clone())];
        this
    }

    /// The compilation error of an expression of any output type.
    pub(crate) fn issues(&self, text: &str, given: Given) -> Option<String> {
        self.environment(given).compile(text).err().map(|issues| issues.to_string())
    }

    /// Adds a variable, which later variables and all expressions may use. The answer is why it does not compile.
    pub fn variable(&mut self, name: &str, text: &str) -> Option<&str> {
        let compiled = self.compile(text, Given::AUTHORIZER, &[]);
        let ty = compiled.as_ref().map_or(Type::Dyn, |(_, ty)| composable(ty));
        self.objects.set_field(VARIABLES_TYPE, name, ty);
        let program = compiled.map(|(program, _)| program);
        self.variables.push(Variable { name: name.into(), program });
        self.variables.last()?.program.as_ref().err().map(String::as_str)
    }

    /// The expression, whose value must be of one of these types.
    pub fn expression(&self, text: &str, given: Given, wanted: &[Type]) -> Expression {
        let program = self.compile(text, given, wanted).map(|(program, _)| program);
        Expression { text: text.into(), program }
    }

    /// The variables, for [`super::Activation`].
    pub fn into_variables(self) -> Vec<Variable> {
        self.variables
    }

    fn compile(
        &self,
        text: &str,
        given: Given,
        wanted: &[Type],
    ) -> Result<(Program, Type), String> {
        let env = self.environment(given);
        let compiled =
            env.compile(text).map_err(|issues| format!("compilation failed: {issues}"))?;
        let found = compiled.output();
        if !wanted.is_empty() && !wanted.contains(found) {
            return Err(wrong_type(wanted, found));
        }
        let program =
            compiled.program().map_err(|error| format!("program instantiation failed: {error}"))?;
        Ok((program, found.clone()))
    }

    /// The variables in the order in which [`super::Activation`] binds them. Those that may not be named
    /// here keep their place under a name that no expression can spell.
    fn environment(&self, given: Given) -> Env {
        let name = |may: bool, name| if may { name } else { "" };
        let [object, params] = &self.types;
        let env = Env::new(Arc::new(self.objects.clone()))
            .with("object", object.clone())
            .with("oldObject", object.clone())
            .with("namespaceObject", Type::object(NAMESPACE))
            .with("request", Type::object(REQUEST))
            .with(name(self.params, "params"), params.clone())
            .with(name(given.authorizer, "authorizer"), authorization("Authorizer"))
            .with(
                name(given.authorizer, "authorizer.requestResource"),
                authorization("ResourceCheck"),
            )
            .with(name(self.composed, "variables"), Type::object(VARIABLES_TYPE));
        if given.patches { env.with_patches() } else { env }
    }
}

fn authorization(name: &str) -> Type {
    Type::object(&format!("kubernetes.authorization.{name}"))
}

fn wrong_type(wanted: &[Type], found: &Type) -> String {
    let found = found.declared();
    match wanted {
        [one] => format!("must evaluate to {} but got {found}", one.declared()),
        many => {
            let names: Vec<String> = many.iter().map(Type::declared).collect();
            format!("must evaluate to one of [{}] but got {found}", names.join(" "))
        }
    }
}

/// The type of a variable as other expressions see it: objects and opaque types are seen when they run.
fn composable(ty: &Type) -> Type {
    match ty {
        Type::List(item) => Type::list(composable(item)),
        Type::Map(key, value) => Type::map(composable(key), composable(value)),
        Type::Bool
        | Type::Bytes
        | Type::Double
        | Type::Duration
        | Type::Int
        | Type::Null
        | Type::String
        | Type::Timestamp
        | Type::Uint => ty.clone(),
        _ => Type::Dyn,
    }
}

/// The types of `request` and `namespaceObject`.
static TYPES: LazyLock<Objects> = LazyLock::new(|| {
    let mut objects = Objects::default();
    let mut add = |name: &str, fields: &[(&str, Type)]| {
        objects.insert(name, fields.iter().map(|(field, ty)| ((*field).into(), ty.clone())));
    };
    let texts = || Type::list(Type::String);
    let text_map = || Type::map(Type::String, Type::String);
    let object = Type::object;
    let text = || Type::String;
    add("kubernetes.GroupVersionKind", &[("group", text()), ("version", text()), ("kind", text())]);
    add(
        "kubernetes.GroupVersionResource",
        &[("group", text()), ("version", text()), ("resource", text())],
    );
    add(
        "kubernetes.UserInfo",
        &[
            ("username", text()),
            ("uid", text()),
            ("groups", texts()),
            ("extra", Type::map(Type::String, texts())),
        ],
    );
    add(
        REQUEST,
        &[
            ("kind", object("kubernetes.GroupVersionKind")),
            ("resource", object("kubernetes.GroupVersionResource")),
            ("subResource", text()),
            ("requestKind", object("kubernetes.GroupVersionKind")),
            ("requestResource", object("kubernetes.GroupVersionResource")),
            ("requestSubResource", text()),
            ("name", text()),
            ("namespace", text()),
            ("operation", text()),
            ("userInfo", object("kubernetes.UserInfo")),
            ("dryRun", Type::Bool),
            ("options", Type::Dyn),
        ],
    );
    add("kubernetes.NamespaceSpec", &[("finalizers", texts())]);
    add(
        "kubernetes.NamespaceCondition",
        &[
            ("status", text()),
            ("type", text()),
            ("lastTransitionTime", Type::Timestamp),
            ("message", text()),
            ("reason", text()),
        ],
    );
    add(
        "kubernetes.NamespaceStatus",
        &[("conditions", Type::list(object("kubernetes.NamespaceCondition"))), ("phase", text())],
    );
    add(
        "kubernetes.NamespaceMetadata",
        &[
            ("name", text()),
            ("generateName", text()),
            ("namespace", text()),
            ("labels", text_map()),
            ("annotations", text_map()),
            // As upstream spells it.
            ("UID", text()),
            ("creationTimestamp", Type::Timestamp),
            ("deletionGracePeriodSeconds", Type::Int),
            ("deletionTimestamp", Type::Timestamp),
            ("generation", Type::Int),
            ("resourceVersion", text()),
            ("finalizers", texts()),
        ],
    );
    add(
        NAMESPACE,
        &[
            ("metadata", object("kubernetes.NamespaceMetadata")),
            ("spec", object("kubernetes.NamespaceSpec")),
            ("status", object("kubernetes.NamespaceStatus")),
        ],
    );
    objects
});
