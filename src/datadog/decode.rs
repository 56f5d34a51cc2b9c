//! Reads datagrams as the Agent reads them, for the demonstration and for tests. Pure.
//!
//! Written from the Agent's parser (datadog-agent, `comp/dogstatsd/server`: `parse*.go`), not from what recoverd sends:
//! a newline ends a message, `|` a field, `,` a tag; fields are known by their first characters in any order, the last
//! of a kind wins, an unknown one is passed over, nothing is unescaped but an event's `\n`.

use std::str::Utf8Error;

use serde::Serialize;

/// One message of a datagram.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Datagram {
    Check(Check),
    Event(Event),
    Metric(Metric),
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Check {
    pub name: String,
    /// 0 OK, 1 WARNING, 2 CRITICAL, 3 UNKNOWN.
    pub status: u8,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    pub host: Option<String>,
    pub tags: Vec<String>,
    pub message: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Event {
    pub title: String,
    pub text: String,
    /// Seconds since the Unix epoch.
    pub timestamp: Option<i64>,
    pub host: Option<String>,
    pub aggregation_key: Option<String>,
    pub priority: Option<String>,
    pub source: Option<String>,
    pub alert: Option<String>,
    pub tags: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Metric {
    pub name: String,
    /// More than one when they came packed as `1:2:3`.
    pub values: Vec<f64>,
    /// `c`, `g`, `ms`, `h` or `d`.
    pub metric_type: String,
    pub tags: Vec<String>,
}

#[derive(Debug, PartialEq, thiserror::Error)]
pub enum DecodeError {
    #[error("a message is not UTF-8")]
    Utf8(#[from] Utf8Error),
    #[error("a service check has a name and a status from 0 to 3, unlike {0:?}")]
    Check(String),
    #[error("an event has a title, a text, and their lengths in bytes, unlike {0:?}")]
    Event(String),
    #[error("a metric is name:value|type, unlike {0:?}")]
    Metric(String),
    #[error("a time is a whole number, unlike {0:?}")]
    Timestamp(String),
}

/// # Errors
/// When a message in it is one that the Agent would refuse. Empty messages are passed over, as the Agent does.
pub fn decode(datagram: &[u8]) -> Result<Vec<Datagram>, DecodeError> {
    datagram
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .filter(|line| !line.is_empty())
        .map(|line| message(std::str::from_utf8(line)?))
        .collect()
}

fn message(line: &str) -> Result<Datagram, DecodeError> {
    if line.starts_with("_e{") {
        event(line).map(Datagram::Event)
    } else if line.starts_with("_sc") {
        check(line).map(Datagram::Check)
    } else {
        metric(line).map(Datagram::Metric)
    }
}

fn check(line: &str) -> Result<Check, DecodeError> {
    let wrong = || DecodeError::Check(line.to_owned());
    let mut fields = line.strip_prefix("_sc|").ok_or_else(wrong)?.split('|');
    let name = fields.next().filter(|name| !name.is_empty()).ok_or_else(wrong)?;
    let status = match fields.next() {
        Some("0") => 0,
        Some("1") => 1,
        Some("2") => 2,
        Some("3") => 3,
        _ => return Err(wrong()),
    };
    let mut check = Check { name: name.to_owned(), status, ..Check::default() };
    for field in fields {
        if let Some(seconds) = field.strip_prefix("d:") {
            check.timestamp = Some(timestamp(seconds)?);
        } else if let Some(host) = field.strip_prefix("h:") {
            check.host = Some(host.to_owned());
        } else if let Some(list) = field.strip_prefix('#') {
            check.tags = tags(list);
        } else if let Some(message) = field.strip_prefix("m:") {
            check.message = Some(message.to_owned());
        }
    }
    Ok(check)
}

fn event(line: &str) -> Result<Event, DecodeError> {
    let wrong = || DecodeError::Event(line.to_owned());
    let (header, body) = line.split_once(':').ok_or_else(wrong)?;
    let lengths = header.strip_prefix("_e{").and_then(|header| header.strip_suffix('}')).ok_or_else(wrong)?;
    let (title_bytes, text_bytes) = lengths.split_once(',').ok_or_else(wrong)?;
    let title_bytes: usize = title_bytes.parse().map_err(|_| wrong())?;
    let text_bytes: usize = text_bytes.parse().map_err(|_| wrong())?;
    let (title, body) = body.split_at_checked(title_bytes).ok_or_else(wrong)?;
    // Agent Data Plane refuses an empty text too.
    let (text, fields) = body.strip_prefix('|').and_then(|body| body.split_at_checked(text_bytes)).ok_or_else(wrong)?;
    if title.is_empty() || text.is_empty() || !(fields.is_empty() || fields.starts_with('|')) {
        return Err(wrong());
    }
    let unescaped = |text: &str| text.replace("\\n", "\n");
    let mut event = Event { title: unescaped(title), text: unescaped(text), ..Event::default() };
    for field in fields.split('|') {
        let rest = |prefix: &str| field.strip_prefix(prefix).map(str::to_owned);
        if let Some(seconds) = rest("d:") {
            event.timestamp = Some(timestamp(&seconds)?);
        } else if let Some(host) = rest("h:") {
            event.host = Some(host);
        } else if let Some(key) = rest("k:") {
            event.aggregation_key = Some(key);
        } else if let Some(priority) = rest("p:") {
            event.priority = Some(priority);
        } else if let Some(source) = rest("s:") {
            event.source = Some(source);
        } else if let Some(alert) = rest("t:") {
            event.alert = Some(alert);
        } else if let Some(list) = rest("#") {
            event.tags = tags(&list);
        }
    }
    Ok(event)
}

fn metric(line: &str) -> Result<Metric, DecodeError> {
    let wrong = || DecodeError::Metric(line.to_owned());
    let mut fields = line.split('|');
    let (name, values) = fields.next().and_then(|field| field.split_once(':')).ok_or_else(wrong)?;
    let metric_type = fields.next().filter(|word| matches!(*word, "c" | "g" | "ms" | "h" | "d")).ok_or_else(wrong)?;
    if name.is_empty() {
        return Err(wrong());
    }
    let values = values.split(':').map(|value| value.parse().map_err(|_| wrong())).collect::<Result<_, _>>()?;
    let mut metric = Metric { name: name.to_owned(), values, metric_type: metric_type.to_owned(), tags: Vec::new() };
    for field in fields {
        if let Some(list) = field.strip_prefix('#') {
            metric.tags = tags(list);
        }
    }
    Ok(metric)
}

fn tags(list: &str) -> Vec<String> {
    if list.is_empty() { Vec::new() } else { list.split(',').map(str::to_owned).collect() }
}

fn timestamp(seconds: &str) -> Result<i64, DecodeError> {
    seconds.parse().map_err(|_| DecodeError::Timestamp(seconds.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_takes_its_fields_in_any_order_and_the_last_of_a_kind() {
        let datagram = b"_sc|jenkins.job.status|2|#a:1,b:2|m:first|h:one|d:1700000000|m:last|x:unknown\n_sc|x|0";
        let expected = Check {
            name: "jenkins.job.status".into(),
            status: 2,
            timestamp: Some(1_700_000_000),
            host: Some("one".into()),
            tags: vec!["a:1".into(), "b:2".into()],
            message: Some("last".into()),
        };
        let second = Check { name: "x".into(), ..Check::default() };
        assert_eq!(decode(datagram), Ok(vec![Datagram::Check(expected), Datagram::Check(second)]));
    }

    #[test]
    fn an_event_is_cut_by_its_lengths_and_not_by_its_bars() {
        let datagram = "_e{3,7}:a|b|ü|c\\nd|d:17|t:error|#x".as_bytes();
        let expected = Event {
            title: "a|b".into(),
            text: "ü|c\nd".into(),
            timestamp: Some(17),
            alert: Some("error".into()),
            tags: vec!["x".into()],
            ..Event::default()
        };
        assert_eq!(decode(datagram), Ok(vec![Datagram::Event(expected)]));
    }

    #[test]
    fn a_metric_may_be_packed() {
        let expected =
            Metric { name: "a.b".into(), values: vec![1.5, 2.0], metric_type: "g".into(), tags: vec!["x:y".into()] };
        assert_eq!(decode(b"a.b:1.5:2|g|@0.5|#x:y"), Ok(vec![Datagram::Metric(expected)]));
        assert_eq!(decode(b"\n"), Ok(vec![]));
    }

    #[test]
    fn what_the_agent_refuses_is_refused() {
        for bad in [
            "_sc|x",
            "_sc||0",
            "_sc|x|4",
            "_sc|x|0|d:soon",
            "_e{1,1}:a",
            "_e{0,1}:|b",
            "_e{1,0}:a|",
            "_e{1,9}:a|b",
            "_e{1,1}:a|bc",
            "x",
            "x:1",
            "x:1|q",
            ":1|g",
            "x:one|g",
        ] {
            assert!(decode(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(decode(b"_sc|\xff|0").is_err());
    }
}
