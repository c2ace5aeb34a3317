//! Which overloads a call may mean, and so what type it has.

use super::Checker;
use crate::ast::{Call, Expr, Id, Kind, Literal};
use crate::functions::{FUNCTIONS, Overload};
use crate::types::Type;

impl Checker<'_> {
    pub(super) fn call(&mut self, expr: &mut Expr) -> Type {
        let id = expr.id;
        let Kind::Call(call) = &mut expr.kind else { return Type::Error };
        if &*call.function == "_?._" {
            return self.optional_select(id, call);
        }
        if call.target.is_none()
            && let Some(plain) = call.function.strip_prefix('.')
        {
            call.function = plain.into();
        }
        let args: Vec<Type> = call.args.iter_mut().map(|arg| self.expr(arg)).collect();
        if matches!(&*call.function, "_&&_" | "_||_") {
            return self.logic(id, call, &args);
        }
        let Some(mut target) = call.target.take() else {
            let name = call.function.clone();
            return self.resolve_named(id, &name, false, args);
        };
        let dotted = target
            .qualified_name()
            .map(|t| format!("{}.{}", t.trim_start_matches('.'), call.function));
        if let Some(name) = dotted.filter(|name| self.function(name).is_some()) {
            call.function = name.into();
            let name = call.function.clone();
            return self.resolve_named(id, &name, false, args);
        }
        let receiver = self.expr(&mut target);
        call.target = Some(target);
        let name = call.function.clone();
        self.resolve_named(id, &name, true, std::iter::once(receiver).chain(args).collect())
    }

    fn optional_select(&mut self, id: Id, call: &mut Call) -> Type {
        let (operand, field) = call.args.split_at_mut(1);
        let (Some(operand), Some(field)) = (operand.first_mut(), field.first_mut()) else {
            return Type::Error;
        };
        let Kind::Literal(Literal::String(name)) = &field.kind else { return Type::Error };
        let name = name.clone();
        self.types[field.id as usize] = Type::String;
        let ty = self.field(id, operand, &name, true);
        self.overloads.insert(id, vec!["select_optional_field"]);
        self.known(&ty)
    }

    fn resolve_named(&mut self, id: Id, name: &str, member: bool, args: Vec<Type>) -> Type {
        match self.function(name) {
            Some(overloads) => self.resolve(id, name, overloads, member, &args),
            None => self.undeclared(id, name),
        }
    }

    /// The overloads of a function, if the environment has it.
    fn function(&self, name: &str) -> Option<&'static [Overload]> {
        let hidden = name == "jsonpatch.escapeKey" && !self.env.patches;
        FUNCTIONS.get(name).filter(|_| !hidden).map(Vec::as_slice)
    }

    fn resolve(
        &mut self,
        id: Id,
        name: &str,
        overloads: &'static [Overload],
        member: bool,
        args: &[Type],
    ) -> Type {
        let mut result: Option<Type> = None;
        let mut found = Vec::new();
        for overload in
            overloads.iter().filter(|o| o.member == member && o.args.len() == args.len())
        {
            let Some(ty) = self.matching(overload, args) else { continue };
            found.push(&*overload.id);
            result = Some(match result {
                Some(before) if before != Type::Dyn && before != ty => Type::Dyn,
                Some(before) => before,
                None => ty,
            });
        }
        let Some(ty) = result else {
            let args: Vec<Type> =
                args.iter().map(|arg| self.bindings.resolved(arg, true)).collect();
            let signature = signature(&args, member);
            self.fault(
                id,
                format!("found no matching overload for '{name}' applied to '{signature}'"),
            );
            return Type::Error;
        };
        self.overloads.insert(id, found);
        ty
    }

    /// The result's type if the arguments fit.
    fn matching(&mut self, overload: &Overload, args: &[Type]) -> Option<Type> {
        let first = self.bindings.fresh(overload.variables);
        let wanted: Vec<Type> = overload.args.iter().map(|ty| instance(ty, first)).collect();
        let pairs: Vec<_> = args.iter().zip(&wanted).collect();
        let fits = self.bindings.all_assignable(&pairs);
        fits.then(|| self.known(&instance(&overload.result, first)))
    }

    /// Terms of `&&` and `||` are told of where they stand.
    fn logic(&mut self, id: Id, call: &Call, args: &[Type]) -> Type {
        let mut sound = true;
        for (arg, ty) in call.args.iter().zip(args) {
            if !self.bindings.assignable(ty, &Type::Bool) {
                sound = false;
                self.mismatch(arg.id, &Type::Bool, ty);
            }
        }
        let overload = if &*call.function == "_&&_" { "logical_and" } else { "logical_or" };
        self.overloads.insert(id, vec![overload]);
        if sound { Type::Bool } else { Type::Error }
    }
}

/// An overload's type with its variables made new ones.
fn instance(ty: &Type, first: u32) -> Type {
    match ty {
        Type::Var(number) => Type::Var(first + number),
        _ => ty.rebuilt(&mut |part| instance(part, first)),
    }
}

fn signature(args: &[Type], member: bool) -> String {
    let texts: Vec<String> = args.iter().map(ToString::to_string).collect();
    match texts.split_first() {
        Some((receiver, rest)) if member => format!("{receiver}.({})", rest.join(", ")),
        _ => format!("({})", texts.join(", ")),
    }
}
