//! `--private-key`: hex or base64.

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use form_node::auth::SigningKey;
use form_node::{ApiError, ErrorCode};
use zeroize::Zeroizing;

/// 64 characters, or a `0x`, are hex; anything else must be base64 of 32 bytes. The text is never repeated in an error.
pub(super) fn parse(text: &str) -> Result<SigningKey, ApiError> {
    if text.len() == 64 || text.starts_with("0x") {
        return SigningKey::from_hex(text);
    }
    let lenient = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    for alphabet in [&STANDARD, &URL_SAFE] {
        if let Ok(bytes) = GeneralPurpose::new(alphabet, lenient).decode(text).map(Zeroizing::new)
            && bytes.len() == 32
        {
            return SigningKey::from_bytes(&bytes);
        }
    }
    Err(ApiError::new(ErrorCode::BadKey, "the private key is neither 64 hex digits nor 32 bytes in base64")
        .remedy("for a mnemonic use --mnemonic"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_and_both_base64_name_the_same_key() {
        let address = "f39fd6e51aad88f6f4ce6ab8827279cfffb92266";
        for text in [
            "ac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
            "0xAC0974BEC39A17E36BA4A6B4D238FF944BACB478CBED5EFCAE784D7BF4F2FF80",
            "rAl0vsOaF+NrpKa00jj/lEustHjL7V78rnhNe/Ty/4A=",
            "rAl0vsOaF+NrpKa00jj/lEustHjL7V78rnhNe/Ty/4A",
            "rAl0vsOaF-NrpKa00jj_lEustHjL7V78rnhNe_Ty_4A=",
        ] {
            assert_eq!(parse(text).unwrap().address().to_string(), address);
        }
    }

    #[test]
    fn anything_else_is_a_bad_key() {
        for text in ["", "0x", "0x12", "hello", &"g".repeat(64), &"ZZZZ".repeat(16), &"A".repeat(43), "test test junk"]
        {
            let error = parse(text).unwrap_err();
            assert_eq!(error.code, ErrorCode::BadKey);
            assert!(text.len() < 3 || !error.message.contains(text));
        }
    }
}
