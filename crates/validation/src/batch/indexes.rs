//! Lists of indexes as jobs write them: `1,3-5,7`.

/// How many indexes are named; they ascend and are below the number of completions.
pub(super) fn count(text: &str, completions: i64) -> Result<i64, String> {
    let mut total = 0;
    let mut last = None;
    for part in text.split(',').filter(|_| !text.is_empty()) {
        let (from, to) = interval(part, completions)?;
        if let Some(last) = last.filter(|last| *last >= from) {
            return Err(format!("non-increasing order, previous: {last}, current: {from}"));
        }
        total += to - from + 1;
        last = Some(to);
    }
    Ok(total)
}

fn interval(part: &str, completions: i64) -> Result<(i64, i64), String> {
    let bounds: Vec<&str> = part.split('-').collect();
    if bounds.len() > 2 {
        return Err(format!(
            "the fragment {part:?} violates the requirement that an index interval can have at most two parts separated by '-'"
        ));
    }
    let bound = |text: &str| {
        let number: i64 = text
            .parse()
            .map_err(|_| format!("cannot convert string to integer for index: {text:?}"))?;
        if number >= completions {
            return Err(format!("too large index: {text:?}"));
        }
        Ok(number)
    };
    let from = bound(bounds[0])?;
    let Some(to) = bounds.get(1).map(|text| bound(text)).transpose()? else {
        return Ok((from, from));
    };
    if from >= to {
        return Err(format!("non-increasing order, previous: {from}, current: {to}"));
    }
    Ok((from, to))
}

/// The first index in both lists; parts that cannot be read are passed over.
pub(super) fn overlap(a: &str, b: &str, completions: i64) -> Option<i64> {
    let parts = |text: &str| -> Vec<(i64, i64)> {
        text.split(',').filter_map(|part| interval(part, completions).ok()).collect()
    };
    let (a, b) = (parts(a), parts(b));
    let both = a.iter().flat_map(|x| b.iter().map(move |y| (x, y)));
    both.filter(|(x, y)| x.0 <= y.1 && y.0 <= x.1).map(|(x, y)| x.0.max(y.0)).min()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_count_and_ascend() {
        assert_eq!(count("", 5), Ok(0));
        assert_eq!(count("0,2-4", 5), Ok(4));
        assert_eq!(count("5", 5), Err("too large index: \"5\"".into()));
        assert_eq!(count("2,1", 5), Err("non-increasing order, previous: 2, current: 1".into()));
        assert!(count("a", 5).is_err() && count("1-2-3", 5).is_err());
    }

    #[test]
    fn lists_meet_at_an_index() {
        assert_eq!(overlap("0-2,4", "3-5", 9), Some(4));
        assert_eq!(overlap("0-2", "3", 9), None);
    }
}
