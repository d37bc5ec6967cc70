//! Parses the statements and expressions of a PHP file. Input: tokens. Output: a tree, in which unsupported code is kept as
//! its source text.

use std::ops::Range;

use super::lexer::{Kind, Piece, Token};

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Expr {
    /// A string, which may contain expressions.
    Text(Vec<Part>),
    Int(i64),
    Variable(String),
    Constant(String),
    Array(Vec<Element>),
    Index(Box<Self>, Option<Box<Self>>),
    /// `name(…)`
    Call(String, Vec<Argument>),
    /// `Class::name(…)`
    Static(String, String, Vec<Argument>),
    /// `Class::NAME`
    ClassConstant(String, String),
    /// `$value->name(…)`
    Method(Box<Self>, String, Vec<Argument>),
    Ternary(Box<Self>, Option<Box<Self>>, Box<Self>),
    Match(Box<Self>, Vec<Arm>),
    Binary(&'static str, Box<Self>, Box<Self>),
    Not(Box<Self>),
    Minus(Box<Self>),
    Cast(String, Box<Self>),
    Isset(Vec<Self>),
    Empty(Box<Self>),
    Assign(Box<Self>, &'static str, Box<Self>),
    /// `fn () => …` without parameters.
    Arrow(Box<Self>),
    /// Anything else, as source text.
    Opaque(String),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Part {
    Plain(String),
    Code(Expr),
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Element {
    pub(super) key: Option<Expr>,
    pub(super) value: Expr,
    /// `...$more`
    pub(super) is_spread: bool,
}

#[derive(Debug, Clone, PartialEq)]
pub(super) struct Argument {
    pub(super) name: Option<String>,
    pub(super) value: Expr,
}

/// One case of a `match`; no conditions for `default`.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Arm {
    pub(super) conditions: Vec<Expr>,
    pub(super) value: Expr,
}

/// A statement.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Statement {
    Return(Expr),
    Expression(Expr),
    /// `use Full\Name as Alias;`
    Use {
        alias: String,
        name: String,
    },
    If {
        condition: Expr,
        then: Vec<Self>,
        otherwise: Vec<Self>,
    },
    /// Anything else: the variables it may change, and whether it may return.
    Opaque {
        variables: Vec<String>,
        returns: bool,
        text: String,
    },
}

/// Maximum nesting depth of expressions, to bound recursion.
const MAX_DEPTH: usize = 100;

/// Maximum number of chained operators or calls: the tree gets that deep.
const MAX_CHAIN: usize = 500;

/// Maximum number of characters of code shown in a message.
const MAX_SHOWN: usize = 60;

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
                statements.push(Statement::Expression(value));
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
        let tokens = &self.tokens[start..self.at];
        let variables = tokens.iter().filter_map(|token| match &token.kind {
            Kind::Variable(name) => Some(name.clone()),
            _ => None,
        });
        let returns = tokens.iter().any(|token| matches!(&token.kind, Kind::Name(name) if name.eq_ignore_ascii_case("return")));
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

    /// An expression up to its terminator; unsupported code is skipped and kept as source text.
    fn item(&mut self) -> Expr {
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
            Kind::Number(text) => Some(number(&text)),
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

/// The part of a name after its namespace.
pub(super) fn last_name(name: &str) -> &str {
    name.rsplit('\\').next().unwrap_or(name)
}

/// PHP writes decimals from here on with an exponent.
const MAX_DECIMAL: f64 = 1e15;

fn number(text: &str) -> Expr {
    let plain = text.replace('_', "").to_ascii_lowercase();
    let parsed = if let Some(hex) = plain.strip_prefix("0x") {
        i64::from_str_radix(hex, 16)
    } else if let Some(binary) = plain.strip_prefix("0b") {
        i64::from_str_radix(binary, 2)
    } else if plain.len() > 1 && plain.starts_with('0') && plain.bytes().all(|byte| byte.is_ascii_digit()) {
        i64::from_str_radix(&plain, 8)
    } else {
        plain.parse()
    };
    // Decimals become the text that PHP makes of them, `1.5` of `1.50`: only timeouts and the like use them.
    let decimal = || plain.parse::<f64>().ok().filter(|decimal| decimal.abs() < MAX_DECIMAL).map(|decimal| decimal.to_string());
    parsed.map_or_else(|_| Expr::Text(vec![Part::Plain(decimal().unwrap_or_else(|| plain.clone()))]), Expr::Int)
}
