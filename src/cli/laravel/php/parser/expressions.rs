//! Parses the expressions of a PHP file. Input: tokens. Output: a tree, in which unsupported code is kept as its source text.

use super::{MAX_DEPTH, Parser};
use crate::cli::laravel::php::lexer::{Kind, Piece};
use crate::cli::laravel::php::tree::{Argument, Arm, Element, Expr, Part};

/// Maximum number of chained operators or calls: the tree gets that deep.
const MAX_CHAIN: usize = 500;

/// Operators with their precedence, and whether they are right-associative.
const OPERATORS: [(&str, u8, bool); 28] = [
    ("or", 1, false),
    ("xor", 2, false),
    ("and", 3, false),
    ("??", 7, true),
    ("||", 8, false),
    ("&&", 9, false),
    ("|", 10, false),
    ("^", 11, false),
    ("&", 12, false),
    ("==", 13, false),
    ("!=", 13, false),
    ("<>", 13, false),
    ("===", 13, false),
    ("!==", 13, false),
    ("<=>", 13, false),
    ("<", 14, false),
    ("<=", 14, false),
    (">", 14, false),
    (">=", 14, false),
    (".", 15, false),
    ("<<", 16, false),
    (">>", 16, false),
    ("+", 17, false),
    ("-", 17, false),
    ("*", 18, false),
    ("/", 18, false),
    ("%", 18, false),
    ("**", 21, true),
];
const TERNARY: u8 = 6;
const ASSIGNMENT: u8 = 4;
const UNARY: u8 = 20;

const ASSIGNMENTS: [&str; 8] = ["=", "??=", ".=", "+=", "-=", "*=", "/=", "**="];

const CASTS: [&str; 10] = ["string", "int", "integer", "bool", "boolean", "float", "double", "array", "object", "binary"];

