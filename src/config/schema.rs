//! Which keys there are, read off a template of the settings themselves, serialised: there is no second list. Pure.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde_json::Value;

pub(super) const PREFIX: &str = "RECOVERD_";

/// Keys of the documentation that this version does not act on. To ignore one would be worse than to refuse it.
const NOT_YET: &[&str] = &["store.redis", "store.redis_file"];

/// Members of a list that the environment may number.
const MOST_MEMBERS: usize = 1000;

/// The shape of one value: a table, a list of tables, or plain.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a>(pub(super) &'a Value);

impl Shape<'_> {
    /// A table without a single key.
    pub(super) const NOTHING: Shape<'static> = Shape(&Value::Null);

    /// What belongs at this key; `None` when nothing does.
    pub(super) fn child(self, key: &str) -> Option<Self> {
        match self.0 {
            // The template's one empty table is `results`, whose keys are the operator's.
            Value::Object(table) if table.is_empty() => Some(Self::NOTHING),
            table => table.get(key).map(Self),
        }
    }

    /// What every member of a list of tables looks like.
    pub(super) fn member(self) -> Option<Self> {
        self.0.as_array()?.first().filter(|member| member.is_object()).map(Self)
    }

    pub(super) fn is_table(self) -> bool {
        self.0.is_object()
    }

    /// Why there is no such key, `path` being this table's, and what was meant.
    pub(super) fn refuse(self, root: Self, path: &str, key: &str) -> String {
        let name = plain(&join(path, key));
        if let Some(why) = not_yet(&name) {
            return why;
        }
        let siblings = self.0.as_object().into_iter().flat_map(|table| table.keys().map(String::as_str));
        let meant = nearest(key, siblings).map(|sibling| plain(&join(path, sibling))).or_else(|| {
            let mut all = Vec::new();
            root.leaves("", &mut all);
            let mut there = all.into_iter().filter(|leaf| leaf.rsplit('.').next() == Some(key));
            there.next().filter(|_| there.next().is_none()).map(|leaf| plain(&leaf))
        });
        format!("unknown key `{name}`{}", did_you_mean(meant.as_deref()))
    }

    /// The path and shape that a variable sets; `name` is what follows the prefix.
    pub(super) fn locate(self, name: &str) -> Result<(String, Self), String> {
        let mut path = String::new();
        let mut shape = self;
        for part in name.to_ascii_lowercase().split("__") {
            if let Some(member) = shape.member() {
                match part.parse::<usize>().ok().filter(|index| *index < MOST_MEMBERS) {
                    Some(index) => {
                        let _ = write!(path, "[{index}]");
                        shape = member;
                        continue;
                    }
                    None => return Err(not_yet(&plain(&join(&path, part))).unwrap_or_else(|| unnumbered(&path))),
                }
            }
            shape = shape.child(part).filter(|_| is_word(part)).ok_or_else(|| self.refuse_variable(name))?;
            path = join(&path, part);
        }
        if shape.is_table() {
            return Err(format!("`{}` is a table; set its keys one by one", plain(&path)));
        }
        if shape.member().is_some() {
            return Err(unnumbered(&path));
        }
        Ok((path, shape))
    }

    fn refuse_variable(self, name: &str) -> String {
        let (numbers, words): (Vec<_>, Vec<_>) = name.split("__").partition(|word| word.parse::<usize>().is_ok());
        not_yet(&words.join(".").to_ascii_lowercase()).unwrap_or_else(|| {
            let mut all = Vec::new();
            self.leaves("", &mut all);
            let all: BTreeMap<_, _> = all.iter().map(|leaf| (variable(&plain(leaf)), leaf)).collect();
            let meant = nearest(&words.join("__"), all.keys().map(String::as_str)).and_then(|name| all.get(name));
            let meant = meant.map(|leaf| format!("{PREFIX}{}", variable(&numbered(leaf, &numbers))));
            format!("unknown setting{}", did_you_mean(meant.as_deref()))
        })
    }

    /// Every key below `path`. A list of tables leaves `[]` behind its name.
    fn leaves(self, path: &str, into: &mut Vec<String>) {
        let (table, path) = match self.member() {
            Some(member) => (member, &*format!("{path}[]")),
            None => (self, path),
        };
        match table.0.as_object() {
            Some(keys) if !keys.is_empty() => {
                keys.iter().for_each(|(key, value)| Self(value).leaves(&join(path, key), into));
            }
            _ => into.push(path.to_owned()),
        }
    }
}

