//! The `tree` parameter, read as `org.kohsuke.stapler.export.NamedPathPruner` reads it.

use std::collections::BTreeMap;

#[derive(Clone, Debug, PartialEq)]
pub struct Selector {
    children: BTreeMap<String, Selector>,
    /// Of a list: the first one, and the one behind the last.
    pub range: (usize, usize),
}

impl Default for Selector {
    fn default() -> Self {
        Self { children: BTreeMap::new(), range: (0, usize::MAX) }
    }
}

impl Selector {
    /// `None` for what Jenkins answers with an error.
    pub fn parse(text: &str) -> Option<Self> {
        let mut top = Self::default();
        let rest = list(text, &mut top)?;
        rest.is_empty().then_some(top)
    }

    /// What is wanted of this property, if it is wanted.
    pub fn child(&self, name: &str) -> Option<&Self> {
        self.children.get(name).or_else(|| self.children.get("*"))
    }
}

fn list<'a>(text: &'a str, into: &mut Selector) -> Option<&'a str> {
    let mut rest = node(text, into)?;
    while let Some(more) = rest.strip_prefix(',') {
        rest = node(more, into)?;
    }
    Some(rest)
}

fn node<'a>(text: &'a str, into: &mut Selector) -> Option<&'a str> {
    let end = text.find([',', '[', ']', '{', '}']).unwrap_or(text.len());
    let (name, mut rest) = text.split_at(end);
    if name.is_empty() {
        return None;
    }
    let mut child = Selector::default();
    if let Some(inner) = rest.strip_prefix('[') {
        rest = list(inner, &mut child)?.strip_prefix(']')?;
    }
    if let Some(inner) = rest.strip_prefix('{') {
        let (range, after) = inner.split_once('}')?;
        child.range = match range.split_once(',') {
            None => (range.parse().ok()?, range.parse::<usize>().ok()? + 1),
            Some(("", to)) => (0, to.parse().ok()?),
            Some((from, "")) => (from.parse().ok()?, usize::MAX),
            Some((from, to)) => (from.parse().ok()?, to.parse().ok()?),
        };
        rest = after;
    }
    into.children.insert(name.to_owned(), child);
    Some(rest)
}

#[test]
fn a_tree_is_read_as_stapler_reads_it() {
    let selector = Selector::parse("a,b[c,d[e]{2}]{1,5},f[*]{,3},g{4,}").unwrap();
    let range = |path: &[&str]| path.iter().try_fold(&selector, |at, name| at.child(name)).map(|at| at.range);
    assert_eq!(range(&["a"]), Some((0, usize::MAX)));
    assert_eq!(range(&["b"]), Some((1, 5)));
    assert_eq!(range(&["b", "d"]), Some((2, 3)));
    assert_eq!(range(&["b", "d", "e"]), Some((0, usize::MAX)));
    assert_eq!(range(&["b", "x"]), None);
    assert_eq!(range(&["f"]), Some((0, 3)));
    assert_eq!(range(&["f", "whatever"]), Some((0, usize::MAX)));
    assert_eq!(range(&["g"]), Some((4, usize::MAX)));
    for wrong in ["", "a[", "a]", "a[b", "a,,b", "a{", "a{}", "a{x}", "[a]", "a{1,2,3}"] {
        assert_eq!(Selector::parse(wrong), None, "{wrong}");
    }
}
