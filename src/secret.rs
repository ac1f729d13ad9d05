//! Secrets at rest and in transit.
//!
//! Hides the cipher (XChaCha20-Poly1305), its keys, nonces and text form. Promises: a sealed value opens only with its
//! key and only in the table, row and column it was sealed for; nothing here shows a secret in `Debug`; a token reaches
//! SQL only as its [`TokenHash`]; a [`mac`] is good for one purpose.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose};
use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use secrecy::{ExposeSecret, SecretSlice, SecretString, zeroize::Zeroizing};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::random_bytes;

const NONCE: usize = 24;

/// Seals with the newest key, opens with all.
pub struct Sealer {
    /// Each with its id, the sealing one first; never empty.
    keys: Vec<(String, XChaCha20Poly1305)>,
}

/// Where a sealed value lives: bound to it as associated data, so that it opens nowhere else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub table: &'static str,
    /// The row, by its user's id.
    pub row: i64,
    pub column: &'static str,
}

/// The text form of a sealed value, a JSON object: other readers of a column that holds JSON are not surprised.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Envelope<'a> {
    version: u8,
    /// Which key: the first 4 bytes of its SHA-256, in hex.
    key: &'a str,
    /// Base64url without padding of the nonce (24 bytes), the ciphertext and its tag.
    sealed: &'a str,
}

impl Sealer {
    /// Reads `TOKEN_ENCRYPTION_KEY`: one or more keys of 32 bytes in base64 (either alphabet, padded or not), separated
    /// by commas. The error says what is wrong without a word of the value.
    pub fn parse(keys: &str) -> Result<Sealer, &'static str> {
        let keyed = |text: &str| {
            let text = Zeroizing::new(text.trim().trim_end_matches('=').replace('+', "-").replace('/', "_"));
            let key = general_purpose::URL_SAFE_NO_PAD.decode(text.as_bytes()).map(Zeroizing::new);
            let key = key.map_err(|_| "must be base64 of 32 bytes, or several of them separated by commas")?;
            let cipher = XChaCha20Poly1305::new_from_slice(&key).map_err(|_| "each key must have exactly 32 bytes")?;
            Ok((hex::encode(&Sha256::digest(&*key)[..4]), cipher))
        };
        Ok(Sealer { keys: keys.split(',').map(keyed).collect::<Result<_, &'static str>>()? })
    }

    /// Seals a value for its place; every call gives another text.
    pub fn seal(&self, place: &Place, plain: &[u8]) -> String {
        let (key, cipher) = &self.keys[0];
        let nonce = random_bytes::<NONCE>();
        let payload = Payload { msg: plain, aad: &place.associated_data() };
        let sealed = cipher.encrypt(&XNonce::from(nonce), payload).expect("the value is under 256 GiB");
        let sealed = general_purpose::URL_SAFE_NO_PAD.encode([&nonce[..], &sealed].concat());
        serde_json::json!(Envelope { version: 1, key, sealed: &sealed }).to_string()
    }

    /// Opens what [`Sealer::seal`] made for this place; none for anything else: another place or key, a changed or
    /// foreign text.
    pub fn open(&self, place: &Place, sealed: &str) -> Option<SecretSlice<u8>> {
        let envelope: Envelope = serde_json::from_str(sealed).ok()?;
        let bytes = general_purpose::URL_SAFE_NO_PAD.decode(envelope.sealed).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE>().filter(|_| envelope.version == 1)?;
        let aad = place.associated_data();
        // Ids are short: of several keys with the same one, the right one opens.
        let mut keys = self.keys.iter().filter(|(id, _)| id == envelope.key);
        keys.find_map(|(_, cipher)| cipher.decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: &aad }).ok())
            .map(SecretSlice::from)
    }
}

/// HMAC-SHA256 of a value, for one purpose, under `SECRET_KEY`.
///
/// A purpose has spaces and no NUL. So no two purposes share a text, and none shares one with the tokens that the same
/// key signs: those have no spaces.
pub fn mac(secret_key: &SecretString, purpose: &'static str, value: &[u8]) -> [u8; 32] {
    let mut context =
        hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret_key.expose_secret().as_bytes()));
    for part in [purpose.as_bytes(), b"\0", value] {
        context.update(part);
    }
    context.sign().as_ref().try_into().expect("SHA-256 has 32 bytes")
}

/// Whether a text has the form of a sealed value, whatever its key and place.
pub fn is_sealed(text: &str) -> bool {
    serde_json::from_str::<Envelope>(text).is_ok()
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|(id, _)| id)).finish()
    }
}

impl Place {
    /// One text per place: no name of a table or column contains a NUL.
    fn associated_data(&self) -> Vec<u8> {
        format!("interviews sealed v1\0{}\0{}\0{}", self.table, self.row, self.column).into_bytes()
    }
}

