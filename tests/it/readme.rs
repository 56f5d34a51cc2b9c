//! README names what there is: no more settings, metrics and commands than that, and no fewer.
//!
//! Its tables stand between `<!-- name -->` and `<!-- /name -->`; a row of theirs begins with a name in backticks.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory as _, Parser as _};
use recoverd::cli::Cli;
use recoverd::config::{Environment, Settings};
use recoverd::domain::signal::{CHECKS, MetricName, tag};
use serde_json::Value;

use crate::hooks;
use crate::jenkins_server::JenkinsServer;
use crate::world::{PATIENCE, TOKEN, World, completed};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn readme() -> String {
    std::fs::read_to_string(root().join("README.md")).unwrap()
}

fn section<'a>(text: &'a str, name: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {name} -->"), format!("<!-- /{name} -->"));
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
    rest.split_once(&end).unwrap_or_else(|| panic!("{end} is missing")).0
}

/// The cells of every row in a marked section, by the name that the row begins with.
fn table(text: &str, name: &str) -> BTreeMap<String, Vec<String>> {
    let mut rows = BTreeMap::new();
    for line in section(text, name).lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
        let key = cells[0].trim_matches('`').to_owned();
        assert!(rows.insert(key, cells).is_none(), "twice in {name}: {line}");
    }
    assert!(!rows.is_empty(), "{name} has no rows");
    rows
}

fn names<V>(table: &BTreeMap<String, V>) -> BTreeSet<String> {
    table.keys().cloned().collect()
}

/// Text in backticks or in fences.
fn code(text: &str) -> Vec<&str> {
    let mut found = Vec::new();
    for (index, part) in text.split("```").enumerate() {
        if index % 2 == 1 {
            found.extend(part.lines().skip(1));
        } else {
            found.extend(part.lines().flat_map(|line| line.split('`').skip(1).step_by(2)));
        }
    }
    found
}

/// Every setting and its value in `value`, lists of tables entered and lists of words not.
fn settings(path: &str, value: &Value, into: &mut BTreeMap<String, Value>) {
    let join = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(table) if !table.is_empty() => {
            table.iter().for_each(|(key, value)| settings(&join(key), value, into));
        }
        Value::Array(members) if members.iter().any(Value::is_object) => settings(path, &members[0], into),
        leaf => _ = into.insert(path.to_owned(), leaf.clone()),
    }
}

/// Settings of which only these are set, so that every other one shows its default.
const SET: [&str; 5] =
    ["jenkins.name", "jenkins.tokens", "jenkins.rules.jobs", "relay.routes.upstream", "sentry.integrations.name"];

/// One route, so that its keys show.
const RELAY: &str = "[[relay.routes]]\nupstream = \"https://sentry.example.org/\"\n";

/// One integration, for the same.
const INTEGRATION: &str = "[[sentry.integrations]]\nname = \"acme\"\nsecrets = [\"the-client-secret\"]\n";

fn defaults() -> BTreeMap<String, Value> {
    let directory = tempfile::tempdir().unwrap();
    let text = format!(
        "[[jenkins]]\nname = \"main\"\ntokens = [\"{TOKEN}\"]\n[[jenkins.rules]]\njobs = \"**\"\n{RELAY}{INTEGRATION}"
    );
    let mut found = BTreeMap::new();
    settings("", &crate::world::load(directory.path(), &text).redacted(), &mut found);
    found
}

#[test]
fn every_setting_is_there_with_its_default_and_no_other_one() {
    let text = readme();
    let told = table(&text, "settings");
    let known = defaults();
    assert_eq!(names(&told), names(&known));
    for (key, value) in &known {
        let told = told[key][1].as_str();
        let expected = match value {
            _ if key == "jenkins.tokens" || key == "sentry.integrations.secrets" => "none".to_owned(),
            _ if SET.contains(&key.as_str()) => "required".to_owned(),
            Value::Null => "none".to_owned(),
            Value::Array(members) if members.is_empty() => "none".to_owned(),
            Value::Object(table) if table.is_empty() => "none".to_owned(),
            Value::String(text) => format!("`{text}`"),
            other => format!("`{other}`"),
        };
        assert_eq!(told, expected, "the default of {key}");
    }
}

