//! What calls cost: Kubernetes' estimates first, cel-go's extensions, then its standard library.

use super::{CallCost, Coster, LIST_COST, PER_CHARACTER, PER_PATTERN_CHARACTER, Range, Step};
use crate::ast::{Call, Expr, Kind, Literal};
use crate::types::Type;

/// An authorization check: two fit into one expression.
pub(crate) const CHECK_COST: u64 = 350_000;
/// The longest pattern of a named format, and the longest name of one.
const FORMAT_PATTERN_MAX: f64 = 128.0;
const FORMAT_MAX: u64 = 64;
/// Bytes of an address.
const ADDRESS: Range = Range { min: 4, max: 16 };

/// A call's parts as the estimates see them.
struct Site<'s, 'c> {
    expr: &'c Expr,
    call: &'c Call,
    overload: &'s str,
    arg_costs: &'s [Range],
}

fn cost(cost: Range) -> CallCost {
    CallCost { cost, size: None }
}

fn sized(cost: Range, size: Range) -> CallCost {
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
    fn guess(&mut self, expr: &Expr) -> Range {
        self.size_or_unknown(expr)
    }

    fn extension_cost(&mut self, site: &Site<'_, 'c>) -> Option<CallCost> {
        let call = site.call;
        let allocated = |factor: f64, size: Range| {
            sized(size.scaled(factor).plus(Range::fixed(1 + LIST_COST)), size)
        };
        let target = call.target.as_ref();
        let overload = site.overload;
        Some(match overload {
            "list_sets_contains_list"
            | "list_sets_intersects_list"
            | "list_sets_equivalent_list" => {
                let factor = if overload == "list_sets_equivalent_list" { 2.0 } else { 1.0 };
                let product = self.guess(&call.args[0]).times(self.guess(&call.args[1]));
                cost(product.scaled(factor).plus(Range::fixed(1)))
            }
            "list_slice" => {
                let max = self.guess(target?).max;
                let (start, end) = (whole(&call.args[0], 0), whole(&call.args[1], max));
                allocated(1.0, Range::fixed(end.wrapping_sub(start)))
            }
            "list_flatten" => allocated(1.0, self.guess(target?)),
            "list_flatten_int" => {
                let depth = whole(&call.args[0], u64::MAX);
                allocated(depth as f64, self.guess(target?))
            }
            "lists_range" => allocated(1.0, Range::fixed(whole(&call.args[0], u64::MAX))),
            "list_reverse" => allocated(1.0, self.guess(target?)),
            "list_distinct" => {
                let size = self.guess(target?);
                allocated(2.0, size.times(size))
            }
            _ if overload.starts_with("list_") && overload.ends_with("_sort") => {
                let size = self.guess(target?);
                allocated(sort_factor(overload), size.times(size))
            }
            _ if overload.ends_with("_sortByAssociatedKeys") => {
                let size = self.guess(&call.args[0]);
                allocated(sort_factor(overload), size.times(size))
            }
            _ => return None,
        })
    }

    fn kubernetes_cost(&mut self, site: &Site<'_, 'c>) -> Option<CallCost> {
        let call = site.call;
        let (target, args) = (call.target.as_ref(), &call.args[..]);
        let read = |size: Range| size.scaled(PER_CHARACTER);
        Some(match &*call.function {
            "check" => cost(Range::fixed(CHECK_COST)),
            "fieldSelector" | "labelSelector" if args.len() == 1 => {
                cost(selector(self.guess(&args[0])))
            }
            "isSorted" | "sum" | "max" | "min" | "indexOf" | "lastIndexOf" => {
                cost(self.compare_all(target?))
            }
            "url" if args.len() == 1 => {
                let size = self.guess(&args[0]);
                sized(read(size), size)
            }
            "lowerAscii" | "upperAscii" | "substring" | "trim" => {
                let size = self.guess(target?);
                sized(read(size), size)
            }
            "replace" if args.len() >= 2 => self.replace(target?, args),
            "split" => self.split(target?, args),
            "join" => self.join(target?, args),
            "find" | "findAll" if !args.is_empty() => {
                let text = self.guess(target?);
                let pattern = self.guess(&args[0]).scaled(PER_PATTERN_CHARACTER);
                let steps = read(text.plus(Range::fixed(1)));
                sized(steps.times(pattern), Range { min: 0, max: text.max })
            }
            "ip" if site.overload == "cidr_ip" => cost(Range::fixed(1)),
            "cidr" | "isIP" | "isCIDR" | "ip" | "quantity" | "isQuantity" | "semver"
            | "isSemver"
                if !args.is_empty() =>
            {
                cost(read(self.guess(&args[0])))
            }
            "ip.isCanonical" => cost(self.guess(&args[0]).scaled(2.0 * PER_CHARACTER)),
            "containsIP" | "containsCIDR" if !args.is_empty() => self.contains_address(site),
            "validate" if !args.is_empty() => {
                let steps = read(self.guess(&args[0]));
                cost(steps.scaled(FORMAT_PATTERN_MAX * PER_PATTERN_CHARACTER))
            }
            "_==_" => return self.equal_opaque(args),
            name if super::super::meter::is_nominal(name) => cost(Range::fixed(1)),
            _ => return None,
        })
    }

    /// Every item is compared once, strings by their characters.
    fn compare_all(&mut self, target: &Expr) -> Range {
        let size = self.guess(target);
        let Some(item) = self.checked.type_of(target).parameters().first().map(|t| (*t).clone())
        else {
            return size.scaled(PER_CHARACTER);
        };
        let mut each = Range::fixed(1);
        if matches!(item, Type::String | Type::Bytes) {
            each = each.plus(self.item_size(target).scaled(PER_CHARACTER));
        }
        size.times(each)
    }

    /// The size of a list's items, as declared.
    fn item_size(&self, list: &Expr) -> Range {
        let path = self.path(list);
        let known = (!path.is_empty() && !is_accumulator(&path))
            .then(|| self.declared_size(&self.path_and(list, Step::Below)))
            .flatten();
        known.unwrap_or(Range::UNKNOWN)
    }

    fn replace(&mut self, target: &Expr, args: &[Expr]) -> CallCost {
        let size = self.guess(target);
        let (from, to) = (self.guess(&args[0]), self.guess(&args[1]));
        let (mut count, mut kept) = (Range::fixed(0), Range::fixed(0));
        if from.min == 0 {
            (count.max, kept.max) = (size.max.saturating_add(1), size.max);
        } else if to.max <= from.min {
            kept.max = size.max;
        } else {
            count.max = (size.max as f64 / from.min as f64).ceil() as u64;
        }
        if from.max == 0 {
            (count.min, kept.min) = (size.min.saturating_add(1), size.min);
        } else if from.max <= to.min {
            kept.min = size.min;
        } else {
            count.min = (size.min as f64 / from.max as f64).ceil() as u64;
        }
        sized(size.scaled(2.0 * PER_CHARACTER), count.times(to).plus(kept))
    }

    fn split(&mut self, target: &Expr, args: &[Expr]) -> CallCost {
        let size = self.guess(target);
        let limit = args.get(1).map_or(size.max, |limit| match limit.kind {
            Kind::Literal(Literal::Int(count)) => count as u64,
            _ => size.max,
        });
        sized(size.scaled(2.0 * PER_CHARACTER), Range { min: 0, max: limit })
    }

    fn join(&mut self, target: &Expr, args: &[Expr]) -> CallCost {
        let list = self.guess(target);
        let mut size = list.times(self.item_size(target));
        if self.checked.type_of(target).parameters().is_empty() {
            size = Range::fixed(0);
        }
        if let Some(separator) = args.first() {
            let between =
                Range { min: list.min.saturating_sub(1), max: list.max.saturating_sub(1) };
            size = size.plus(self.guess(separator).times(between));
        }
        sized(size.scaled(PER_CHARACTER), size)
    }

    fn contains_address(&mut self, site: &Site<'_, 'c>) -> CallCost {
        let mut total = ADDRESS.plus(ADDRESS).scaled(PER_CHARACTER);
        if &*site.call.function == "containsCIDR" {
            total = total.plus(ADDRESS.scaled(PER_CHARACTER)).plus(Range::fixed(1));
        }
        if site.overload.ends_with("_string") {
            total = total.plus(self.guess(&site.call.args[0]).scaled(PER_CHARACTER));
        }
        cost(total)
    }

    /// Kubernetes' own types are compared at once.
    fn equal_opaque(&mut self, args: &[Expr]) -> Option<CallCost> {
        let [left, right] = args else { return None };
        let ty = self.checked.type_of(left);
        let name = match ty {
            Type::Opaque(name, _) | Type::Object(name) if ty == self.checked.type_of(right) => name,
            _ => return None,
        };
        match &**name {
            "net.IP" | "net.CIDR" | "kubernetes.Quantity" | "kubernetes.Semver" => {}
            "kubernetes.NamedFormat" => {
                return Some(cost(Range { min: 1, max: FORMAT_MAX }.scaled(PER_CHARACTER)));
            }
            "kubernetes.URL" => {
                let size = self.size(right).map_or(1, |size| size.max);
                return Some(cost(Range { min: 1, max: size }.scaled(PER_CHARACTER)));
            }
            name if name.starts_with("kubernetes.authorization.") => {}
            _ => return None,
        }
        Some(cost(Range::fixed(1)))
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

fn is_accumulator(path: &[Step]) -> bool {
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
fn whole(expr: &Expr, otherwise: u64) -> u64 {
    match expr.kind {
        Kind::Literal(Literal::Int(number)) => u64::try_from(number).unwrap_or(0),
        _ => otherwise,
    }
}
