//! What is shipped beside the binary, dashboards, monitors and manifests, speaks of what the code emits.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test tells its trouble by failing")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use recoverd::domain::signal::{ALERT_STATUS, CHECKS, ISSUE_STATUS, JOB_STATUS, MetricName, PROJECT_STATUS, tag};
use serde_json::{Value, json};

/// Every name that a document of Datadog's refers to.
#[derive(Debug, Default, PartialEq)]
struct Names {
    metrics: BTreeSet<String>,
    checks: BTreeSet<String>,
    tags: BTreeSet<String>,
    /// As used in a query, `$job`.
    variables: BTreeSet<String>,
    /// As declared by the dashboard.
    declared: BTreeSet<String>,
}

impl Names {
    fn of(document: &Value) -> Self {
        let mut names = Self::default();
        names.walk(document);
        names
    }

    fn walk(&mut self, value: &Value) {
        match value {
            Value::Object(fields) => {
                for (key, field) in fields {
                    match (key.as_str(), field) {
                        ("query" | "q", Value::String(query)) if query.starts_with('"') => self.check_query(query),
                        ("query" | "q", Value::String(query)) => self.metric_query(query),
                        ("check", Value::String(check)) => _ = self.checks.insert(check.clone()),
                        ("group_by", list) => strings(list).for_each(|key| self.tag(key)),
                        // Of a monitor and of a dashboard, `tags` are its own labels.
                        ("tags", list) if fields.contains_key("check") => {
                            strings(list).for_each(|term| self.scope(term));
                        }
                        ("template_variables", Value::Array(variables)) => {
                            for variable in variables {
                                self.declare(variable);
                            }
                        }
                        _ => {}
                    }
                    self.walk(field);
                }
            }
            Value::Array(items) => items.iter().for_each(|item| self.walk(item)),
            _ => {}
        }
    }

    fn declare(&mut self, variable: &Value) {
        self.declared.insert(variable["name"].as_str().unwrap().to_owned());
        self.tag(variable["prefix"].as_str().unwrap());
    }

    /// `sum:a.metric{scope} by {key,key}.as_count()`, also several of them in one expression.
    fn metric_query(&mut self, query: &str) {
        let mut rest = query;
        while let Some((before, after)) = rest.split_once('{') {
            let Some((braced, tail)) = after.split_once('}') else { panic!("a brace is left open in {query}") };
            let before = before.trim_end();
            if before.ends_with("by") {
                braced.split(',').for_each(|key| self.tag(key));
            } else {
                let is_of_name = |c: char| c.is_alphanumeric() || c == '.' || c == '_';
                let metric = before.rsplit(|c| !is_of_name(c)).next().unwrap();
                self.metrics.insert(metric.to_owned());
                self.scope(braced);
            }
            rest = tail;
        }
        assert_ne!(rest, query, "a metric query without a scope");
    }

    /// `"a.check".over("scope").by("key","key").last(2).count_by_status()`
    fn check_query(&mut self, query: &str) {
        let mut calls = query.split("\".");
        self.checks.insert(calls.next().unwrap().trim_start_matches('"').to_owned());
        let (_, calls) = query.trim_start_matches('"').split_once('"').unwrap();
        for call in calls.split(").") {
            let Some((function, arguments)) = call.trim_start_matches('.').split_once('(') else { continue };
            let arguments = arguments.split('"').skip(1).step_by(2);
            match function {
                "over" | "exclude" => arguments.for_each(|term| self.scope(term)),
                "by" => arguments.for_each(|key| self.tag(key)),
                _ => {}
            }
        }
    }

    /// `$variable,key:value`, also with `!`, `AND`, `OR`, `NOT`, `IN` and parentheses.
    fn scope(&mut self, scope: &str) {
        for term in scope.split([',', ' ', '(', ')']).map(|term| term.trim_start_matches(['!', '-'])) {
            match (term, term.strip_prefix('$')) {
                ("" | "*" | "AND" | "OR" | "NOT" | "IN", _) => {}
                (_, Some(variable)) => _ = self.variables.insert(variable.to_owned()),
                (term, None) => self.tag(term.split(':').next().unwrap()),
            }
        }
    }

    fn tag(&mut self, key: &str) {
        if key != "*" {
            self.tags.insert(key.trim().to_owned());
        }
    }

