//! Facts about envelopes, and what holds for all of them.

use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};

use super::*;

const POD: &str = r#""pod_name":"web-1","pod_namespace":"shop""#;
const POD_PAIRS: &str = r#"["pod_name","web-1"],["pod_namespace","shop"]"#;
const POD_ATTRIBUTES: &str =
    r#""pod_name":{"value":"web-1","type":"string"},"pod_namespace":{"value":"shop","type":"string"}"#;

fn pod() -> Arc<Tags> {
    Arc::new(Tags::new([("pod_name", "web-1"), ("pod_namespace", "shop")]))
}

fn spliced(kind: Kind, tags: Arc<Tags>, body: impl Into<Bytes>) -> (Vec<u8>, Report) {
    let mut out = Vec::new();
    let report = splice(kind, tags, body.into(), &mut out);
    (out.concat(), report)
}

/// An envelope with one item, which is its payload's length long.
fn envelope(kind: &str, payload: &[u8]) -> Vec<u8> {
    let header = format!("{{}}\n{{\"type\":\"{kind}\",\"length\":{}}}\n", payload.len());
    [header.as_bytes(), payload, b"\n"].concat()
}

/// What became of the only item.
fn only(report: &Report) -> Outcome {
    assert_eq!(report.items.values().sum::<u64>(), 1, "{report:?}");
    report.items.keys().next().unwrap().outcome
}

