//! Combinations in the order of their positions.

/// All choices of `size` of the items.
pub(crate) fn combinations<T: Copy>(items: &[T], size: usize) -> Vec<Vec<T>> {
    let mut all = Vec::new();
    if size > 0 && size <= items.len() {
        extend(items, size, &mut Vec::with_capacity(size), &mut all);
    }
    all
}

fn extend<T: Copy>(items: &[T], size: usize, chosen: &mut Vec<T>, all: &mut Vec<Vec<T>>) {
    let missing = size - chosen.len();
    if missing == 0 {
        return all.push(chosen.clone());
    }
    for at in 0..=items.len().saturating_sub(missing) {
        let (Some(item), Some(rest)) = (items.get(at), items.get(at + 1..)) else { return };
        chosen.push(*item);
        if rest.len() + 1 >= missing {
            extend(rest, size, chosen, all);
        }
        chosen.pop();
    }
}