    /// What the code never emits, or what is used without being declared.
    fn unknown(&self) -> Vec<&str> {
        let emitted: BTreeSet<_> = MetricName::ALL.into_iter().map(MetricName::as_str).collect();
        let metrics = self.metrics.iter().filter(|metric| !emitted.contains(metric.as_str()));
        let checks = self.checks.iter().filter(|check| !CHECKS.contains(&check.as_str()));
        let tags = self.tags.iter().filter(|key| !tag::OF_JOBS.iter().chain(&tag::OF_SENTRY).any(|known| known == key));
        let variables = self.variables.difference(&self.declared);
        metrics.chain(checks).chain(tags).chain(variables).map(String::as_str).collect()
    }
}

fn strings(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn read(path: impl AsRef<Path>) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A monitor's file without its ending, and what it says.
fn monitors() -> Vec<(String, Value)> {
    let monitors: Vec<_> = documents()
        .into_iter()
        .filter(|(path, _)| path.parent().is_some_and(|room| room.ends_with("monitors")))
        .map(|(path, document)| (path.file_stem().unwrap().to_string_lossy().into_owned(), document))
        .collect();
    assert!(!monitors.is_empty(), "no monitor was found");
    monitors
}

/// The tags that a monitor on this check alerts by: all that tell its things apart, and none that changes with their state.
fn identity(check: &str) -> &'static [&'static str] {
    match check {
        JOB_STATUS => &[tag::CONTROLLER, tag::JOB],
        ISSUE_STATUS => &[tag::INTEGRATION, tag::PROJECT, tag::ISSUE],
        PROJECT_STATUS => &[tag::INTEGRATION, tag::PROJECT],
        ALERT_STATUS => &[tag::INTEGRATION, tag::ALERT, tag::ALERT_ID],
        check => panic!("say which tags tell the things of {check} apart"),
    }
}

/// Every JSON below `dashboards/`.
fn documents() -> Vec<(PathBuf, Value)> {
    let mut documents = Vec::new();
    let mut rooms = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")];
    while let Some(room) = rooms.pop() {
        for path in fs::read_dir(room).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                rooms.push(path);
            } else if path.extension().is_some_and(|extension| extension == "json") {
                let document =
                    serde_json::from_str(&read(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
                documents.push((path, document));
            }
        }
    }
    documents
}

#[test]
fn every_name_in_the_dashboards_is_one_that_the_code_emits() {
    let documents = documents();
    assert!(documents.len() >= 2, "{documents:?}");
    for (path, document) in documents {
        let names = Names::of(&document);
        let found = names.checks.len() + names.metrics.len();
        assert!(found > 0, "{}: neither check nor metric was found in it", path.display());
        assert_eq!(names.unknown(), Vec::<&str>::new(), "{}", path.display());
    }
}

#[test]
fn every_check_has_its_monitor() {
    let watched: BTreeSet<String> =
        monitors().into_iter().flat_map(|(_, monitor)| Names::of(&monitor).checks).collect();
    assert_eq!(watched, CHECKS.map(str::to_owned).into());
}

#[test]
fn the_dashboards_show_every_metric() {
    let dashboards = documents().into_iter().filter(|(_, document)| document.get("widgets").is_some());
    let shown: BTreeSet<String> = dashboards.flat_map(|(_, dashboard)| Names::of(&dashboard).metrics).collect();
    let emitted = MetricName::ALL.into_iter().map(|metric| metric.as_str().to_owned()).collect();
    assert_eq!(shown, emitted);
}

