//! `--mnemonic`: BIP-39 words to the key at m/44'/60'/0'/0/0, and new ones.

use bip39::{Error, Language, Mnemonic};
use form_node::auth::SigningKey;
use form_node::{ApiError, ErrorCode};
use zeroize::Zeroizing;

/// The first account of a wallet, as Ethereum's tools derive it.
const PATH: &str = "m/44'/60'/0'/0/0";

/// Entropy of a new mnemonic: 16 bytes are 12 words.
const ENTROPY_BYTES: usize = 16;

/// Case and spacing do not matter; order and checksum do.
pub(super) fn parse(text: &str) -> Result<SigningKey, ApiError> {
    let words = Zeroizing::new(text.to_lowercase());
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, &words).map_err(|error| explain(error, &words))?;
    derive(&mnemonic)
}

/// An account that nobody has had before.
pub(crate) struct NewAccount {
    /// 12 words.
    pub(crate) mnemonic: Zeroizing<String>,
    /// The key that they stand for.
    pub(crate) key: SigningKey,
}

/// Makes one, from the system's randomness.
pub(crate) fn new_account() -> Result<NewAccount, ApiError> {
    let mut entropy = Zeroizing::new([0; ENTROPY_BYTES]);
    getrandom::fill(entropy.as_mut_slice())
        .map_err(|error| ApiError::new(ErrorCode::Internal, "the system gives no random bytes").cause(error))?;
    let mnemonic = Mnemonic::from_entropy_in(Language::English, entropy.as_slice())
        .map_err(|error| ApiError::new(ErrorCode::Internal, "no mnemonic could be made").cause(error))?;
    Ok(NewAccount { key: derive(&mnemonic)?, mnemonic: Zeroizing::new(mnemonic.to_string()) })
}

fn derive(mnemonic: &Mnemonic) -> Result<SigningKey, ApiError> {
    let failed = |error: bip32::Error| {
        ApiError::new(ErrorCode::BadKey, format!("no key at {PATH} of the mnemonic can be derived")).cause(error)
    };
    let seed = Zeroizing::new(mnemonic.to_seed_normalized(""));
    let path = PATH.parse().map_err(failed)?;
    let key = bip32::XPrv::derive_from_path(seed.as_slice(), &path).map_err(failed)?;
    SigningKey::from_bytes(Zeroizing::new(key.to_bytes()).as_slice())
}

fn explain(error: Error, words: &str) -> ApiError {
    match error {
        Error::BadWordCount(count) => ApiError::new(
            ErrorCode::BadKey,
            format!("a mnemonic has 12, 15, 18, 21 or 24 words, this one {count}"),
        )
        .remedy("on a shell, quote all of the words together"),
        Error::UnknownWord(position) => {
            let word = words.split_whitespace().nth(position).unwrap_or_default();
            let error = ApiError::new(
                ErrorCode::BadKey,
                format!("word {} of the mnemonic, \"{word}\", is not in BIP-39's English list", position + 1),
            );
            let near = nearest(word);
            if near.is_empty() {
                error.remedy("compare it with what you wrote down")
            } else {
                error.remedy(format!("did you mean {}?", near.join(" or ")))
            }
        }
        Error::InvalidChecksum => ApiError::new(ErrorCode::BadKey, "the mnemonic's checksum does not match")
            .cause("every word is in the list, but together they are not a mnemonic: one was replaced, or two changed places")
            .remedy("compare it with what you wrote down, word by word and in order"),
        other => ApiError::new(ErrorCode::BadKey, "the mnemonic can't be read").cause(other),
    }
}

/// The words of the list that are most like this one, three at most; none when nothing is like it.
fn nearest(word: &str) -> Vec<&'static str> {
    // The longest word has eight letters; something far longer is not a slip of the pen.
    if word.len() > 16 {
        return vec![];
    }
    let far = word.chars().count().min(3);
    let mut near: Vec<(usize, &str)> =
        Language::English.word_list().iter().map(|other| (distance(word, other), *other)).collect();
    near.retain(|(distance, _)| *distance < far);
    near.sort_unstable();
    let least = near.first().map_or(0, |(distance, _)| *distance);
    near.into_iter().take_while(|(distance, _)| *distance == least).take(3).map(|(_, word)| word).collect()
}

/// Edits between two words: a letter put in, left out, replaced, or two neighbours exchanged.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for i in 0..=a.len() {
        for j in 0..=b.len() {
            rows[i][j] = if i == 0 || j == 0 {
                i + j
            } else {
                let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
                let mut least = replaced.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
                if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                    least = least.min(rows[i - 2][j - 2] + 1);
                }
                least
            };
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(serde::Deserialize)]
    struct Vector {
        mnemonic: String,
        private_key: String,
        address: String,
    }

    #[test]
    fn keys_are_those_of_an_independent_implementation() {
        let vectors: Vec<Vector> =
            serde_json::from_str(include_str!("../../node/tests/vectors/mnemonics.json")).unwrap();
        assert_eq!(vectors.len(), 13);
        for vector in vectors {
            let key = parse(&vector.mnemonic).unwrap();
            assert_eq!(key.address().to_string(), vector.address);
            assert_eq!(key.address(), SigningKey::from_hex(&vector.private_key).unwrap().address());
        }
    }

    #[test]
    fn case_and_spacing_do_not_matter() {
        let typed = format!("  {}\n JUNK\n", "Test  ".repeat(11));
        assert_eq!(parse(&typed).unwrap().address().to_string(), "f39fd6e51aad88f6f4ce6ab8827279cfffb92266");
    }

    #[test]
    fn errors_say_which_word() {
        let eleven = "test ".repeat(11);
        let unknown = parse(&format!("{}tset junk", "test ".repeat(10))).unwrap_err();
        assert_eq!(unknown.message, "word 11 of the mnemonic, \"tset\", is not in BIP-39's English list");
        assert_eq!(unknown.remedy.as_deref(), Some("did you mean test?"));
        let far = parse(&format!("{eleven}qqqqqqqq")).unwrap_err();
        assert_eq!(far.remedy.as_deref(), Some("compare it with what you wrote down"));
        assert_eq!(parse(&format!("{eleven}test")).unwrap_err().message, "the mnemonic's checksum does not match");
        assert_eq!(parse(&eleven).unwrap_err().message, "a mnemonic has 12, 15, 18, 21 or 24 words, this one 11");
    }

    #[test]
    fn a_new_account_is_its_mnemonic() {
        let (one, two) = (new_account().unwrap(), new_account().unwrap());
        assert_ne!(one.mnemonic, two.mnemonic);
        assert_eq!(one.mnemonic.split(' ').count(), 12);
        assert_eq!(parse(&one.mnemonic).unwrap().address(), one.key.address());
    }
}
