//! The macros behind the one table of requests ([`super::requests`]).

use std::fmt;

#[doc(hidden)]
pub use super::fields::{ExtFields, FieldType, PutFields};
use super::fields::{FieldError, Fields};

/// What a caller must be allowed to do. Checked, once authentication is on, before the handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permission {
    /// Everyone may: it tells or changes nothing of another's.
    Any,
    /// Send to the topic.
    Pub,
    /// Read the topic with the group.
    Sub,
    /// See, change, create or delete configuration and state.
    Get,
    Update,
    Create,
    Delete,
    /// Members of the cluster only.
    Cluster,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct RequestInfo {
    pub code: i32,
    /// Upstream's name, for logs, metrics and refusals.
    pub name: &'static str,
    pub permission: Permission,
    pub fields: &'static [FieldInfo],
    /// The fields of the answer.
    pub response: &'static [FieldInfo],
}

/// One header field. Its `Display` is that of the specification: `offset l`, `topic s?`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// The name on the wire.
    pub name: &'static str,
    /// Our type, as written in the table.
    pub kind: &'static str,
    /// It may be absent.
    pub optional: bool,
}

impl fmt::Display for FieldInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.kind.strip_prefix("Option<").unwrap_or(self.kind);
        let letter = match kind.trim_end_matches('>') {
            "i32" => "i",
            "i64" => "l",
            "bool" => "b",
            "f64" => "d",
            _ => "s",
        };
        let optional = if self.optional { "?" } else { "" };
        write!(f, "{} {letter}{optional}", self.name)
    }
}

/// A request of the remoting protocol: its code, its fields, and the fields that answer it.
///
/// The two associated types carry the lifetime of the frame from which they borrow; most requests
/// borrow nothing.
pub trait Request: 'static {
    const INFO: RequestInfo;
    type At<'a>: Fields<'a>;
    type Response<'a>: Fields<'a>;
}

/// No fields.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Empty;

impl<'a> Fields<'a> for Empty {
    const LIST: &'static [FieldInfo] = &[];

