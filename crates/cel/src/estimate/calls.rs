//! What calls cost: Kubernetes' estimates first, cel-go's extensions, then its standard library.

use super::{CallCost, Coster, LIST_COST, PER_CHARACTER, PER_PATTERN_CHARACTER, Range, Step};
use crate::ast::{Call, Expr, Kind, Literal};

/// An authorization check: two fit into one expression.
pub(crate) const CHECK_COST: u64 = 350_000;
/// A call's parts as the estimates see them.
pub(super) struct Site<'s, 'c> {
    pub(super) expr: &'c Expr,
    pub(super) call: &'c Call,
    pub(super) overload: &'s str,
    pub(super) arg_costs: &'s [Range],
}

pub(super) fn cost(cost: Range) -> CallCost {
    CallCost { cost, size: None }
}

pub(super) fn sized(cost: Range, size: Range) -> CallCost {
    CallCost { cost, size: Some(size) }
}

impl<'c> Coster<'c> {
    pub(super) fn call(&mut self, expr: &'c Expr, call: &'c Call) -> Range {
        if &*call.function == "dyn" && call.target.is_none() && call.args.len() == 1 {
            let argument = self.cost(&call.args[0]);
            self.copy_size(expr.id, &call.args[0]);
            return argument.plus(Range::fixed(1));
        }
        let mut arg_costs = Vec::with_capacity(call.args.len());
        for arg in &call.args {
            arg_costs.push(self.cost(arg));
            self.size(arg);
        }
        let receiver = call.target.as_ref().map_or(Range::fixed(0), |target| self.cost(target));
        let checked = self.checked;
        let mut total = Range { min: u64::MAX, max: 0 };
        let mut size: Option<Range> = None;
        for overload in checked.overloads_of(expr.id) {
            let site = Site { expr, call, overload, arg_costs: &arg_costs };
            let one = self.overload_cost(&site);
            total = total.union(one.cost);
            size = match (size, one.size) {
                (Some(a), Some(b)) => Some(a.union(b)),
                (a, b) => a.or(b),
            };
            if matches!(*overload, "index_list" | "index_map") {
                size = self.entry_size(&call.args[0]).map(|entries| entries.value);
                let path = self.path_and(&call.args[0], Step::Below);
                self.paths.insert(expr.id, path);
            }
            size = size.or_else(|| self.size(expr));
        }
        if checked.overloads_of(expr.id).is_empty() {
            return Range::fixed(0);
        }
        self.set_size(expr.id, size);
        receiver.plus(total)
    }

    fn overload_cost(&mut self, site: &Site<'_, 'c>) -> CallCost {
        let args = site.arg_costs.iter().fold(Range::fixed(0), |sum, cost| sum.plus(*cost));
        let own = self.extension_cost(site).or_else(|| self.kubernetes_cost(site));
        match own {
            Some(own) => CallCost { cost: own.cost.plus(args), size: own.size },
            None => self.standard_cost(site, args),
        }
    }

    /// A size as Kubernetes' and the extensions' estimates take it.
    pub(super) fn guess(&mut self, expr: &Expr) -> Range {
        self.size_or_unknown(expr)
    }

    fn standard_cost(&mut self, site: &Site<'_, 'c>, args: Range) -> CallCost {
        let call = site.call;
        let overload = site.overload;
        let operand = |at: usize| &call.args[at];
        match overload {
            "string_format" => {
                let size = call.target.as_ref().map_or(Range::UNKNOWN, |t| self.size_or_unknown(t));
                cost(size.scaled(PER_CHARACTER).plus(args))
            }
            "string_to_bytes" => {
                let size = self.size_or_unknown(operand(0));
                let result = Range { min: size.min, max: size.max.wrapping_mul(4) };
                sized(size.scaled(PER_CHARACTER).plus(args), result)
            }
            "bytes_to_string" => {
                let size = self.size_or_unknown(operand(0));
                let result = Range { min: size.min / 4, max: size.max };
                sized(size.scaled(PER_CHARACTER).plus(args), result)
            }
            "strings_quote" => {
                let size = self.size_or_unknown(operand(0));
                let result = Range {
                    min: size.min.wrapping_add(2),
                    max: size.max.wrapping_mul(2).wrapping_add(2),
                };
                sized(size.scaled(PER_CHARACTER).plus(args), result)
            }
            "starts_with_string" | "ends_with_string" => {
                cost(self.size_or_unknown(operand(0)).scaled(PER_CHARACTER).plus(args))
            }
            "in_list" => cost(self.size_or_unknown(operand(1)).scaled(1.0).plus(args)),
            "matches_string" | "contains_string" => self.search(site, args),
            "logical_or" | "logical_and" => {
                let (left, right) = (site.arg_costs[0], site.arg_costs[1]);
                cost(Range { min: left.min, max: left.plus(right).max })
            }
            "conditional" => self.conditional(site),
            "add_string" | "add_bytes" | "add_list" => self.concatenation(site, args),
            _ if compares_sizes(overload) => {
                let (left, right) =
                    (self.size_or_unknown(operand(0)), self.size_or_unknown(operand(1)));
                let max = left.max.min(right.max);
                cost(Range { min: u64::from(max > 0), max }.scaled(PER_CHARACTER).plus(args))
            }
            _ => cost(args.plus(Range::fixed(1))),
        }
    }

