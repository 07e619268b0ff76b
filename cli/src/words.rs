//! Lists and sentences as people read them.

use std::fmt::Display;

/// `demo-1`, `demo-1 and demo-2`, `demo-1, demo-2 and demo-3`.
pub(crate) fn list(names: &[impl Display]) -> String {
    let mut text = String::new();
    for (number, name) in names.iter().enumerate() {
        text += match number {
            0 => "",
            _ if number + 1 == names.len() => " and ",
            _ => ", ",
        };
        text += &name.to_string();
    }
    text
}

/// Who has not acknowledged a commit.
pub(crate) fn not_settled(missing: &[impl Display]) -> String {
    let have = if missing.len() == 1 { "has" } else { "have" };
    format!("not settled yet: {} {have} not acknowledged ({})", list(missing), when_back(missing, "finish"))
}

/// Who was not heard to have undone it: a node that comes back does so without a word to anybody.
pub(crate) fn not_undone(missing: &[impl Display]) -> String {
    format!("not settled yet: no acknowledgement from {} ({})", list(missing), when_back(missing, "undo"))
}

fn when_back(missing: &[impl Display], verb: &str) -> String {
    match missing.len() {
        1 => format!("its node {verb}es it when it is back"),
        _ => format!("their nodes {verb} it when they are back"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_more() {
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(
            not_settled(&["a"]),
            "not settled yet: a has not acknowledged (its node finishes it when it is back)"
        );
        assert_eq!(
            not_settled(&["a", "b"]),
            "not settled yet: a and b have not acknowledged (their nodes finish it when they are back)"
        );
        assert_eq!(
            not_undone(&["a"]),
            "not settled yet: no acknowledgement from a (its node undoes it when it is back)"
        );
    }
}
