//! Reads what a PHP config file returns, as far as it can be known without PHP. Input: PHP text, and what it asks from
//! outside. Output: a tree of values, in which what takes PHP to know says so.

mod evaluate;
mod functions;
mod lexer;
mod parser;
mod slug;
pub(super) mod url;
mod value;

pub(super) use evaluate::Outside;
pub(super) use functions::native;
pub(super) use value::{Array, Asked, Value};

/// What the file returns.
pub(super) fn evaluate(text: &str, outside: &Outside<'_>) -> Value {
    evaluate::run(&parser::parse(text, &lexer::tokens(text)), outside)
}

#[cfg(test)]
mod tests;