/// A bearer secret of our own (portal session, mailed link, OAuth state) in clear: only the browser, the mail or Google
/// gets it. `Debug` hides it.
#[derive(Clone, Debug)]
pub struct PlainToken(SecretString);

impl PlainToken {
    /// 256 random bits in 43 characters of base64url.
    pub fn generate() -> PlainToken {
        PlainToken(general_purpose::URL_SAFE_NO_PAD.encode(random_bytes::<32>()).into())
    }

    /// A token somebody shows us: any text, because only a known hash makes it one.
    pub fn from_outside(text: &str) -> PlainToken {
        PlainToken(text.into())
    }

    pub fn expose(&self) -> &str {
        self.0.expose_secret()
    }

    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.expose()).into())
    }
}

/// SHA-256 of a [`PlainToken`]'s text: what the database keeps. 256 random bits need no salt and no slow hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// 64 lower-case hexadecimal digits, the form of `company_oauthstate.state`.
    pub fn hex(&self) -> String {
        hex::encode(self.0)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PLACE: Place = Place { table: "company_googlecredentials", row: 101, column: "credentials_json" };

    fn key(byte: u8) -> String {
        general_purpose::STANDARD.encode([byte; 32])
    }

    fn sealer(keys: &[u8]) -> Sealer {
        Sealer::parse(&keys.iter().copied().map(key).collect::<Vec<_>>().join(",")).expect("keys")
    }

    fn opened(sealer: &Sealer, place: &Place, sealed: &str) -> Option<Vec<u8>> {
        sealer.open(place, sealed).map(|plain| plain.expose_secret().to_vec())
    }

    #[test]
    fn a_sealed_value_opens_in_its_place_and_shows_nothing() {
        let sealer = sealer(&[7]);
        let sealed = sealer.seal(&PLACE, b"ya29.secret-token");
        assert_eq!(opened(&sealer, &PLACE, &sealed).as_deref(), Some(&b"ya29.secret-token"[..]));
        assert!(
            !sealed.contains("ya29") && !sealed.contains(&general_purpose::STANDARD_NO_PAD.encode("ya29.sec")[..8])
        );
        let json: serde_json::Value = serde_json::from_str(&sealed).expect("a JSON object");
        assert_eq!(json["version"], 1);
        assert_eq!(json["key"], hex::encode(&Sha256::digest([7; 32])[..4]));
        assert_ne!(sealed, sealer.seal(&PLACE, b"ya29.secret-token"), "two seals of one value differ");
    }

    #[test]
    fn a_value_moved_to_another_table_row_or_column_does_not_open() {
        let sealer = sealer(&[7]);
        let sealed = sealer.seal(&PLACE, b"x");
        for place in [
            Place { table: "company_oauthstate", ..PLACE },
            Place { row: 102, ..PLACE },
            Place { row: -101, ..PLACE },
            Place { column: "code_verifier", ..PLACE },
            Place { table: PLACE.column, column: PLACE.table, ..PLACE },
        ] {
            assert_eq!(opened(&sealer, &place, &sealed), None, "{place:?}");
        }
    }

    #[test]
    fn the_first_key_seals_and_every_listed_key_opens() {
        let (old, rotated, new) = (sealer(&[1]), sealer(&[2, 1]), sealer(&[2]));
        let before = old.seal(&PLACE, b"before");
        let after = rotated.seal(&PLACE, b"after");
        assert_eq!(opened(&rotated, &PLACE, &before).as_deref(), Some(&b"before"[..]));
        assert_eq!(opened(&rotated, &PLACE, &after).as_deref(), Some(&b"after"[..]));
        assert_eq!(opened(&new, &PLACE, &after).as_deref(), Some(&b"after"[..]));
        assert_eq!(opened(&old, &PLACE, &after), None, "the old key does not seal any more");
        assert_eq!(opened(&new, &PLACE, &before), None, "a removed key does not open any more");
    }

    #[test]
    fn a_value_under_a_forged_key_id_does_not_open() {
        let (one, two) = (sealer(&[1]), sealer(&[2]));
        let sealed = one.seal(&PLACE, b"x").replace(&one.keys[0].0, &two.keys[0].0);
        assert_eq!(opened(&two, &PLACE, &sealed), None);
    }

    #[test]
    fn other_texts_do_not_open() {
        let sealer = sealer(&[7]);
        let id = &sealer.keys[0].0;
        for text in [
            "",
            "{}",
            "[]",
            "null",
            r#"{"token":"t","refresh_token":"r","token_uri":"u","client_id":"c","client_secret":"s","scopes":[]}"#,
            &format!(r#"{{"version":1,"key":"{id}","sealed":""}}"#),
            &format!(r#"{{"version":1,"key":"{id}","sealed":"AAAA"}}"#),
            &format!(r#"{{"version":1,"key":"{id}","sealed":"{}"}}"#, "A".repeat(32)),
            &format!(r#"{{"version":1,"key":"{id}","sealed":"*"}}"#),
            &sealer.seal(&PLACE, b"x").replace("\"version\":1", "\"version\":2"),
        ] {
            assert_eq!(opened(&sealer, &PLACE, text), None, "{text}");
        }
    }

    #[test]
    fn the_form_of_a_sealed_value_shows_without_its_key() {
        assert!(is_sealed(&sealer(&[7]).seal(&PLACE, b"x")));
        for text in ["", "{}", "null", "not json", r#"{"token":"t","refresh_token":"r"}"#] {
            assert!(!is_sealed(text), "{text}");
        }
    }

    #[test]
    fn keys_are_read_in_either_alphabet_with_spaces_and_without_padding() {
        let standard = general_purpose::STANDARD.encode([0xfb; 32]);
        let url_safe = general_purpose::URL_SAFE_NO_PAD.encode([0xfb; 32]);
        assert_ne!(standard, url_safe);
        let sealed = Sealer::parse(&standard).expect("a key").seal(&PLACE, b"x");
        let other = Sealer::parse(&format!(" {} , {url_safe} ", key(1))).expect("two keys");
        assert_eq!(opened(&other, &PLACE, &sealed).as_deref(), Some(&b"x"[..]));
    }

    #[test]
    fn wrong_keys_are_refused_without_showing_them() {
        let short = general_purpose::STANDARD.encode([1; 31]);
        let long = general_purpose::STANDARD.encode([1; 33]);
        for text in
            ["", " ", ",", "not base64!", &short, &long, &format!("{},", key(1)), &format!("{},{short}", key(1))]
        {
            let error = Sealer::parse(text).expect_err("no key");
            assert!(text.trim().len() < 2 || !error.contains(text), "{error}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let token = PlainToken::from_outside("tok-123");
        assert!(!format!("{token:?}").contains("tok-123"));
        let sealer = sealer(&[7]);
        assert_eq!(format!("{sealer:?}"), format!("[{:?}]", sealer.keys[0].0));
        let sealed = sealer.seal(&PLACE, b"hidden");
        let plain = sealer.open(&PLACE, &sealed).expect("opens");
        assert!(!format!("{plain:?}").contains("104"), "{plain:?}");
    }

    #[test]
    fn tokens_are_256_random_bits_kept_as_their_sha_256() {
        let (one, two) = (PlainToken::generate(), PlainToken::generate());
        assert_ne!(one.expose(), two.expose());
        assert_eq!(one.expose().len(), 43);
        assert_eq!(general_purpose::URL_SAFE_NO_PAD.decode(one.expose()).expect("base64url").len(), 32);
        assert_eq!(PlainToken::from_outside(one.expose()).hash(), one.hash());
        assert_ne!(one.hash(), two.hash());
        // The example of FIPS 180-2.
        let hash = PlainToken::from_outside("abc").hash();
        assert_eq!(hash.hex(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }

    proptest! {
        #[test]
        fn whatever_is_sealed_opens_again(plain in prop::collection::vec(any::<u8>(), 0..500), row in any::<i64>()) {
            let sealer = sealer(&[3]);
            let place = Place { row, ..PLACE };
            let sealed = sealer.seal(&place, &plain);
            prop_assert_eq!(opened(&sealer, &place, &sealed), Some(plain));
            prop_assert_eq!(opened(&sealer, &Place { row: row.wrapping_add(1), ..PLACE }, &sealed), None);
        }

        #[test]
        fn a_sealed_value_with_any_bit_changed_does_not_open(
            plain in prop::collection::vec(any::<u8>(), 0..100), at in any::<prop::sample::Index>(), bit in 0..8u8,
        ) {
            let sealer = sealer(&[3]);
            let text = sealer.seal(&PLACE, &plain);
            let sealed = text.split('"').find(|part| part.len() > 40).expect("the sealed bytes");
            let mut bytes = general_purpose::URL_SAFE_NO_PAD.decode(sealed).expect("base64url");
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            let forged = text.replace(sealed, &general_purpose::URL_SAFE_NO_PAD.encode(bytes));
            prop_assert_eq!(opened(&sealer, &PLACE, &forged), None);
        }

        #[test]
        fn no_text_makes_opening_or_reading_keys_panic(text in any::<String>()) {
            prop_assert!(opened(&sealer(&[3]), &PLACE, &text).is_none());
            let _ = Sealer::parse(&text);
        }
    }
}
