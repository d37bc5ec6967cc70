//! Parses the statements of a PHP file. Input: tokens. Output: a tree, in which unsupported code is kept as its source text.

use std::ops::Range;

use super::lexer::{Kind, Token};
use super::tree::{Expr, Statement};

mod expressions;

/// Maximum nesting depth of expressions, to bound recursion.
const MAX_DEPTH: usize = 100;

/// Maximum number of characters of code shown in a message.
const MAX_SHOWN: usize = 60;

/// The statements of a file.
pub(super) fn parse(source: &str, tokens: &[Token]) -> Vec<Statement> {
    let mut parser = Parser { source, tokens, at: 0, depth: 0 };
    let mut statements = Vec::new();
    while parser.at < tokens.len() {
        parser.statement(&mut statements);
    }
    statements
}

struct Parser<'a> {
    source: &'a str,
    tokens: &'a [Token],
    at: usize,
    depth: usize,
}

impl Parser<'_> {
    fn kind(&self, ahead: usize) -> Option<&Kind> {
        self.tokens.get(self.at + ahead).map(|token| &token.kind)
    }

    fn is_sign(&self, sign: &str) -> bool {
        matches!(self.kind(0), Some(Kind::Sign(found)) if *found == sign)
    }

    fn is_word(&self, ahead: usize, word: &str) -> bool {
        matches!(self.kind(ahead), Some(Kind::Name(name)) if name.eq_ignore_ascii_case(word))
    }

    fn eat(&mut self, sign: &str) -> bool {
        let eats = self.is_sign(sign);
        self.at += usize::from(eats);
        eats
    }

    fn eat_word(&mut self, word: &str) -> bool {
        let eats = self.is_word(0, word);
        self.at += usize::from(eats);
        eats
    }

    fn expect(&mut self, sign: &str) -> Option<()> {
        self.eat(sign).then_some(())
    }

    /// The source text of the tokens, shortened and on one line.
    fn written(&self, tokens: Range<usize>) -> String {
        let Some(tokens) = self.tokens.get(tokens).filter(|tokens| !tokens.is_empty()) else { return "the end of the file".to_owned() };
        // Tokens inside a string have positions relative to that string.
        let text = self.source.get(tokens[0].at.start..tokens[tokens.len() - 1].at.end).unwrap_or("a text");
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        match line.char_indices().nth(MAX_SHOWN) {
            Some((end, _)) => format!("{}…", &line[..end]),
            None => line,
        }
    }

    fn statement(&mut self, statements: &mut Vec<Statement>) {
        let start = self.at;
        let next_is_call = matches!(self.kind(1), Some(Kind::Sign("(" | "::")));
        let word = match self.kind(0) {
            Some(Kind::Name(name)) => name.to_ascii_lowercase(),
            _ => String::new(),
        };
        match word.as_str() {
            "return" => {
                self.at += 1;
                let value = if self.is_sign(";") { Expr::Constant("null".to_owned()) } else { self.item() };
                self.past_semicolon();
                statements.push(Statement::Return(value));
            }
            "use" => self.uses(statements),
            "namespace" | "declare" | "const" if word != "declare" || next_is_call => self.past_semicolon(),
            "if" => match self.conditional() {
                Some(statement) => statements.push(statement),
                None => self.opaque(start, statements),
            },
            "function" | "class" | "final" | "abstract" | "trait" | "interface" | "enum" | "readonly" if !next_is_call => {
                self.past_block();
            }
            "foreach" | "for" | "while" | "do" | "switch" | "try" | "goto" | "global" | "static" | "unset" | "throw"
                if word != "static" || !next_is_call =>
            {
                self.opaque(start, statements)
            }
            _ if self.eat(";") => {}
            _ if self.is_sign("{") => {
                self.at += 1;
                statements.extend(self.block());
            }
            _ => {
                let value = self.item();
                self.past_semicolon();
                if matches!(value, Expr::Assign(..)) {
                    statements.push(Statement::Expression(value));
                } else {
                    // `$count++`, `$a = &$b`, `sort($list)`: it may change any variable in it.
                    self.push_opaque(start, false, statements);
                }
            }
        }
        // Skip an unexpected token, so that parsing always makes progress.
        if self.at == start {
            self.at += 1;
        }
    }

    fn uses(&mut self, statements: &mut Vec<Statement>) {
        self.at += 1;
        while !self.is_sign(";") && self.at < self.tokens.len() {
            if let Some(Kind::Name(name)) = self.kind(0) {
                let name = name.clone();
                let alias = match (self.is_word(1, "as"), self.kind(2)) {
                    (true, Some(Kind::Name(alias))) => alias.clone(),
                    _ => last_name(&name).to_owned(),
                };
                if !name.eq_ignore_ascii_case("as") && alias != last_name(&name) {
                    statements.push(Statement::Use { alias, name });
                }
            }
            self.at += 1;
        }
        self.past_semicolon();
    }

    fn past_semicolon(&mut self) {
        self.skip(&[";"]);
        self.eat(";");
    }

    /// Skips everything up to one of the signs, outside of brackets.
    fn skip(&mut self, ends: &[&str]) {
        let mut depth = 0_usize;
        while let Some(kind) = self.kind(0) {
            match kind {
                Kind::Sign(sign) if depth == 0 && (ends.contains(sign) || matches!(*sign, ")" | "]" | "}")) => return,
                Kind::Sign("(" | "[" | "{" | "#[") => depth += 1,
                Kind::Sign(")" | "]" | "}") => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
    }

    /// Skips everything up to the end of a block in braces, or of a statement without one.
    fn past_block(&mut self) {
        self.skip(&["{", ";"]);
        if self.eat("{") {
            self.skip(&[]);
            self.eat("}");
        } else {
            self.eat(";");
        }
    }

    fn opaque(&mut self, start: usize, statements: &mut Vec<Statement>) {
        self.at = start;
        self.past_block();
        // `} catch … {`, `} else {`, `} while (…);`
        while ["catch", "finally", "else", "elseif", "while"].iter().any(|word| self.is_word(0, word)) {
            self.past_block();
        }
        let words = &self.tokens[start..self.at];
        let returns = words.iter().any(|token| matches!(&token.kind, Kind::Name(name) if name.eq_ignore_ascii_case("return")));
        self.push_opaque(start, returns, statements);
    }

    /// Adds the tokens since `start` as a statement that is not evaluated.
    fn push_opaque(&self, start: usize, returns: bool, statements: &mut Vec<Statement>) {
        let tokens = &self.tokens[start..self.at];
        let variables = tokens.iter().filter_map(|token| match &token.kind {
            Kind::Variable(name) => Some(name.clone()),
            _ => None,
        });
        statements.push(Statement::Opaque { variables: variables.collect(), returns, text: self.written(start..self.at) });
    }

    fn conditional(&mut self) -> Option<Statement> {
        self.at += 1;
        self.expect("(")?;
        let condition = self.item();
        self.expect(")")?;
        // `if (…): … endif;` is rare in config files.
        if self.is_sign(":") {
            return None;
        }
        let then = self.branch();
        let mut otherwise = Vec::new();
        if self.is_word(0, "elseif") || self.is_word(0, "else") && self.is_word(1, "if") {
            self.at += usize::from(self.is_word(0, "else"));
            self.depth += 1;
            let next = if self.depth > MAX_DEPTH { None } else { self.conditional() };
            self.depth -= 1;
            otherwise.push(next?);
        } else if self.eat_word("else") {
            otherwise = self.branch();
        }
        Some(Statement::If { condition, then, otherwise })
    }

    fn branch(&mut self) -> Vec<Statement> {
        if self.eat("{") {
            return self.block();
        }
        let mut statements = Vec::new();
        self.statement(&mut statements);
        statements
    }

    /// The statements up to the closing brace, which is consumed.
    fn block(&mut self) -> Vec<Statement> {
        let mut statements = Vec::new();
        self.depth += 1;
        while self.at < self.tokens.len() && !self.eat("}") {
            if self.depth > MAX_DEPTH { self.at += 1 } else { self.statement(&mut statements) }
        }
        self.depth -= 1;
        statements
    }
}

/// The part of a name after its namespace.
pub(super) fn last_name(name: &str) -> &str {
    name.rsplit('\\').next().unwrap_or(name)
}
