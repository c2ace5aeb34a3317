//! Kubernetes' estimates of its own functions, and those of cel-go's extensions.

use super::calls::{CHECK_COST, Site, cost, is_accumulator, selector, sized, sort_factor, whole};
use super::{CallCost, Coster, LIST_COST, PER_CHARACTER, PER_PATTERN_CHARACTER, Range, Step};
use crate::ast::{Expr, Kind, Literal};
use crate::meter::is_nominal;
use crate::types::Type;

/// The longest pattern of a named format, and the longest name of one.
const FORMAT_PATTERN_MAX: f64 = 128.0;
const FORMAT_MAX: u64 = 64;
/// Bytes of an address.
const ADDRESS: Range = Range { min: 4, max: 16 };

impl<'c> Coster<'c> {
    pub(super) fn extension_cost(&mut self, site: &Site<'_, 'c>) -> Option<CallCost> {
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

    pub(super) fn kubernetes_cost(&mut self, site: &Site<'_, 'c>) -> Option<CallCost> {
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
            "url" | "jsonpatch.escapeKey" if args.len() == 1 => {
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
            name if is_nominal(name) => cost(Range::fixed(1)),
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
}
