//! One tree of values out of the file and the environment, which remembers where each value came from. Pure.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::schema::{self, Shape, join, plain};
use super::{ConfigError, Environment};

/// A value that another program's variable gives.
pub(super) struct Borrowed {
    pub(super) path: &'static str,
    pub(super) variable: &'static str,
    pub(super) value: String,
}

/// Where a value was set. A later variant wins over an earlier one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Origin {
    Borrowed(&'static str),
    Line(usize),
    Variable(String),
}

/// All that was set, and all that was wrong with it so far.
pub(super) struct Layers<'a> {
    schema: Shape<'a>,
    file: String,
    text: &'a str,
    tree: Value,
    origins: BTreeMap<String, Origin>,
    /// With the line of the file, to be told in its order; the environment's come last.
    problems: Vec<(usize, String)>,
}

impl<'a> Layers<'a> {
    /// # Errors
    /// When the file is not TOML. Everything else is collected, see [`Self::finish`].
    pub(super) fn merge(
        schema: &'a Value,
        borrowed: &[Borrowed],
        file: Option<(&Path, &'a str)>,
        environment: &Environment,
    ) -> Result<Self, ConfigError> {
        let (path, text) = file.map_or_else(Default::default, |(path, text)| (path.display().to_string(), text));
        let mut layers = Self {
            schema: Shape(schema),
            file: path,
            text,
            tree: Value::Null,
            origins: BTreeMap::new(),
            problems: Vec::new(),
        };
        layers.tree = layers.collect(borrowed, environment)?;
        Ok(layers)
    }

    fn collect(&mut self, borrowed: &[Borrowed], environment: &Environment) -> Result<Value, ConfigError> {
        let mut builder = config::Config::builder();
        for Borrowed { path, variable, value } in borrowed {
            self.origins.insert((*path).to_owned(), Origin::Borrowed(variable));
            builder = builder.set_default(path, value.as_str()).map_err(|error| self.unforeseen(&error))?;
        }
        let table = DeTable::parse(self.text).map_err(|error| self.syntax_error(&error))?;
        let mut too_large = Vec::new();
        self.survey(self.schema, table.get_ref(), "");
        for (key, value) in table.get_ref() {
            self.measure(key.get_ref(), value, &mut too_large);
        }
        let text = without(self.text, too_large);
        builder = builder.add_source(config::File::from_str(&text, config::FileFormat::Toml));
        for (variable, value) in environment {
            let Some(name) = variable.strip_prefix(schema::PREFIX) else { continue };
            if schema::is_of_a_service(name) {
                continue;
            }
            match self.schema.locate(name) {
                Ok((path, shape)) => {
                    let path = self.as_in_the_file(path);
                    let value = typed(shape, value);
                    builder = builder.set_override(&path, value).map_err(|error| self.unforeseen(&error))?;
                    self.origins.insert(path, Origin::Variable(variable.clone()));
                }
                Err(why) => self.problems.push((usize::MAX, format!("{variable}: {why}"))),
            }
        }
        let merged = builder.build().and_then(config::Config::try_deserialize);
        merged.map_err(|error| self.unforeseen(&error))
    }

    /// The operator's own keys, such as results, may be in capitals there, which a variable's name cannot show.
    fn as_in_the_file(&self, path: String) -> String {
        let known = self.origins.keys().find(|known| known.eq_ignore_ascii_case(&path));
        known.cloned().unwrap_or(path)
    }

    /// The keys that stand outside any table.
    pub(super) fn top<T: DeserializeOwned + Default>(&mut self) -> T {
        let value = self.tree.clone();
        self.read("", &value).unwrap_or_default()
    }

    /// The table at `key`, or its defaults when it is absent or cannot be read, which then is a problem.
    pub(super) fn table<T: DeserializeOwned + Default>(&mut self, key: &str) -> T {
        let value = self.tree.get(key).cloned();
        value.and_then(|value| self.read(key, &value)).unwrap_or_default()
    }

    /// The members of the list of tables at `key` that can be read.
    pub(super) fn tables<T: DeserializeOwned>(&mut self, key: &str) -> Vec<T> {
        match self.tree.get(key).cloned() {
            None => Vec::new(),
            Some(Value::Array(members)) => {
                let mut read = Vec::with_capacity(members.len());
                for (index, member) in members.iter().enumerate() {
                    read.extend(self.read(&format!("{key}[{index}]"), member));
                }
                read
            }
            Some(other) => {
                self.problem(key, &format!("expected a list of tables, [[{key}]], found {}", kind(&other)));
                Vec::new()
            }
        }
    }

    fn read<T: DeserializeOwned>(&mut self, path: &str, value: &Value) -> Option<T> {
        match serde_path_to_error::deserialize(value) {
            Ok(read) => Some(read),
            Err(error) => {
                let found = error.path().iter().try_fold(value, |value, segment| match segment {
                    Segment::Seq { index } => value.get(index),
                    Segment::Map { key } => value.get(key),
                    _ => Some(value),
                });
                let inner = error.path().to_string();
                let full = if inner == "." { path.to_owned() } else { join(path, &inner) };
                let why = explain(&error.inner().to_string(), found.map_or("nothing", kind));
                self.problem(&full, &why);
                None
            }
        }
    }

    /// Notes what is wrong with the value at `path`.
    pub(super) fn problem(&mut self, path: &str, why: &str) {
        let line = self.place(path).0;
        self.problems.push((line, self.named(path, why)));
    }

    /// `why`, after where the value at `path` was set and its name.
    pub(super) fn named(&self, path: &str, why: &str) -> String {
        format!("{}`{}`: {why}", self.place(path).1, plain(path))
    }

    /// Whether the value at `one` was set nearer to the process than that at `other`.
    pub(super) fn outranks(&self, one: &str, other: &str) -> bool {
        let rank = |path: &str| match self.origins.get(path) {
            None => 0,
            Some(Origin::Borrowed(_)) => 1,
            Some(Origin::Line(_)) => 2,
            Some(Origin::Variable(_)) => 3,
        };
        rank(one) > rank(other)
    }

    /// # Errors
    /// All problems since the last call, if there are any.
    pub(super) fn finish(&mut self) -> Result<(), ConfigError> {
        if self.problems.is_empty() {
            return Ok(());
        }
        let mut problems = std::mem::take(&mut self.problems);
        problems.sort_by_key(|(line, _)| *line);
        Err(ConfigError { lines: problems.into_iter().map(|(_, problem)| problem).collect() })
    }

    /// Where the value at `path`, or else the nearest table around it, was set: `recoverd.toml:3: `, after its line.
    fn place(&self, path: &str) -> (usize, String) {
        let mut path = path;
        loop {
            match self.origins.get(path) {
                Some(Origin::Line(line)) => return (*line, format!("{}:{line}: ", self.file)),
                Some(Origin::Variable(name)) => return (usize::MAX, format!("{name}: ")),
                Some(Origin::Borrowed(name)) => return (usize::MAX, format!("{name}: ")),
                None => match path.rfind(['.', '[']).and_then(|cut| path.get(..cut)) {
                    Some(around) => path = around,
                    None if self.file.is_empty() => return (0, String::new()),
                    None => return (0, format!("{}: ", self.file)),
                },
            }
        }
    }

    /// Notes the line of every value in the file, and every key that there is not.
    fn survey(&mut self, shape: Shape<'_>, table: &DeTable<'_>, path: &str) {
        for (key, value) in table {
            let name: &str = key.get_ref();
            let full = join(path, name);
            self.origins.insert(full.clone(), Origin::Line(self.line_at(key.span().start)));
            match (shape.child(name), value.get_ref()) {
                (None, DeValue::Table(table)) if schema::is_to_come(&full) => {
                    self.survey(Shape::NOTHING, table, &full);
                }
                (None, _) => {
                    let why = shape.refuse(self.schema, path, name);
                    let (line, place) = self.place(&full);
                    self.problems.push((line, format!("{place}{why}")));
                }
                (Some(inner), DeValue::Table(table)) if inner.is_table() => self.survey(inner, table, &full),
                (Some(inner), DeValue::Array(members)) => {
                    for (index, member) in members.iter().enumerate() {
                        let full = format!("{full}[{index}]");
                        self.origins.insert(full.clone(), Origin::Line(self.line_at(member.span().start)));
                        if let (Some(inner), DeValue::Table(table)) = (inner.member(), member.get_ref()) {
                            self.survey(inner, table, &full);
                        }
                    }
                }
                (Some(_), _) => {}
            }
        }
    }

    /// Notes every number that the reader of the file would end at, without a word about where. Its place goes to
    /// `too_large`; it may be a secret that lacks its quotes.
    fn measure(&mut self, path: &str, value: &Spanned<DeValue<'_>>, too_large: &mut Vec<Range<usize>>) {
        match value.get_ref() {
            DeValue::Integer(number) if i64::from_str_radix(number.as_str(), number.radix()).is_err() => {
                self.problem(path, "is too large a number");
                too_large.push(value.span());
            }
            DeValue::Array(members) => {
                for (index, member) in members.iter().enumerate() {
                    self.measure(&format!("{path}[{index}]"), member, too_large);
                }
            }
            DeValue::Table(table) => {
                for (key, value) in table {
                    self.measure(&join(path, key.get_ref()), value, too_large);
                }
            }
            _ => {}
        }
    }

    fn line_at(&self, offset: usize) -> usize {
        1 + self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
    }

    /// The parser's own rendering would show the line, and the line may hold a secret.
    fn syntax_error(&self, error: &toml::de::Error) -> ConfigError {
        let offset = error.span().map_or(0, |span| span.start);
        let before = self.text.get(..offset).unwrap_or_default();
        let column = 1 + before.rsplit('\n').next().unwrap_or_default().chars().count();
        ConfigError::one(format!("{}:{}:{column}: {}", self.file, self.line_at(offset), error.message()))
    }

    fn unforeseen(&self, error: &config::ConfigError) -> ConfigError {
        ConfigError::one(format!("{}{error}", self.place("").1))
    }
}

/// The text with a number that every setting can hold where each of these stood, so that the rest can be read.
fn without(text: &str, numbers: Vec<Range<usize>>) -> Cow<'_, str> {
    let mut text = Cow::from(text);
    for number in numbers {
        if text.get(number.clone()).is_some() {
            let instead = format!("{:<1$}", 1, number.len());
            text.to_mut().replace_range(number, &instead);
        }
    }
    text
}

