//! Evaluates the statements of a config file as far as possible without PHP. Input: the parser's tree, environment
//! variables and other config files. Output: the value that the file returns.

use std::collections::BTreeMap;

use super::functions::{self, Arguments};
use super::parser::last_name;
use super::tree::{Argument, Arm, Element, Expr, Part, Statement};
use super::value::{Array, Asked, Value};

/// Text and source of a variable, if it is set; `Err` says why that is unknown.
pub(in crate::cli::laravel) type Variable = Result<Option<(String, String)>, String>;

/// Access to environment variables and other config files.
pub(in crate::cli::laravel) struct Outside<'a> {
    /// The text of an environment variable, and where it was set.
    pub(in crate::cli::laravel) variable: &'a dyn Fn(&str) -> Variable,
    /// The value of `config('…')`.
    pub(in crate::cli::laravel) config: &'a dyn Fn(&str) -> Value,
    /// Whether `Str::ascii` behaves as in Laravel 7 and later.
    pub(in crate::cli::laravel) has_ascii: bool,
}

/// Evaluates the statements and returns their result.
pub(super) fn run(statements: &[Statement], outside: &Outside<'_>) -> Value {
    let mut evaluator = Evaluator { outside, locals: BTreeMap::new(), aliases: BTreeMap::new(), asked: Asked::default() };
    evaluator.statements(statements).unwrap_or_else(|| Value::Unknown("there is no `return`".to_owned()))
}

struct Evaluator<'a> {
    outside: &'a Outside<'a>,
    locals: BTreeMap<String, Value>,
    aliases: BTreeMap<String, String>,
    /// The variables that were read since this was last reset.
    asked: Asked,
}

