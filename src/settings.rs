//! What requests may do to a log beside appending: settings, deleting, trimming; and how it is set.
//!
//! ```text
//! head --[`ChangeForm`]--> body --> the owner is asked what is there --> a control event --> answer
//! ```
//! A change is an event of the log, so it is answered when it is as durable as the log promises, and holds
//! for everything that is appended after it.

use std::rc::Rc;

use bytes::Bytes;
use strandline_storage::{
    append::Append,
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    offset::Offset,
    segment::SegmentBegun,
    settings::LogSettings,
    topic::{Topic, TopicPattern},
};

use crate::{
    event_json::check_json_body,
    http::{
        body::{BodyDecoder, BodyLimit},
        head::{BodyLength, Head},
        operation::Change,
        query::{PlainRequest, TrimBefore, TrimRequest},
        response::{Answer, AnswerTo, write_problem},
    },
    input::{LogName, check_log, not_yet, quoted},
    json::write,
    log_handle::LogHandle,
    problem::{Problem, ProblemKind},
    settings_json,
    stream::live::LiveLog,
};

/// A change whose head was judged, and whose body is to be read.
pub(crate) struct ChangeForm {
    change: Change,
    /// Of a trim: up to where.
    before: Option<TrimBefore>,
}

impl ChangeForm {
    /// Judges the head of a request for `change`.
    pub(crate) fn new(change: Change, head: &Head) -> Result<ChangeForm, Problem> {
        let query = head.query().unwrap_or_default().as_bytes();
        let mut before = None;
        let log = match &change {
            Change::Trim { .. } => {
                let request = TrimRequest::parse(query)?;
                before = Some(request.before);
                request.log
            }
            Change::SetLog { .. } => {
                PlainRequest::parse_without_log(query)?;
                LogName::default()
            }
            Change::SetTopics { .. } | Change::Delete { .. } => PlainRequest::parse(query)?.log,
        };
        check_log(&log)?;
        if let Change::SetLog { .. } | Change::SetTopics { .. } = &change {
            check_json_body(head.fields())?;
        }
        Ok(ChangeForm { change, before })
    }

    /// What takes the body out of the bytes behind its head. Fails where it needs one and its length is not
    /// stated, or is too large.
    pub(crate) fn decoder(&self, head: &Head) -> Result<BodyDecoder, Problem> {
        if self.has_body() && head.body_length() == BodyLength::Unstated {
            let detail = "settings are a body with Content-Length, or sent in chunks";
            return Err(Problem::new(ProblemKind::LengthRequired, detail));
        }
        let bytes_max = settings_json::BODY_BYTES_MAX;
        BodyDecoder::new(head.body_length(), BodyLimit::Whole { bytes_max })
    }

    /// Whether it has to have a body.
    fn has_body(&self) -> bool {
        matches!(self.change, Change::SetLog { .. } | Change::SetTopics { .. })
    }

    /// The whole answer where its body was refused for `problem`.
    pub(crate) async fn refuse(
        self,
        problem: Problem,
        log: Rc<LogHandle>,
        to: AnswerTo,
    ) -> Vec<u8> {
        refuse(self.change, problem, log, to).await
    }

    /// Makes the change, and appends the answer.
    pub(crate) async fn make(self, body: Bytes, log: &LogHandle, to: &AnswerTo, out: &mut Vec<u8>) {
        match self.try_make(&body, log).await {
            Ok(Some(body)) => Answer::start(200, to, out).json(&body),
            Ok(None) => Answer::start(204, to, out).no_content(),
            Err(problem) => write_problem(&problem, to, out),
        }
    }

    async fn try_make(self, body: &[u8], log: &LogHandle) -> Made {
        // Whoever left a path's end too many sends any body.
        check_operation(&self.change, log).await?;
        if !self.has_body() && !body.is_empty() {
            let detail = "this operation takes no body: what it is about stands in the path";
            return Err(Problem::new(ProblemKind::InvalidSettings, detail));
        }
        match self.change {
            Change::SetLog { log: name } => set_log(&name, body, log).await,
            Change::SetTopics { pattern, .. } => set_topics(&pattern, body, log).await,
            Change::Delete { pattern, .. } => delete(&pattern, log).await,
            Change::Trim { topic } => {
                trim(&topic, self.before.expect("a trim says up to where"), log).await
            }
        }
    }
}

