//! Evaluates a PHP config file as far as possible without PHP. Input: PHP text, and access to environment variables and
//! other config files. Output: a tree of values; parts that only PHP could evaluate are marked as unknown.
//!
//! The lexer and the parser are our own: config files need a small part of PHP, for which php-rs-parser 0.28 would add 0.9 MB to the
//! binary and 17 s to its build, and mago-syntax 1.29 some 80 crates and a newer Rust.

mod evaluate;
mod functions;
mod lexer;
mod parser;
mod slug;
mod tree;
pub(super) mod url;
mod value;

pub(super) use evaluate::Outside;
pub(super) use functions::native;
pub(super) use value::{Array, Asked, Value};

/// Evaluates the value that the file returns.
pub(super) fn evaluate(text: &str, outside: &Outside<'_>) -> Value {
    evaluate::run(&parser::parse(text, &lexer::tokens(text)), outside)
}

#[cfg(test)]
mod tests;
