//! The few tags of an event that are told on. Pure.

use serde::de::{IgnoredAny, MapAccess, SeqAccess};

use crate::machinery::lenient::{Fill, Filling, Scalar, element, scalar};

/// As long as Sentry keeps them, in characters.
const MAX_VALUE: usize = 200;

/// Of an event's tags, whether they are pairs, objects with `key` and `value`, or one object. The first of a name counts.
#[derive(Debug, Default)]
pub(super) struct Tags {
    pub(super) pod_name: Option<String>,
    pub(super) pod_namespace: Option<String>,
    pub(super) level: Option<String>,
}

impl Tags {
    fn take(&mut self, key: &str, value: Option<&str>) {
        let slot = match key {
            "pod_name" => &mut self.pod_name,
            "pod_namespace" => &mut self.pod_namespace,
            "level" => &mut self.level,
            _ => return,
        };
        if slot.is_none() {
            *slot = value.filter(|value| !value.trim().is_empty()).map(|value| value.chars().take(MAX_VALUE).collect());
        }
    }
}

impl<'de> Fill<'de> for Tags {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let value = scalar(map)?.text();
        self.take(key, value.as_deref());
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        loop {
            let mut pair = Pair::default();
            if list.next_element_seed(Filling(&mut pair))?.is_none() {
                return Ok(());
            }
            if let Some(key) = pair.key.text() {
                self.take(&key, pair.value.text().as_deref());
            }
        }
    }
}

#[derive(Default)]
struct Pair<'de> {
    key: Scalar<'de>,
    value: Scalar<'de>,
}

impl<'de> Fill<'de> for Pair<'de> {
    fn field<A: MapAccess<'de>>(&mut self, key: &str, map: &mut A) -> Result<(), A::Error> {
        let value = scalar(map)?;
        match key {
            "key" => self.key = value,
            "value" => self.value = value,
            _ => {}
        }
        Ok(())
    }

    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        self.key = element(&mut list)?.unwrap_or_default();
        self.value = element(&mut list)?.unwrap_or_default();
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
