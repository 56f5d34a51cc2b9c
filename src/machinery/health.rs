//! What each part says of itself: up, or down and why. Read by `/readyz`.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Every part's last word.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<BTreeMap<Arc<str>, State>>>);

#[derive(Clone, Debug)]
struct State {
    required: bool,
    trouble: Option<String>,
}

/// One part's own line on the board.
#[derive(Clone, Debug)]
pub struct Part {
    name: Arc<str>,
    board: Health,
}

/// One line of the board.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub part: Arc<str>,
    /// Without this part nothing can be accepted.
    pub required: bool,
    /// `None` when all is well.
    pub trouble: Option<String>,
}

impl Health {
    /// A part without which nothing can be accepted. It is down until it says otherwise.
    pub fn required(&self, name: &str) -> Part {
        self.part(name, true)
    }

    /// A part whose trouble leaves the others working. It is down until it says otherwise.
    pub fn optional(&self, name: &str) -> Part {
        self.part(name, false)
    }

    fn part(&self, name: &str, required: bool) -> Part {
        let name: Arc<str> = name.into();
        self.lock().insert(name.clone(), State { required, trouble: Some("not started yet".to_owned()) });
        Part { name, board: self.clone() }
    }

    /// By name.
    pub fn lines(&self) -> Vec<Line> {
        let line = |(part, state): (&Arc<str>, &State)| Line {
            part: part.clone(),
            required: state.required,
            trouble: state.trouble.clone(),
        };
        self.lock().iter().map(line).collect()
    }

    /// Every required part is up.
    pub fn is_ready(&self) -> bool {
        self.lock().values().all(|state| !state.required || state.trouble.is_none())
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Arc<str>, State>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Part {
    /// In characters. Names of others may stand in it.
    const LONGEST_LINE: usize = 2_000;

    /// Returns whether this is news.
    pub fn up(&self) -> bool {
        self.set(None)
    }

    /// `why` is one line for people: what is wrong and what to do. What would make it more than one is left out. Returns
    /// whether the part was up before.
    pub fn down(&self, why: impl AsRef<str>) -> bool {
        let line = why.as_ref().chars().filter(|c| !c.is_control()).take(Self::LONGEST_LINE);
        self.set(Some(line.collect()))
    }

    fn set(&self, trouble: Option<String>) -> bool {
        let mut board = self.board.lock();
        let Some(state) = board.get_mut(&self.name) else { return false };
        let turned = state.trouble.is_some() != trouble.is_some();
        state.trouble = trouble;
        turned
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_required_part_makes_the_whole_unready() {
        let health = Health::default();
        let (store, agent) = (health.required("store"), health.optional("agent"));
        assert!(!health.is_ready());
        assert!(store.up());
        assert!(health.is_ready());
        assert!(!agent.down("no socket"));
        assert!(health.is_ready());
        assert!(store.down("disk full"));
        assert!(!health.is_ready());
        assert_eq!(health.lines()[0].trouble.as_deref(), Some("no socket"));
    }

    #[test]
    fn trouble_is_one_line_whatever_names_it_speaks_of() {
        let health = Health::default();
        health.optional("jenkins main").down(format!("a folder: \"x\nstore: ok\"{}", "y".repeat(10_000)));
        let trouble = health.lines().remove(0).trouble.unwrap();
        assert!(trouble.starts_with("a folder: \"xstore: ok\"y"), "{trouble}");
        assert_eq!(trouble.len(), Part::LONGEST_LINE);
    }
}