#[test]
fn every_variable_of_ours_is_one_that_is_read() {
    let text = readme();
    let words = text.split(|c: char| !(c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_'));
    let variables: BTreeSet<_> = words.filter(|word| word.len() > 9 && word.starts_with("RECOVERD_")).collect();
    assert!(variables.len() > 5, "{variables:?}");
    // The command line's, and the Agent's own.
    for variable in variables.into_iter().filter(|name| !matches!(*name, "RECOVERD_CONFIG" | "RECOVERD_ADMIN_TOKEN")) {
        let environment = Environment::from([(variable.to_owned(), "x".to_owned())]);
        let directory = tempfile::tempdir().unwrap();
        let empty = directory.path().join("recoverd.toml");
        std::fs::write(&empty, "").unwrap();
        if let Err(error) = Settings::load(Some(&empty), &environment) {
            let said = error.to_string();
            for words in ["unknown setting", "is a list of tables; number", "is a table; set", "not available"] {
                assert!(!said.contains(words), "{said}");
            }
        }
    }
}

#[test]
fn every_borrowed_variable_is_named_in_the_sources() {
    let mut sources = String::new();
    for file in ["config.rs", "cli.rs", "kubernetes/downward.rs"] {
        sources.push_str(&std::fs::read_to_string(root().join("src").join(file)).unwrap());
    }
    for variable in table(&readme(), "environment").keys() {
        assert!(sources.contains(&format!("\"{variable}\"")), "{variable} is read nowhere");
    }
}

#[test]
fn every_command_is_there_and_every_example_is_one_that_is_understood() {
    fn leaves(command: &clap::Command, path: &str, into: &mut BTreeSet<String>) {
        let path = format!("{path}{}", command.get_name());
        if !command.has_subcommands() {
            into.insert(path);
            return;
        }
        command.get_subcommands().for_each(|inner| leaves(inner, &format!("{path} "), into));
    }
    let text = readme();
    let mut known = BTreeSet::new();
    leaves(&Cli::command(), "", &mut known);
    assert_eq!(names(&table(&text, "commands")), known);
    let mut examples = 0;
    for line in code(&text) {
        let Some(line) = line.trim().strip_prefix("recoverd ") else { continue };
        let line = line.split([';', '|', '<', '>']).next().unwrap().split(" #").next().unwrap();
        // A command without its arguments is a name, which the table above answers for.
        if known.contains(&format!("recoverd {}", line.trim())) {
            continue;
        }
        examples += 1;
        let words = std::iter::once("recoverd").chain(line.split_whitespace());
        Cli::try_parse_from(words).unwrap_or_else(|error| panic!("recoverd {line}\n{error}"));
    }
    assert!(examples > 5, "only {examples} examples were found");
}

#[test]
fn every_metric_check_and_tag_in_datadog_is_there() {
    let text = readme();
    let mut known: BTreeSet<String> = MetricName::ALL.iter().map(|name| name.as_str().to_owned()).collect();
    known.extend(CHECKS.map(str::to_owned));
    assert_eq!(names(&table(&text, "datadog")), known);
    let tags: BTreeSet<String> = tag::OF_JOBS.iter().chain(&tag::OF_SENTRY).map(|&key| key.to_owned()).collect();
    assert_eq!(names(&table(&text, "tags")), tags);
}

/// The metrics of a page, by the name of their series, with the names of their labels.
fn metrics(page: &str) -> BTreeMap<String, BTreeSet<String>> {
    let mut found = BTreeMap::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let suffixes: &[&str] = match kind {
            "counter" => &["_total"],
            "histogram" => &["_sum", "_count", "_bucket"],
            _ => &[""],
        };
        let mut labels = BTreeSet::new();
        for suffix in suffixes {
            let series = format!("{name}{suffix}{{");
            for of_series in page.lines().filter_map(|line| line.strip_prefix(&series)) {
                let inner = of_series.split_once('}').unwrap().0;
                labels.extend(inner.split(',').map(|pair| pair.split_once('=').unwrap().0.to_owned()));
            }
        }
        labels.remove("le");
        found.insert(if kind == "counter" { format!("{name}_total") } else { name.to_owned() }, labels);
    }
    found
}

#[tokio::test]
async fn every_metric_of_our_own_is_there_with_its_labels_and_no_other_one() {
    let server = JenkinsServer::spawn().await;
    let relay = "[relay]\nenabled = true\nmode = \"daemonset\"\nlisten = \"127.0.0.1:0\"\nupstream = \"http://127.0.0.1:9/\"\n\
                 [kubernetes]\napi_server = \"http://127.0.0.1:9/\"\n";
    let asked = "[[sentry.integrations]]\nname = \"asked\"\nurl = \"http://127.0.0.1:9/\"\norganization = \"acme\"\n\
                 api_token = \"not-a-token-of-anybody\"\n";
    let more = format!("{}\n{relay}{}\n{asked}", server.settings("main"), hooks::integration());
    let world = World::with(&more).await;
    // A family without a series is not shown, so each gets one.
    world.build("acme/web", 1, "ABORTED").await;
    world.build("acme/web", 2, "NO SUCH RESULT").await;
    let whole = completed("acme/web", 3, "SUCCESS").to_string();
    let huge = format!("{},\"log\":\"{}\"}}", whole.strip_suffix('}').unwrap(), "x".repeat(2 * 1024 * 1024));
    assert_eq!(world.post(huge).await.0, 202);
    let stranger = world.client.post(world.webhook_url("main")).body("{}").send().await.unwrap();
    assert_eq!(stranger.status(), 401);
    for (fixture, status) in [("issue-assigned", 200), ("plugin", 400)] {
        assert_eq!(hooks::post_hook(&world, "issue", hooks::fixture(fixture)).await.0, status);
    }
    let settled = async {
        loop {
            let shown = metrics(&world.get("/metrics").await.1);
            if shown.contains_key("recoverd_jobs") {
                return shown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let shown = tokio::time::timeout(PATIENCE, settled).await.expect("no round came to its end");
    let text = readme();
    let told = table(&text, "metrics");
    assert_eq!(names(&told), names(&shown));
    for (name, labels) in &shown {
        let cell = &told[name][1];
        let told: BTreeSet<String> = cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert_eq!(told, *labels, "the labels of {name}");
    }
    // Whatever else the text says of a metric: it is one of these.
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c == '_'));
    for word in words.filter(|word| word.starts_with("recoverd_") && word.len() > "recoverd_".len()) {
        assert!(shown.contains_key(word), "there is no metric {word}");
    }
    world.finish().await;
}

#[test]
fn every_link_leads_somewhere() {
    let text = readme();
    let anchors: BTreeSet<String> = text.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let mut links = 0;
    for target in text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap()) {
        links += 1;
        match target.strip_prefix('#') {
            Some(heading) => assert!(anchors.contains(heading), "there is no heading for #{heading}"),
            None if target.starts_with("https://") => {}
            None => assert!(root().join(target).exists(), "there is no {target}"),
        }
    }
    assert!(links > 5, "only {links} links were found");
}

/// As GitHub makes it of a heading.
fn anchor(heading: &str) -> String {
    let words = heading.trim_start_matches('#').trim().to_lowercase();
    words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

#[test]
fn the_test_itself_sees_what_is_wrong() {
    let text = "<!-- settings -->\n| key | default |\n|---|---|\n| `a.b` | `1` | x |\n<!-- /settings -->\n`recoverd x`\n```sh\nrecoverd y\n```\n";
    assert_eq!(table(text, "settings")["a.b"], ["`a.b`", "`1`", "x"]);
    assert_eq!(code(text).iter().filter(|line| line.starts_with("recoverd")).count(), 2);
    assert_eq!(anchor("## At 3 a.m.: what to do"), "at-3-am-what-to-do");
    let shown = metrics("# TYPE a_b counter\na_b_total{x=\"1\",y=\"2\"} 1\n# TYPE c gauge\nc 1\n");
    assert_eq!(shown["a_b_total"], BTreeSet::from(["x".to_owned(), "y".to_owned()]));
    assert!(shown["c"].is_empty());
}