impl Evaluator<'_> {
    /// `Some` if one of them returns.
    fn statements(&mut self, statements: &[Statement]) -> Option<Value> {
        statements.iter().find_map(|statement| self.statement(statement))
    }

    fn statement(&mut self, statement: &Statement) -> Option<Value> {
        match statement {
            Statement::Return(value) => return Some(self.value(value)),
            Statement::Expression(value) => {
                self.value(value);
            }
            Statement::Use { alias, name } => {
                self.aliases.insert(alias.to_ascii_lowercase(), name.clone());
            }
            Statement::If { condition, then, otherwise } => match self.value(condition).truth() {
                Ok(is_true) => return self.statements(if is_true { then } else { otherwise }),
                Err(why) => return self.maybe(then, &why).or(self.maybe(otherwise, &why)),
            },
            Statement::Opaque { variables, returns, text } => {
                let why = format!("`{text}`");
                for name in variables {
                    self.locals.insert(name.clone(), Value::Unknown(why.clone()));
                }
                return returns.then_some(Value::Unknown(why));
            }
        }
        None
    }

    /// Handles statements that may or may not run: everything they assign becomes unknown.
    fn maybe(&mut self, statements: &[Statement], why: &str) -> Option<Value> {
        for statement in statements {
            match statement {
                Statement::Return(_) => return Some(Value::Unknown(why.to_owned())),
                Statement::Expression(value) => {
                    // `$a = $b = 'x'`
                    let mut value = value;
                    while let Expr::Assign(target, _, inner) = value {
                        self.forget(target, why);
                        value = inner;
                    }
                }
                Statement::If { then, otherwise, .. } => {
                    if let Some(value) = self.maybe(then, why).or(self.maybe(otherwise, why)) {
                        return Some(value);
                    }
                }
                Statement::Opaque { variables, returns, .. } => {
                    for name in variables {
                        self.locals.insert(name.clone(), Value::Unknown(why.to_owned()));
                    }
                    if *returns {
                        return Some(Value::Unknown(why.to_owned()));
                    }
                }
                Statement::Use { .. } => {}
            }
        }
        None
    }

    fn value(&mut self, expr: &Expr) -> Value {
        self.evaluate(expr).unwrap_or_else(Value::Unknown)
    }

    /// `Err` says why the value is unknown.
    fn evaluate(&mut self, expr: &Expr) -> Result<Value, String> {
        Ok(match expr {
            Expr::Text(parts) => {
                let mut text = String::new();
                for part in parts {
                    match part {
                        Part::Plain(plain) => text.push_str(plain),
                        Part::Code(code) => text.push_str(&self.evaluate(code)?.string()?),
                    }
                }
                Value::Text(text)
            }
            Expr::Int(number) => Value::Int(*number),
            Expr::Variable(name) => match self.locals.get(name) {
                Some(value) => value.clone(),
                None => Value::Unknown(format!("`${name}`")),
            },
            Expr::Constant(name) => functions::constant(name)?,
            Expr::Array(elements) => self.array(elements),
            Expr::Index(array, key) => self.index(array, key.as_deref())?,
            Expr::Call(name, arguments) => self.call(last_name(name), arguments)?,
            Expr::Static(class, name, arguments) => self.static_call(class, name, arguments)?,
            Expr::ClassConstant(class, name) if name == "class" => Value::text(class),
            Expr::ClassConstant(class, name) => return Err(format!("`{class}::{name}`")),
            Expr::Method(target, name, arguments) => self.method(target, name, arguments)?,
            Expr::Ternary(condition, then, otherwise) => {
                let condition = self.evaluate(condition)?;
                match (condition.truth()?, then) {
                    (true, None) => condition,
                    (true, Some(then)) => self.evaluate(then)?,
                    (false, _) => self.evaluate(otherwise)?,
                }
            }
            Expr::Match(subject, arms) => self.matched(subject, arms)?,
            Expr::Binary(operator, left, right) => self.binary(operator, left, right)?,
            Expr::Not(value) => Value::Bool(!self.evaluate(value)?.truth()?),
            Expr::Minus(value) => functions::operators::operate("-", Value::Int(0), self.evaluate(value)?)?,
            Expr::Cast(kind, value) => {
                let value = self.evaluate(value)?;
                match kind.as_str() {
                    "string" | "binary" => Value::Text(value.string()?),
                    "int" | "integer" => Value::Int(value.int()?),
                    "bool" | "boolean" => Value::Bool(value.truth()?),
                    "float" | "double" => Value::Int(functions::operators::whole(&value)?),
                    "array" => match value {
                        Value::Array(_) | Value::Unknown(_) => value,
                        Value::Null => Value::Array(Array::default()),
                        value => {
                            let mut array = Array::default();
                            array.push(value, Asked::default());
                            Value::Array(array)
                        }
                    },
                    _ => value,
                }
            }
            Expr::Isset(values) => {
                let mut is_set = true;
                for value in values {
                    is_set &= match self.quiet(value) {
                        Value::Unknown(why) => return Err(why),
                        value => value != Value::Null,
                    };
                }
                Value::Bool(is_set)
            }
            Expr::Empty(value) => Value::Bool(!self.quiet(value).truth()?),
            Expr::Assign(target, operator, value) => self.assign(target, operator, value),
            Expr::Arrow(value) => self.evaluate(value)?,
            Expr::Opaque(text) => return Err(format!("`{text}`")),
        })
    }

    /// A value inside `isset`, `empty` or `??`, where an undefined variable is null.
    fn quiet(&mut self, expr: &Expr) -> Value {
        match expr {
            Expr::Variable(name) if !self.locals.contains_key(name) => Value::Null,
            _ => self.value(expr),
        }
    }

    fn array(&mut self, elements: &[Element]) -> Value {
        let outer = std::mem::take(&mut self.asked);
        let mut array = Array::default();
        let mut all = outer;
        for element in elements {
            let key = element.key.as_ref().map(|key| self.value(key));
            self.asked = Asked::default();
            let value = self.value(&element.value);
            let asked = std::mem::take(&mut self.asked);
            all.variable = all.variable.or_else(|| asked.variable.clone());
            all.found = all.found.or_else(|| asked.found.clone());
            match (key, value) {
                (_, Value::Array(more)) if element.is_spread => array.merge(more),
                (_, Value::Unknown(why)) if element.is_spread => array.merge(Array { items: Vec::new(), open: Some(why) }),
                (None, value) => array.push(value, asked),
                (Some(key), value) => match key.string() {
                    Ok(key) => array.put(key, value, asked),
                    // The unknown key may be any of the keys in the array.
                    Err(why) => array.merge(Array { items: Vec::new(), open: Some(why) }),
                },
            }
        }
        self.asked = all;
        Value::Array(array)
    }

    fn index(&mut self, array: &Expr, key: Option<&Expr>) -> Result<Value, String> {
        let Some(key) = key else { return Err("`[]`".to_owned()) };
        let key = self.evaluate(key)?.string()?;
        if let Expr::Variable(name) = array
            && matches!(name.as_str(), "_ENV" | "_SERVER")
        {
            return Ok(self.variable(&key)?.map_or(Value::Null, Value::Text));
        }
        let array = self.quiet(array);
        match array {
            Value::Unknown(why) => Err(why),
            Value::Text(_) => Err("a character of a string".to_owned()),
            array => Ok(array.at(&[&key]).clone()),
        }
    }

    fn variable(&mut self, name: &str) -> Result<Option<String>, String> {
        self.asked.variable.get_or_insert_with(|| name.to_owned());
        let Some((text, place)) = (self.outside.variable)(name)? else { return Ok(None) };
        self.asked.found.get_or_insert(format!("{name} in {place}"));
        Ok(Some(text))
    }

    /// `env('NAME', default)`: the default is evaluated only if the variable is not set.
    fn env(&mut self, arguments: &[Argument]) -> Result<Value, String> {
        let [name, default] = positions(["key", "default"], arguments)?;
        let name = self.evaluate(name.ok_or("`env()`")?)?.string()?;
        match self.variable(&name)? {
            Some(text) => Ok(functions::native(&text)),
            None => default.map_or(Ok(Value::Null), |default| self.evaluate(default)),
        }
    }

    fn class(&self, name: &str) -> String {
        let full = self.aliases.get(&name.to_ascii_lowercase()).map_or(name, String::as_str);
        last_name(full).to_owned()
    }

    fn call(&mut self, name: &str, arguments: &[Argument]) -> Result<Value, String> {
        match name.to_ascii_lowercase().as_str() {
            "env" => self.env(arguments),
            "getenv" => {
                let [name] = positions(["name"], arguments)?;
                let name = self.evaluate(name.ok_or("`getenv()`")?)?.string()?;
                Ok(self.variable(&name)?.map_or(Value::Bool(false), Value::Text))
            }
            "config" => {
                let [key, default] = positions(["key", "default"], arguments)?;
                let key = self.evaluate(key.ok_or("`config()`")?)?.string()?;
                match (self.outside.config)(&key) {
                    Value::Null => default.map_or(Ok(Value::Null), |default| self.evaluate(default)),
                    value => Ok(value),
                }
            }
            "value" => {
                let [value] = positions(["value"], arguments)?;
                self.evaluate(value.ok_or("`value()`")?)
            }
            // `str('…')->slug()`
            "str" => {
                let [value] = positions(["string"], arguments)?;
                self.evaluate(value.ok_or("`str()`")?)?.string().map(Value::Text)
            }
            name => {
                let values = self.arguments(arguments)?;
                let result = functions::call(name, values, self.outside.has_ascii);
                if let Err(why) = &result {
                    // It may take them by reference, as `array_shift($list)` does.
                    arguments.iter().for_each(|argument| self.forget(&argument.value, why));
                }
                result
            }
        }
    }

    /// The variable in this place may have changed.
    fn forget(&mut self, place: &Expr, why: &str) {
        let mut place = place;
        while let Expr::Index(inner, _) = place {
            place = inner;
        }
        if let Expr::Variable(name) = place {
            self.locals.insert(name.clone(), Value::Unknown(why.to_owned()));
        }
    }

    fn static_call(&mut self, class: &str, name: &str, arguments: &[Argument]) -> Result<Value, String> {
        match (self.class(class).to_ascii_lowercase().as_str(), name.to_ascii_lowercase().as_str()) {
            ("env", "get" | "getorfail") => self.env(arguments),
            ("config", "get") => self.call("config", arguments),
            ("str", "of") => self.call("str", arguments),
            ("str", name) => {
                let arguments = self.arguments(arguments)?;
                functions::text::call(name, arguments, self.outside.has_ascii)
            }
            _ => Err(format!("`{class}::{name}()`")),
        }
    }

    /// Methods of `Str::of(…)`, which is represented by its text here.
    fn method(&mut self, target: &Expr, name: &str, arguments: &[Argument]) -> Result<Value, String> {
        let text = self.evaluate(target)?;
        if !matches!(text, Value::Text(_)) {
            return Err(format!("`->{name}()`"));
        }
        let mut arguments = self.arguments(arguments)?;
        arguments.values.insert(0, text);
        functions::text::fluent(&name.to_ascii_lowercase(), arguments, self.outside.has_ascii)
    }

    fn arguments(&mut self, arguments: &[Argument]) -> Result<Arguments, String> {
        let mut known = Arguments::default();
        for argument in arguments {
            let value = self.value(&argument.value);
            match &argument.name {
                Some(name) => known.named.push((name.clone(), value)),
                None => known.values.push(value),
            }
        }
        Ok(known)
    }

    fn matched(&mut self, subject: &Expr, arms: &[Arm]) -> Result<Value, String> {
        let subject = self.evaluate(subject)?;
        let mut default = None;
        for arm in arms {
            if arm.conditions.is_empty() {
                default = Some(&arm.value);
            }
            for condition in &arm.conditions {
                if functions::operators::is_same(&subject, &self.evaluate(condition)?)? {
                    return self.evaluate(&arm.value);
                }
            }
        }
        self.evaluate(default.ok_or("a `match` without a matching case")?)
    }

    fn binary(&mut self, operator: &'static str, left: &Expr, right: &Expr) -> Result<Value, String> {
        match operator {
            "??" => {
                return match self.quiet(left) {
                    Value::Null => self.evaluate(right),
                    Value::Unknown(why) => Err(why),
                    value => Ok(value),
                };
            }
            "&&" | "and" => return Ok(Value::Bool(self.evaluate(left)?.truth()? && self.evaluate(right)?.truth()?)),
            "||" | "or" => return Ok(Value::Bool(self.evaluate(left)?.truth()? || self.evaluate(right)?.truth()?)),
            _ => {}
        }
        let (left, right) = (self.value(left), self.value(right));
        functions::operators::operate(operator, left, right)
    }

    fn assign(&mut self, target: &Expr, operator: &'static str, value: &Expr) -> Value {
        let value = match operator {
            "=" => self.value(value),
            "??=" => self.binary("??", target, value).unwrap_or_else(Value::Unknown),
            _ => self.binary(operator.trim_end_matches('='), target, value).unwrap_or_else(Value::Unknown),
        };
        // The keys on the path from the variable to the assigned element.
        let mut keys = Vec::new();
        let mut target = target;
        while let Expr::Index(inner, key) = target {
            keys.push(key.as_deref().map(|key| self.value(key)));
            target = inner;
        }
        if let Expr::Variable(name) = target {
            let mut place = self.locals.remove(name).unwrap_or(Value::Null);
            keys.reverse();
            put(&mut place, &keys, value.clone());
            self.locals.insert(name.clone(), place);
        }
        value
    }
}