impl Parser<'_> {
    /// An expression up to its terminator; unsupported code is skipped and kept as source text.
    pub(super) fn item(&mut self) -> Expr {
        const ENDS: [&str; 3] = [",", ";", "=>"];
        let start = self.at;
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { self.expression(0) };
        self.depth -= 1;
        let is_at_end = match self.kind(0) {
            None => true,
            Some(Kind::Sign(sign)) => ENDS.contains(sign) || matches!(*sign, ")" | "]" | "}"),
            Some(_) => false,
        };
        match value {
            Some(value) if is_at_end => value,
            _ => {
                self.at = start;
                self.skip(&ENDS);
                // The arrow of `fn ($x) => …` does not end the expression.
                if self.is_sign("=>")
                    && (start..self.at).any(|at| matches!(&self.tokens[at].kind, Kind::Name(name) if name.eq_ignore_ascii_case("fn")))
                {
                    self.at += 1;
                    self.skip(&[",", ";"]);
                }
                Expr::Opaque(self.written(start..self.at))
            }
        }
    }

    fn expression(&mut self, least: u8) -> Option<Expr> {
        self.depth += 1;
        let value = if self.depth > MAX_DEPTH { None } else { self.binary(least) };
        self.depth -= 1;
        value
    }

    fn binary(&mut self, least: u8) -> Option<Expr> {
        let mut left = self.unary()?;
        for _ in 0..MAX_CHAIN {
            let operator = match self.kind(0) {
                Some(Kind::Sign(sign)) => *sign,
                Some(Kind::Name(name)) => match name.to_ascii_lowercase().as_str() {
                    "or" => "or",
                    "and" => "and",
                    "xor" => "xor",
                    _ => return Some(left),
                },
                _ => return Some(left),
            };
            if operator == "?" && TERNARY >= least {
                self.at += 1;
                let then = if self.is_sign(":") { None } else { Some(Box::new(self.expression(ASSIGNMENT)?)) };
                self.expect(":")?;
                let otherwise = self.expression(TERNARY + 1)?;
                left = Expr::Ternary(Box::new(left), then, Box::new(otherwise));
            } else if let Some(assignment) = ASSIGNMENTS.iter().find(|sign| **sign == operator) {
                // The left side must be a variable, regardless of precedence.
                if !matches!(left, Expr::Variable(_) | Expr::Index(..)) {
                    return None;
                }
                self.at += 1;
                let value = self.expression(ASSIGNMENT)?;
                left = Expr::Assign(Box::new(left), assignment, Box::new(value));
            } else {
                let Some((sign, tightness, is_right)) = OPERATORS.iter().find(|(sign, ..)| *sign == operator) else { return Some(left) };
                if *tightness < least {
                    return Some(left);
                }
                self.at += 1;
                let right = self.expression(if *is_right { *tightness } else { tightness + 1 })?;
                left = Expr::Binary(sign, Box::new(left), Box::new(right));
            }
        }
        None
    }

    fn unary(&mut self) -> Option<Expr> {
        if self.eat("!") {
            return Some(Expr::Not(Box::new(self.expression(UNARY)?)));
        }
        if self.eat("-") {
            return Some(Expr::Minus(Box::new(self.expression(UNARY)?)));
        }
        if self.eat("+") || self.eat("@") {
            return self.expression(UNARY);
        }
        if let (true, Some(Kind::Name(name)), Some(Kind::Sign(")"))) = (self.is_sign("("), self.kind(1), self.kind(2)) {
            let name = name.to_ascii_lowercase();
            if CASTS.contains(&name.as_str()) {
                self.at += 3;
                return Some(Expr::Cast(name, Box::new(self.expression(UNARY)?)));
            }
        }
        let first = self.primary()?;
        self.postfix(first)
    }

    fn postfix(&mut self, mut value: Expr) -> Option<Expr> {
        for _ in 0..MAX_CHAIN {
            if self.eat("[") {
                let key = if self.is_sign("]") { None } else { Some(Box::new(self.item())) };
                self.expect("]")?;
                value = Expr::Index(Box::new(value), key);
            } else if self.is_sign("->") || self.is_sign("?->") {
                self.at += 1;
                let Some(Kind::Name(name)) = self.kind(0) else { return None };
                let name = name.clone();
                self.at += 1;
                // Without arguments it would be a property of an object, and objects are not supported.
                let arguments = self.arguments()?;
                value = Expr::Method(Box::new(value), name, arguments);
            } else {
                return Some(value);
            }
        }
        None
    }

    fn primary(&mut self) -> Option<Expr> {
        let kind = self.kind(0)?.clone();
        let start = self.at;
        self.at += 1;
        match kind {
            Kind::Variable(name) => Some(Expr::Variable(name)),
            Kind::Number(text) => number(&text),
            Kind::Text(pieces) => Some(Expr::Text(pieces.iter().map(|piece| self.part(piece)).collect())),
            Kind::Sign("(") => {
                let value = self.item();
                self.expect(")")?;
                Some(value)
            }
            Kind::Sign("[") => self.array("]"),
            // An attribute before a closure.
            Kind::Sign("#[") => {
                self.skip(&[]);
                self.expect("]")?;
                self.primary()
            }
            Kind::Name(name) => self.named(name, start),
            Kind::Sign(_) => None,
        }
    }

    fn part(&self, piece: &Piece) -> Part {
        match piece {
            Piece::Plain(text) => Part::Plain(text.clone()),
            Piece::Code(tokens) => {
                let mut inner = Parser { source: "", tokens, at: 0, depth: self.depth };
                Part::Code(inner.item())
            }
        }
    }

    /// An expression that begins with a word.
    fn named(&mut self, name: String, start: usize) -> Option<Expr> {
        match name.to_ascii_lowercase().as_str() {
            "array" if self.eat("(") => return self.array(")"),
            "match" if self.is_sign("(") => return self.matched(),
            "isset" if self.eat("(") => {
                let Expr::Array(elements) = self.array(")")? else { return None };
                return Some(Expr::Isset(elements.into_iter().map(|element| element.value).collect()));
            }
            "empty" if self.eat("(") => {
                let value = self.item();
                self.expect(")")?;
                return Some(Expr::Empty(Box::new(value)));
            }
            "static" if self.is_word(0, "fn") || self.is_word(0, "function") => {
                let Some(Kind::Name(name)) = self.kind(0) else { return None };
                let name = name.clone();
                self.at += 1;
                return self.named(name, start);
            }
            "fn" if self.is_sign("(") => {
                self.at += 1;
                let has_parameters = !self.is_sign(")");
                self.skip(&[]);
                self.expect(")")?;
                self.skip(&["=>"]);
                self.expect("=>")?;
                let value = self.expression(ASSIGNMENT)?;
                return Some(if has_parameters { Expr::Opaque(self.written(start..self.at)) } else { Expr::Arrow(Box::new(value)) });
            }
            "function" => {
                self.past_block();
                return Some(Expr::Opaque(self.written(start..self.at)));
            }
            "new" | "require" | "include" | "require_once" | "include_once" | "clone" | "print" | "throw" | "yield" | "include_if" => {
                return None;
            }
            _ => {}
        }
        if self.is_sign("(") {
            return Some(Expr::Call(name, self.arguments()?));
        }
        if self.eat("::") {
            let Some(Kind::Name(member)) = self.kind(0) else { return None };
            let member = member.clone();
            self.at += 1;
            return Some(if self.is_sign("(") { Expr::Static(name, member, self.arguments()?) } else { Expr::ClassConstant(name, member) });
        }
        Some(Expr::Constant(name))
    }

    fn array(&mut self, close: &str) -> Option<Expr> {
        let mut elements = Vec::new();
        while !self.eat(close) {
            let is_spread = self.eat("...");
            self.eat("&");
            let first = self.item();
            let element = if self.eat("=>") {
                self.eat("&");
                Element { key: Some(first), value: self.item(), is_spread }
            } else {
                Element { key: None, value: first, is_spread }
            };
            elements.push(element);
            if !self.eat(",") && !self.is_sign(close) {
                return None;
            }
        }
        Some(Expr::Array(elements))
    }

    /// `(…)` after the name of a function.
    fn arguments(&mut self) -> Option<Vec<Argument>> {
        self.expect("(")?;
        let mut arguments = Vec::new();
        while !self.eat(")") {
            let name = match (self.kind(0), self.kind(1)) {
                (Some(Kind::Name(name)), Some(Kind::Sign(":"))) => Some(name.clone()),
                _ => None,
            };
            self.at += if name.is_some() { 2 } else { 0 };
            let value = if self.is_sign("...") {
                let start = self.at;
                self.skip(&[","]);
                Expr::Opaque(self.written(start..self.at))
            } else {
                self.item()
            };
            arguments.push(Argument { name, value });
            if !self.eat(",") && !self.is_sign(")") {
                return None;
            }
        }
        Some(arguments)
    }

    fn matched(&mut self) -> Option<Expr> {
        self.expect("(")?;
        let subject = self.item();
        self.expect(")")?;
        self.expect("{")?;
        let mut arms = Vec::new();
        while !self.eat("}") {
            let mut conditions = Vec::new();
            if !self.eat_word("default") {
                while !self.is_sign("=>") {
                    conditions.push(self.item());
                    if !self.eat(",") && !self.is_sign("=>") {
                        return None;
                    }
                }
            }
            self.eat(",");
            self.expect("=>")?;
            let value = self.item();
            arms.push(Arm { conditions, value });
            if !self.eat(",") && !self.is_sign("}") {
                return None;
            }
        }
        Some(Expr::Match(Box::new(subject), arms))
    }
}

/// PHP writes decimals from here on with an exponent.
const MAX_DECIMAL: f64 = 1e15;

/// `None` for a number whose text in PHP is not known here.
fn number(text: &str) -> Option<Expr> {
    let plain = text.replace('_', "").to_ascii_lowercase();
    let octal = plain.strip_prefix("0o").or_else(|| plain.strip_prefix('0').filter(|rest| rest.bytes().all(|byte| byte.is_ascii_digit())));
    let parsed = if let Some(hex) = plain.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(binary) = plain.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if let Some(octal) = octal.filter(|digits| !digits.is_empty()) {
        i64::from_str_radix(octal, 8)
    } else {
        plain.parse()
    };
    // Decimals become the text that PHP makes of them, `1.5` of `1.50`: only timeouts and the like use them.
    let decimal = || plain.parse::<f64>().ok().filter(|decimal| decimal.abs() < MAX_DECIMAL).map(|decimal| decimal.to_string());
    match parsed {
        Ok(number) => Some(Expr::Int(number)),
        Err(_) => Some(Expr::Text(vec![Part::Plain(decimal()?)])),
    }
}
