//! The tree of a PHP file. Input: the parser's findings. Output: what the evaluator walks.

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
