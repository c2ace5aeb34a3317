//! Typed values out of JSON trees, as Go decodes into its structs.
//!
//! Generated types refuse what Go takes: null where a value is required (Go writes a time that is not
//! set as null), and required fields that are left out. The decoder of this file gives such places Go's
//! zero value, so that every object that the API accepted has a typed form.

use std::fmt;

use serde::de::value::StrDeserializer;
use serde::de::{
    DeserializeOwned, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor,
};
use serde::forward_to_deserialize_any;
use serde_json::{Error, Value};

/// Go's zero `time.Time`.
const ZERO_TIME: &str = "0001-01-01T00:00:00Z";
/// Fields whose value names the type. Generated types check it, and take its absence; the API takes any
/// text in an object within another (a claim of a StatefulSet's `volumeClaimTemplates`).
const TYPE_FIELDS: [&str; 2] = ["apiVersion", "kind"];

/// Whether a struct with these fields is an object with metadata.
fn is_object(fields: &[&str]) -> bool {
    ["apiVersion", "kind", "metadata"].iter().all(|name| fields.contains(name))
}

/// Decodes JSON text. Text that the generated type takes as it stands costs one pass.
pub fn from_slice<T: DeserializeOwned>(json: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(json).or_else(|_| from_value(&serde_json::from_slice(json)?))
}

/// Decodes a tree; nulls and absent fields count as Go's zero values.
pub fn from_value<T: DeserializeOwned>(value: &Value) -> Result<T, Error> {
    T::deserialize(Place { is_root: true, ..Place::of(value) })
}

/// A place in the tree; `None` is null or absent.
#[derive(Clone, Copy)]
struct Place<'de> {
    value: Option<&'de Value>,
    is_root: bool,
}

impl<'de> Place<'de> {
    const NULL: Place<'static> = Place { value: None, is_root: false };

    fn of(value: &'de Value) -> Place<'de> {
        Place { value: Some(value).filter(|v| !v.is_null()), is_root: false }
    }
}

/// A method that hands the visitor a zero value at a null, and the value itself elsewhere.
macro_rules! zero_at_null {
    ($($method:ident => $visit:ident($zero:expr),)*) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.value {
                None => visitor.$visit($zero),
                Some(value) => value.$method(visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for Place<'de> {
    type Error = Error;

    zero_at_null! {
        deserialize_bool => visit_bool(false),
        deserialize_i8 => visit_i64(0),
        deserialize_i16 => visit_i64(0),
        deserialize_i32 => visit_i64(0),
        deserialize_i64 => visit_i64(0),
        deserialize_u8 => visit_u64(0),
        deserialize_u16 => visit_u64(0),
        deserialize_u32 => visit_u64(0),
        deserialize_u64 => visit_u64(0),
        deserialize_f32 => visit_f64(0.0),
        deserialize_f64 => visit_f64(0.0),
        deserialize_char => visit_str(""),
        deserialize_str => visit_str(""),
        deserialize_string => visit_str(""),
        deserialize_bytes => visit_bytes(b""),
        deserialize_byte_buf => visit_bytes(b""),
    }

    forward_to_deserialize_any! { unit unit_struct tuple tuple_struct identifier ignored_any }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            None => any_at_null(visitor),
            Some(Value::Array(items)) => visitor.visit_seq(Items(items.iter())),
            Some(Value::Object(map)) => visitor.visit_map(Fields::of_map(map)),
            Some(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            None => visitor.visit_none(),
            Some(_) => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (self.value, name) {
            (None, "Time" | "MicroTime") => {
                visitor.visit_newtype_struct(StrDeserializer::<Error>::new(ZERO_TIME))
            }
            (None, "Quantity") => visitor.visit_newtype_struct(StrDeserializer::<Error>::new("0")),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            None => visitor.visit_seq(Items([].iter())),
            Some(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.value {
            None => visitor.visit_map(Fields::empty(&[])),
            Some(_) => self.deserialize_any(visitor),
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            None => visitor.visit_map(Fields::empty(fields)),
            Some(Value::Object(map)) => {
                let absent = fields.iter().filter(|f| !map.contains_key(**f)).copied();
                let untyped = !self.is_root && is_object(fields);
                visitor.visit_map(Fields {
                    absent: absent.collect(),
                    untyped,
                    ..Fields::of_map(map)
                })
            }
            Some(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.value {
            None => Err(Error::custom(format_args!("null is no {name}"))),
            Some(value) => value.deserialize_enum(name, variants, visitor),
        }
    }
}

/// `IntOrString` asks for any value and takes no null. A visitor tells nothing of its type but the
/// sentence that its errors print.
fn any_at_null<'de, V: Visitor<'de>>(visitor: V) -> Result<V::Value, Error> {
    struct Expected<'a, V>(&'a V);
    impl<'de, V: Visitor<'de>> fmt::Display for Expected<'_, V> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            let expected: &dyn serde::de::Expected = self.0;
            expected.fmt(f)
        }
    }
    fn text<'de, V: Visitor<'de>>(visitor: &V) -> String {
        Expected::<'_, V>(visitor).to_string()
    }
    match text(&visitor).as_str() {
        "IntOrString" => visitor.visit_i64(0),
        _ => visitor.visit_unit(),
    }
}

/// The elements of a list.
struct Items<'de>(std::slice::Iter<'de, Value>);

impl<'de> SeqAccess<'de> for Items<'de> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Place::of(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The entries of a map, then the fields that the struct has besides.
struct Fields<'de> {
    entries: Option<serde_json::map::Iter<'de>>,
    absent: Vec<&'static str>,
    /// Without the fields that name the type.
    untyped: bool,
    value: Place<'de>,
}

impl<'de> Fields<'de> {
    fn empty(absent: &[&'static str]) -> Fields<'de> {
        Fields { entries: None, absent: absent.to_vec(), untyped: false, value: Place::NULL }
    }

    fn of_map(map: &'de serde_json::Map<String, Value>) -> Fields<'de> {
        Fields { entries: Some(map.iter()), absent: Vec::new(), untyped: false, value: Place::NULL }
    }

    fn next_name(&mut self) -> Option<&'de str> {
        let untyped = self.untyped;
        let is_read = |name: &str| !untyped || !TYPE_FIELDS.contains(&name);
        let mut entries = self.entries.iter_mut().flatten();
        if let Some((name, value)) = entries.find(|(name, _)| is_read(name)) {
            self.value = Place::of(value);
            return Some(name);
        }
        self.value = Place::NULL;
        std::iter::from_fn(|| self.absent.pop()).find(|name| !TYPE_FIELDS.contains(name))
    }
}

impl<'de> MapAccess<'de> for Fields<'de> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some(name) = self.next_name() else { return Ok(None) };
        // As serde_json does it, so that maps with keys of other types go on to work.
        seed.deserialize(StrDeserializer::new(name)).map(Some)
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        seed.deserialize(self.value)
    }
}
