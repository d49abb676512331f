//! One connection, for those whose word to a peer counts only as long as it lasts.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use apogee_wire::remoting::Request;
use bytes::Bytes;

use crate::client::Client;
use crate::connection::{Answer, Connection, Deadline};
use crate::error::Error;

/// A connection to a peer. Calls over it fail once it has ended; none goes over another.
pub struct Link {
    pub(crate) client: Client,
    pub(crate) connection: Arc<Connection>,
}

impl Link {
    /// Calls the peer; an answer of another code than 0 is an error.
    pub fn call<'c, R: Request>(
        &'c self,
        request: &R::At<'_>,
        body: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Answer<R>, Error>> + Send + use<'c, R> {
        let frame = self.client.frame::<R>(request, body, false);
        async move { self.connection.call(&frame, Deadline::within(within)).await?.success() }
    }

    /// Waits until the connection has ended.
    pub async fn ended(&self) {
        self.connection.ended(self.client.next_opaque()).await;
    }

    /// Closes the connection, for all who use it. The next call dials.
    pub fn close(&self) {
        self.connection.close();
    }
}
