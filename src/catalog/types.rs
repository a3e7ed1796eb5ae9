//! Types of values: what the checker reasons with.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// A static type. `Any` is compatible with everything and is checked at run time.
#[derive(Clone, Debug, PartialEq)]
pub enum Type {
    Any,
    Bool,
    Int,
    Number,
    String,
    Datetime,
    Duration,
    Enum(Arc<EnumType>),
    List(Arc<Type>),
    /// A map with arbitrary keys and values of one type.
    Map(Arc<Type>),
    Object(Arc<ObjectType>),
}

/// A closed set of words. Values are matched case-insensitively when decoded and kept verbatim when unknown.
#[derive(Clone, Debug, PartialEq)]
pub struct EnumType {
    pub name: Arc<str>,
    /// In the spelling that flows use.
    pub values: Vec<Arc<str>>,
}

impl EnumType {
    /// The canonical spelling of a value written in any case.
    pub fn canonical(&self, text: &str) -> Option<&Arc<str>> {
        self.values.iter().find(|value| value.eq_ignore_ascii_case(text))
    }
}

/// A map whose members are known.
#[derive(Clone, Debug, PartialEq)]
pub struct ObjectType {
    pub name: Arc<str>,
    pub fields: BTreeMap<Arc<str>, Field>,
    /// Members that are not declared may be read as `any`.
    pub open: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Field {
    pub ty: Type,
    /// The service may leave it out. Reading it unguarded is allowed; absence fails the step.
    pub optional: bool,
    pub doc: Arc<str>,
    /// Text that an attacker may have written (file names, titles, subjects).
    pub untrusted: bool,
}

impl Type {
    pub fn list(item: Type) -> Self {
        Type::List(Arc::new(item))
    }

    pub fn map(value: Type) -> Self {
        Type::Map(Arc::new(value))
    }

    /// An object type with required, trusted fields: for the engine's own outputs.
    pub fn object(name: &str, fields: impl IntoIterator<Item = (&'static str, Type, bool)>) -> Self {
        let fields = fields
            .into_iter()
            .map(|(key, ty, optional)| (Arc::from(key), Field { ty, optional, doc: Arc::from(""), untrusted: false }))
            .collect();
        Type::Object(Arc::new(ObjectType { name: name.into(), fields, open: false }))
    }

    /// Whether the type is text at run time (a string or an enum).
    pub fn is_text(&self) -> bool {
        matches!(self, Type::String | Type::Enum(_))
    }

    /// Whether a value of this type can be printed in text without a helper.
    pub fn is_scalar(&self) -> bool {
        !matches!(self, Type::List(_) | Type::Map(_) | Type::Object(_))
    }

    /// The member's type: `None` where there can be no such member.
    pub fn field(&self, name: &str) -> Option<Field> {
        let any = |ty: Type| Field { ty, optional: true, doc: Arc::from(""), untrusted: true };
        match self {
            Type::Any => Some(any(Type::Any)),
            Type::Map(value) => Some(any((**value).clone())),
            Type::Object(object) => object.fields.get(name).cloned().or_else(|| object.open.then(|| any(Type::Any))),
            _ => None,
        }
    }

    /// Whether a value of `from` may be given where `self` is wanted.
    pub fn accepts(&self, from: &Type) -> bool {
        match (self, from) {
            (Type::Any, _) | (_, Type::Any) => true,
            (Type::Number, Type::Int) | (Type::String, Type::Enum(_)) => true,
            (Type::List(want), Type::List(have)) => want.accepts(have),
            (Type::Map(want), Type::Map(have)) => want.accepts(have),
            (Type::Map(want), Type::Object(have)) => have.fields.values().all(|field| want.accepts(&field.ty)),
            (Type::Object(want), Type::Object(have)) => {
                want == have
                    || want.fields.iter().all(|(key, field)| {
                        have.fields.get(key).map_or(field.optional || have.open, |given| field.ty.accepts(&given.ty))
                    })
            }
            (Type::Object(_), Type::Map(_)) => true,
            (Type::Enum(want), Type::Enum(have)) => {
                want == have || have.values.iter().all(|value| want.values.contains(value))
            }
            (want, have) => want == have,
        }
    }

    /// The one type that holds values of both, `None` where there is none.
    pub fn join(&self, other: &Type) -> Option<Type> {
        if self.accepts(other) {
            return Some(self.clone());
        }
        if other.accepts(self) {
            return Some(other.clone());
        }
        (self.is_text() && other.is_text()).then_some(Type::String)
    }
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Type::Any => f.write_str("any"),
            Type::Bool => f.write_str("bool"),
            Type::Int => f.write_str("int"),
            Type::Number => f.write_str("number"),
            Type::String => f.write_str("string"),
            Type::Datetime => f.write_str("datetime"),
            Type::Duration => f.write_str("duration"),
            Type::Enum(e) => f.write_str(&e.name),
            Type::List(item) => write!(f, "list of {item}"),
            Type::Map(value) => write!(f, "map of {value}"),
            Type::Object(object) => f.write_str(&object.name),
        }
    }
}
