//! The door for RocketMQ's own protocol.

pub mod clients;
pub mod complaints;
pub mod door;
pub mod errors;
pub mod groups;
pub mod inspect;
pub mod locks;
pub mod names;
pub mod offsets;
pub mod pending;
pub mod pull;
pub mod queries;
pub mod queues;
pub mod registrar;
pub mod reply;
pub mod router;
pub mod routes;
pub mod send;
pub mod session;
pub mod topics;
pub mod upkeep;

pub use door::{Door, Peer};
pub use router::{Call, Refusal, Reply, Router};

/// What a broker answers.
#[must_use]
pub fn broker_routes(router: Router) -> Router {
    let messages = queries::routes(pull::routes(send::routes(router)));
    let positions = locks::routes(queues::routes(offsets::routes(messages)));
    let clients = reply::routes(clients::routes(positions));
    upkeep::routes(inspect::routes(groups::routes(topics::routes(clients))))
}

/// What a name server answers.
#[must_use]
pub fn name_server_routes(router: Router) -> Router {
    routes::routes(router)
}
