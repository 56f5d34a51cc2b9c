//! JSON of which nothing is certain: what is of another kind than expected is passed over, not refused. Pure.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// Something that an object or a list may fill.
pub trait Fill<'de> {
    /// Takes one field of an object: its value is the next in `map`, and must be taken from it.
    fn field<A: MapAccess<'de>>(&mut self, _key: &str, map: &mut A) -> Result<(), A::Error> {
        skip(map)
    }

    /// An object begins.
    fn begin(&mut self) {}

    fn list<A: SeqAccess<'de>>(&mut self, mut list: A) -> Result<(), A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}

/// Reads a whole document into `into`.
///
/// # Errors
/// When it is not JSON, or `into` refuses it.
pub fn read<'de>(body: &'de [u8], into: &mut impl Fill<'de>) -> Result<(), serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_slice(body);
    Filling(into).deserialize(&mut deserializer)?;
    deserializer.end()
}

/// Passes over the value of a field.
pub fn skip<'de, A: MapAccess<'de>>(map: &mut A) -> Result<(), A::Error> {
    map.next_value::<IgnoredAny>().map(|_| ())
}

/// The value of a field. What is written right and says nothing, as half a surrogate or `1e400`, is [`Scalar::Nothing`] and
/// not the end of the document.
pub fn scalar<'de, A: MapAccess<'de>>(map: &mut A) -> Result<Scalar<'de>, A::Error> {
    let raw: &'de RawValue = map.next_value()?;
    Ok(serde_json::from_str(raw.get()).unwrap_or_default())
}

/// The next value of a list, as of [`scalar`].
pub fn element<'de, A: SeqAccess<'de>>(list: &mut A) -> Result<Option<Scalar<'de>>, A::Error> {
    let raw: Option<&'de RawValue> = list.next_element()?;
    Ok(raw.map(|raw| serde_json::from_str(raw.get()).unwrap_or_default()))
}

/// The value that fills `.0`.
#[derive(Debug)]
pub struct Filling<'f, F>(pub &'f mut F);

impl<'de, F: Fill<'de>> DeserializeSeed<'de> for Filling<'_, F> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de, F: Fill<'de>> Visitor<'de> for Filling<'_, F> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("anything")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.0.begin();
        while let Some(key) = map.next_key::<Scalar<'de>>()? {
            self.0.field(key.text().as_deref().unwrap_or_default(), &mut map)?;
        }
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<(), A::Error> {
        self.0.list(list)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
}

/// One plain value. Text is borrowed where it has no escapes.
#[derive(Debug, Default, PartialEq)]
pub enum Scalar<'a> {
    /// Null, an object, a list, a fraction.
    #[default]
    Nothing,
    Flag(bool),
    Integer(i64),
    Text(Cow<'a, str>),
}

impl<'a> Scalar<'a> {
    pub fn text(self) -> Option<Cow<'a, str>> {
        if let Self::Text(text) = self { Some(text) } else { None }
    }

    pub fn integer(self) -> Option<i64> {
        if let Self::Integer(integer) = self { Some(integer) } else { None }
    }

    pub fn flag(self) -> Option<bool> {
        if let Self::Flag(flag) = self { Some(flag) } else { None }
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Scalar<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;

        impl<'de> Visitor<'de> for Reader {
            type Value = Scalar<'de>;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("anything")
            }

            fn visit_bool<E: Error>(self, flag: bool) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Flag(flag))
            }

            fn visit_i64<E: Error>(self, integer: i64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Integer(integer))
            }

            fn visit_u64<E: Error>(self, integer: u64) -> Result<Scalar<'de>, E> {
                Ok(i64::try_from(integer).map_or(Scalar::Nothing, Scalar::Integer))
            }

            fn visit_f64<E: Error>(self, _: f64) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Nothing)
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Text(Cow::Owned(text.to_owned())))
            }

            fn visit_unit<E: Error>(self) -> Result<Scalar<'de>, E> {
                Ok(Scalar::Nothing)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Scalar<'de>, A::Error> {
                while list.next_element::<IgnoredAny>()?.is_some() {}
                Ok(Scalar::Nothing)
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Scalar<'de>, A::Error> {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                Ok(Scalar::Nothing)
            }
        }

        deserializer.deserialize_any(Reader)
    }
}
