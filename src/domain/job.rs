//! Names of jobs: which Jenkins, which path, and which part of a path is a branch. Pure.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The configured name of one Jenkins, as it stands in the webhook's URL.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerName(Arc<str>);

/// Why a string is not a controller's name.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a controller's name has 1 to 64 characters of a-z, A-Z, 0-9, `_`, `.` and `-`, unlike {given:?}")]
pub struct ControllerNameError {
    given: String,
}

impl ControllerName {
    /// # Errors
    /// When the name could not stand in a URL, a host name and a tag unchanged.
    pub fn parse(raw: &str) -> Result<Self, ControllerNameError> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if raw.is_empty() || raw.len() > 64 || !raw.chars().all(plain) {
            return Err(ControllerNameError { given: raw.chars().take(80).collect() });
        }
        Ok(Self(raw.into()))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&ControllerName> for Arc<str> {
    fn from(name: &ControllerName) -> Self {
        name.0.clone()
    }
}

impl fmt::Display for ControllerName {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// A job's full name on its controller: `acme/web/feature%2Fx`. Each segment is a name as Jenkins keeps it on disk, so
/// a branch's slash stays encoded and `/` only ever separates.
///
/// A path may hold any character, control characters included; whoever writes it somewhere sanitises it for that place.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct JobPath(Arc<str>);

/// A job path without a single name in it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the job has no name")]
pub struct EmptyJobPath;

impl JobPath {
    /// Longest path that is kept as it came. A longer one is cut and ends in a digest of the whole, so that two long
    /// names stay two jobs.
    pub const MAX_BYTES: usize = 1024;

    /// # Errors
    /// When nothing but slashes is left of it.
    pub fn from_segments<'a>(segments: impl IntoIterator<Item = &'a str>) -> Result<Self, EmptyJobPath> {
        let mut path = String::new();
        for segment in segments.into_iter().filter(|segment| !segment.is_empty()) {
            if !path.is_empty() {
                path.push('/');
            }
            // Jenkins allows no slash in a name: one that appears by decoding is a branch's, encoded once too little.
            if segment.contains('/') {
                path.push_str(&segment.replace('/', "%2F"));
            } else {
                path.push_str(segment);
            }
        }
        if path.is_empty() {
            return Err(EmptyJobPath);
        }
        if path.len() > Self::MAX_BYTES {
            let digest = format!("~{:016x}", stable_hash(&path));
            path.truncate(path.floor_char_boundary(Self::MAX_BYTES - digest.len()));
            path.push_str(&digest);
        }
        Ok(Self(path.into()))
    }

    /// # Errors
    /// When nothing but slashes is left of it.
    pub fn parse(raw: &str) -> Result<Self, EmptyJobPath> {
        Self::from_segments(raw.split('/'))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The folder or project that holds this job, and the job's own short name. `None` at the top level.
    pub fn split_leaf(&self) -> Option<(JobPath, &str)> {
        let (parent, leaf) = self.0.rsplit_once('/')?;
        Some((JobPath(parent.into()), leaf))
    }

    /// Where the builds of its branch `leaf` are; its own place when that is empty, as for a job without branches.
    #[must_use]
    pub fn branch(&self, leaf: &str) -> JobPath {
        if leaf.is_empty() { self.clone() } else { self.child(leaf) }
    }

    /// Whether it is that folder, or lies in it at any depth.
    pub fn is_within(&self, folder: &JobPath) -> bool {
        self.0.strip_prefix(&*folder.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The job below this one of that short name.
    #[must_use]
    pub fn child(&self, leaf: &str) -> JobPath {
        JobPath(format!("{}/{leaf}", self.0).into())
    }
}

impl From<&JobPath> for Arc<str> {
    fn from(path: &JobPath) -> Self {
        path.0.clone()
    }
}

impl fmt::Display for JobPath {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// What alerts group by: one job (for a multibranch project, the project) on one controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobKey {
    pub controller: ControllerName,
    pub job: JobPath,
}

impl JobKey {
    /// Stands before every job of this controller in the order of keys, and is none of them.
    pub fn before_all(controller: ControllerName) -> Self {
        Self { controller, job: JobPath("".into()) }
    }
}

impl fmt::Display for JobKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.controller, self.job)
    }
}

/// FNV-1a: a number that stays the same over releases, machines and restarts, which the standard library's hash does not
/// promise. Not for secrets.
pub fn stable_hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_its_segments_and_a_slash_in_one_stays_encoded() {
        let table = [
            (vec!["acme", "web", "feature%2Fx"], Ok("acme/web/feature%2Fx")),
            (vec!["acme", "feature/x"], Ok("acme/feature%2Fx")),
            (vec!["", "a", ""], Ok("a")),
            (vec!["", ""], Err(EmptyJobPath)),
        ];
        for (segments, expected) in table {
            let path = JobPath::from_segments(segments.clone());
            assert_eq!(path.as_ref().map(JobPath::as_str), expected.as_ref().copied(), "{segments:?}");
        }
    }

    #[test]
    fn two_long_names_with_one_beginning_stay_two_jobs() {
        let beginning = "й".repeat(10_000);
        let one = JobPath::parse(&format!("{beginning}1")).unwrap();
        let two = JobPath::parse(&format!("{beginning}2")).unwrap();
        assert_ne!(one, two);
        assert!(one.as_str().len() <= JobPath::MAX_BYTES);
    }

    #[test]
    fn the_leaf_is_the_last_name() {
        let path = JobPath::parse("acme/web/main").unwrap();
        let (parent, leaf) = path.split_leaf().unwrap();
        assert_eq!((parent.as_str(), leaf), ("acme/web", "main"));
        assert_eq!(parent.child(leaf), path);
        assert_eq!(JobPath::parse("acme").unwrap().split_leaf(), None);
    }

    #[test]
    fn a_folder_holds_what_lies_below_it_and_not_what_begins_alike() {
        let folder = JobPath::parse("acme/web").unwrap();
        for (path, expected) in [("acme/web", true), ("acme/web/a/b", true), ("acme/web2", false), ("acme", false)] {
            assert_eq!(JobPath::parse(path).unwrap().is_within(&folder), expected, "{path}");
        }
    }

    #[test]
    fn the_stable_hash_never_changes() {
        assert_eq!(format!("{:016x}", stable_hash("acme/web")), "0ee2dd5c62723df6");
    }

    #[test]
    fn a_controllers_name_needs_no_escaping_anywhere() {
        for good in ["main", "ci.acme-1_x"] {
            assert!(ControllerName::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "ä", "a,b", &"a".repeat(65)] {
            assert!(ControllerName::parse(bad).is_err(), "{bad}");
        }
    }
}
