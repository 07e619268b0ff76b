//! Exactly one key: from an option, or, when there is none, from the environment.

use form_node::{ApiError, ErrorCode};

use crate::args::{KeyArgs, Secret};

/// What a key's text is. A keyfile is refused before it becomes one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    PrivateKey,
    Mnemonic,
}

/// The source that counts.
#[derive(Debug)]
pub(super) struct Given {
    pub(super) kind: Kind,
    /// The option or variable it came from.
    pub(super) from: &'static str,
    pub(super) text: Secret,
}

/// Finds it. `environment` looks a variable up; an empty one counts as not set.
pub(super) fn choose(args: &KeyArgs, environment: impl Fn(&str) -> Option<Secret>) -> Result<Given, ApiError> {
    let typed = [
        ("--private-key", Some(Kind::PrivateKey), args.private_key.clone()),
        ("--keyfile", None, args.keyfile.clone()),
        ("--mnemonic", Some(Kind::Mnemonic), args.mnemonic.clone()),
    ];
    let set =
        [("FORM_PRIVATE_KEY", Some(Kind::PrivateKey)), ("FORM_KEYFILE", None), ("FORM_MNEMONIC", Some(Kind::Mnemonic))]
            .map(|(name, kind)| (name, kind, environment(name).filter(|text| !text.expose().is_empty())));
    let given = |sources: [(&'static str, Option<Kind>, Option<Secret>); 3]| -> Vec<_> {
        sources.into_iter().filter_map(|(from, kind, text)| text.map(|text| (from, kind, text))).collect()
    };
    let mut sources = given(typed);
    if sources.is_empty() {
        sources = given(set);
    }
    if sources.len() > 1 {
        let names: Vec<&str> = sources.iter().map(|(from, ..)| *from).collect();
        return Err(ApiError::new(ErrorCode::BadKey, format!("more than one key was given: {}", names.join(" and ")))
            .remedy("give exactly one; an option counts before the environment"));
    }
    match sources.pop() {
        Some((from, Some(kind), text)) => Ok(Given { kind, from, text }),
        Some((from, None, _)) => {
            Err(ApiError::new(ErrorCode::Unsupported, format!("{from}: keyfiles are not read yet"))
                .remedy("use --mnemonic or --private-key, or set FORM_MNEMONIC or FORM_PRIVATE_KEY"))
        }
        None => Err(ApiError::new(ErrorCode::BadKey, "no key was given to sign the request with").remedy(
            "give --mnemonic or --private-key (`-` reads it from stdin), or set FORM_MNEMONIC or FORM_PRIVATE_KEY; \
             `form account new` makes one",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(words: &[&str]) -> KeyArgs {
        #[derive(clap::Parser)]
        struct Typed {
            #[command(flatten)]
            key: KeyArgs,
        }
        <Typed as clap::Parser>::try_parse_from([&["form"], words].concat()).map(|typed| typed.key).unwrap()
    }

    fn chosen(words: &[&str], environment: &[(&str, &str)]) -> Result<&'static str, ApiError> {
        let look_up = |name: &str| {
            environment.iter().find(|(set, _)| *set == name).map(|(_, text)| Secret::new((*text).to_owned()))
        };
        choose(&typed(words), look_up).map(|given| given.from)
    }

    #[test]
    fn an_option_counts_before_the_environment() {
        assert_eq!(chosen(&["-p", "x"], &[("FORM_MNEMONIC", "y")]), Ok("--private-key"));
        assert_eq!(chosen(&["-m", "-"], &[]), Ok("--mnemonic"));
        assert_eq!(chosen(&[], &[("FORM_MNEMONIC", "y"), ("FORM_PRIVATE_KEY", "")]), Ok("FORM_MNEMONIC"));
        assert_eq!(chosen(&[], &[("FORM_PRIVATE_KEY", "y")]), Ok("FORM_PRIVATE_KEY"));
    }

    #[test]
    fn none_two_and_keyfiles_are_refused() {
        for (words, environment, code, message) in [
            (&[][..], &[][..], ErrorCode::BadKey, "no key was given to sign the request with"),
            (
                &["-p", "x", "-m", "y"],
                &[],
                ErrorCode::BadKey,
                "more than one key was given: --private-key and --mnemonic",
            ),
            (
                &["-p", "x", "-k", "y"],
                &[],
                ErrorCode::BadKey,
                "more than one key was given: --private-key and --keyfile",
            ),
            (
                &[],
                &[("FORM_MNEMONIC", "x"), ("FORM_KEYFILE", "y")],
                ErrorCode::BadKey,
                "more than one key was given: FORM_KEYFILE and FORM_MNEMONIC",
            ),
            (&["-k", "y"], &[("FORM_MNEMONIC", "x")], ErrorCode::Unsupported, "--keyfile: keyfiles are not read yet"),
            (&[], &[("FORM_KEYFILE", "x")], ErrorCode::Unsupported, "FORM_KEYFILE: keyfiles are not read yet"),
        ] {
            let error = chosen(words, environment).unwrap_err();
            assert_eq!((error.code, error.message.as_str()), (code, message));
            assert!(error.remedy.is_some());
        }
    }
}
