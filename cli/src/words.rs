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

/// Who has not acknowledged an outcome, and that their nodes will do what is left: `finish` it or `undo` it.
pub(crate) fn not_settled(missing: &[impl Display], rest: &str) -> String {
    let (have, nodes, are) = match missing.len() {
        1 => ("has", format!("its node {rest}es"), "it is"),
        _ => ("have", format!("their nodes {rest}"), "they are"),
    };
    format!("not settled yet: {} {have} not acknowledged ({nodes} it when {are} back)", list(missing))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_more() {
        assert_eq!(list(&["a"]), "a");
        assert_eq!(list(&["a", "b", "c"]), "a, b and c");
        assert_eq!(
            not_settled(&["a"], "finish"),
            "not settled yet: a has not acknowledged (its node finishes it when it is back)"
        );
        assert_eq!(
            not_settled(&["a", "b"], "undo"),
            "not settled yet: a and b have not acknowledged (their nodes undo it when they are back)"
        );
    }
}
