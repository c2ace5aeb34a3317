//! Tables of expressions with upstream's answers.

mod conformance;
mod facts;
mod robust;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::{Decl, Env, Field, Objects, Scalar};

/// An object of a number `a` and a text `b`, both without limits.
pub(crate) fn declared() -> Decl {
    let field =
        |name: &str, decl: Decl| (name.into(), Field { name: name.into(), decl: Arc::new(decl) });
    let fields = BTreeMap::from([
        field("a", Decl::scalar(Scalar::Int, 0, 1)),
        field("b", Decl::scalar(Scalar::String, crate::REQUEST_MAX - 2, 2)),
    ]);
    Decl::object("selfType", fields, 2)
}

pub(crate) fn environment(decl: &Decl) -> Env {
    let env = Env::new(Arc::new(Objects::of(decl)));
    env.with("self", decl.ty.clone()).with("oldSelf", decl.ty.clone())
}
