//! Tests of invalid PHP and unsupported code; `tests/it/cli/laravel.rs` compares evaluated values with PHP.

use super::*;

fn read(text: &str) -> Value {
    let outside = Outside { variable: &|_| Ok(None), config: &|_| Value::Null, has_ascii: true };
    evaluate(text, &outside)
}

#[test]
fn what_is_not_understood_is_unknown_and_the_rest_goes_on() {
    let php = read(
        "<?php return ['a' => fn ($x) => [$x, 1], 'b' => 'c', 'd' => new Thing(1, [2]), 'e' => \"f\\\"g\", 'h' => PHP_OS,
        'i' => function () { return ['j' => 1]; }, 'k' => #[Attribute] static fn () => 'l', 'm' => $x->y['z'], 'n' => 'o'];",
    );
    for (key, expected) in [("b", "c"), ("e", "f\"g"), ("k", "l"), ("n", "o")] {
        assert_eq!(php.at(&[key]), &Value::text(expected), "{key}");
    }
    for (key, why) in [("a", "`fn ($x) => [$x, 1]`"), ("d", "`new Thing(1, [2])`"), ("h", "`PHP_OS`"), ("m", "`$x->y['z']`")] {
        assert_eq!(php.at(&[key]), &Value::Unknown(why.to_owned()), "{key}");
    }
    assert!(php.at(&["i"]).is_unknown());
    assert_eq!(php.at(&["x"]), &Value::Null);
}

#[test]
fn what_a_condition_or_a_loop_may_change_is_unknown_from_there_on() {
    for text in [
        "<?php $x = 1; if (unknown()) { $x = 2; } return ['x' => $x];",
        "<?php $x = 1; foreach ([1] as $y) { $x = $y; } return ['x' => $x];",
        "<?php try { $x = 1; } catch (Error $e) { $x = 2; } return ['x' => $x];",
        "<?php $x = []; $x[unknown()] = 1; return ['x' => $x['y']];",
        "<?php if (unknown()) { return ['x' => 2]; } return ['x' => 1];",
        "<?php switch (1) { case 1: return ['x' => 2]; } return ['x' => 1];",
        "<?php return ['x' => 1, ...unknown()];",
        "<?php return ['x' => 1] + unknown();",
        "<?php return [unknown() => 1];",
        "<?php $x = 1;",
        "",
    ] {
        assert!(read(text).at(&["x"]).is_unknown(), "{text}");
    }
    assert_eq!(read("<?php if (unknown()) { $y = 2; } return ['x' => 1];").at(&["x"]), &Value::Int(1));
    assert_eq!(read("<?php return [...unknown(), 'x' => 1];").at(&["x"]), &Value::Int(1));
}

#[test]
fn decimals_are_written_as_php_does() {
    for (text, expected) in [("1.50", "1.5"), ("1e3", "1000"), ("2.0", "2"), ("1_0.25", "10.25")] {
        assert_eq!(read(&format!("<?php return ['x' => {text}];")).at(&["x"]), &Value::Text(expected.to_owned()), "{text}");
    }
}

#[test]
fn any_text_is_read_to_its_end() {
    let deep = [
        "[",
        "(",
        "!",
        "{",
        "\"{$x[",
        "if(1)",
        "fn()=>",
        "match(1){1=>",
        "1?:",
        "$x=",
        "1+",
        "'a'.",
        "!",
        "-",
        "a()->b()",
        "[1][0]",
        "if(1){}else ",
    ]
    .map(|piece| format!("<?php return {}", piece.repeat(5000)));
    let texts = [
        "",
        "<?php",
        "return [",
        "return ['a' => [",
        "return ]]])",
        "return ['a' 'b' => ,, )",
        "return ['\\",
        "<<<X\n{$a",
        "\"${",
        "$x[] = ",
        "a::",
    ];
    for text in texts.into_iter().chain(deep.iter().map(String::as_str)) {
        read(text);
        read(&format!("<?php {text}"));
    }
}
