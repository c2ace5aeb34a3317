//! Types for every node, and which overloads each call may mean (cel-go `checker/checker.go`). Calls
//! of functions with dotted names, and dotted names of types, become what they are on the way.

mod calls;
mod structs;

use std::collections::HashMap;

use crate::Env;
use crate::ast::{Expr, Fold, Id, Kind, Literal, Select, Tree};
use crate::functions::type_named;
use crate::issues::Issues;
use crate::types::Type;
use crate::unify::{Bindings, most_general};

/// A tree that is sound, with what was found out.
#[derive(Debug)]
pub(crate) struct Checked {
    pub(crate) tree: Tree,
    /// By the nodes' numbers.
    pub(crate) types: Vec<Type>,
    /// The overloads each call may mean, in the order of their declaration.
    pub(crate) overloads: HashMap<Id, Vec<&'static str>>,
    /// The types that names of types stand for.
    pub(crate) type_names: HashMap<Id, Type>,
}

impl Checked {
    pub(crate) fn type_of(&self, expr: &Expr) -> &Type {
        self.types.get(expr.id as usize).unwrap_or(&Type::Dyn)
    }

    pub(crate) fn overloads_of(&self, id: Id) -> &[&'static str] {
        self.overloads.get(&id).map_or(&[], |ids| ids)
    }
}

pub(crate) fn check(mut tree: Tree, env: &Env, issues: &mut Issues) -> Checked {
    let types = vec![Type::Dyn; tree.places.len()];
    let mut checker = Checker {
        env,
        places: &tree.places,
        scopes: env.variables.clone(),
        types,
        overloads: HashMap::new(),
        type_names: HashMap::new(),
        bindings: Bindings::default(),
        issues,
    };
    checker.expr(&mut tree.root);
    let bindings = checker.bindings;
    let types = checker.types.iter().map(|ty| bindings.resolved(ty, true)).collect();
    let (overloads, type_names) = (checker.overloads, checker.type_names);
    Checked { tree, types, overloads, type_names }
}

struct Checker<'c> {
    env: &'c Env,
    places: &'c [u32],
    /// Innermost last.
    scopes: Vec<(Box<str>, Type)>,
    types: Vec<Type>,
    overloads: HashMap<Id, Vec<&'static str>>,
    type_names: HashMap<Id, Type>,
    bindings: Bindings,
    issues: &'c mut Issues,
}

