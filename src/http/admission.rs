//! Who asks, and for what: the same for a request that is served and for one that finds no place.

use super::{
    head::Head,
    operation::{Operation, StreamForce},
    origin::OriginRules,
    response::AnswerTo,
    route::route,
};
use crate::problem::Problem;

/// Returns what `head` asks for, or why it may not. The CORS fields of the answer are in `to` also if
/// it is refused, unless it is for its host.
pub fn admit(head: &Head, origins: &OriginRules, to: &mut AnswerTo) -> Result<Operation, Problem> {
    origins.check_host(head)?;
    let routed = route(head.method(), head.path());
    let writes = match &routed {
        Ok(Operation::AppendRaw { .. } | Operation::AppendEvents | Operation::Change(_)) => true,
        Ok(Operation::Stream { force }) => *force != StreamForce::Sse && head.asks_for_websocket(),
        _ => false,
    };
    // Where one origin is refused, another might not be.
    to.cors = origins.without_origin();
    to.cors = origins.check_origin(head, writes)?;
    head.check_expectation()?;
    routed
}
