//! The macros behind the one table of requests ([`super::requests`]).

use super::fields::{FieldError, Fields};
#[doc(hidden)]
pub use super::fields::{ExtFields, FieldType, PutFields};

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
}

/// One header field of a request.
#[derive(Debug, Clone, Copy)]
pub struct FieldInfo {
    /// The name on the wire.
    pub name: &'static str,
    pub kind: &'static str,
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
    fn decode(_: &ExtFields<'a>) -> Result<Self, FieldError> {
        Ok(Self)
    }

    fn encode(&self, _: &mut dyn PutFields) {}
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

/// A struct whose members are header fields.
#[macro_export]
#[doc(hidden)]
macro_rules! fields {
    (
        $(#[$doc:meta])*
        $name:ident $(<$life:lifetime>)? {
            $( $(#[$field_doc:meta])* $field:ident $($wire:literal)? : $type:ty $(= $default:expr)? ),*
            $(,)?
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name $(<$life>)? {
            $( $(#[$field_doc])* pub $field: $type, )*
        }

        impl<'a> $crate::remoting::Fields<'a> for $name $(<$life>)? {
            fn decode(
                fields: &$crate::remoting::ExtFields<'a>,
            ) -> Result<Self, $crate::remoting::FieldError> {
                let _ = fields;
                Ok(Self { $( $field: {
                    const WIRE: &str = $crate::wire_name!($field $($wire)?);
                    match fields.get(WIRE) {
                        $( None => $default, )?
                        text => $crate::remoting::table::FieldType::decode(WIRE, text)?,
                    }
                } ),* })
            }

            fn encode(&self, put: &mut dyn $crate::remoting::PutFields) {
                let _ = &put;
                $( $crate::remoting::table::FieldType::encode(
                    &self.$field,
                    $crate::wire_name!($field $($wire)?),
                    put,
                ); )*
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
        $code:literal $upstream:ident $name:ident $(<$life:lifetime>)? ($permission:ident) {
            $( $(#[$field_doc:meta])* $field:ident $($wire:literal)? : $type:ty $(= $default:expr)? ),*
            $(,)?
        } -> $response:ident $(<$response_life:lifetime>)? ;
    )*) => {
        $(
            $crate::fields! {
                $(#[$doc])*
                $name $(<$life>)? {
                    $( $(#[$field_doc])* $field $($wire)? : $type $(= $default)? ),*
                }
            }

            impl $crate::remoting::Request for $crate::with_life!($name $($life 'static)?) {
                const INFO: $crate::remoting::RequestInfo = $crate::remoting::RequestInfo {
                    code: $code,
                    name: stringify!($upstream),
                    permission: $crate::remoting::Permission::$permission,
                    fields: &[ $( $crate::remoting::table::FieldInfo {
                        name: $crate::wire_name!($field $($wire)?),
                        kind: stringify!($type),
                    } ),* ],
                };
                type At<'a> = $crate::with_life!($name $($life 'a)?);
                type Response<'a> = $crate::with_life!($response $($response_life 'a)?);
            }
        )*

        /// Every request of the protocol, by rising code.
        pub const REQUESTS: &[$crate::remoting::RequestInfo] = &[
            $( <$crate::with_life!($name $($life 'static)?) as $crate::remoting::Request>::INFO, )*
        ];
    };
}

/// `Name`, or `Name<'life>` if it was declared with a lifetime.
#[macro_export]
#[doc(hidden)]
macro_rules! with_life {
    ($name:ident) => { $name };
    ($name:ident $declared:lifetime $life:lifetime) => { $name<$life> };
}
