//! The JSON bodies of requests and responses. Spec `json-quirks.md` 2.
//!
//! Read a body with [`apogee_types::json::read`], write it with [`apogee_types::json::write`]:
//! upstream's form, integer and object keys bare. Members that upstream has and we do not read
//! are left out; lists keep their order.

/// A body: a struct of serde whose members are upstream's and may be absent.
macro_rules! bodies {
    ($(
        $(#[$doc:meta])*
        $name:ident {
            $( $(#[$field_doc:meta])* $field:ident : $type:ty, )*
        }
    )*) => { $(
        $(#[$doc])*
        #[derive(Debug, Default, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $( $(#[$field_doc])* pub $field: $type, )*
        }
    )* };
}

mod clients;
mod cluster;
mod config;
mod inspect;
mod register;

pub use clients::*;
pub use cluster::*;
pub use config::*;
pub use inspect::*;
pub use register::*;

use apogee_types::json;
use apogee_types::route::TopicRouteData;

/// From this `version` on a client reads legal JSON only where a route is concerned (4.9.4).
const VERSION_STANDARD_JSON: i32 = 401;

/// A route as body: legal JSON for those who ask for it, else upstream's form.
#[must_use]
pub fn write_route(route: &TopicRouteData, version: i32, standard_only: bool) -> Vec<u8> {
    if standard_only || VERSION_STANDARD_JSON <= version {
        json::write_standard(route)
    } else {
        json::write(route)
    }
}