    fn decode(_: &ExtFields<'a>) -> Result<Self, FieldError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut (impl PutFields + ?Sized)) {}
}

/// The name on the wire: the literal where there is one, else the field's own.
#[macro_export]
#[doc(hidden)]
macro_rules! wire_name {
    ($field:ident $wire:literal) => {
        $wire
    };
    ($field:ident) => {
        stringify!($field)
    };
}

/// Whether a field of this type, or with this default, may be absent.
#[macro_export]
#[doc(hidden)]
macro_rules! is_optional {
    ($type:ty = $default:expr) => {
        true
    };
    ($type:ty) => {
        <$type as $crate::remoting::table::FieldType>::OPTIONAL
    };
}

/// A struct whose members are header fields, or, with `[Other]`, one that wraps another such.
#[macro_export]
#[doc(hidden)]
macro_rules! fields {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? {
            $(
                $(#[$field_doc:meta])*
                $field:ident $($wire:literal)? : $type:ty $(= $default:expr)?
            ),*
            $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl<'a> $crate::remoting::Fields<'a> for $name $(<$life>)? {
            const LIST: &'static [$crate::remoting::table::FieldInfo] = &[
                $( $crate::remoting::table::FieldInfo {
                    name: $crate::wire_name!($field $($wire)?),
                    kind: stringify!($type),
                    optional: $crate::is_optional!($type $(= $default)?),
                } ),*
            ];

            fn decode(
                fields: &$crate::remoting::ExtFields<'a>,
            ) -> Result<Self, $crate::remoting::FieldError> {
                let _ = fields;
                Ok(Self { $( $field: {
                    const WIRE: &str = $crate::wire_name!($field $($wire)?);
                    match fields.value(WIRE) {
                        $( None => $default, )?
                        value => $crate::remoting::table::FieldType::decode(WIRE, value)?,
                    }
                } ),* })
            }

            fn encode(&self, put: &mut (impl $crate::remoting::PutFields + ?Sized)) {
                let _ = &put;
                $( $crate::remoting::table::FieldType::encode(
                    &self.$field,
                    $crate::wire_name!($field $($wire)?),
                    put,
                ); )*
            }
        }
    };
    ($(#[$doc:meta])* $name:ident $(<$life:lifetime>)? [$other:ident]) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name $(<$life>)? (pub $crate::with_life!($other $($life $life)?));

        impl<'a> $crate::remoting::Fields<'a> for $name $(<$life>)? {
            const LIST: &'static [$crate::remoting::table::FieldInfo] =
                <$crate::with_life!($other $($life 'static)?) as $crate::remoting::Fields>::LIST;

            fn decode(
                fields: &$crate::remoting::ExtFields<'a>,
            ) -> Result<Self, $crate::remoting::FieldError> {
                $crate::remoting::Fields::decode(fields).map(Self)
            }

            fn encode(&self, put: &mut (impl $crate::remoting::PutFields + ?Sized)) {
                self.0.encode(put);
            }
        }
    };
}

/// Requests: `code NAME Type (Permission) { fields } -> Response;`
#[macro_export]
#[doc(hidden)]
macro_rules! requests {
    ($(
        $(#[$doc:meta])*
        $code:literal $upstream:ident $name:ident $(<$life:lifetime>)? ($permission:ident)
        $fields:tt -> $response:ident $(<$response_life:lifetime>)? ;
    )*) => {
        $(
            $crate::fields! { $(#[$doc])* $name $(<$life>)? $fields }

            impl $crate::remoting::Request for $crate::with_life!($name $($life 'static)?) {
                const INFO: $crate::remoting::RequestInfo = $crate::remoting::RequestInfo {
                    code: $code,
                    name: stringify!($upstream),
                    permission: $crate::remoting::Permission::$permission,
                    fields: <Self as $crate::remoting::Fields<'static>>::LIST,
                    response: <$crate::with_life!($response $($response_life 'static)?)
                        as $crate::remoting::Fields<'static>>::LIST,
                };
                type At<'a> = $crate::with_life!($name $($life 'a)?);
                type Response<'a> = $crate::with_life!($response $($response_life 'a)?);
            }
        )*

        /// Every request of the protocol, by rising code.
        pub const REQUESTS: &[$crate::remoting::RequestInfo] = &[
            $( <$crate::with_life!($name $($life 'static)?) as $crate::remoting::Request>::INFO, )*
        ];

        /// Decodes the header fields of a request by its code and writes them again: what a test
        /// or a fuzzer does with every row. `None` for an unknown code.
        #[must_use]
        pub fn reencode(
            code: i32,
            fields: &$crate::remoting::ExtFields<'_>,
            put: &mut dyn $crate::remoting::PutFields,
        ) -> Option<Result<(), $crate::remoting::FieldError>> {
            match code {
                $( $code => Some(
                    <$crate::with_life!($name $($life '_)?)
                        as $crate::remoting::Fields>::decode(fields)
                        .map(|request| $crate::remoting::Fields::encode(&request, put))
                ), )*
                _ => None,
            }
        }

        /// [`reencode`] for the response to a request of this code.
        #[must_use]
        pub fn reencode_response(
            code: i32,
            fields: &$crate::remoting::ExtFields<'_>,
            put: &mut dyn $crate::remoting::PutFields,
        ) -> Option<Result<(), $crate::remoting::FieldError>> {
            match code {
                $( $code => Some(
                    <$crate::with_life!($response $($response_life '_)?)
                        as $crate::remoting::Fields>::decode(fields)
                        .map(|response| $crate::remoting::Fields::encode(&response, put))
                ), )*
                _ => None,
            }
        }
    };
}

/// `Name`, or `Name<'life>` if it was declared with a lifetime.
#[macro_export]
#[doc(hidden)]
macro_rules! with_life {
    ($name:ident) => { $name };
    ($name:ident $declared:lifetime $life:lifetime) => { $name<$life> };
}
