//! The operators of PHP that config files use. Input: values. Output: a value, or the name of an unsupported operator. Pure.

use super::{Result, given};
use crate::cli::laravel::php::value::Value;

/// `===`
pub(in crate::cli::laravel::php) fn is_same(left: &Value, right: &Value) -> Result<bool> {
    match (left, right) {
        (Value::Unknown(why), _) | (_, Value::Unknown(why)) => Err(why.clone()),
        (Value::Array(_), Value::Array(_)) => Err("a comparison of arrays".to_owned()),
        _ => Ok(left == right),
    }
}

/// `==`
pub(super) fn is_equal(left: &Value, right: &Value) -> Result<bool> {
    let number = |text: &str| text.trim().parse::<f64>().ok();
    match (left, right) {
        (Value::Unknown(why), _) | (_, Value::Unknown(why)) => Err(why.clone()),
        (Value::Text(left), Value::Text(right)) => Ok(match (number(left), number(right)) {
            (Some(left), Some(right)) => (left - right).abs() < f64::EPSILON,
            _ => left == right,
        }),
        (Value::Bool(_), _) | (_, Value::Bool(_)) => Ok(left.truth()? == right.truth()?),
        (Value::Null, Value::Text(text)) | (Value::Text(text), Value::Null) => Ok(text.is_empty()),
        (Value::Null, other) | (other, Value::Null) => Ok(!other.truth()?),
        (Value::Int(value), Value::Text(text)) | (Value::Text(text), Value::Int(value)) => Ok(match number(text) {
            Some(number) => (number - *value as f64).abs() < f64::EPSILON,
            None => *text == value.to_string(),
        }),
        _ => is_same(left, right),
    }
}

/// The value as a whole number, for arithmetic and comparisons; `Err` for decimals and other text, which PHP treats differently.
pub(in crate::cli::laravel::php) fn whole(value: &Value) -> Result<i64> {
    match value {
        Value::Text(text) => text.trim().parse().map_err(|_| format!("a calculation with `{text}`")),
        value => value.int(),
    }
}

/// Applies a binary operator.
pub(in crate::cli::laravel::php) fn operate(operator: &str, left: Value, right: Value) -> Result {
    let (left, right) = (given(Some(left))?, given(Some(right))?);
    let numbers = || Ok::<_, String>((whole(&left)?, whole(&right)?));
    let result = |number: Option<i64>| number.map(Value::Int).ok_or_else(|| format!("a number too large for `{operator}`"));
    Ok(match operator {
        "." => Value::Text(left.string()? + &right.string()?),
        "===" => Value::Bool(is_same(&left, &right)?),
        "!==" => Value::Bool(!is_same(&left, &right)?),
        "==" => Value::Bool(is_equal(&left, &right)?),
        "!=" | "<>" => Value::Bool(!is_equal(&left, &right)?),
        "+" => match (left, right) {
            (Value::Array(mut left), Value::Array(right)) => {
                if left.open.is_some() || right.open.is_some() {
                    return Err("a sum of unknown arrays".to_owned());
                }
                for item in right.items {
                    if !left.items.iter().any(|known| known.key == item.key) {
                        left.put(item.key, item.value, item.asked);
                    }
                }
                Value::Array(left)
            }
            (left, right) => result(whole(&left)?.checked_add(whole(&right)?))?,
        },
        "-" => numbers().and_then(|(left, right)| result(left.checked_sub(right)))?,
        "*" => numbers().and_then(|(left, right)| result(left.checked_mul(right)))?,
        "<" => numbers().map(|(left, right)| Value::Bool(left < right))?,
        "<=" => numbers().map(|(left, right)| Value::Bool(left <= right))?,
        ">" => numbers().map(|(left, right)| Value::Bool(left > right))?,
        ">=" => numbers().map(|(left, right)| Value::Bool(left >= right))?,
        _ => return Err(format!("the operator `{operator}`")),
    })
}