#[test]
fn a_misspelt_name_is_found_wherever_it_stands() {
    let table = [
        (json!({"query": "sum:jenkins.job.complete{*}.as_count()"}), vec!["jenkins.job.complete"]),
        (json!({"q": "sum:jenkins.job.completed{*} / sum:jenkins.job.stopped{*}"}), vec!["jenkins.job.stopped"]),
        (json!({"query": "avg:jenkins.job.mttr{jobs:a,!results:b} by {job}"}), vec!["jobs", "results"]),
        (json!({"query": "avg:jenkins.job.mttr{(job:a OR tasks:b) AND NOT nodes:c}"}), vec!["nodes", "tasks"]),
        (json!({"query": "avg:jenkins.job.mttr{*} by {job, branches}"}), vec!["branches"]),
        (json!({"query": "avg:jenkins.job.mttr{$controller}"}), vec!["controller"]),
        (json!({"template_variables": [{"name": "c", "prefix": "jenkins"}]}), vec!["jenkins"]),
        (
            json!({"widgets": [{"check": "jenkins.job.state", "group_by": ["jobb"], "tags": ["$c", "url:a"]}]}),
            vec!["jenkins.job.state", "jobb", "url", "c"],
        ),
        (
            json!({"query": r#""jenkins.status".over("team:a").by("job","user").last(2).count_by_status()"#}),
            vec!["jenkins.status", "team", "user"],
        ),
    ];
    for (document, expected) in table {
        assert_eq!(Names::of(&document).unknown(), expected, "{document}");
    }
}

#[test]
fn each_monitor_alerts_once_for_each_thing_and_at_its_first_status() {
    for (name, monitor) in monitors() {
        let names = Names::of(&monitor);
        let [check] = names.checks.iter().map(String::as_str).collect::<Vec<_>>()[..] else { panic!("{names:?}") };
        let identity: BTreeSet<_> = identity(check).iter().map(|&key| key.to_owned()).collect();
        assert_eq!(names.tags, identity, "{name}");
        assert_eq!(monitor["type"], "service check", "{name}");
        let options = &monitor["options"];
        assert_eq!(options["thresholds"], json!({"ok": 1, "warning": 1, "critical": 1}), "{name}");
        // It recovers by an OK and by nothing else.
        assert_eq!((&options["notify_no_data"], &options["timeout_h"]), (&json!(false), &json!(0)), "{name}");
    }
}

#[test]
fn a_monitors_message_names_only_what_it_groups_by() {
    for (name, monitor) in monitors() {
        let grouped_by = Names::of(&monitor).tags;
        for text in [&monitor["name"], &monitor["message"]] {
            let text = text.as_str().unwrap();
            let named: BTreeSet<_> =
                text.split("{{").filter_map(|rest| rest.split_once(".name}}")).map(|(key, _)| key.to_owned()).collect();
            assert_eq!(named, grouped_by, "{name}: {text}");
        }
    }
}

#[test]
fn the_operators_resource_says_what_its_monitor_says() {
    for (name, monitor) in monitors() {
        let resource = read(format!("dashboards/monitors/{name}.datadogmonitor.yaml"));
        let lines: BTreeSet<_> = resource.lines().map(str::trim).collect();
        let text = |key: &str| monitor[key].as_str().unwrap().to_owned();
        let mut expected = vec![
            format!("name: {name}"),
            format!("name: \"{}\"", text("name")),
            format!("type: {}", text("type")),
            format!("query: '{}'", text("query")),
        ];
        expected.extend(text("message").lines().map(str::to_owned));
        for (level, count) in monitor["options"]["thresholds"].as_object().unwrap() {
            expected.push(format!("{level}: \"{count}\""));
        }
        for line in expected {
            assert!(lines.contains(line.as_str()), "{line} is missing in {resource}");
        }
    }
}

#[test]
fn a_port_is_the_same_in_the_settings_the_manifests_and_the_image() {
    let settings = read("deploy/k8s/base/recoverd.toml");
    let ports: Vec<_> = settings
        .lines()
        .filter_map(|line| line.strip_prefix("listen = ")?.trim_matches('"').rsplit(':').next())
        .collect();
    assert_eq!(ports.len(), 2, "{settings}");
    let dockerfile = read("Dockerfile");
    let exposed: Vec<_> =
        dockerfile.lines().filter_map(|line| line.strip_prefix("EXPOSE ")).flat_map(str::split_whitespace).collect();
    for manifest in ["deploy/k8s/daemonset/daemonset.yaml", "deploy/k8s/single/statefulset.yaml"] {
        let manifest = read(manifest);
        let opened: Vec<_> = manifest.lines().filter_map(|line| line.trim().strip_prefix("containerPort: ")).collect();
        assert_eq!(opened, ports);
        assert!(manifest.contains(&format!("http://%%host%%:{}/metrics", ports[1])));
    }
    assert!(ports.iter().all(|port| exposed.contains(port)), "{ports:?} {exposed:?}");
}

#[test]
fn the_relays_ports_are_the_same_in_its_settings_its_manifests_and_the_image() {
    let settings = read("deploy/k8s/relay-daemonset/recoverd.toml");
    let ports: Vec<_> = settings.lines().filter_map(|line| line.strip_prefix("listen = \"0.0.0.0:")).collect();
    assert_eq!(ports, ["8082\"", "8081\""]);
    let daemonset = read("deploy/k8s/relay-daemonset/daemonset.yaml");
    let opened: Vec<_> = daemonset.lines().filter_map(|line| line.trim().strip_prefix("containerPort: ")).collect();
    assert_eq!(opened, ["8082", "8081"]);
    assert!(read("deploy/k8s/relay-daemonset/service.yaml").contains("\n      port: 8082\n      targetPort: relay\n"));
    assert!(
        read("deploy/k8s/sidecar/deployment.yaml").contains("@127.0.0.1:8082/7\n"),
        "the default of `relay.listen`"
    );
    assert!(read("Dockerfile").contains(" 8082"));
}

/// It holds 80 MiB of bodies by itself, beside the process and its connections.
#[test]
fn a_relay_has_the_memory_that_it_may_use() {
    for manifest in ["relay-daemonset/daemonset.yaml", "sidecar/deployment.yaml"] {
        let manifest = read(Path::new("deploy/k8s").join(manifest));
        let limit = manifest.lines().filter_map(|line| line.trim().strip_prefix("memory: ")).next_back();
        assert_eq!(limit, Some("256Mi"));
    }
}

/// By an argument of `serve` alone, a command that is run in the pod would read others.
#[test]
fn every_command_in_a_pod_reads_the_settings_that_are_mounted() {
    for shape in ["daemonset/daemonset.yaml", "single/statefulset.yaml", "relay-daemonset/daemonset.yaml"] {
        let manifest = read(Path::new("deploy/k8s").join(shape));
        assert!(
            manifest.contains("name: RECOVERD_CONFIG\n              value: /etc/recoverd/recoverd.toml\n"),
            "{shape}"
        );
        assert!(manifest.contains("mountPath: /etc/recoverd\n") && !manifest.contains("--config"), "{shape}");
    }
}

/// What the relay on a node cannot do without.
#[test]
fn the_relays_pod_knows_its_node_and_may_see_pods_and_no_more() {
    let daemonset = read("deploy/k8s/relay-daemonset/daemonset.yaml");
    let node = "name: NODE_NAME\n              valueFrom:\n                fieldRef:\n                  fieldPath: spec.nodeName\n";
    assert!(daemonset.contains(node) && daemonset.contains("automountServiceAccountToken: true"));
    let role = read("deploy/k8s/relay-daemonset/cluster-role.yaml");
    let rules: Vec<_> = role.lines().map(str::trim).filter(|line| line.contains(": [")).collect();
    assert_eq!(rules, ["- apiGroups: [\"\"]", "resources: [\"pods\"]", "verbs: [\"get\", \"list\", \"watch\"]"]);
}

#[test]
fn the_sidecars_variables_and_the_relays_file_are_settings_of_a_relay() {
    use recoverd::config::{Environment, Settings};
    use recoverd::relay::Whose;

    let manifest = read("deploy/k8s/sidecar/deployment.yaml");
    let pairs = manifest.split("- name: ").filter_map(|entry| entry.split_once("\n              value: "));
    let variables: Environment = pairs
        .filter(|(name, _)| name.starts_with("RECOVERD_"))
        .map(|(name, rest)| (name.to_owned(), rest.lines().next().unwrap().trim_matches('"').to_owned()))
        .collect();
    assert!(variables.len() >= 5, "{variables:?}");
    let directory = tempfile::tempdir().unwrap();
    let token = directory.path().join("admin");
    fs::write(&token, "0123456789abcdef0123456789abcdef").unwrap();
    let file = read("deploy/k8s/relay-daemonset/recoverd.toml");
    let file = file.replace("/run/secrets/recoverd/admin", &token.display().to_string());
    // All containers of a pod share its ports, and 8080 is the application's.
    let table = [("", variables, Whose::OwnPod, 0), (&*file, Environment::new(), Whose::PodsOfTheNode, 8080)];
    for (text, variables, whose, webhooks) in table {
        let path = directory.path().join("recoverd.toml");
        fs::write(&path, text).unwrap();
        let settings = Settings::load(Some(&path), &variables).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!((settings.relay().unwrap().whose, settings.webhooks.listen.port()), (whose, webhooks));
        assert!(settings.warnings().iter().all(|warning| !warning.contains("relay")), "{:?}", settings.warnings());
    }
}

/// Kustomize could make one from the other, but not for a reader at night.
#[test]
fn both_shapes_run_the_same_container() {
    let container = |manifest| {
        let manifest = read(manifest);
        let between =
            |from, to| manifest.split_once(from).and_then(|(_, rest)| rest.split_once(to)).unwrap().0.to_owned();
        [
            between("\n  template:\n", "\n    spec:\n"),
            between("\n      containers:\n", "\n            path: /var/run/datadog\n"),
        ]
    };
    assert_eq!(container("deploy/k8s/daemonset/daemonset.yaml"), container("deploy/k8s/single/statefulset.yaml"));
}