/// Whether keys below this table are documented, though none of them is there yet.
pub(super) fn is_to_come(path: &str) -> bool {
    NOT_YET.iter().any(|later| later.strip_prefix(path).is_some_and(|rest| rest.starts_with('.')))
}

/// Kubernetes puts such variables into every pod for every Service, and the Service may be called recoverd too: what
/// starts with its name in capitals is then not ours (kubernetes.io, "Accessing the Service", environment variables).
pub(super) fn is_of_a_service(name: &str) -> bool {
    let is = |suffix: &str| name.strip_suffix(suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('_'));
    let words: Vec<_> = name.split('_').collect();
    let names_a_port = words.windows(3).any(|three| match three {
        ["PORT", number, protocol] => number.parse::<u16>().is_ok() && matches!(*protocol, "TCP" | "UDP" | "SCTP"),
        _ => false,
    });
    let names_a_service = words.windows(2).any(|two| matches!(two, ["SERVICE", "HOST" | "PORT"]));
    !name.contains("__") && (names_a_port || names_a_service || is("PORT"))
}

/// A path below a path: `webhooks` and `listen` make `webhooks.listen`.
pub(super) fn join(path: &str, key: &str) -> String {
    match (path, key) {
        ("", key) => key.to_owned(),
        (path, key) if key.starts_with('[') => format!("{path}{key}"),
        (path, key) => format!("{path}.{key}"),
    }
}

/// A path as people write it, without the numbers of list members.
pub(super) fn plain(path: &str) -> String {
    let mut plain = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('[') {
        plain.push_str(before);
        rest = after.split_once(']').map_or("", |(_, after)| after);
    }
    plain + rest
}

fn not_yet(name: &str) -> Option<String> {
    let is = |later: &str| name.strip_prefix(later).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
    let later = NOT_YET.iter().find(|later| is(later))?;
    Some(format!("`{later}` is not available in this version; remove it"))
}

fn unnumbered(path: &str) -> String {
    let variable = variable(path);
    format!("`{}` is a list of tables; number them from 0, as in {PREFIX}{variable}__0__…", plain(path))
}

/// What follows the prefix in the variable that sets this path.
fn variable(path: &str) -> String {
    path.replace("].", "__").replace(['[', '.'], "__").to_ascii_uppercase()
}

/// A leaf's path with a number for each list on its way: those that were given, and 0 where none was.
fn numbered(leaf: &str, numbers: &[&str]) -> String {
    let mut numbers = numbers.iter();
    let mut path = String::with_capacity(leaf.len());
    for (index, part) in leaf.split("[]").enumerate() {
        if index > 0 {
            let _ = write!(path, "[{}]", numbers.next().unwrap_or(&"0"));
        }
        path.push_str(part);
    }
    path
}

fn is_word(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn did_you_mean(meant: Option<&str>) -> String {
    meant.map(|meant| format!("; did you mean `{meant}`?")).unwrap_or_default()
}

/// The candidate that a slip of the finger or two away would have been.
pub(super) fn nearest<'a>(wanted: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let reach = (wanted.chars().count() / 3).max(1);
    let scored = candidates.map(|candidate| (strsim::damerau_levenshtein(wanted, candidate), candidate));
    scored.filter(|(distance, _)| *distance <= reach).min().map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_kubernetes_makes_for_a_service_are_not_ours() {
        let theirs = [
            "SERVICE_HOST",
            "SERVICE_PORT",
            "SERVICE_PORT_WEBHOOKS",
            "PORT",
            "PORT_8080_TCP",
            "PORT_8080_TCP_PROTO",
            "PORT_8125_UDP_ADDR",
            "ADMIN_SERVICE_HOST",
            "ADMIN_PORT",
            "ADMIN_PORT_8081_TCP_PORT",
        ];
        for name in theirs {
            assert!(is_of_a_service(name), "{name}");
        }
        for name in ["DATA_DIR", "WEBHOOKS__LISTEN", "WEBHOOKS__PORT", "REPORT", "PORT_X_TCP", "SUPPORT"] {
            assert!(!is_of_a_service(name), "{name}");
        }
    }

    #[test]
    fn a_path_is_shown_without_the_numbers_of_members() {
        assert_eq!(plain("jenkins[0].rules[12].jobs"), "jenkins.rules.jobs");
        assert_eq!(plain("data_dir"), "data_dir");
    }
}
