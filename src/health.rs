//! What a supervisor asks: does the process live, and can it serve?

use std::rc::Rc;

use crate::{
    http::response::{Answer, AnswerTo},
    problem::RESTART_RETRY_AFTER_S,
    shard::Shard,
};

/// `/livez`: the shard that answers is not stuck.
pub(crate) fn write_live(to: &AnswerTo, out: &mut Vec<u8>) {
    Answer::start(200, to, out).json(b"{\"status\":\"ok\"}");
}

/// The whole answer to `/readyz` and `/healthz`, as it is when this is polled.
pub(crate) async fn ready(shard: Rc<Shard>, to: AnswerTo) -> Vec<u8> {
    let mut out = Vec::new();
    write_ready(&shard, &to, &mut out);
    out
}

/// `/readyz` and `/healthz`: 200 as long as reads go on, saying what does not work; 503 while the
/// server stops, and when it may be back.
pub(crate) fn write_ready(shard: &Shard, to: &AnswerTo, out: &mut Vec<u8>) {
    let (log, connections) = (shard.log(), shard.connections().limit());
    let (status, state, why) = if shard.drain().is_on() {
        (503, "draining", Some("the server is stopping"))
    } else if let Some(reason) = log.poisoned() {
        (200, "read-only", Some(reason))
    } else if log.is_disk_full() {
        (200, "disk-full", Some("the disk is full: appends are refused until there is space"))
    } else {
        (200, "ok", None)
    };
    let mut body = serde_json::json!({
        "status": state,
        "reads": status == 200,
        "appends": state == "ok",
        "durable": log.synced().get(),
        "write": log.write_mode().to_string(),
        "connections": { "open": connections.taken(), "max": connections.max() },
    });
    if let Some(why) = why {
        body["reason"] = why.into();
    }
    let mut answer = Answer::start(status, to, out);
    if status == 503 {
        answer = answer.number("Retry-After", RESTART_RETRY_AFTER_S.into());
    }
    answer.json(body.to_string().as_bytes());
}
