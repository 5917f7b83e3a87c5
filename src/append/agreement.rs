//! What is known of a head beside what parsing says of it, for tests and for fuzzing: both must agree, whatever
//! came before.

use bytes::Bytes;
use strandline_storage::once::IdWindow;

use super::{
    AppendForm, OwnValues, RepeatedAppend, RepeatedHeads, WholeAppend, WholeForm,
    repeated::KnownHead,
};
use crate::{
    config::{ListenAddress, ServerConfig},
    http::{
        admission,
        head::{BodyLength, Head},
        operation::Operation,
        origin::OriginRules,
        request::{HeadParser, Parsed},
        response::AnswerTo,
    },
    problem::Problem,
};

/// What a server that knows nothing makes of a head.
struct ParsedAppend {
    head: Head,
    head_bytes: usize,
    body_bytes: usize,
    form: WholeForm,
    to: AnswerTo,
}

/// Takes `inputs`, each a head and something behind it, one after the other; returns how many were known.
///
/// # Panics
///
/// If what is known of one is not what parsing it says.
pub fn assert_known_heads_agree<'a>(inputs: impl IntoIterator<Item = &'a [u8]>) -> usize {
    let listen = ListenAddress::parse(ServerConfig::LISTEN).expect("an address");
    let config = ServerConfig::new(listen, "data");
    let address = "127.0.0.1:7400".parse().expect("an address");
    let allowed = ["https://app.example".to_string()];
    let rules = OriginRules::new(address, None, &allowed).expect("an origin");
    let (heads, mut known_count) = (RepeatedHeads::default(), 0);
    for input in inputs {
        let parsed = parse(input, &rules, &config);
        match (heads.find(input), parsed) {
            (Some(known), Some(parsed)) => {
                assert_agreement(&known, &parsed, input);
                known_count += 1;
            }
            (Some(_), None) => panic!("known, and refused: {}", input.escape_ascii()),
            (None, Some(ParsedAppend { head, body_bytes, form, to, .. })) if to.keep_alive => {
                let body_limit = form.body_limit(&config);
                heads.learn(&head, RepeatedAppend { form, to, body_bytes, body_limit });
            }
            (None, _) => {}
        }
    }
    known_count
}

fn parse(input: &[u8], rules: &OriginRules, config: &ServerConfig) -> Option<ParsedAppend> {
    let Parsed::Request { head, bytes: head_bytes } = HeadParser::default().parse(input) else {
        return None;
    };
    let mut to = AnswerTo::new(&head);
    let form = match admission::admit(&head, rules, &mut to).ok()? {
        Operation::AppendRaw { topic } => AppendForm::of_topic(&head, topic, config).ok()?,
        Operation::AppendEvents => AppendForm::of_events(&head, config).ok()?,
        _ => return None,
    };
    let decoder = form.decoder(&head, config).ok()?;
    let AppendForm::Whole(form) = form else { return None };
    let BodyLength::Sized(_) = head.body_length() else { return None };
    let body_bytes = decoder.sized_bytes_left()?.try_into().ok()?;
    Some(ParsedAppend { head, head_bytes, body_bytes, form, to })
}

fn assert_agreement(known: &KnownHead, parsed: &ParsedAppend, input: &[u8]) {
    let shown = input.escape_ascii();
    assert_eq!(known.head_bytes, parsed.head_bytes, "{shown}");
    assert_eq!(known.body_bytes, parsed.body_bytes, "{shown}");
    assert_eq!(known.append.to, parsed.to, "{shown}");
    for body in [
        &b"{\"topic\":\"a/b\",\"data\":1}"[..],
        b"[{\"id\":\"x\",\"topic\":\"a\",\"data\":1}]",
        b"\xff",
    ] {
        let body = Bytes::from_static(body);
        let window = || IdWindow { events: 10, time_ms: 1_000 };
        let of_known: Result<WholeAppend, Problem> =
            known.append.form.read(body.clone(), known.own.clone(), window);
        assert_eq!(of_known, parsed.form.read(body, OwnValues::default(), window), "{shown}");
    }
}