    fn search(&mut self, site: &Site<'_, 'c>, args: Range) -> CallCost {
        let Some(target) = &site.call.target else { return cost(args.plus(Range::fixed(1))) };
        let text = self.size_or_unknown(target);
        let pattern = self.size_or_unknown(&site.call.args[0]);
        let product = match site.overload {
            "matches_string" => {
                let steps = text.plus(Range::fixed(1)).scaled(PER_CHARACTER);
                steps.times(pattern.scaled(PER_PATTERN_CHARACTER))
            }
            _ => text.scaled(PER_CHARACTER).times(pattern.scaled(PER_CHARACTER)),
        };
        cost(product.plus(args))
    }

    fn conditional(&mut self, site: &Site<'_, 'c>) -> CallCost {
        let args = &site.call.args;
        let size = self.size_or_unknown(&args[1]).union(self.size_or_unknown(&args[2]));
        if let (Some(then), Some(otherwise)) =
            (self.entry_size(&args[1]), self.entry_size(&args[2]))
        {
            self.entries.insert(site.expr.id, then.union(otherwise));
        }
        let branches = site.arg_costs[1].union(site.arg_costs[2]);
        sized(site.arg_costs[0].plus(branches), size)
    }

    fn concatenation(&mut self, site: &Site<'_, 'c>, args: Range) -> CallCost {
        let (left, right) = (&site.call.args[0], &site.call.args[1]);
        let size = self.size_or_unknown(left).plus(self.size_or_unknown(right));
        if let (Some(a), Some(b)) = (self.entry_size(left), self.entry_size(right)) {
            self.entries.insert(site.expr.id, a.union(b));
        }
        let own = match site.overload {
            "add_list" => Range::fixed(1),
            _ => size.scaled(PER_CHARACTER),
        };
        sized(own.plus(args), size)
    }
}

pub(super) fn is_accumulator(path: &[Step]) -> bool {
    matches!(path.first(), Some(Step::Name(name)) if &**name == crate::ast::ACCUMULATOR)
}

/// Comparisons that look at each character of the shorter side.
pub(crate) fn compares_sizes(overload: &str) -> bool {
    matches!(overload, "equals" | "not_equals")
        || ((overload.starts_with("less_") || overload.starts_with("greater_"))
            && (overload.ends_with("_string") || overload.ends_with("_bytes")))
}

pub(crate) fn sort_factor(overload: &str) -> f64 {
    let is_text = overload.starts_with("list_string_") || overload.starts_with("list_bytes_");
    if is_text { 2.0 + PER_CHARACTER } else { 2.0 }
}

/// A selector's cost: its text is read, and each two characters may be one requirement.
pub(crate) fn selector(length: Range) -> Range {
    const REQUIREMENT: f64 = 50.0;
    let requirements = length.scaled(0.5);
    Range::fixed(LIST_COST)
        .plus(length.scaled(PER_CHARACTER))
        .plus(requirements.scaled(REQUIREMENT))
}

/// A number that is written out.
pub(super) fn whole(expr: &Expr, otherwise: u64) -> u64 {
    match expr.kind {
        Kind::Literal(Literal::Int(number)) => u64::try_from(number).unwrap_or(0),
        _ => otherwise,
    }
}
