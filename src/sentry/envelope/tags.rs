//! The tags that are put on events, in each of the forms that they can be put there in. Pure.

use std::borrow::Cow;

/// Sentry cuts off what is longer, in characters.
const LONGEST: usize = 200;

/// More than any configuration needs. A set of that many fits a `u32`.
const MOST: usize = 32;

/// The tags of one sender, rendered once for all that it sends.
#[derive(Clone, Debug, Default)]
pub struct Tags {
    tags: Vec<Tag>,
    /// All of them, in each form.
    whole: [Box<str>; FORMS],
}

const FORMS: usize = 3;

/// Where a tag is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `"key":"value"`, in an object.
    Map,
    /// `["key","value"]`, in a list of pairs.
    Pairs,
    /// `"key":{"value":"value","type":"string"}`, in a log's attributes.
    Attributes,
}

#[derive(Clone, Debug)]
struct Tag {
    key: Box<str>,
    /// As JSON, with its quotes.
    value: Box<str>,
}

impl Tags {
    /// What Sentry would not take is made such that it does: a key has ASCII letters, digits and `_.:-`, a value no control
    /// characters, both 200 characters at most. A tag without key or value is left out, of one key the first stays, and of
    /// all tags the first 32.
    pub fn new<'a>(tags: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut known: Vec<Tag> = Vec::new();
        for (key, value) in tags {
            let key: Box<str> = key.trim().chars().take(LONGEST).map(allowed_in_key).collect();
            let value = clean(value);
            if key.is_empty() || value.is_empty() || known.len() == MOST || known.iter().any(|tag| tag.key == key) {
                continue;
            }
            known.push(Tag { key, value: quoted(&value).into() });
        }
        let mut tags = Self { tags: known, whole: Default::default() };
        tags.whole = [Form::Map, Form::Pairs, Form::Attributes].map(|form| tags.render(form, 0).into());
        tags
    }

    pub fn is_empty(&self) -> bool {
        self.tags.is_empty()
    }

    /// The bit of a key in a [`Present`].
    pub(super) fn place_of(&self, key: &[u8]) -> Option<usize> {
        self.tags.iter().position(|tag| tag.key.as_bytes() == key)
    }

    /// Those that are not `present`, with commas between; `None` when that is nothing.
    pub(super) fn missing(&self, present: Present, form: Form) -> Option<Cow<'_, str>> {
        let text = match present {
            0 => Cow::Borrowed(self.whole.get(form as usize).map_or("", |text| text)),
            some => Cow::Owned(self.render(form, some)),
        };
        (!text.is_empty()).then_some(text)
    }

    fn render(&self, form: Form, present: Present) -> String {
        let mut text = String::new();
        for (place, Tag { key, value }) in self.tags.iter().enumerate() {
            if present >> place & 1 == 1 {
                continue;
            }
            if !text.is_empty() {
                text.push(',');
            }
            // A key has nothing to escape.
            let parts = match form {
                Form::Map => ["\"", key, "\":", value, ""],
                Form::Pairs => ["[\"", key, "\",", value, "]"],
                Form::Attributes => ["\"", key, "\":{\"value\":", value, ",\"type\":\"string\"}"],
            };
            text.extend(parts);
        }
        text
    }
}

/// A set of tags, by their places.
pub(super) type Present = u32;

fn allowed_in_key(character: char) -> char {
    if character.is_ascii_alphanumeric() || matches!(character, '_' | '.' | ':' | '-') { character } else { '_' }
}

fn clean(value: &str) -> String {
    let value: String = value.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    value.trim().to_owned()
}

/// As JSON. There are no control characters in it any more.
fn quoted(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for character in text.chars() {
        if matches!(character, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(character);
    }
    quoted.push('"');
    quoted
}