/// The whole answer to a change that is refused for `problem`, unless its path is to be blamed for that.
pub(crate) async fn refuse(
    change: Change,
    problem: Problem,
    log: Rc<LogHandle>,
    to: AnswerTo,
) -> Vec<u8> {
    let problem = match check_operation(&change, &log).await {
        Err(path) if problem.closes() => path.closing(),
        Err(path) => path,
        Ok(()) => problem,
    };
    let mut out = Vec::new();
    write_problem(&problem, &to, &mut out);
    out
}

/// The body of an answer; none is `204`.
type Made = Result<Option<Vec<u8>>, Problem>;

async fn set_log(name: &LogName, body: &[u8], log: &LogHandle) -> Made {
    let given = settings_json::parse_log(body)?;
    if *name != LogName::default() {
        return Err(not_yet(&format!("log {}: any but \"main\"", quoted(name.as_str()))));
    }
    if given.sync.is_some_and(|sync| sync != log.sync()) {
        return Err(not_yet(
            "another `sync` than the one that the server was started with (--sync)",
        ));
    }
    append(&Control::Log(given.settings), log).await?;
    let active = log.log_settings().await.map(|(_, active)| active);
    Ok(Some(log_object(&given.settings, active, log)))
}

async fn set_topics(pattern: &TopicPattern, body: &[u8], log: &LogHandle) -> Made {
    let settings = settings_json::parse_topic(body)?;
    let rule = TopicRule { pattern: pattern.as_str().to_owned(), settings: Some(settings) };
    append(&Control::Topic(rule), log).await?;
    let mut body = Vec::new();
    push_named(&mut body, pattern);
    write::name(&mut body, "settings");
    settings_json::push_topic(&mut body, &settings);
    body.push(b'}');
    Ok(Some(body))
}

async fn delete(pattern: &TopicPattern, log: &LogHandle) -> Made {
    let found = log.topic_settings(pattern.as_str()).await.ok_or_else(is_ending)?;
    let control = match pattern.exact() {
        Some(topic) => {
            if log.topic(topic).await.is_none() && found.own.is_none() {
                return Err(no_event(topic));
            }
            Control::Deleted(TopicsDeleted { topics: vec![topic.to_owned()], with_settings: true })
        }
        None if found.own.is_none() => return Err(no_settings(pattern)),
        None => Control::Topic(TopicRule { pattern: pattern.as_str().to_owned(), settings: None }),
    };
    append(&control, log).await?;
    Ok(None)
}

async fn trim(topic: &Topic, before: TrimBefore, log: &LogHandle) -> Made {
    if log.topic(topic).await.is_none() {
        return Err(no_event(topic));
    }
    let before = match before {
        TrimBefore::Offset(offset) => offset,
        TrimBefore::TimeMs(time_ms) => {
            log.offset_at_time(time_ms).await.map_err(|error| Problem::from(&error))?
        }
    };
    // What is not appended yet cannot be trimmed.
    let before = before.min(log.visible());
    let trimmed = TopicTrimmed { topic: topic.as_str().to_owned(), before: before.get() };
    append(&Control::Trimmed(trimmed), log).await?;
    let mut body = Vec::from(&b"{\"topic\":"[..]);
    write::string(&mut body, topic);
    write::name(&mut body, "before");
    write::number(&mut body, before.get());
    body.push(b'}');
    Ok(Some(body))
}

/// Appends a control event; returns where it stands.
async fn append(control: &Control, log: &LogHandle) -> Result<Offset, Problem> {
    let acked = log.append(Append::from(vec![control.event()])).await;
    acked.map(|acked| acked.last).map_err(|error| Problem::from(&error))
}

/// "Under `PUT` and `DELETE` it is 409 with a hint unless that topic exists."
async fn check_operation(change: &Change, log: &LogHandle) -> Result<(), Problem> {
    let (Change::SetTopics { pattern, is_operation: true }
    | Change::Delete { pattern, is_operation: true }) = change
    else {
        return Ok(());
    };
    if let Some(topic) = pattern.exact()
        && log.topic(topic).await.is_some()
    {
        return Ok(());
    }
    let (topic, operation) = pattern.as_str().rsplit_once('/').unwrap_or_default();
    let detail = format!(
        "/{operation} at the end of a path is an operation, under POST: the path without it is \
         topic {}; a topic that does end so is written with %2F{operation}",
        quoted(topic)
    );
    Err(Problem::new(ProblemKind::OperationPath, detail))
}

