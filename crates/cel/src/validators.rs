//! What sound types do not see: literals that no duration, time or pattern can be, mixed literals,
//! and formats that do not fit their arguments (cel-go `cel/validator.go`, `ext/formatting.go`).

use std::collections::HashSet;

use crate::ast::{Call, Expr, Id, Kind, Literal};
use crate::checker::Checked;
use crate::issues::Issues;
use crate::library::formatting::{Clause, interpolate};
use crate::library::regex;
use crate::time::{Span, Time};
use crate::types::Type;

pub(crate) fn validate(checked: &Checked, issues: &mut Issues) {
    let mut validator = Validator { checked, issues, exempt: HashSet::new() };
    let root = &checked.tree.root;
    root.walk(&mut |expr| validator.exempt_formats(expr));
    root.walk(&mut |expr| validator.expr(expr));
}

struct Validator<'c> {
    checked: &'c Checked,
    issues: &'c mut Issues,
    /// Literals below `format`, which takes arguments of any types.
    exempt: HashSet<Id>,
}

impl Validator<'_> {
    fn fault(&mut self, at: Id, message: String) {
        self.issues.add(Some(self.checked.tree.places[at as usize]), message);
    }

    fn exempt_formats(&mut self, expr: &Expr) {
        if matches!(&expr.kind, Kind::Call(call) if &*call.function == "format") {
            expr.walk(&mut |below| {
                self.exempt.insert(below.id);
            });
        }
    }

    fn expr(&mut self, expr: &Expr) {
        match &expr.kind {
            Kind::Call(call) => self.call(expr, call),
            Kind::List(elements) if !self.exempt.contains(&expr.id) => {
                let parts: Vec<_> = elements.iter().map(|e| (&e.value, e.optional)).collect();
                self.same_types(&parts, true);
            }
            Kind::Map(entries) if !self.exempt.contains(&expr.id) => {
                let keys: Vec<_> = entries.iter().map(|e| (&e.key, false)).collect();
                let values: Vec<_> = entries.iter().map(|e| (&e.value, e.optional)).collect();
                self.same_types(&keys, false);
                self.same_types(&values, false);
            }
            _ => {}
        }
    }

    fn same_types(&mut self, parts: &[(&Expr, bool)], once: bool) {
        let type_of = |(expr, optional): &(&Expr, bool)| {
            let ty = self.checked.type_of(expr);
            ty.unwrap_optional().filter(|_| *optional).unwrap_or(ty).clone()
        };
        let types: Vec<Type> = parts.iter().map(type_of).collect();
        let Some(first) = types.first() else { return };
        let odd = parts.iter().zip(&types).filter(|(_, ty)| *ty != first);
        let odd: Vec<(Id, String)> = odd
            .map(|((expr, _), ty)| (expr.id, format!("expected type '{first}' but found '{ty}'")))
            .collect();
        for (id, message) in odd.into_iter().take(if once { 1 } else { usize::MAX }) {
            self.fault(id, message);
        }
    }

    fn call(&mut self, expr: &Expr, call: &Call) {
        let Some(first) = call.args.first() else { return };
        let sound = match (&*call.function, &first.kind) {
            ("duration", Kind::Literal(Literal::String(text))) => Span::parse(text).is_some(),
            ("duration", Kind::Literal(_)) => false,
            ("timestamp", Kind::Literal(Literal::String(text))) => Time::parse(text).is_some(),
            ("timestamp", Kind::Literal(Literal::Int(n))) => Time::from_seconds(*n).is_some(),
            ("matches", Kind::Literal(Literal::String(pattern))) => regex(pattern).is_ok(),
            ("format", Kind::List(_)) => return self.format(expr, call),
            _ => true,
        };
        if !sound {
            self.fault(first.id, format!("invalid {} argument", call.function));
        }
    }

    /// A format that is written out, with its arguments.
    fn format(&mut self, expr: &Expr, call: &Call) {
        let (Some(target), Kind::List(args)) = (&call.target, &call.args[0].kind) else { return };
        let Kind::Literal(Literal::String(format)) = &target.kind else { return };
        let (mut shown, mut bad) = (0, expr.id);
        let mut show = |at: usize, clause: Clause| {
            shown = at + 1;
            self.fits(&args[at].value, clause).map(|()| String::new()).map_err(|(id, message)| {
                bad = id;
                message
            })
        };
        let result = interpolate(format, args.len(), &mut show);
        match result {
            Err(message) => self.fault(bad, message),
            Ok(_) if args.len() > shown => {
                let message = format!(
                    "too many arguments supplied to string.format (expected {shown}, got {})",
                    args.len()
                );
                self.fault(expr.id, message);
            }
            Ok(_) => {}
        }
    }

    fn fits(&self, expr: &Expr, clause: Clause) -> Result<(), (Id, String)> {
        let ty = self.checked.type_of(expr);
        if *ty != Type::Dyn && !clause.takes(ty) {
            return Err((expr.id, clause.refusal(ty.name())));
        }
        if clause != Clause::String {
            return Ok(());
        }
        let deep = matches!(expr.kind, Kind::List(_) | Kind::Map(_));
        let children = if deep { expr.children() } else { Vec::new() };
        children.into_iter().try_for_each(|child| self.fits(child, clause))
    }
}
