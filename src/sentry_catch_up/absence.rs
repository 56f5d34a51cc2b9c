//! What is stored as open and was not listed: which of it is asked for next, and what is believed of the answers. Pure.
//!
//! A list is no proof of an end: it lacks what had no event for ninety days, what a token may no longer see, and what
//! changed its place between two pages. So each is asked for by itself. Only one that Sentry does not know, look after
//! look, is closed without Sentry's own word for its status.

use std::collections::BTreeSet;

/// What an answer said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// How it stands, whatever that is.
    Shown,
    /// Sentry does not know it.
    Unknown,
    /// It may be there, and is not ours to see.
    Hidden,
}

/// So few may always vanish at once.
const ALWAYS_PLAUSIBLE: usize = 5;

/// What is remembered from look to look.
#[derive(Debug)]
pub(super) struct Absences<K> {
    /// Unknown at the last look as well.
    unknown: BTreeSet<K>,
    /// The last one that was asked for: questions go around.
    asked_last: Option<K>,
}

impl<K> Default for Absences<K> {
    fn default() -> Self {
        Self { unknown: BTreeSet::new(), asked_last: None }
    }
}

/// What follows from a look.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Conclusion<K> {
    /// Unknown twice in a row.
    pub(super) gone: Vec<K>,
    pub(super) hidden: usize,
    /// So many are unknown that a lost permission is likelier than so many deletions.
    pub(super) doubtful: usize,
}

impl<K: Ord + Clone> Absences<K> {
    /// Of those that were not listed, the next so many to ask for, beginning behind the last that was asked for.
    pub(super) fn choose(&mut self, absent: &BTreeSet<K>, most: usize) -> Vec<K> {
        let is_behind = |key: &&K| self.asked_last.as_ref().is_none_or(|last| *key > last);
        let (behind, before): (Vec<&K>, Vec<&K>) = absent.iter().partition(is_behind);
        let chosen: Vec<K> = behind.into_iter().chain(before).take(most).cloned().collect();
        self.asked_last = chosen.last().cloned();
        chosen
    }

    /// `absent` was not listed, of `known` that are stored as open; `answers` are those of this look. What was not asked
    /// for stays as doubtful as it was.
    pub(super) fn conclude(
        &mut self,
        absent: &BTreeSet<K>,
        known: usize,
        answers: impl IntoIterator<Item = (K, Answer)>,
    ) -> Conclusion<K> {
        self.unknown.retain(|key| absent.contains(key));
        let (mut again, mut hidden) = (Vec::new(), 0);
        for (key, answer) in answers {
            hidden += usize::from(answer == Answer::Hidden);
            if answer != Answer::Unknown {
                self.unknown.remove(&key);
            } else if !self.unknown.insert(key.clone()) {
                again.push(key);
            }
        }
        let is_plausible = self.unknown.len() <= ALWAYS_PLAUSIBLE.max(known / 2);
        let doubtful = if is_plausible { 0 } else { self.unknown.len() };
        let gone = if is_plausible { again } else { Vec::new() };
        for key in &gone {
            self.unknown.remove(key);
        }
        Conclusion { gone, hidden, doubtful }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOBODY: [u32; 0] = [];

    fn conclude(absences: &mut Absences<u32>, known: usize, answers: &[(u32, Answer)]) -> Conclusion<u32> {
        let absent = answers.iter().map(|(key, _)| *key).collect();
        absences.conclude(&absent, known, answers.iter().copied())
    }

    #[test]
    fn only_what_is_unknown_twice_in_a_row_is_gone() {
        use Answer::{Hidden, Shown, Unknown};
        let table: &[(&[Answer], bool)] = &[
            (&[Unknown], false),
            (&[Unknown, Unknown], true),
            (&[Unknown, Shown, Unknown], false),
            (&[Unknown, Hidden, Unknown], false),
            (&[Hidden, Hidden, Hidden], false),
            (&[Shown, Unknown, Unknown], true),
        ];
        for (answers, is_gone) in table {
            let mut absences = Absences::default();
            let last = answers.iter().map(|answer| conclude(&mut absences, 9, &[(1, *answer)])).last().unwrap();
            assert_eq!(last.gone == [1], *is_gone, "{answers:?}");
        }
    }

    #[test]
    fn what_was_listed_in_between_is_not_unknown_twice() {
        let mut absences = Absences::default();
        assert_eq!(conclude(&mut absences, 9, &[(1, Answer::Unknown)]).gone, NOBODY);
        assert_eq!(conclude(&mut absences, 9, &[]).gone, NOBODY);
        assert_eq!(conclude(&mut absences, 9, &[(1, Answer::Unknown)]).gone, NOBODY);
    }

    #[test]
    fn most_of_them_never_vanish_at_once() {
        let mut absences = Absences::default();
        let answers: Vec<_> = (0..60).map(|key| (key, Answer::Unknown)).collect();
        for _ in 0..3 {
            let conclusion = conclude(&mut absences, 100, &answers);
            assert_eq!((conclusion.gone, conclusion.doubtful), (vec![], 60));
        }
        let conclusion = conclude(&mut absences, 200, &answers);
        assert_eq!((conclusion.gone.len(), conclusion.doubtful), (60, 0));
    }

    #[test]
    fn questions_go_around() {
        let mut absences = Absences::default();
        let absent: BTreeSet<u32> = (1..=5).collect();
        assert_eq!(absences.choose(&absent, 2), [1, 2]);
        assert_eq!(absences.choose(&absent, 2), [3, 4]);
        assert_eq!(absences.choose(&absent, 2), [5, 1]);
        assert_eq!(absences.choose(&absent, 9), [2, 3, 4, 5, 1]);
        assert_eq!(absences.choose(&BTreeSet::new(), 9), Vec::<u32>::new());
    }
}