#[test]
fn tags_are_put_where_they_belong() {
    let table = [
        // None yet.
        ("event", "{}", format!(r#"{{"tags":{{{POD}}}}}"#)),
        ("event", r#" { "a" : 1 } "#, format!(r#" {{"tags":{{{POD}}}, "a" : 1 }} "#)),
        ("transaction", r#"{"a":{"tags":1}}"#, format!(r#"{{"tags":{{{POD}}},"a":{{"tags":1}}}}"#)),
        // A map.
        ("event", r#"{"tags":{}}"#, format!(r#"{{"tags":{{{POD}}}}}"#)),
        ("event", r#"{"tags" : { } }"#, format!(r#"{{"tags" : {{{POD} }} }}"#)),
        ("feedback", r#"{"tags":{"a":[1]}}"#, format!(r#"{{"tags":{{{POD},"a":[1]}}}}"#)),
        ("event", r#"{"\u0074ags":{"a":1}}"#, format!(r#"{{"\u0074ags":{{{POD},"a":1}}}}"#)),
        // A list.
        ("event", r#"{"tags":[]}"#, format!(r#"{{"tags":[{POD_PAIRS}]}}"#)),
        ("event", r#"{"tags":[["a","b"],null,[]]}"#, format!(r#"{{"tags":[{POD_PAIRS},["a","b"],null,[]]}}"#)),
        // Null.
        ("event", r#"{"tags": null,"b":2}"#, format!(r#"{{"tags": {{{POD}}},"b":2}}"#)),
        // The app's own win, one by one.
        (
            "event",
            r#"{"tags":{"pod_\u006eame":"mine"}}"#,
            r#"{"tags":{"pod_namespace":"shop","pod_\u006eame":"mine"}}"#.to_owned(),
        ),
        (
            "event",
            r#"{"tags":[["pod_namespace",null]]}"#,
            r#"{"tags":[["pod_name","web-1"],["pod_namespace",null]]}"#.to_owned(),
        ),
        ("event", r#"{"tags":[["a","pod_name"]]}"#, format!(r#"{{"tags":[{POD_PAIRS},["a","pod_name"]]}}"#)),
        // What serde_json cannot take.
        ("event", r#"{"a":1e400,"b":"\ud800"}"#, format!(r#"{{"tags":{{{POD}}},"a":1e400,"b":"\ud800"}}"#)),
        // Logs.
        (
            "log",
            r#"{"items":[{},{"attributes":{}},{"attributes":null,"a":1}],"version":2}"#,
            format!(
                r#"{{"items":[{{"attributes":{{{POD_ATTRIBUTES}}}}},{{"attributes":{{{POD_ATTRIBUTES}}}}},{{"attributes":{{{POD_ATTRIBUTES}}},"a":1}}],"version":2}}"#
            ),
        ),
        (
            "log",
            r#"{"items":[{"attributes":{"pod_name":{"value":"mine"}}}]}"#,
            r#"{"items":[{"attributes":{"pod_namespace":{"value":"shop","type":"string"},"pod_name":{"value":"mine"}}}]}"#
                .to_owned(),
        ),
    ];
    for (kind, payload, expected) in table {
        let (out, report) = spliced(Kind::Envelope, pod(), envelope(kind, payload.as_bytes()));
        assert_eq!(out, envelope(kind, expected.as_bytes()), "{payload}");
        assert_eq!(only(&report), Outcome::Enriched, "{payload}");
        if kind != "log" {
            let (out, report) = spliced(Kind::Store, pod(), payload.to_owned());
            assert_eq!((out, only(&report)), (expected.into_bytes(), Outcome::Enriched), "{payload}");
        }
    }
}

#[test]
fn what_is_not_understood_stays_as_it_is() {
    use PassedBecause::*;

    let table: &[(&str, &[u8], Outcome)] = &[
        ("event", br#"{"tags":{"pod_name":1,"pod_namespace":null}}"#, Outcome::AlreadyTagged),
        ("event", br#"{"tags":[["pod_name"],["pod_namespace","x"]]}"#, Outcome::AlreadyTagged),
        ("log", br#"{"items":[]}"#, Outcome::AlreadyTagged),
        ("event", b"", Outcome::Passed(Malformed)),
        ("event", b"[]", Outcome::Passed(Malformed)),
        ("event", b"{}{}", Outcome::Passed(Malformed)),
        ("event", b"{\"a\":1,}", Outcome::Passed(Malformed)),
        ("event", b"{\"a\":\"\xFF\"}", Outcome::Passed(Malformed)),
        ("event", br#"{"tags":{"a":1}"#, Outcome::Passed(Malformed)),
        ("event", br#"{"tags":{},"tags":{}}"#, Outcome::Passed(DuplicateKey)),
        ("event", br#"{"tags":{},"t\u0061gs":null}"#, Outcome::Passed(DuplicateKey)),
        ("event", br#"{"tags":"a"}"#, Outcome::Passed(OddTags)),
        ("event", br#"{"tags":false}"#, Outcome::Passed(OddTags)),
        ("event", br#"{"tags":["a"]}"#, Outcome::Passed(OddTags)),
        ("event", br#"{"tags":[{"key":"pod_name"}]}"#, Outcome::Passed(OddTags)),
        ("log", b"{}", Outcome::Passed(Malformed)),
        ("log", br#"{"items":{}}"#, Outcome::Passed(Malformed)),
        ("log", br#"{"items":[{},1]}"#, Outcome::Passed(Malformed)),
        ("log", br#"{"items":[{}],"items":[]}"#, Outcome::Passed(DuplicateKey)),
        ("log", br#"{"items":[{},{"attributes":{},"attributes":{}}]}"#, Outcome::Passed(DuplicateKey)),
        ("log", br#"{"items":[{},{"attributes":[]}]}"#, Outcome::Passed(OddTags)),
        ("attachment", b"{}", Outcome::Passed(OtherKind)),
        ("otel_log", br#"{"items":[]}"#, Outcome::Passed(OtherKind)),
        ("session", br#"{"sid":"1"}"#, Outcome::Passed(OtherKind)),
    ];
    for (kind, payload, outcome) in table {
        let body = envelope(kind, payload);
        let (out, report) = spliced(Kind::Envelope, pod(), body.clone());
        let shown = String::from_utf8_lossy(payload);
        assert_eq!(out, body, "{shown}");
        assert_eq!((only(&report), report.is_changed()), (*outcome, false), "{shown}");
    }
}

#[test]
fn an_item_ends_where_its_header_says() {
    use Outcome::{Enriched, Passed};
    use PassedBecause::*;

    let full = format!(r#"{{"tags":{{{POD}}}}}"#);
    let full_length = full.len();
    let table: Vec<(&str, String, Vec<Outcome>)> = vec![
        // Without a length: a line.
        ("{}\n{\"type\":\"event\"}\n{}", format!("{{}}\n{{\"type\":\"event\"}}\n{full}"), vec![Enriched]),
        (
            "{}\n{\"type\":\"event\",\"length\":null}\r\n{}\r\n{\"type\":\"x\"}\n\n\n",
            format!("{{}}\n{{\"type\":\"event\",\"length\":null}}\r\n{full}\r\n{{\"type\":\"x\"}}\n\n\n"),
            vec![Enriched, Passed(OtherKind)],
        ),
        // No line end at the end, digits set apart, unknown attributes.
        (
            "{\"x\":1}\n{\"length\" : 2 ,\"y\":[2],\"type\":\"event\"}\n{}",
            format!("{{\"x\":1}}\n{{\"length\" : {full_length} ,\"y\":[2],\"type\":\"event\"}}\n{full}"),
            vec![Enriched],
        ),
        (
            "{}\n\n \n{\"type\":\"attachment\",\"length\":0}",
            "{}\n\n \n{\"type\":\"attachment\",\"length\":0}".to_owned(),
            vec![Passed(OtherKind)],
        ),
        // A line end in a payload that has a length.
        (
            "{}\n{\"type\":\"attachment\",\"length\":8}\n{}\n{}\n{}\n{\"type\":\"event\",\"length\":3}\n{\n}\n",
            format!(
                "{{}}\n{{\"type\":\"attachment\",\"length\":8}}\n{{}}\n{{}}\n{{}}\n{{\"type\":\"event\",\"length\":{}}}\n{{\"tags\":{{{POD}}}\n}}\n",
                full_length + 1
            ),
            vec![Enriched, Passed(OtherKind)],
        ),
    ];
    for (body, expected, outcomes) in table {
        let (out, report) = spliced(Kind::Envelope, pod(), body);
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        assert_eq!(report.items.keys().map(|item| item.outcome).collect::<Vec<_>>().len(), outcomes.len());
        for outcome in outcomes {
            assert!(report.items.keys().any(|item| item.outcome == outcome), "{body}: {report:?}");
        }
    }
}

#[test]
fn an_envelope_that_is_broken_passes_from_there_on() {
    use PassedBecause::*;

    let good = "{\"type\":\"event\",\"length\":2}\n{}\n";
    let table = [
        ("", OddHeader),
        ("\n", OddHeader),
        ("[]\n", OddHeader),
        ("{\"a\n", OddHeader),
        ("{}\n[]\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":-2}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":2.0}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":\"2\"}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":02}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":99999999999999999999}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":2,\"length\":2}\n{}\n", OddHeader),
        ("{}\n{\"type\":\"event\",\"length\":1}\n{}\n", WrongLength),
        ("{}\n{\"type\":\"attachment\",\"length\":1}\n{}\n", WrongLength),
        ("{}\n{\"type\":\"event\",\"length\":1000}\n{}\n", Truncated),
        ("{}\n{\"type\":\"attachment\",\"length\":18446744073709551615}\n{}\n", Truncated),
    ];
    for (body, reason) in table {
        let body = body.to_owned() + if body.is_empty() { "" } else { good };
        let (out, report) = spliced(Kind::Envelope, pod(), body.clone());
        assert_eq!((out, only(&report)), (body.clone().into_bytes(), Outcome::Passed(reason)), "{body}");
    }
}

#[test]
fn an_item_of_two_types_is_passed_and_the_next_is_not() {
    let body = "{}\n{\"type\":\"event\",\"type\":\"x\",\"length\":2}\n{}\n{\"type\":\"event\"}\n{}";
    let (out, report) = spliced(Kind::Envelope, pod(), body);
    let expected = body.strip_suffix("{}").unwrap().to_owned() + &format!(r#"{{"tags":{{{POD}}}}}"#);
    assert_eq!(String::from_utf8(out).unwrap(), expected);
    assert_eq!(report.items.len(), 2);
}

#[test]
fn no_event_becomes_larger_than_sentry_takes() {
    let added = format!(r#""tags":{{{POD}}},"#).len();
    let event = |bytes: usize| format!(r#"{{"a":"{}"}}"#, "x".repeat(bytes - 8)).into_bytes();
    let table = [
        (LARGEST_ITEM - added, Outcome::Enriched),
        (LARGEST_ITEM - added + 1, Outcome::Passed(PassedBecause::WouldBeTooLarge)),
        (LARGEST_ITEM, Outcome::Passed(PassedBecause::WouldBeTooLarge)),
        (LARGEST_ITEM + 1, Outcome::Passed(PassedBecause::TooLarge)),
    ];
    for (bytes, outcome) in table {
        let payload = event(bytes);
        let bare = [b"{}\n{\"type\":\"event\"}\n", &payload[..]].concat();
        for (kind, body) in [
            (Kind::Envelope, envelope("event", &payload)),
            (Kind::Envelope, bare.clone()),
            (Kind::Envelope, [&bare[..], b"\n"].concat()),
            (Kind::Store, payload),
        ] {
            let (out, report) = spliced(kind, pod(), body.clone());
            assert_eq!(only(&report), outcome, "{bytes}");
            assert_eq!(out.len() as u64, body.len() as u64 + report.added);
            assert_eq!(report.added >= added as u64, outcome == Outcome::Enriched);
            assert_eq!(in_pieces(kind, &pod(), &body, &[40_000; 30]), (out, report));
        }
    }
}

#[test]
fn many_logs_do_not_make_a_flood() {
    let payload = format!(r#"{{"items":[{}{{}}]}}"#, "{},".repeat(300_000));
    let (_, report) = spliced(Kind::Envelope, pod(), envelope("log", payload.as_bytes()));
    assert_eq!(only(&report), Outcome::Passed(PassedBecause::WouldBeTooLarge));
}

#[test]
fn a_million_items_are_counted_in_a_handful_of_numbers() {
    let body = "{}\n".to_owned() + &"{\"type\":\"event\"}\n{}\n".repeat(1_000_000);
    let (out, report) = spliced(Kind::Envelope, pod(), body.clone());
    let counts: Vec<_> = report.items.iter().map(|(item, count)| (item.outcome, *count)).collect();
    assert_eq!(counts, [(Outcome::Passed(PassedBecause::TooMany), 999_900), (Outcome::Enriched, 100)]);
    assert_eq!(out.len() as u64, body.len() as u64 + report.added);
}

#[test]
fn depth_is_no_trouble() {
    let payload = format!(r#"{{"a":{}{}}}"#, "[{\"b\":".repeat(10_000), "}]".repeat(10_000).replacen('}', "1}", 1));
    let (out, report) = spliced(Kind::Envelope, pod(), envelope("event", payload.as_bytes()));
    assert_eq!(only(&report), Outcome::Enriched);
    assert!(String::from_utf8(out).unwrap().contains(&format!(r#"{{"tags":{{{POD}}},"a":[{{"b""#)));
}

#[test]
fn an_event_tells_its_level_also_when_it_is_passed() {
    let table = [
        (r#"{"level":"fatal"}"#, Some(Level::Fatal)),
        (r#"{"tags":1,"level":"warning"}"#, Some(Level::Warning)),
        (r#"{"tags":{},"level":"info","tags":{}}"#, Some(Level::Info)),
        (r#"{"level":7}"#, Some(Level::Error)),
        (r#"{"level":"\u0066atal"}"#, Some(Level::Error)),
        ("{}", Some(Level::Error)),
        (r#"{"level":"fatal""#, None),
    ];
    for (payload, level) in table {
        let (_, report) = spliced(Kind::Envelope, pod(), envelope("event", payload.as_bytes()));
        assert_eq!(report.items.keys().next().unwrap().level, level, "{payload}");
    }
    let (_, report) = spliced(Kind::Envelope, pod(), envelope("transaction", br#"{"level":"info"}"#));
    assert_eq!(report.items.keys().next().unwrap().level, None);
}

#[test]
fn the_id_is_the_header_s_or_else_the_event_s() {
    let (one, two) = ("9ec79c33ec9942ab8353589fcb2e04dc", "9ec79c33-ec99-42ab-8353-589fcb2e04dd");
    let of_event = format!(r#"{{"type":"event"}}{}{{"event_id":"{two}"}}"#, "\n");
    let table = [
        (format!("{{\"event_id\":\"{one}\"}}\n{of_event}"), Some(one)),
        (format!("{{}}\n{of_event}"), Some(two)),
        (format!("{{\"event_id\":\"{one}\",\"event_id\":\"{two}\"}}\n"), None),
        (format!("{{\"event_id\":\"{}\"}}\n", "x".repeat(32)), None),
        ("{\"event_id\":17}\n".to_owned(), None),
    ];
    for (body, id) in table {
        let (_, report) = spliced(Kind::Envelope, pod(), body.clone());
        assert_eq!(report.event_id.as_deref(), id, "{body}");
    }
    let (_, report) = spliced(Kind::Store, pod(), format!(r#"{{"event_id":"{one}"}}"#));
    assert_eq!(report.event_id.as_deref(), Some(one));
}

#[test]
fn the_dsn_is_known_once_the_header_is() {
    let table = [
        (r#"{"dsn":"https://abc123@sentry.example/42"}"#, Some(("abc123", "42"))),
        (r#"{"dsn":"https:\/\/abc123:secret@sentry.example:9000\/path\/42\/"}"#, Some(("abc123", "42"))),
        (r#"{"dsn":"https://abc123@sentry.example/42","dsn":"https://d@sentry.example/43"}"#, None),
        (r#"{"dsn":"https://sentry.example/42"}"#, None),
        (r#"{"dsn":"https://abc123@sentry.example/"}"#, None),
        (r#"{"dsn":"https://a%0Ab@sentry.example/42"}"#, None),
        (r#"{"dsn":"no url"}"#, None),
        (r#"{"dsn":{}}"#, None),
        ("{}", None),
    ];
    for (header, expected) in table {
        let mut splicer = Splicer::new(Kind::Envelope, pod());
        splicer.push(Bytes::copy_from_slice(header.as_bytes()), &mut Vec::new());
        assert!(!splicer.is_past_header());
        splicer.push(Bytes::from_static(b"\n"), &mut Vec::new());
        assert!(splicer.is_past_header());
        let dsn = splicer.dsn().map(|dsn| (&*dsn.public_key, &*dsn.project));
        assert_eq!(dsn, expected, "{header}");
    }
}

#[test]
fn without_tags_everything_is_counted_and_nothing_changed() {
    let body = "{}\n{\"type\":\"event\"}\n{\"level\":\"info\"}\n{\"type\":\"session\"}\n{}\n";
    let (out, report) = spliced(Kind::Envelope, Arc::default(), body);
    assert_eq!(out, body.as_bytes());
    let items: Vec<_> = report.items.keys().map(|item| (item.category, item.level, item.outcome.as_str())).collect();
    assert_eq!(items, [(Category::Event, Some(Level::Info), "no_tags"), (Category::Session, None, "other_kind")]);
}

#[test]
fn what_is_not_looked_into_is_not_held() {
    let mut splicer = Splicer::new(Kind::Envelope, pod());
    let mut out = Vec::new();
    splicer.push(Bytes::from_static(b"{}\n{\"type\":\"attachment\",\"length\":100000}\n"), &mut out);
    for _ in 0..100 {
        out.clear();
        splicer.push(vec![b'x'; 1000].into(), &mut out);
        assert_eq!(out.concat().len(), 1000);
    }
    let report = splicer.finish(Bytes::new(), &mut out);
    assert_eq!(only(&report), Outcome::Passed(PassedBecause::OtherKind));
}

#[test]
fn tags_are_such_that_sentry_takes_them() {
    let long = "é".repeat(300);
    let tags = Tags::new([
        ("app.kubernetes.io/name", " a\nb\t\u{7f}\u{85}c\"\\ "),
        ("team", &long),
        ("team", "second"),
        ("empty", "\n"),
        ("", "x"),
    ]);
    let (out, _) = spliced(Kind::Store, Arc::new(tags), "{}");
    let value: Value = serde_json::from_slice(&out).unwrap();
    let expected = json!({ "app.kubernetes.io_name": "a b   c\"\\", "team": "é".repeat(200) });
    assert_eq!(value["tags"], expected);
    let many: Vec<String> = (0..100).map(|n| format!("k{n}")).collect();
    let (out, _) = spliced(Kind::Store, Arc::new(Tags::new(many.iter().map(|key| (&**key, "v")))), "{}");
    let value: Value = serde_json::from_slice(&out).unwrap();
    assert_eq!(value["tags"].as_object().unwrap().len(), 32);
}

/// `body` in pieces, of these lengths and the rest.
fn in_pieces(kind: Kind, tags: &Arc<Tags>, body: &[u8], lengths: &[usize]) -> (Vec<u8>, Report) {
    let mut splicer = Splicer::new(kind, Arc::clone(tags));
    let mut out = Vec::new();
    let mut rest = body;
    for length in lengths {
        let (piece, behind) = rest.split_at((*length).min(rest.len()));
        splicer.push(Bytes::copy_from_slice(piece), &mut out);
        rest = behind;
    }
    let report = splicer.finish(Bytes::copy_from_slice(rest), &mut out);
    (out.concat(), report)
}

/// What holds for all bodies, sound or not.
fn check(kind: Kind, body: &Bytes, lengths: &[usize]) -> Result<(), TestCaseError> {
    let mut out = Vec::new();
    let report = splice(kind, pod(), body.clone(), &mut out);
    let (mut at, mut added) = (0, 0);
    let mut written: Option<&Bytes> = None;
    for piece in &out {
        let place = (piece.as_ptr() as usize).wrapping_sub(body.as_ptr() as usize);
        if place >= body.len() {
            prop_assert!(written.is_none(), "two in one place");
            written = Some(piece);
            added += piece.len();
            continue;
        }
        // A slice of what came, behind the one before. What is not between them is a length or a null, and is replaced.
        prop_assert!(place >= at);
        check_edit(&body[at..place], written.take())?;
        added -= place - at;
        at = place + piece.len();
    }
    prop_assert_eq!((at, written), (body.len(), None), "the end is the body's end");
    prop_assert_eq!(added as u64, report.added);
    let enriched = report.items.keys().any(|item| item.outcome == Outcome::Enriched);
    prop_assert_eq!(report.is_changed(), enriched);
    prop_assert_eq!(in_pieces(kind, &pod(), body, lengths), (out.concat(), report.clone()));
    let (untouched, plain) = spliced(kind, Arc::default(), body.clone());
    prop_assert_eq!((&untouched[..], plain.added), (&body[..], 0));
    prop_assert_eq!(plain.items.values().sum::<u64>(), report.items.values().sum::<u64>());
    prop_assert_eq!(plain.event_id, report.event_id);
    Ok(())
}

fn check_edit(replaced: &[u8], by: Option<&Bytes>) -> Result<(), TestCaseError> {
    let Some(by) = by else {
        prop_assert_eq!(replaced, b"");
        return Ok(());
    };
    let is_length = |text: &[u8]| !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    match replaced {
        b"" => prop_assert!(by.starts_with(b"\"") || by.starts_with(b"["), "{by:?}"),
        b"null" => prop_assert!(by.starts_with(b"{\"pod_name"), "{by:?}"),
        length => prop_assert!(is_length(length) && is_length(by), "{length:?} {by:?}"),
    }
    Ok(())
}

/// Items of a sound envelope: header and payload.
fn items(body: &[u8]) -> Vec<(Value, Vec<u8>)> {
    let mut rest = &body[line_end(body)..];
    let mut items = Vec::new();
    while !rest.is_empty() {
        let (header, behind) = rest.split_at(line_end(rest));
        let header: Value = serde_json::from_slice(header).unwrap();
        let length = header["length"].as_u64().map(|length| usize::try_from(length).unwrap());
        let end = length.unwrap_or_else(|| memchr::memchr(b'\n', behind).unwrap_or(behind.len()));
        items.push((header, behind[..end].to_vec()));
        assert!(matches!(behind.get(end), None | Some(b'\n')), "an item ends with its line");
        rest = behind.get(end + 1..).unwrap_or_default();
    }
    items
}

fn line_end(bytes: &[u8]) -> usize {
    memchr::memchr(b'\n', bytes).map_or(bytes.len(), |end| end + 1)
}

/// What Sentry should read of this payload.
fn with_tags(kind: &str, mut payload: Value) -> Value {
    let pod = [("pod_name", "web-1"), ("pod_namespace", "shop")];
    match kind {
        "event" | "transaction" | "feedback" => {
            let tags = payload.as_object_mut().unwrap().entry("tags").or_insert(Value::Null);
            if tags.is_null() {
                *tags = json!({});
            }
            match tags {
                Value::Object(tags) => {
                    for (key, value) in pod {
                        tags.entry(key).or_insert(json!(value));
                    }
                }
                Value::Array(tags) => {
                    let is_there = |key: &str| tags.iter().any(|pair| pair[0] == key);
                    let missing: Vec<_> = pod.into_iter().filter(|(key, _)| !is_there(key)).collect();
                    tags.splice(0..0, missing.into_iter().map(|(key, value)| json!([key, value])));
                }
                other => panic!("{other}"),
            }
        }
        "log" => {
            for log in payload["items"].as_array_mut().unwrap() {
                let attributes = log.as_object_mut().unwrap().entry("attributes").or_insert(Value::Null);
                if attributes.is_null() {
                    *attributes = json!({});
                }
                for (key, value) in pod {
                    let attributes = attributes.as_object_mut().unwrap();
                    attributes.entry(key).or_insert(json!({ "value": value, "type": "string" }));
                }
            }
        }
        _ => {}
    }
    payload
}

/// Strings as JSON, with and without escapes.
fn string() -> impl Strategy<Value = String> {
    prop_oneof![
        "[ -!#-\\[\\]-~é✓]{0,20}".prop_map(|text| format!("\"{text}\"")),
        r#"([a-z{}\[\],: ]|\\["\\/bfnrt]|\\u00[0-9a-f]{2}){0,20}"#.prop_map(|text| format!("\"{text}\"")),
    ]
}

fn json_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        any::<i64>().prop_map(|n| n.to_string()),
        "-?(0|[1-9][0-9]{0,12})(\\.[0-9]{1,5})?([eE][+-]?[0-9]{1,2})?",
        string(),
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|values| format!("[{}]", values.join(" ,"))),
            prop::collection::vec((string(), inner), 0..4).prop_map(object),
        ]
    })
}

fn object(fields: Vec<(String, String)>) -> String {
    let fields: Vec<_> = fields.into_iter().map(|(key, value)| format!("{key} : {value}")).collect();
    format!("{{ {}}}", fields.join(","))
}

/// Fields of other names than those that matter.
fn others() -> impl Strategy<Value = Vec<(String, String)>> {
    prop::collection::vec(("x[a-z]{0,9}".prop_map(|key| format!("\"{key}\"")), json_text()), 0..4)
}

fn tag_key() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(r#""pod_name""#.to_owned()),
        Just(r#""pod\u005fnamespace""#.to_owned()),
        Just(r#""pod_namespace""#.to_owned()),
        "[a-z]{1,9}".prop_map(|key| format!("\"{key}\"")),
    ]
}

fn tags() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("null".to_owned()),
        prop::collection::vec((tag_key(), json_text()), 0..4).prop_map(object),
        prop::collection::vec((tag_key(), json_text()), 0..4).prop_map(|pairs| {
            let pairs: Vec<_> = pairs.into_iter().map(|(key, value)| format!("[{key}, {value}]")).collect();
            format!("[ {}]", pairs.join(" ,"))
        }),
    ]
}

/// Fields, and maybe one more among them.
fn with_field(name: &'static str, value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    (others(), prop::option::of(value), any::<Index>()).prop_map(move |(mut fields, value, place)| {
        if let Some(value) = value {
            fields.insert(place.index(fields.len() + 1), (format!("\"{name}\""), value));
        }
        object(fields)
    })
}

fn attributes() -> impl Strategy<Value = String> {
    prop_oneof![Just("null".to_owned()), prop::collection::vec((tag_key(), json_text()), 0..3).prop_map(object)]
}

fn item() -> impl Strategy<Value = (&'static str, String)> {
    let logs = prop::collection::vec(with_field("attributes", attributes()), 0..4)
        .prop_map(|logs| format!(r#"{{"items":[{}],"version":2}}"#, logs.join(",")));
    prop_oneof![
        4 => (prop::sample::select(vec!["event", "transaction", "feedback"]), with_field("tags", tags())),
        2 => (Just("log"), logs),
        1 => (prop::sample::select(vec!["session", "check_in", "future"]), json_text()),
        1 => (Just("attachment"), "[a-z{}\"]{0,30}"),
    ]
}

fn sound_envelope() -> impl Strategy<Value = String> {
    let items = prop::collection::vec((item(), 0..3_u8, any::<bool>()), 0..4);
    (items, any::<bool>()).prop_map(|(items, ends_in_line)| {
        let mut body = r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sent_at":"a","sent_at":"b"}"#.to_owned();
        for ((kind, payload), form, is_first) in items {
            let (length, payload) = match form {
                0 => (String::new(), payload),
                1 => (format!(r#""length": {} "#, payload.len()), payload),
                _ => (format!(r#""length":{}"#, payload.len() + 2), format!("\n{payload}\n")),
            };
            let kind = format!(r#""type":"{kind}""#);
            let fields = if is_first { [length, kind] } else { [kind, length] };
            let fields: Vec<_> = fields.into_iter().filter(|field| !field.is_empty()).collect();
            body = format!("{body}\n{{{},\"z\":1}}\n{payload}", fields.join(","));
        }
        if ends_in_line {
            body.push('\n');
        }
        body
    })
}

fn cuts() -> impl Strategy<Value = Vec<usize>> {
    prop::collection::vec(prop_oneof![0..4_usize, 0..200_usize], 0..60)
}

/// For all of these, wherever they are cut in two, and byte by byte.
#[test]
fn where_a_body_is_cut_makes_no_difference() {
    let table: [&[u8]; 9] = [
        b"{\"dsn\":\"https://k@h/1\"}\n{\"type\":\"event\",\"length\":13}\n{\"tags\":null}\n{\"type\":\"x\",\"length\":1}\n\n\n",
        b"{}\n{\"length\":47,\"type\":\"event\"}\n{\"tags\":{\"a\":\"1\"},\"tags\":{\"pod_name\":\"b\"},\"c\":1}\n",
        b"{}\n{\"type\":\"transaction\"}\n{\"a\":\"\\ud800\",\"b\":1e400,\"tags\":[[\"pod_name\",null]]}",
        b"{}\n{\"type\":\"log\",\"item_count\":2}\n{\"items\":[{\"attributes\":{}},{\"body\":\"}]\"}]}\n{\"type\":\"session\"}\n{}",
        b"{}\n{\"type\":\"event\"}\n{\"a\":\"\xff\xfe\xc3\"}\n",
        b"{}\n{\"type\":\"event\",\"length\":99}\n{\"tags\":{}}\n",
        b"{}\n{\"type\":\"event\",\"length\":1}\n{\"tags\":{}}\n",
        b"{}\r\n\n{\"type\":\"event\"}\r\n{\"tags\":{}}\r\n\n\n",
        b"",
    ];
    for body in table {
        let body = Bytes::from_static(body);
        let every_byte = vec![1; body.len()];
        check(Kind::Envelope, &body, &every_byte).unwrap();
        check(Kind::Store, &body, &every_byte).unwrap();
        for place in 0..=body.len() {
            check(Kind::Envelope, &body, &[place]).unwrap();
        }
    }
}

proptest! {
    /// For all sound envelopes: every event, transaction, feedback and log has the tags after, and the app's own are the
    /// app's; all else reads as before.
    #[test]
    fn a_sound_envelope_gains_the_tags_and_nothing_else(body in sound_envelope(), lengths in cuts()) {
        let bytes = Bytes::from(body);
        check(Kind::Envelope, &bytes, &lengths)?;
        let (out, report) = spliced(Kind::Envelope, pod(), bytes.clone());
        prop_assert!(!report.items.keys().any(|item| item.outcome == Outcome::Passed(PassedBecause::Malformed)));
        let (before, after) = (items(&bytes), items(&out));
        prop_assert_eq!(before.len(), after.len());
        for ((before, payload), (after, tagged)) in before.into_iter().zip(after) {
            let kind = before["type"].as_str().unwrap();
            if Category::of(kind).takes_tags() {
                let read = |payload: &[u8]| serde_json::from_slice::<Value>(payload).unwrap();
                prop_assert_eq!(read(&tagged), with_tags(kind, read(&payload)));
                let mut expected = before.clone();
                if before["length"].is_u64() {
                    expected["length"] = json!(tagged.len());
                }
                prop_assert_eq!(after, expected);
            } else {
                prop_assert_eq!((after, tagged), (before, payload));
            }
        }
    }

    /// For all envelopes that were sound and are not any more: removing what was written gives back what came, however it
    /// was cut.
    #[test]
    fn a_damaged_envelope_is_changed_in_no_other_byte(
        body in sound_envelope(),
        damage in prop::collection::vec((any::<Index>(), prop::option::of(any::<u8>())), 1..4),
        lengths in cuts(),
    ) {
        let mut bytes = body.into_bytes();
        for (place, byte) in damage {
            let place = place.index(bytes.len());
            match byte {
                Some(byte) => bytes[place] = byte,
                None if place > 0 => _ = bytes.remove(place),
                None => bytes.truncate(bytes.len() / 2 + 1),
            }
        }
        check(Kind::Envelope, &bytes.into(), &lengths)?;
    }

    /// For all bytes of the kind that make up envelopes, and all others: likewise.
    #[test]
    fn any_bytes_are_changed_in_no_other_byte(
        words in prop::collection::vec(prop_oneof![
            prop::sample::select(vec![
                "{", "}", "[", "]", ",", ":", "\n", " ", "\"", "\\", "null", "1", "{}", "\"tags\":", "\"attributes\":",
                "\"items\":", "{\"type\":\"event\"}\n", "{\"type\":\"log\",\"length\":", "}\n{", "\"pod_name\"", "\\u0074ags",
            ]).prop_map(|word| word.as_bytes().to_vec()),
            prop::collection::vec(any::<u8>(), 0..4),
        ], 0..30),
        opened in any::<bool>(),
        lengths in cuts(),
    ) {
        let mut body = if opened { b"{}\n{\"type\":\"event\"}\n".to_vec() } else { Vec::new() };
        body.extend(words.concat());
        check(Kind::Envelope, &body.clone().into(), &lengths)?;
        check(Kind::Store, &body.into(), &lengths)?;
    }
}
