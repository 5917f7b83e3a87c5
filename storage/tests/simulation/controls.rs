//! What a log and its topics are told to let go.

use strandline_storage::{
    control::{Control, TopicRule, TopicTrimmed, TopicsDeleted},
    io::sim::rng::SimRng,
    log::Now,
    settings::{TopicExpiry, TopicRetention, TopicSettings},
};

use super::{
    AGES_S, Process,
    model::{Model, TOPICS},
};

/// For what limits are set. No topic matches two of them.
const LIMITED: [&str; 4] = ["a", "b", "rooms/**", "late/**"];

impl Process {
    /// Tells the log. It may be refused, as an append may be.
    pub fn control(&mut self, control: &Control, model: &mut Model, now: Now) {
        model.passes(now);
        if let Ok(appended) = self.log.append_control(control, now) {
            model.append(vec![control.event()], appended.time_ms);
        }
    }
}

/// A deletion or a trim of a topic.
pub fn removal(model: &Model, rng: &mut SimRng) -> Control {
    let topic = match rng.chance(20) && model.topics_made > 0 {
        true => format!("late/{}", rng.between(1, model.topics_made)),
        false => (*rng.pick(&TOPICS)).to_owned(),
    };
    match rng.chance(50) {
        true => Control::Deleted(TopicsDeleted::of(vec![topic])),
        false => {
            let before = rng.below(model.events.len() as u64 + 1);
            Control::Trimmed(TopicTrimmed { topic, before })
        }
    }
}

/// Limits of a topic or of some, by age, by count or to the newest event of each key, and what ends it; or none any
/// more.
pub fn limit(rng: &mut SimRng) -> Control {
    let pattern = (*rng.pick(&LIMITED)).to_owned();
    let retain = TopicRetention {
        age_s: rng.chance(30).then(|| *rng.pick(&AGES_S)),
        count: *rng.pick(&[None, Some(1), Some(3), Some(10)]),
        latest_per_key: rng.chance(50),
    };
    let expire = TopicExpiry {
        age_s: rng.chance(10).then(|| *rng.pick(&AGES_S)),
        idle_s: rng.chance(10).then(|| *rng.pick(&AGES_S)),
    };
    let settings = TopicSettings { retain, expire };
    Control::Topic(TopicRule { pattern, settings: rng.chance(70).then_some(settings) })
}