/// The whole answer that is the list of logs.
pub async fn list_logs(live: Rc<LiveLog>, to: AnswerTo) -> Vec<u8> {
    answer(&to, async {
        let (settings, active) = live.log().log_settings().await.ok_or_else(is_ending)?;
        let mut body = Vec::from(&b"{\"logs\":["[..]);
        body.extend_from_slice(&log_object(&settings, Some(active), live.log()));
        body.extend_from_slice(b"]}");
        Ok(Some(body))
    })
    .await
}

/// The whole answer that is one log.
pub async fn one_log(live: Rc<LiveLog>, name: LogName, to: AnswerTo) -> Vec<u8> {
    answer(&to, async {
        check_log(&name)?;
        let (settings, active) = live.log().log_settings().await.ok_or_else(is_ending)?;
        Ok(Some(log_object(&settings, Some(active), live.log())))
    })
    .await
}

/// The whole answer that is what is set for a pattern: 404 if nothing is.
pub async fn one_pattern(live: Rc<LiveLog>, pattern: TopicPattern, to: AnswerTo) -> Vec<u8> {
    answer(&to, async {
        let found = live.log().topic_settings(pattern.as_str()).await.ok_or_else(is_ending)?;
        let settings = found.own.ok_or_else(|| no_settings(&pattern))?;
        let mut body = Vec::new();
        push_named(&mut body, &pattern);
        write::name(&mut body, "settings");
        settings_json::push_topic(&mut body, &settings);
        body.push(b'}');
        Ok(Some(body))
    })
    .await
}

async fn answer(to: &AnswerTo, made: impl Future<Output = Made>) -> Vec<u8> {
    let mut out = Vec::new();
    match made.await {
        Ok(body) => Answer::start(200, to, &mut out).json(&body.unwrap_or_default()),
        Err(problem) => write_problem(&problem, to, &mut out),
    }
    out
}

fn log_object(settings: &LogSettings, active: Option<SegmentBegun>, log: &LogHandle) -> Vec<u8> {
    let mut out = Vec::from(&b"{\"log\":"[..]);
    write::string(&mut out, LogName::default().as_str());
    settings_json::push_log(&mut out, settings, &log.sync().to_string());
    for (name, offset) in [("earliest", log.earliest()), ("durable", log.synced())] {
        write::name(&mut out, name);
        write::number(&mut out, offset.get());
    }
    write::name(&mut out, "tag");
    write::string(&mut out, log.tag().as_str());
    // A change was answered for even where the server ends before it can say this.
    if let Some(active) = active {
        write::name(&mut out, "segment");
        write::string(&mut out, &active.to_string());
    }
    out.push(b'}');
    out
}

/// `{"topic":"a/b"` or `{"pattern":"a/*"`.
fn push_named(out: &mut Vec<u8>, pattern: &TopicPattern) {
    out.push(b'{');
    write::name(out, if pattern.exact().is_some() { "topic" } else { "pattern" });
    write::string(out, pattern.as_str());
}

fn is_ending() -> Problem {
    Problem::new(ProblemKind::Draining, "the server is stopping")
}

/// The 404 for a topic of which there is nothing.
pub fn no_event(topic: &str) -> Problem {
    let detail = format!(
        "there is no event of topic {}: none was appended, or all are gone again; the topics that there \
         are stand in /api/v1/topics",
        quoted(topic)
    );
    Problem::new(ProblemKind::TopicNotFound, detail)
}

fn no_settings(pattern: &TopicPattern) -> Problem {
    let detail = format!(
        "nothing is set for exactly the pattern {}: PUT sets it; what holds for a topic, from whichever \
         pattern, stands in /api/v1/topics/{{topic}}",
        quoted(pattern.as_str())
    );
    Problem::new(ProblemKind::SettingsNotFound, detail)
}
