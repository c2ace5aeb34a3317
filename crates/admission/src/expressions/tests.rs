//! Expressions over one request, with upstream's texts and costs.

use api::registry::{Registry, Resource};
use auth::{RequestInfo, User};
use cel::{Type, Value as Cel};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Activation, Budget, Compiler, Expression, FailurePolicy, Given, Inputs, MatchConditions,
    Matched, RequestAuthorizer, admission_request, namespace_object,
};
use crate::attributes::{Attributes, Operation};
use crate::fakes::Fake;
use crate::reinvocation::Reinvocation;
use crate::versions::Single;

fn pods() -> &'static Resource {
    Registry::built_in().find("", "v1", "pods", "").expect("a row")
}

/// Runs `test` with the creation of a pod by a user of few rights.
fn with_request(test: impl FnOnce(&Attributes<'_>)) {
    let user = User::new("ann", &["devs"]);
    let info = RequestInfo { namespace: "default".into(), ..RequestInfo::default() };
    test(&Attributes {
        operation: Operation::Create,
        user: &user,
        info: &info,
        row: pods(),
        name: "p",
        old: None,
        dry_run: true,
        options: &|| json!({"kind": "CreateOptions", "fieldManager": "me"}),
        now: Timestamp::UNIX_EPOCH,
        deadline: None,
        cluster: &Fake::with(&[]),
        versions: &Single,
        reinvocation: &Reinvocation::default(),
        warn: &|_| {},
        annotate: &|_, _| {},
    });
}

fn object() -> Value {
    json!({
        "metadata": {"name": "p", "labels": {"a": "b"}},
        "spec": {"replicas": 3, "half": 0.5, "list": [1, 2], "none": null},
    })
}

/// Evaluates one expression of a policy with variables.
fn evaluate(variables: &[(&str, &str)], text: &str, given: Given) -> Result<String, String> {
    let mut answer = Err("not run".to_owned());
    with_request(|request| {
        let mut compiler = Compiler::of_policy(true);
        for (name, text) in variables {
            compiler.variable(name, text);
        }
        let expression = compiler.expression(text, given, &[]);
        let variables = compiler.into_variables();
        let authorizer = RequestAuthorizer::new(request);
        let (object, sent) = (object(), admission_request(request, pods()));
        let namespace = namespace_object(
            &json!({"metadata": {"name": "default", "uid": "u", "managedFields": []}, "spec": {}}),
        );
        let inputs = Inputs {
            object: Some(&object),
            old_object: None,
            request: &sent,
            params: None,
            namespace: Some(&namespace),
            authorizer: Some(&authorizer),
        };
        let mut activation = Activation::new(&inputs, &variables);
        let value = activation.evaluate(&expression, &mut Budget::POLICY.clone());
        answer = value.expect("within the budget").map(|value| value.to_string());
    });
    answer
}

fn check(text: &str, want: &str) {
    assert_eq!(evaluate(&[], text, Given::AUTHORIZER).as_deref(), Ok(want), "{text}");
}

fn refuse(text: &str, want: &str) {
    let found = evaluate(&[], text, Given::AUTHORIZER).expect_err(text);
    assert!(found.contains(want), "{text}: {found}");
}

#[test]
fn variables_of_the_request_are_bound() {
    check("object.spec.replicas + 1", "4");
    check("object.spec.half * 2.0", "1.0");
    check("object.spec.list == [1, 2] && object.metadata.labels == {'a': 'b'}", "true");
    check("object.spec.list == 'x'", "false");
    check("has(object.spec.none) && object.spec.none == null", "true");
    check("oldObject == null && params == null", "true");
    check("request.operation + request.kind.kind + request.resource.resource", "\"CREATEPodpods\"");
    check("request.userInfo.groups[0] + request.options.fieldManager", "\"devsme\"");
    check("request.dryRun && request.name == 'p' && request.namespace == 'default'", "true");
    check("namespaceObject.metadata.name", "\"default\"");
    check("has(dyn(namespaceObject).metadata.managedFields)", "false");
}

#[test]
fn faults_have_the_texts_of_upstream() {
    refuse(
        "object.spec.missing",
        "expression 'object.spec.missing' resulted in error: no such key: missing",
    );
    refuse("request.nothing", "undefined field 'nothing'");
    refuse("objct.spec", "undeclared reference to 'objct' (in container '')");
    refuse("has(request.object)", "undefined field 'object'");
    refuse("Object{}", "undeclared reference to 'Object' (in container '')");
    refuse("jsonpatch.escapeKey('a')", "undeclared reference to 'jsonpatch'");
    let without = evaluate(&[], "authorizer.path('/x').check('get').allowed()", Given::NOTHING);
    assert!(without.expect_err("refused").contains("undeclared reference to 'authorizer'"));
}

#[test]
fn a_value_of_another_type_is_refused() {
    let compiler = Compiler::of_policy(false);
    let fault = |text: &str, given: Given, wanted: &[Type]| {
        compiler.expression(text, given, wanted).fault().unwrap_or("").to_owned()
    };
    assert_eq!(fault("1", Given::NOTHING, &[Type::Bool]), "must evaluate to bool but got int");
    assert_eq!(
        fault("[1]", Given::NOTHING, &[Type::String, Type::Null]),
        "must evaluate to one of [string null_type] but got list(int)"
    );
    let patch = Type::list(Type::object("JSONPatch"));
    assert_eq!(
        fault("object", Given::PATCHES, &[patch]),
        "must evaluate to list(JSONPatch) but got dyn"
    );
    assert!(fault("params", Given::NOTHING, &[]).contains("undeclared reference to 'params'"));
}

#[test]
fn variables_are_composed_when_they_are_used() {
    let variables = [
        ("n", "object.spec.replicas"),
        ("twice", "variables.n * 2"),
        ("broken", "object.nothing.at.all"),
        ("wrong", "1 +"),
        ("typed", "'text'"),
    ];
    let run = |text: &str| evaluate(&variables, text, Given::AUTHORIZER);
    assert_eq!(run("variables.twice == 6").as_deref(), Ok("true"));
    assert_eq!(run("true || variables.broken").as_deref(), Ok("true"));
    assert_eq!(run("has(variables.broken)").as_deref(), Ok("true"));
    let broken = run("variables.broken").expect_err("fails");
    let text = "composited variable \"broken\" fails to evaluate: no such key: nothing";
    assert!(broken.ends_with(text), "{broken}");
    let wrong = run("variables.wrong").expect_err("fails");
    assert!(wrong.contains("composited variable \"wrong\" fails to compile: compilation failed: "));
    let undefined = run("variables.other").expect_err("no such variable");
    assert!(undefined.contains("undefined field 'other'"), "{undefined}");
    let typed = run("variables.typed + 1").expect_err("its type is known");
    assert!(typed.contains("found no matching overload for '_+_' applied to '(string, int)'"));
}

#[test]
fn a_variable_that_refers_to_itself_fails() {
    let variables = [("a", "1"), ("a", "variables.a + 1")];
    let fault = evaluate(&variables, "variables.a", Given::NOTHING).expect_err("circular");
    assert!(fault.contains("refers to itself"), "{fault}");
}

#[test]
fn the_authorizer_answers_for_requester_and_service_accounts() {
    check("authorizer.group('').resource('pods').namespace('x').check('get').allowed()", "false");
    check("authorizer.requestResource.check('create').allowed()", "false");
    check("authorizer.requestResource.check('create').errored()", "false");
    check("authorizer.serviceAccount('ns', 'sa').path('/healthz').check('get').reason()", "\"\"");
    check(
        "authorizer.group('').resource('pods').fieldSelector('spec.nodeName=n').labelSelector('a=b')\
         .subresource('log').name('p').check('list').error()",
        "\"\"",
    );
    refuse("authorizer.path(' ')", "path must not be empty");
    refuse("authorizer.group('').resource('')", "resource must not be empty");
    refuse("authorizer.serviceAccount('no_ns', 'sa')", "Invalid service account namespace");
    refuse("authorizer.serviceAccount('ns', 'NO')", "Invalid service account name");
}

#[test]
fn messages_say_how_to_change_an_object() {
    let run = |text: &str| evaluate(&[], text, Given::PATCHES);
    assert_eq!(
        run("Object{spec: Object.spec{replicas: object.spec.replicas + 1}}").as_deref(),
        Ok("Object{spec: Object.spec{replicas: 4}}")
    );
    assert_eq!(
        run("[JSONPatch{op: 'add', path: '/a/' + jsonpatch.escapeKey('k/~'), value: {'x': 1}}]")
            .as_deref(),
        Ok("[JSONPatch{op: \"add\", path: \"/a/k~1~0\", value: {\"x\": 1}}]")
    );
    assert_eq!(
        run("Object{?a: optional.none(), ?b: optional.of(1)}").as_deref(),
        Ok("Object{b: 1}")
    );
    let fault = run("JSONPatch{op: 1}").expect_err("op is text");
    assert!(fault.contains("expected type of field 'op' is 'string' but provided type is 'int'"));
    assert!(run("JSONPatch{what: 1}").expect_err("no field").contains("undefined field 'what'"));
}

#[test]
fn a_budget_ends_evaluation() {
    let compiler = Compiler::of_policy(false);
    let costly = compiler.expression(
        "[1,2,3,4,5,6,7,8,9,10].all(a, [1,2,3,4,5,6,7,8,9,10].all(b, [1,2,3,4,5,6,7,8,9,10].all(c, \
         [1,2,3,4,5,6,7,8,9,10].all(d, [1,2,3,4,5,6,7,8,9,10].all(e, a + b + c + d + e > 0)))))",
        Given::NOTHING,
        &[Type::Bool],
    );
    let request = json!({});
    let inputs = Inputs {
        object: None,
        old_object: None,
        request: &request,
        params: None,
        namespace: None,
        authorizer: None,
    };
    let mut activation = Activation::new(&inputs, &[]);
    let mut budget = Budget::CONDITIONS;
    let first = activation.evaluate(&costly, &mut budget).expect("a call stays below the budget");
    let want = "operation cancelled: actual cost limit exceeded";
    assert!(first.as_ref().is_err_and(|fault| fault.ends_with(want)), "{first:?}");
    let again = activation
        .evaluate(&costly, &mut budget)
        .and_then(|_| activation.evaluate(&costly, &mut budget).map(drop));
    assert!(
        again.expect_err("three are too much").to_string().starts_with("validation failed due")
    );
}

/// The answer of conditions that have these expressions.
fn conditions(failure: FailurePolicy, expressions: &[&str]) -> String {
    let list: Vec<Value> = (0..expressions.len())
        .map(|at| json!({"name": format!("c{at}"), "expression": expressions[at]}))
        .collect();
    let conditions = MatchConditions::compile(&json!(list), failure, &Compiler::of_webhook());
    let (object, request) = (object(), json!({}));
    let inputs = Inputs {
        object: Some(&object),
        old_object: None,
        request: &request,
        params: None,
        namespace: Some(&object),
        authorizer: None,
    };
    match conditions.matches(&inputs, &[]) {
        Matched::Yes => "yes".to_owned(),
        Matched::No(name) => format!("no: {}", name.unwrap_or("")),
        Matched::Failed(why) => why,
    }
}

#[test]
fn conditions_decide_before_their_faults_do() {
    use FailurePolicy::{Fail, Ignore};
    assert_eq!(conditions(Fail, &[]), "yes");
    assert_eq!(conditions(Fail, &["true", "object.spec.replicas == 3"]), "yes");
    assert_eq!(conditions(Fail, &["object.x", "false", "1 > 2"]), "no: c1");
    assert_eq!(conditions(Fail, &["namespaceObject == null"]), "yes");
    assert_eq!(conditions(Ignore, &["object.x == 1"]), "no: ");
    let one = "expression 'object.x == 1' resulted in error: no such key: x";
    assert_eq!(conditions(Fail, &["object.x == 1", "true"]), one);
    let two = "expression 'object.y == 1' resulted in error: no such key: y";
    let found = conditions(Fail, &["object.x == 1", "object.y == 1", "object.x == 1"]);
    assert_eq!(found, format!("[{one}, {two}]"));
    assert!(conditions(Fail, &["'text'"]).ends_with("must evaluate to bool but got string"));
    assert!(conditions(Fail, &["variables.x"]).contains("undeclared reference to 'variables'"));
}

#[test]
fn values_become_json() {
    let compiler = Compiler::of_policy(false);
    let json = |text: &str| {
        let expression: Expression = compiler.expression(text, Given::PATCHES, &[]);
        let request = json!({});
        let object = object();
        let inputs = Inputs {
            object: Some(&object),
            old_object: None,
            request: &request,
            params: None,
            namespace: None,
            authorizer: None,
        };
        let mut activation = Activation::new(&inputs, &[]);
        let value: Result<Cel<'_>, String> =
            activation.evaluate(&expression, &mut Budget::POLICY.clone()).expect("cheap");
        value.and_then(|value| value.to_json().map_err(|error| error.to_string()))
    };
    assert_eq!(
        json("Object{a: [1, 2], b: {'k': object.spec.list}, c: Object.c{d: duration('90s')}}"),
        Ok(json!({"a": [1, 2], "b": {"k": [1, 2]}, "c": {"d": "90s"}}))
    );
    assert_eq!(
        json("[dyn(null), dyn(b'ab'), dyn(true), dyn(0.5)]"),
        Ok(json!([null, "YWI=", true, 0.5]))
    );
    let keys = json("{1: 'a'}").expect_err("keys of JSON are text");
    assert_eq!(keys, "map key 1 is of type int, not string");
    assert!(json("url('https://a/')").is_err());
}
