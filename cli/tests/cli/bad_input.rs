//! What bad input gets when no node is needed to see that it is bad.

use crate::run::{Ran, form, form_with};
use snapbox::{assert_data_eq, str};

const ID: &str = "00112233445566778899aabbccddeeff00112233";
const JUNK: &str = "test test test test test test test test test test test junk";

/// The commands that sign for one instance.
const SIGNED: [&[&str]; 5] =
    [&["manage", "commit"], &["manage", "start"], &["manage", "stop"], &["manage", "delete"], &["manage", "console"]];

fn commit(words: &[&str], environment: &[(&str, &str)], input: Option<&str>) -> String {
    form_with(&[&["manage", "commit", "-n", "demo-1"], words].concat(), environment, input).to_string()
}

#[test]
fn neither_or_both_of_id_and_name() {
    for command in SIGNED {
        let neither = form(command);
        assert_eq!(neither.code, 2);
        assert!(neither.stderr.contains("<--id <ID>|--name <NAME>>"), "{}", neither.stderr);
    }
    // Without either, the status is that of all.
    for command in SIGNED.iter().chain([&["manage", "status"][..]].iter()) {
        let both = form(&[command, &["-i", ID, "-n", "demo-1"][..]].concat());
        assert_eq!(both.code, 2);
        assert!(both.stderr.contains("cannot be used with"), "{}", both.stderr);
    }
    assert_data_eq!(
        form(&["manage", "commit"]).to_string(),
        str![[r#"
exit 2
error: the following required arguments were not provided:
  <--id <ID>|--name <NAME>>

Usage: form manage commit <--id <ID>|--name <NAME>>

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["manage", "commit", "-i", ID, "-n", "demo-1"]).to_string(),
        str![[r#"
exit 2
error: the argument '--id <ID>' cannot be used with '--name <NAME>'

Usage: form manage commit <--id <ID>|--name <NAME>>

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["manage", "commit", "-i", "demo-1"]).to_string(),
        str![[r#"
exit 2
error: invalid value 'demo-1' for '--id <ID>': an id is 40 hex digits, with or without 0x; for a name use --name

For more information, try '--help'.

"#]]
    );
}

#[test]
fn no_key() {
    for command in SIGNED {
        let ran = form(&[command, &["-i", ID]].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        assert!(ran.stderr.starts_with("error: no key was given"), "{}", ran.stderr);
    }
    assert_data_eq!(
        commit(&[], &[], None),
        str![[r#"
exit 2
error: no key was given to sign the request with
fix: give --mnemonic or --private-key (`-` reads it from stdin), or set FORM_MNEMONIC or FORM_PRIVATE_KEY; `form account new` makes one

"#]]
    );
    assert_data_eq!(
        commit(&["--json"], &[], None),
        str![[r#"
exit 2
{"code":"bad_key","message":"no key was given to sign the request with","remedy":"give --mnemonic or --private-key (`-` reads it from stdin), or set FORM_MNEMONIC or FORM_PRIVATE_KEY; `form account new` makes one"}

"#]]
    );
}

#[test]
fn two_keys() {
    assert_data_eq!(
        commit(&["-p", "00", "-m", JUNK], &[], None),
        str![[r#"
exit 2
error: more than one key was given: --private-key and --mnemonic
fix: give exactly one; an option counts before the environment

"#]]
    );
    assert_data_eq!(
        commit(&[], &[("FORM_PRIVATE_KEY", "00"), ("FORM_MNEMONIC", JUNK)], None),
        str![[r#"
exit 2
error: more than one key was given: FORM_PRIVATE_KEY and FORM_MNEMONIC
fix: give exactly one; an option counts before the environment

"#]]
    );
}

#[test]
fn keyfiles() {
    assert_data_eq!(
        commit(&["-k", "key.json"], &[], None),
        str![[r#"
exit 2
error: --keyfile: keyfiles are not read yet
fix: use --mnemonic or --private-key, or set FORM_MNEMONIC or FORM_PRIVATE_KEY

"#]]
    );
    assert_data_eq!(
        commit(&[], &[("FORM_KEYFILE", "key.json")], None),
        str![[r#"
exit 2
error: FORM_KEYFILE: keyfiles are not read yet
fix: use --mnemonic or --private-key, or set FORM_MNEMONIC or FORM_PRIVATE_KEY

"#]]
    );
}

#[test]
fn bad_mnemonics() {
    assert_data_eq!(
        commit(&["-m", &JUNK.replace("junk", "test")], &[], None),
        str![[r#"
exit 2
error: the mnemonic's checksum does not match
cause: every word is in the list, but together they are not a mnemonic: one was replaced, or two changed places
fix: compare it with what you wrote down, word by word and in order

"#]]
    );
    assert_data_eq!(
        commit(&["-m", &JUNK.replace("junk", "jumk")], &[], None),
        str![[r#"
exit 2
error: word 12 of the mnemonic, "jumk", is not in BIP-39's English list
fix: did you mean jump or junk?

"#]]
    );
    assert_data_eq!(
        commit(&["-m", "test junk"], &[], None),
        str![[r#"
exit 2
error: a mnemonic has 12, 15, 18, 21 or 24 words, this one 2
fix: on a shell, quote all of the words together

"#]]
    );
    assert_data_eq!(
        commit(&["-m", "-"], &[], Some("")),
        str![[r#"
exit 2
error: --mnemonic was to come from stdin, which is empty

"#]]
    );
    assert_data_eq!(
        commit(&["-m", "-"], &[], Some("test junk\n")),
        str![[r#"
exit 2
error: a mnemonic has 12, 15, 18, 21 or 24 words, this one 2
fix: on a shell, quote all of the words together

"#]]
    );
}

#[test]
fn bad_private_keys() {
    assert_data_eq!(
        commit(&["-p", &"0g".repeat(32)], &[], None),
        str![[r#"
exit 2
error: the private key holds something that is no hex digit
fix: give the 32 bytes of a secp256k1 private key, in hex or base64

"#]]
    );
    assert_data_eq!(
        commit(&["-p", "0x1234"], &[], None),
        str![[r#"
exit 2
error: a private key has 64 hex digits, this one 4
fix: give the 32 bytes of a secp256k1 private key, in hex or base64

"#]]
    );
    assert_data_eq!(
        commit(&["-p", "AAAA"], &[], None),
        str![[r#"
exit 2
error: the private key is neither 64 hex digits nor 32 bytes in base64
fix: for a mnemonic use --mnemonic

"#]]
    );
    assert_data_eq!(
        commit(&["-p", &"00".repeat(32)], &[], None),
        str![[r#"
exit 2
error: the private key is zero or beyond the curve's order
fix: give the 32 bytes of a secp256k1 private key, in hex or base64

"#]]
    );
}

#[test]
fn secrets_are_not_repeated() {
    let secret = "5ec4e7".repeat(10) + "5ec4g7";
    for words in [&["-p", &secret][..], &["-p", &secret[..20]]] {
        assert!(!commit(words, &[], None).contains("5ec4e7"));
    }
}

#[test]
fn create_is_from_a_spec_or_like_another() {
    assert_data_eq!(
        form(&["manage", "create", "-n", "x", "-m", JUNK]).to_string(),
        str![[r#"
exit 2
error: the following required arguments were not provided:
  <--spec <FILE>|--like <NAME|ID>>

Usage: form manage create --name <NAME> --mnemonic <WORDS> <--spec <FILE>|--like <NAME|ID>>

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["manage", "create", "-n", "x", "--spec", "a.toml", "--like", "y", "-m", JUNK]).to_string(),
        str![[r#"
exit 2
error: the argument '--spec <FILE>' cannot be used with '--like <NAME|ID>'

Usage: form manage create --name <NAME> --mnemonic <WORDS> <--spec <FILE>|--like <NAME|ID>>

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["manage", "create", "-n", "x", "--spec", "no/such.toml", "-m", JUNK]).to_string(),
        str![[r#"
exit 2
error: the spec no/such.toml can't be read
cause: No such file or directory (os error 2)

"#]]
    );
}

#[test]
fn addresses_levels_urls_and_times() {
    let grant = ["account", "grant", "--instance", "demo-1", "-m", JUNK];
    assert_data_eq!(
        form(&[&grant[..], &["--address", "12", "--level", "manager"]].concat()).to_string(),
        str![[r#"
exit 2
error: invalid value '12' for '--address <ADDRESS>': "12" is not an address; give 40 hex digits, with or without 0x

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&[&grant[..], &["--address", ID, "--level", "king"]].concat()).to_string(),
        str![[r#"
exit 2
error: invalid value 'king' for '--level <LEVEL>': "king" is not a level; give read-only, operator, manager or owner

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["node", "status", "--node", "https://127.0.0.1:3002"]).to_string(),
        str![[r#"
exit 2
error: invalid value 'https://127.0.0.1:3002' for '--node <URL>': nodes speak plain http; reach a distant one through a tunnel

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        commit(&["--timeout", "0"], &[], None),
        str![[r#"
exit 2
error: invalid value '0' for '--timeout <SECONDS>': 0 is not in 1..=86400

For more information, try '--help'.

"#]]
    );
    assert_data_eq!(
        form(&["--json", "manage", "comit"]).to_string(),
        str![[r#"
exit 2
{"code":"bad_request","message":"unrecognized subcommand 'comit'","remedy":"see --help"}

"#]]
    );
}

#[test]
fn a_node_that_is_not_there() {
    // A port that was free a moment ago and that nobody listens on.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let hide = |ran: Ran| ran.to_string().replace(&url, "http://NODE");
    assert_data_eq!(
        hide(form(&["manage", "commit", "-n", "demo-1", "-m", JUNK, "--node", &url])),
        str![[r#"
exit 9
error: the node at http://NODE can't be reached
cause: Connection refused (os error 111)
fix: start it with `form node run`, or name another with --node or FORM_NODE

"#]]
    );
    assert_data_eq!(
        hide(form_with(&["node", "status"], &[("FORM_NODE", &url)], None)),
        str![[r#"
exit 9
error: the node at http://NODE can't be reached
cause: Connection refused (os error 111)
fix: start it with `form node run`, or name another with --node or FORM_NODE

"#]]
    );
    assert_data_eq!(
        hide(form(&["--json", "manage", "instances", "--node", &url])),
        str![[r#"
exit 9
{"code":"unavailable","message":"the node at http://NODE can't be reached","cause":"Connection refused (os error 111)","remedy":"start it with `form node run`, or name another with --node or FORM_NODE"}

"#]]
    );
}