impl Checker<'_> {
    fn fault(&mut self, id: Id, message: String) {
        self.issues.add(Some(self.places[id as usize]), message);
    }

    fn mismatch(&mut self, id: Id, expected: &Type, found: &Type) {
        self.fault(id, format!("expected type '{expected}' but found '{found}'"));
    }

    fn undeclared(&mut self, id: Id, name: &str) -> Type {
        self.fault(id, format!("undeclared reference to '{name}' (in container '')"));
        Type::Error
    }

    fn fresh(&mut self) -> Type {
        Type::Var(self.bindings.fresh(1))
    }

    fn known(&self, ty: &Type) -> Type {
        self.bindings.resolved(ty, false)
    }

    fn expr(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let ty = match &mut expr.kind {
            Kind::Literal(literal) => of_literal(literal),
            Kind::Ident(_) => self.ident(expr),
            Kind::Select(_) => self.select(expr),
            Kind::Call(_) => self.call(expr),
            Kind::List(_) => self.list(expr),
            Kind::Map(_) => self.map(expr),
            Kind::Struct(made) => self.structure(id, made),
            Kind::Fold(fold) => self.fold(fold),
        };
        self.types[id as usize] = ty.clone();
        ty
    }

    fn ident(&mut self, expr: &mut Expr) -> Type {
        let Kind::Ident(name) = &mut expr.kind else { return Type::Error };
        if let Some(plain) = name.strip_prefix('.') {
            *name = plain.into();
        }
        let name = name.clone();
        match self.variable(&name) {
            Some(ty) => ty,
            None => {
                self.type_name(expr.id, &name).unwrap_or_else(|| self.undeclared(expr.id, &name))
            }
        }
    }

    fn variable(&self, name: &str) -> Option<Type> {
        self.scopes.iter().rev().find(|(known, _)| **known == *name).map(|(_, ty)| ty.clone())
    }

    fn type_name(&mut self, id: Id, name: &str) -> Option<Type> {
        let ty = type_named(name).or_else(|| self.constructed(name))?;
        self.type_names.insert(id, ty.clone());
        Some(Type::Type(Some(ty.into())))
    }

    fn select(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        // `net.IP` and `authorizer.requestResource` are names, not fields.
        if let Some(name) = expr.qualified_name() {
            let plain = name.trim_start_matches('.');
            let known = self.variable(plain).or_else(|| self.type_name(id, plain));
            if let Some(ty) = known {
                expr.kind = Kind::Ident(plain.into());
                return ty;
            }
        }
        let Kind::Select(select) = &mut expr.kind else { return Type::Error };
        let Select { operand, field, test_only } = &mut **select;
        let ty = self.field(id, operand, field, false);
        if *test_only { Type::Bool } else { self.known(&ty) }
    }

    /// The type of a field, optional if the operand or the selection is.
    fn field(&mut self, id: Id, operand: &mut Expr, field: &str, optional: bool) -> Type {
        let operand = self.expr(operand);
        let operand = self.known(&operand);
        let inner = operand.unwrap_optional();
        let is_optional = optional || inner.is_some();
        let target = inner.unwrap_or(&operand).clone();
        let ty = match &target {
            Type::Map(_, value) => (**value).clone(),
            Type::Object(name) if self.env.patches && structs::is_constructed(name) => {
                structs::field_type(name, field).unwrap_or_else(|| {
                    self.fault(id, format!("undefined field '{field}'"));
                    Type::Error
                })
            }
            Type::Object(name) => self.object_field(id, name, field),
            Type::Var(_) => {
                self.bindings.assignable(&Type::Dyn, &target);
                Type::Dyn
            }
            other => {
                if !other.is_dyn_or_error() {
                    self.fault(id, format!("type '{other}' does not support field selection"));
                }
                Type::Dyn
            }
        };
        if is_optional { Type::optional(ty) } else { ty }
    }

    fn object_field(&mut self, id: Id, object: &str, field: &str) -> Type {
        match self.env.objects.field(object, field) {
            Some(Some(ty)) => ty.clone(),
            Some(None) => {
                self.fault(id, format!("undefined field '{field}'"));
                Type::Error
            }
            None => {
                self.fault(id, format!("unexpected failed resolution of '{object}'"));
                Type::Error
            }
        }
    }

    fn list(&mut self, expr: &mut Expr) -> Type {
        let Kind::List(elements) = &mut expr.kind else { return Type::Error };
        let mut joined = None;
        for element in elements {
            let ty = self.expr(&mut element.value);
            let ty = if element.optional { self.unwrapped(element.value.id, ty) } else { ty };
            joined = Some(self.join(joined, ty));
        }
        let item = joined.unwrap_or_else(|| self.fresh());
        Type::list(item)
    }

    fn map(&mut self, expr: &mut Expr) -> Type {
        let Kind::Map(entries) = &mut expr.kind else { return Type::Error };
        let (mut keys, mut values) = (None, None);
        for entry in entries {
            let key = self.expr(&mut entry.key);
            keys = Some(self.join(keys, key));
            let value = self.expr(&mut entry.value);
            let value = if entry.optional { self.unwrapped(entry.value.id, value) } else { value };
            values = Some(self.join(values, value));
        }
        let key = keys.unwrap_or_else(|| self.fresh());
        let value = values.unwrap_or_else(|| self.fresh());
        Type::map(key, value)
    }

    /// What an optional element holds.
    fn unwrapped(&mut self, id: Id, ty: Type) -> Type {
        match ty.unwrap_optional() {
            Some(inner) => inner.clone(),
            None => {
                if ty != Type::Dyn {
                    self.mismatch(id, &Type::optional(ty.clone()), &ty);
                }
                ty
            }
        }
    }

    /// The type that both have, or any: whether literals may mix types is the validators' to say.
    fn join(&mut self, before: Option<Type>, ty: Type) -> Type {
        let Some(before) = before else { return ty };
        if self.bindings.assignable(&before, &ty) {
            return most_general(&before, &ty).clone();
        }
        Type::Dyn
    }

    fn fold(&mut self, fold: &mut Fold) -> Type {
        let range = self.expr(&mut fold.range);
        let accumulator = self.expr(&mut fold.init);
        let range = self.known(&range);
        self.scopes.push((fold.accumulator.clone(), accumulator.clone()));
        let (item, item2) = self.item_types(fold, &range);
        self.scopes.push((fold.item.clone(), item));
        if let Some(name) = &fold.item2 {
            self.scopes.push((name.clone(), item2));
        }
        let condition = self.expr(&mut fold.condition);
        self.assert(fold.condition.id, &Type::Bool, &condition);
        let step = self.expr(&mut fold.step);
        self.assert(fold.step.id, &accumulator, &step);
        self.scopes.truncate(self.scopes.len() - 1 - usize::from(fold.item2.is_some()));
        let result = self.expr(&mut fold.result);
        self.scopes.pop();
        self.known(&result)
    }

    fn item_types(&mut self, fold: &Fold, range: &Type) -> (Type, Type) {
        let two = fold.item2.is_some();
        match range {
            Type::List(item) if two => (Type::Int, (**item).clone()),
            Type::List(item) => ((**item).clone(), Type::Error),
            Type::Map(key, value) => ((**key).clone(), (**value).clone()),
            Type::Dyn | Type::Error | Type::Var(_) => {
                self.bindings.assignable(&Type::Dyn, range);
                (Type::Dyn, Type::Dyn)
            }
            other => {
                self.fault(fold.range.id, format!("expression of type '{other}' cannot be range of a comprehension (must be list, map, or dynamic)"));
                (Type::Error, Type::Error)
            }
        }
    }

    fn assert(&mut self, id: Id, wanted: &Type, found: &Type) {
        if !self.bindings.assignable(wanted, found) {
            self.mismatch(id, wanted, found);
        }
    }
}

pub(crate) fn of_literal(literal: &Literal) -> Type {
    match literal {
        Literal::Null => Type::Null,
        Literal::Bool(_) => Type::Bool,
        Literal::Int(_) => Type::Int,
        Literal::Uint(_) => Type::Uint,
        Literal::Double(_) => Type::Double,
        Literal::String(_) => Type::String,
        Literal::Bytes(_) => Type::Bytes,
    }
}