/// The value of a variable in the type that belongs there; as text, when it is not of that type.
fn typed(shape: Shape<'_>, raw: &str) -> config::Value {
    let typed = match shape.0 {
        Value::Bool(_) => raw.trim().parse::<bool>().map(config::Value::from).ok(),
        Value::Number(_) => raw.trim().parse::<i64>().map(config::Value::from).ok(),
        Value::Array(_) => {
            let members = raw.split(',').map(str::trim).filter(|member| !member.is_empty());
            Some(members.map(str::to_owned).collect::<Vec<_>>().into())
        }
        _ => None,
    };
    typed.unwrap_or_else(|| raw.into())
}

/// What a value is, without the value.
pub(super) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(number) if number.is_f64() => "a fraction",
        Value::Number(_) => "a whole number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "a table",
    }
}

/// serde's message in the words of the documentation. Where it would repeat the value that it found, the value's type
/// stands instead.
fn explain(message: &str, found: &str) -> String {
    if let Some((_, expected)) = message.strip_prefix("invalid type: ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return format!("expected {}, found {found}", in_words(expected));
    }
    if let Some((value, expected)) =
        message.strip_prefix("invalid value: integer ").and_then(|rest| rest.rsplit_once(", expected "))
    {
        return format!("expected {}, found {}", in_words(expected), value.trim_matches('`'));
    }
    message.replace("unknown variant", "unknown value").replace("missing field", "missing key")
}

fn in_words(expected: &str) -> &str {
    match expected {
        "usize" | "u16" | "u32" | "u64" => "a whole number from 0",
        "a nonzero u32" | "a nonzero usize" => "a whole number from 1",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "path string" | "string or map" => "a string",
        "a map" => "a table",
        other if other.starts_with("struct ") => "a table",
        other => other,
    }
}
