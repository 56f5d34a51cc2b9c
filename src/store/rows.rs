//! Rows on their way to the database: the newest value of each. Pure.

use std::collections::BTreeMap;
use std::ops::Bound;

/// A table of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Table {
    /// Controller and job path, to a job's record.
    Jobs,
    /// Controller and parent's path, to what the parent holds.
    Projects,
    /// Integration and subject, to what is known of an issue, a project, an alert or a notice.
    Sentry,
}

impl Table {
    pub(super) const ALL: [Self; 3] = [Self::Jobs, Self::Projects, Self::Sentry];
}

/// Where a row is: two names, of which the first holds no NUL, so that the order is that of the two.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key(Box<str>);

impl Key {
    pub(super) fn new(first: &str, second: &str) -> Self {
        let mut joined = String::with_capacity(first.len() + 1 + second.len());
        joined.push_str(first);
        joined.push('\0');
        joined.push_str(second);
        Self(joined.into_boxed_str())
    }

    pub(super) fn parts(&self) -> (&str, &str) {
        self.0.split_once('\0').unwrap_or((&self.0, ""))
    }
}

/// A row that is there.
pub(super) type Row = (Key, Box<[u8]>);

/// A row's value; `None` when it was removed.
pub(super) type Value = Option<Box<[u8]>>;

/// What was written, the last of each row.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Rows {
    jobs: BTreeMap<Key, Value>,
    projects: BTreeMap<Key, Value>,
    sentry: BTreeMap<Key, Value>,
}

impl Rows {
    pub(super) fn of(&self, table: Table) -> &BTreeMap<Key, Value> {
        match table {
            Table::Jobs => &self.jobs,
            Table::Projects => &self.projects,
            Table::Sentry => &self.sentry,
        }
    }

    fn of_mut(&mut self, table: Table) -> &mut BTreeMap<Key, Value> {
        match table {
            Table::Jobs => &mut self.jobs,
            Table::Projects => &mut self.projects,
            Table::Sentry => &mut self.sentry,
        }
    }

    pub(super) fn put(&mut self, table: Table, key: Key, value: Value) {
        self.of_mut(table).insert(key, value);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub(super) fn len(&self) -> usize {
        Table::ALL.into_iter().map(|table| self.of(table).len()).sum()
    }

    /// Takes over what is newer.
    pub(super) fn extend(&mut self, newer: Rows) {
        for (table, rows) in
            [(Table::Jobs, newer.jobs), (Table::Projects, newer.projects), (Table::Sentry, newer.sentry)]
        {
            self.of_mut(table).extend(rows);
        }
    }

    /// Those of a table from `from` on, in order.
    pub(super) fn range(&self, table: Table, from: Bound<&Key>) -> impl Iterator<Item = (&Key, &Value)> {
        self.of(table).range::<Key, _>((from, Bound::Unbounded))
    }
}

/// As the journal has them: for each row its table, its key, and its value or that there is none.
pub(super) fn encode(rows: &Rows, out: &mut Vec<u8>) {
    for (number, table) in (0u8..).zip(Table::ALL) {
        for (key, value) in rows.of(table) {
            out.push(number << 1 | u8::from(value.is_some()));
            push(out, key.0.as_bytes());
            if let Some(value) = value {
                push(out, value);
            }
        }
    }
}

/// `None` for bytes that [`encode`] did not make.
pub(super) fn decode(mut bytes: &[u8]) -> Option<Rows> {
    let mut rows = Rows::default();
    while let Some((head, rest)) = bytes.split_first() {
        let table = *Table::ALL.get(usize::from(head >> 1))?;
        let (key, rest) = pull(rest)?;
        let key = Key(std::str::from_utf8(key).ok()?.into());
        let (value, rest) =
            if head & 1 == 0 { (None, rest) } else { pull(rest).map(|(value, rest)| (Some(value), rest))? };
        rows.put(table, key, value.map(Box::from));
        bytes = rest;
    }
    Some(rows)
}

fn push(out: &mut Vec<u8>, bytes: &[u8]) {
    // No row is longer: a record's branches are counted, and names are cut.
    out.extend(u32::try_from(bytes.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend(bytes);
}

fn pull(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_le_bytes(*length)).ok()?)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_rows() -> impl Strategy<Value = Rows> {
        let row =
            (0..3usize, "[a-c]{1,2}", ".{0,3}", proptest::option::of(proptest::collection::vec(any::<u8>(), 0..9)));
        proptest::collection::vec(row, 0..20).prop_map(|written| {
            let mut rows = Rows::default();
            for (table, first, second, value) in written {
                rows.put(Table::ALL[table], Key::new(&first, &second), value.map(Vec::into_boxed_slice));
            }
            rows
        })
    }

    proptest! {
        /// For all rows: what is encoded is decoded.
        #[test]
        fn rows_survive_the_journal(rows in any_rows()) {
            let mut bytes = Vec::new();
            encode(&rows, &mut bytes);
            prop_assert_eq!(decode(&bytes), Some(rows));
        }

        /// For all bytes: they are decoded or refused, without a panic.
        #[test]
        fn foreign_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }

        /// For all pairs of names: keys are in the order of the pairs, and give them back.
        #[test]
        fn keys_are_in_the_order_of_their_names(a in ("[a-c.]{1,3}", ".{0,3}"), b in ("[a-c.]{1,3}", ".{0,3}")) {
            let (key_a, key_b) = (Key::new(&a.0, &a.1), Key::new(&b.0, &b.1));
            prop_assert_eq!(key_a.cmp(&key_b), a.cmp(&b));
            prop_assert_eq!(key_a.parts(), (a.0.as_str(), a.1.as_str()));
        }
    }
}
