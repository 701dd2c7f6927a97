//! What somebody may have meant.

/// A word of more errors is another word.
const MAX_ERRORS: usize = 2;

/// The nearest of `known` to a word that is none of them.
pub(crate) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase().replace('_', "-");
    known
        .into_iter()
        .map(|candidate| (distance(&word, candidate), candidate))
        // Of a short word two errors leave nothing.
        .filter(|(errors, candidate)| *errors <= MAX_ERRORS.min(candidate.len() / 2))
        .min()
        .map(|(_, candidate)| candidate)
}

/// Letters to put in, take out, change or swap with the next, to make one word of the other.
fn distance(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().collect(), to.chars().collect());
    // Keys are short; whoever writes a page for one means none of ours.
    if from.len().abs_diff(to.len()) > MAX_ERRORS {
        return usize::MAX;
    }
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for (i, a) in from.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in to.iter().enumerate() {
            let cost = usize::from(a != b);
            let mut best = (rows[i][j] + cost).min(rows[i][j + 1] + 1).min(row[j] + 1);
            let swapped = i > 0 && j > 0 && from[i - 1] == *b && to[j - 1] == *a;
            if swapped {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn typing_errors_are_seen_through() {
        let known = ["device", "area", "area-size", "when-full", "keep"];
        for (word, meant) in [
            ("devcie", Some("device")),
            ("Device", Some("device")),
            ("area_size", Some("area-size")),
            ("aria", Some("area")),
            ("whenfull", Some("when-full")),
            ("kep", Some("keep")),
            ("origin", None),
            ("x", None),
        ] {
            assert_eq!(nearest(word, known), meant, "{word}");
        }
    }
}