/// Puts a value into the array at `place`, at the path of these keys.
fn put(place: &mut Value, keys: &[Option<Value>], value: Value) {
    let [first, rest @ ..] = keys else {
        *place = value;
        return;
    };
    if *place == Value::Null {
        *place = Value::Array(Array::default());
    }
    let Value::Array(array) = place else { return };
    match first.as_ref().map(Value::string) {
        None => {
            let mut inner = Value::Null;
            put(&mut inner, rest, value);
            array.push(inner, Asked::default());
        }
        Some(Ok(key)) => {
            let mut inner = array.get(&key).clone();
            put(&mut inner, rest, value);
            array.put(key, inner, Asked::default());
        }
        Some(Err(why)) => array.merge(Array { items: Vec::new(), open: Some(why) }),
    }
}

/// The arguments in the order of these parameters.
fn positions<'a, const N: usize>(parameters: [&str; N], arguments: &'a [Argument]) -> Result<[Option<&'a Expr>; N], String> {
    let mut found = [None; N];
    for (index, argument) in arguments.iter().enumerate() {
        let index = match &argument.name {
            Some(name) => parameters.iter().position(|parameter| parameter == name).ok_or(format!("an argument `{name}`"))?,
            None => index,
        };
        if let Some(place) = found.get_mut(index) {
            *place = Some(&argument.value);
        }
    }
    Ok(found)
}
