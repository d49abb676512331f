//! The core's errors as response codes: exhaustive, so that a new error asks for its answer.
//! Codes: spec `broker.md` 1.2, 1.6, 2.1.

use apogee_broker::Error;
use apogee_store::AppendError;
use apogee_wire::remoting::ResponseCode;

/// The code that a client understands; the remark is the error's text.
#[must_use]
pub fn response_code(error: &Error) -> ResponseCode {
    match error {
        Error::NoSuchTopic { .. } => ResponseCode::TOPIC_NOT_EXIST,
        Error::NoSuchGroup { .. } => ResponseCode::SUBSCRIPTION_GROUP_NOT_EXIST,
        Error::IllegalName(_) | Error::NoSuchQueue { .. } | Error::InvalidParameter(_) => {
            ResponseCode::INVALID_PARAMETER
        }
        Error::SendForbidden { .. }
        | Error::NotPermitted(_)
        | Error::TopicNotPermitted { .. }
        | Error::GroupNotPermitted { .. }
        | Error::NotSupported(_) => ResponseCode::NO_PERMISSION,
        Error::IllegalMessage(_) | Error::BodyTooLong { .. } => ResponseCode::MESSAGE_ILLEGAL,
        Error::IllegalSubscription(_) => ResponseCode::SUBSCRIPTION_PARSE_FAILED,
        Error::GroupOffline { .. } | Error::NotSubscribed { .. } => {
            ResponseCode::SUBSCRIPTION_NOT_EXIST
        }
        Error::Slave => ResponseCode::SYSTEM_BUSY,
        Error::SubscriptionNotLatest { .. } => ResponseCode::SUBSCRIPTION_NOT_LATEST,
        Error::FilterNotSupported
        | Error::InvalidState(_)
        | Error::NotYet { .. }
        | Error::NoSuchMessage { .. }
        | Error::Store(_) => ResponseCode::SYSTEM_ERROR,
        Error::Append(error) => append_code(error),
    }
}

fn append_code(error: &AppendError) -> ResponseCode {
    if error.is_illegal_message() {
        ResponseCode::MESSAGE_ILLEGAL
    } else {
        ResponseCode::SERVICE_NOT_AVAILABLE
    }
}
