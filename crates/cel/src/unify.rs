//! Which types may stand for which, and what type variables are found to be (cel-go
//! `checker/types.go`).

use crate::types::Type;

/// What is known of type variables. Attempts that fail leave no trace.
#[derive(Debug, Default)]
pub(crate) struct Bindings {
    bound: Vec<Option<Type>>,
    /// Changes since the attempt began: the variable and what it was.
    trail: Vec<(u32, Option<Type>)>,
}

impl Bindings {
    /// The first of so many new variables.
    pub(crate) fn fresh(&mut self, count: u32) -> u32 {
        let first = self.bound.len() as u32;
        self.bound.resize(self.bound.len() + count as usize, None);
        first
    }

    pub(crate) fn assignable(&mut self, a: &Type, b: &Type) -> bool {
        self.attempt(|bindings| bindings.fits(a, b))
    }

    pub(crate) fn all_assignable(&mut self, pairs: &[(&Type, &Type)]) -> bool {
        self.attempt(|bindings| pairs.iter().all(|(a, b)| bindings.fits(a, b)))
    }

    fn attempt(&mut self, try_it: impl FnOnce(&mut Bindings) -> bool) -> bool {
        self.trail.clear();
        let fits = try_it(self);
        if !fits {
            while let Some((variable, before)) = self.trail.pop() {
                self.bound[variable as usize] = before;
            }
        }
        fits
    }

    fn bind(&mut self, variable: u32, to: Type) {
        let before = self.bound[variable as usize].replace(to);
        self.trail.push((variable, before));
    }

    fn bound(&self, ty: &Type) -> Option<&Type> {
        match ty {
            Type::Var(number) => self.bound.get(*number as usize)?.as_ref(),
            _ => None,
        }
    }

    fn fits(&mut self, a: &Type, b: &Type) -> bool {
        if let Type::Var(variable) = b {
            match self.substitutes(a, b, *variable) {
                (true, _) => return true,
                (false, true) => return false,
                (false, false) => {}
            }
        }
        if let Type::Var(variable) = a {
            return self.substitutes(b, a, *variable).0;
        }
        if a.is_dyn_or_error() || b.is_dyn_or_error() {
            return true;
        }
        match (a, b) {
            (Type::Null, other) | (other, Type::Null) => takes_null(other),
            (Type::Type(_), Type::Type(_)) => true,
            (Type::Opaque(x, p), Type::Opaque(y, q)) => {
                x == y && p.len() == q.len() && p.iter().zip(&**q).all(|(a, b)| self.fits(a, b))
            }
            (Type::List(x), Type::List(y)) => self.fits(x, y),
            (Type::Map(k, v), Type::Map(l, w)) => self.fits(k, l) && self.fits(v, w),
            _ => a == b,
        }
    }

    /// Whether the variable may stand for the type, and whether it stood for something before.
    fn substitutes(&mut self, ty: &Type, variable: &Type, number: u32) -> (bool, bool) {
        if ty == variable {
            return (true, true);
        }
        if let Some(known) = self.bound(variable).cloned() {
            if *ty == known {
                return (true, true);
            }
            if !self.fits(ty, &known) {
                return (false, true);
            }
            let general = most_general(ty, &known).clone();
            if self.not_within(variable, &general) {
                self.bind(number, general);
            }
            return (true, true);
        }
        let free = self.not_within(variable, ty);
        if free {
            self.bind(number, ty.clone());
        }
        (free, false)
    }

    /// The variable is no part of the type: a type cannot hold itself.
    fn not_within(&self, variable: &Type, ty: &Type) -> bool {
        if variable == ty {
            return false;
        }
        match ty {
            Type::Var(_) => self.bound(ty).is_none_or(|known| self.not_within(variable, known)),
            _ => ty.parameters().into_iter().all(|part| self.not_within(variable, part)),
        }
    }

    /// The type with variables replaced by what they are; unknown ones become `dyn` if so asked.
    pub(crate) fn resolved(&self, ty: &Type, unknown_to_dyn: bool) -> Type {
        if let Some(known) = self.bound(ty) {
            return self.resolved(known, unknown_to_dyn);
        }
        match ty {
            Type::Var(_) if unknown_to_dyn => Type::Dyn,
            _ => ty.rebuilt(&mut |part| self.resolved(part, unknown_to_dyn)),
        }
    }
}

fn takes_null(ty: &Type) -> bool {
    matches!(ty, Type::Null | Type::Opaque(..) | Type::Object(_) | Type::Duration | Type::Timestamp)
}

/// Of two types that fit, the one that says less.
pub(crate) fn most_general<'t>(a: &'t Type, b: &'t Type) -> &'t Type {
    if says_no_more(a, b) { a } else { b }
}

fn says_no_more(a: &Type, b: &Type) -> bool {
    match (a, b) {
        (Type::Dyn | Type::Var(_), _) => true,
        (_, Type::Dyn | Type::Var(_)) => false,
        (Type::Type(_), Type::Type(_)) => true,
        (Type::Opaque(x, p), Type::Opaque(y, q)) => {
            x == y && p.len() == q.len() && p.iter().zip(&**q).all(|(a, b)| says_no_more(a, b))
        }
        (Type::List(x), Type::List(y)) => says_no_more(x, y),
        (Type::Map(k, v), Type::Map(l, w)) => says_no_more(k, l) && says_no_more(v, w),
        _ => a == b,
    }
}
