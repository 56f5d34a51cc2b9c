//! What the operator reads when something is wrong is asserted word for word.

use std::io::Write as _;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::domain::build::Outcome;
use crate::domain::job::{ControllerName, JobPath};
use crate::domain::rules::Mode;
use crate::domain::status::Verdict;

const TOKEN: &str = "0123456789abcdef";

fn environment(of: &[(&str, &str)]) -> Environment {
    of.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

fn load(text: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::assemble(Some((Path::new("recoverd.toml"), text)), &environment(variables))
}

fn set(variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
    Settings::assemble(None, &environment(variables))
}

fn complaint(text: &str) -> String {
    load(text, &[]).expect_err(text).to_string()
}

fn controller(more: &str) -> String {
    format!("[[jenkins]]\nname = \"main\"\ntokens = [\"{TOKEN}\"]\n{more}\n")
}

/// One Sentry integration, `acme`, with nothing but this.
fn integration(more: &str) -> String {
    format!("[[sentry.integrations]]\nname = \"acme\"\n{more}\n")
}

#[test]
fn nothing_set_is_enough_for_this_host() {
    let settings = set(&[]).unwrap();
    assert_eq!(settings.data_dir, Path::new("data"));
    assert_eq!(settings.webhooks.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(settings.admin.listen.to_string(), "127.0.0.1:8081");
    assert_eq!(settings.datadog.dogstatsd, "udp://127.0.0.1:8125");
    assert_eq!(settings.datadog.resend_interval, Duration::from_mins(1));
    assert_eq!(settings.shutdown_deadline, Duration::from_secs(25));
    let [only] = settings.controllers() else { panic!("one controller") };
    assert_eq!(only.name.as_str(), "default");
    assert!(matches!(only.access, Access::LoopbackOnly));
    assert!(settings.rulebook().of(&only.name).is_some());
    assert_eq!(settings.warnings(), [""; 0]);
}

#[test]
fn a_key_that_there_is_not_is_named_with_its_place_and_its_nearest() {
    let table = [
        (
            "\n\n[webhooks]\nlistn = \"x\"",
            "recoverd.toml:4: unknown key `webhooks.listn`; did you mean `webhooks.listen`?",
        ),
        ("datadir = 1", "recoverd.toml:1: unknown key `datadir`; did you mean `data_dir`?"),
        ("[webhook]\nlisten = 1", "recoverd.toml:1: unknown key `webhook`; did you mean `webhooks`?"),
        ("dogstatsd = 1", "recoverd.toml:1: unknown key `dogstatsd`; did you mean `datadog.dogstatsd`?"),
        ("[webhooks]\nwhatever = 1", "recoverd.toml:2: unknown key `webhooks.whatever`"),
        (
            "[[jenkins]]\nname = \"a\"\n[[jenkins]]\nname = \"b\"\ntokns = []",
            "recoverd.toml:5: unknown key `jenkins.tokns`; did you mean `jenkins.tokens`?",
        ),
        (
            "[[jenkins]]\n[[jenkins.rules]]\njobs = \"*\"\nbranchs = []",
            "recoverd.toml:1: `jenkins`: missing key `name`\n\
             recoverd.toml:4: unknown key `jenkins.rules.branchs`; did you mean `jenkins.rules.branches`?",
        ),
        ("webhooks.listn = 1", "recoverd.toml:1: unknown key `webhooks.listn`; did you mean `webhooks.listen`?"),
        (
            "webhooks = { listn = 1 }\nadmin = { tokns = [] }",
            "recoverd.toml:1: unknown key `webhooks.listn`; did you mean `webhooks.listen`?\n\
             recoverd.toml:2: unknown key `admin.tokns`; did you mean `admin.tokens`?",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected, "{text}");
    }
}

#[test]
fn what_this_version_cannot_do_is_refused_by_name() {
    let table = [
        (
            "[store]\nredis = \"rediss://x\"",
            "recoverd.toml:2: `store.redis` is not available in this version; remove it",
        ),
        ("[store]\nrdis = \"x\"", "recoverd.toml:2: unknown key `store.rdis`"),
        (
            "[datadog]\ntransport = \"api\"",
            "recoverd.toml:2: `datadog.transport`: \"api\" is not available in this version; use \"dogstatsd\"",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected, "{text}");
    }
    let refused = set(&[("RECOVERD_STORE__REDIS", "x")]);
    let expected = ["RECOVERD_STORE__REDIS: `store.redis` is not available in this version; remove it"];
    assert_eq!(refused.unwrap_err().lines(), expected);
    assert!(load("[store]", &[]).is_ok());
    assert_eq!(load("[datadog]\ntransport = \"dogstatsd\"", &[]).unwrap().datadog.transport, Transport::Dogstatsd);
}

#[test]
fn a_wrong_type_names_what_was_found_and_what_was_expected() {
    let table = [
        (
            "[webhooks]\nmax_body_bytes = \"big\"",
            "recoverd.toml:2: `webhooks.max_body_bytes`: expected a whole number from 0, found a string",
        ),
        ("[webhooks]\nburst = 0", "recoverd.toml:2: `webhooks.burst`: expected a whole number from 1, found 0"),
        ("[webhooks]\nburst = -1", "recoverd.toml:2: `webhooks.burst`: expected a whole number from 1, found -1"),
        (
            "[webhooks]\nburst = 1.5",
            "recoverd.toml:2: `webhooks.burst`: expected a whole number from 1, found a fraction",
        ),
        ("webhooks = 1", "recoverd.toml:1: `webhooks`: expected a table, found a whole number"),
        ("data_dir = 1", "recoverd.toml:1: `data_dir`: expected a string, found a whole number"),
        (
            "[jenkins]\nname = \"a\"",
            "recoverd.toml:1: `jenkins`: expected a list of tables, [[jenkins]], found a table",
        ),
        ("jenkins = [1]", "recoverd.toml:1: `jenkins`: expected a table, found a whole number"),
        ("[admin]\ntokens = \"abc\"", "recoverd.toml:2: `admin.tokens`: expected a list, found a string"),
        ("[admin]\ntokens = [\n12345]", "recoverd.toml:3: `admin.tokens`: expected a string, found a whole number"),
        ("[sentry]\ndsn = 5", "recoverd.toml:2: `sentry.dsn`: expected a string, found a whole number"),
        (
            "[admin]\nauth = \"basic\"",
            "recoverd.toml:2: `admin.auth`: unknown value `basic`, expected `token` or `none`",
        ),
        ("[datadog]\ntags = [true]", "recoverd.toml:2: `datadog.tags`: expected a string, found true or false"),
        (
            "[datadog]\nresend_interval = \"60 parsecs\"",
            "recoverd.toml:2: `datadog.resend_interval`: \"60 parsecs\" is not a span of time; write 60s, 5m, 1h30m or a \
             number of seconds",
        ),
        (
            "[datadog]\nresend_interval = []",
            "recoverd.toml:2: `datadog.resend_interval`: a span of time such as \"60s\", or a number of seconds",
        ),
        (
            "[webhooks]\nmax_body_bytes = 99_999_999_999_999_999_999\nburst = { x = 0xffffffffffffffff }\nlistn = 1\n\
             [admin]\ntokens = [99999999999999999999]",
            "recoverd.toml:2: `webhooks.max_body_bytes`: is too large a number\n\
             recoverd.toml:3: `webhooks.burst.x`: is too large a number\n\
             recoverd.toml:3: `webhooks.burst`: expected a whole number from 1, found a table\n\
             recoverd.toml:4: unknown key `webhooks.listn`; did you mean `webhooks.listen`?\n\
             recoverd.toml:6: `admin.tokens`: is too large a number\n\
             recoverd.toml:6: `admin.tokens`: expected a string, found a whole number",
        ),
        (
            "[webhooks]\nlisten = \"localhost:80\"",
            "recoverd.toml:2: `webhooks.listen`: \"localhost:80\" is not an IP address with a port, such as 127.0.0.1:8080",
        ),
        (
            "[webhooks]\nlisten = 8080\n[admin]\nlisten = true",
            "recoverd.toml:2: `webhooks.listen`: expected a string, found a whole number\n\
             recoverd.toml:4: `admin.listen`: expected a string, found true or false",
        ),
        (
            "[[jenkins]]\nname = \"a\"\n[[jenkins.rules]]\njobs = \"a\"\nresults = { UNSTABLE = \"fine\" }",
            "recoverd.toml:5: `jenkins.rules.results.UNSTABLE`: unknown value `fine`, expected one of `ok`, `warning`, \
             `critical`, `hold`",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(text), expected, "{text}");
    }
}

#[test]
fn a_file_that_is_not_toml_is_named_with_line_and_column_and_not_quoted() {
    let complaint = complaint("data_dir = \"data\"\n[admin]\ntokens = [\"marker-of-a-secret]\n");
    assert!(complaint.starts_with("recoverd.toml:3:"), "{complaint}");
    assert!(!complaint.contains("marker"), "{complaint}");
}

#[test]
fn what_contradicts_itself_is_refused_with_a_remedy() {
    let table = [
        (
            "[[jenkins]]\nname = \"main\"".to_owned(),
            "recoverd.toml:1: `jenkins.tokens`: controller main has no token, so nobody could report its builds; set \
             `tokens` or `tokens_file`, or `auth = \"none\"` to believe everybody",
        ),
        (
            controller("") + &controller(""),
            "recoverd.toml:6: `jenkins.name`: another controller is called main; rename one",
        ),
        (
            controller("") + &controller("").replace("main", "Main"),
            "recoverd.toml:6: `jenkins.name`: another controller is called main, but for case, which Datadog ignores; \
             rename one",
        ),
        (
            controller("").replace("main", "a b"),
            "recoverd.toml:2: `jenkins.name`: a controller's name has 1 to 64 characters of a-z, A-Z, 0-9, `_`, `.` and \
             `-`, unlike \"a b\"",
        ),
        (
            controller("url = \"ftp://ci\""),
            "recoverd.toml:4: `jenkins.url`: \"ftp://ci\" does not start with http:// or https:// and a host; write it whole, \
             such as https://jenkins.example.com/",
        ),
        (
            controller("url = \"https://ci/?depth=1\""),
            "recoverd.toml:4: `jenkins.url`: has a query, from its `?` on; leave only the address, such as \
             https://jenkins.example.com/",
        ),
        (
            controller("url = \"https://ci/#top\""),
            "recoverd.toml:4: `jenkins.url`: has a fragment, from its `#` on; leave only the address, such as \
             https://jenkins.example.com/",
        ),
        (
            controller("url = \"ci.example.org\""),
            "recoverd.toml:4: `jenkins.url`: \"ci.example.org\" does not start with http:// or https:// and a host; write it \
             whole, such as https://jenkins.example.com/",
        ),
        (
            controller("url = \"https://ci:port/\""),
            "recoverd.toml:4: `jenkins.url`: \"https://ci:port/\" is not an address (invalid port number); write it whole, \
             such as https://jenkins.example.com/",
        ),
        (
            controller("url = \"https://me:secret@ci\""),
            "recoverd.toml:4: `jenkins.url`: holds a user or password, which would show in every tag and link; remove it",
        ),
        (
            controller("tcp_listen = \"0.0.0.0:9001\"\nudp_listen = \"10.0.0.1:9001\""),
            "recoverd.toml:4: `jenkins.tcp_listen`: whoever reaches 0.0.0.0:9001 needs no token there; listen on 127.0.0.1, or \
             set `auth = \"none\"` to believe everybody\n\
             recoverd.toml:5: `jenkins.udp_listen`: whoever reaches 10.0.0.1:9001 needs no token there; listen on 127.0.0.1, \
             or set `auth = \"none\"` to believe everybody",
        ),
        (
            controller("tcp_listen = \"localhost:9001\""),
            "recoverd.toml:4: `jenkins.tcp_listen`: \"localhost:9001\" is not an IP address with a port, such as \
             127.0.0.1:8080",
        ),
        (
            controller("include = [\"a[\"]"),
            "recoverd.toml:4: `jenkins.include`: \"a[\" is not a glob: unclosed character class; missing ']'",
        ),
        (
            controller("[[jenkins.rules]]\njobs = \"a[\""),
            "recoverd.toml:5: `jenkins.rules.jobs`: \"a[\" is not a glob: unclosed character class; missing ']'",
        ),
        (
            controller("[[jenkins.rules]]\njobs = \"a\"\n[jenkins.rules.results]\nUNSTABEL = \"ok\""),
            "recoverd.toml:7: `jenkins.rules.results.UNSTABEL`: Jenkins has no such result; did you mean UNSTABLE?",
        ),
        (
            controller("[[jenkins.rules]]\njobs = \"a\"\n[jenkins.rules.results]\nFAILED = \"ok\"\nfailure = \"hold\""),
            "recoverd.toml:8: `jenkins.rules.results.failure`: this result stands there twice; remove one",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(&text), expected, "{text}");
    }
}

#[test]
fn what_would_do_harm_is_refused_with_a_remedy() {
    let table = [
        (
            controller("tags = [\"team:web\", \"Host:x\"]"),
            "recoverd.toml:4: `jenkins.tags`: a tag named host would move the check to that host and split its group; \
             choose another name",
        ),
        (
            "[datadog]\ntags = [\"job:x\"]".to_owned(),
            "recoverd.toml:2: `datadog.tags`: recoverd sets the tag job itself; choose another name",
        ),
        (
            "[datadog]\ntags = [\":x\"]".to_owned(),
            "recoverd.toml:2: `datadog.tags`: \":x\" is not a tag; write key:value",
        ),
        (
            "[datadog]\ndogstatsd = \"127.0.0.1:8125\"".to_owned(),
            "recoverd.toml:2: `datadog.dogstatsd`: write udp://HOST:PORT or unix:///PATH instead of \
             \"127.0.0.1:8125\"",
        ),
        (
            "[datadog]\nresend_interval = 0".to_owned(),
            "recoverd.toml:2: `datadog.resend_interval`: 0s is not from 1s to 43200s",
        ),
        (
            "[datadog]\nmax_datagram_bytes = 511".to_owned(),
            "recoverd.toml:2: `datadog.max_datagram_bytes`: a datagram has from 512 to 65507 bytes, and the Agent reads 8192 \
             unless told otherwise, unlike 511",
        ),
        (
            "[webhooks]\nmax_body_bytes = 0".to_owned(),
            "recoverd.toml:2: `webhooks.max_body_bytes`: 0 is not from 1024 to 67108864",
        ),
        (
            "[webhooks]\nmax_connections = 9223372036854775807".to_owned(),
            "recoverd.toml:2: `webhooks.max_connections`: 9223372036854775807 is not from 1 to 1000000",
        ),
        (
            "[webhooks]\nmax_connections_per_peer = 1_000_001".to_owned(),
            "recoverd.toml:2: `webhooks.max_connections_per_peer`: 1000001 is not from 1 to 1000000",
        ),
        (
            "[relay]\nmax_connections = 1_000_001".to_owned(),
            "recoverd.toml:2: `relay.max_connections`: 1000001 is not from 1 to 1000000",
        ),
        (
            controller("tcp_listen = \"127.0.0.1:8081\"\nudp_listen = \"127.0.0.1:8081\""),
            "recoverd.toml:4: `jenkins.tcp_listen`: 127.0.0.1:8081 is taken by `admin.listen`; choose another port",
        ),
        (
            controller("udp_listen = \"127.0.0.1:9001\"")
                + &controller("udp_listen = \"127.0.0.1:9001\"").replace("main", "other"),
            "recoverd.toml:8: `jenkins.udp_listen`: 127.0.0.1:9001 is taken by `jenkins.udp_listen`; choose another port",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:8080\"".to_owned(),
            "recoverd.toml:2: `admin.listen`: 0.0.0.0:8080 is taken by `webhooks.listen`; choose another port",
        ),
        (
            format!("[admin]\nauth = \"none\"\ntokens = [\"{TOKEN}\"]"),
            "recoverd.toml:2: `admin.auth`: \"none\" contradicts the tokens that are set; remove either",
        ),
        (
            "[admin]\ntokens = [\"\"]".to_owned(),
            "recoverd.toml:2: `admin.tokens`: the token is empty, which would let everybody in; remove it",
        ),
        (
            "[admin]\ntokens = [\"a secret of mine\"]".to_owned(),
            "recoverd.toml:2: `admin.tokens`: a token has printable ASCII characters and no spaces, or it could not stand \
             in a header",
        ),
        (
            "[sentry]\ndsn = \"https://sentry.example/1\"".to_owned(),
            "recoverd.toml:2: `sentry.dsn`: not a DSN (username is empty); write https://KEY@HOST/PROJECT, as \
             Sentry shows it among the project's client keys",
        ),
        (
            "[sentry]\ndsn = \"http://key@localhost:8080/1\"".to_owned(),
            "recoverd.toml:2: `sentry.dsn`: leads back to recoverd's own `webhooks.listen`, 127.0.0.1:8080; name Sentry's \
             host",
        ),
        (
            "[sentry]\ndsn = \"http://key@[::1]:8081/1\"".to_owned(),
            "recoverd.toml:2: `sentry.dsn`: leads back to recoverd's own `admin.listen`, 127.0.0.1:8081; name Sentry's host",
        ),
        (
            "[log]\nlevel = \"inof\"".to_owned(),
            "recoverd.toml:2: `log.level`: \"inof\" is not a level; did you mean \"info\"?",
        ),
        ("data_dir = \"\"".to_owned(), "recoverd.toml:1: `data_dir`: is empty; name a directory, such as \"data\""),
    ];
    for (text, expected) in table {
        assert_eq!(complaint(&text), expected, "{text}");
    }
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_others_variables() {
    let text = "data_dir = \"file\"\n[datadog]\ntags = [\"a:1\"]\n[webhooks]\nburst = 5";
    let settings = load(
        text,
        &[
            ("RECOVERD_DATA_DIR", "variable"),
            ("RECOVERD_WEBHOOKS__LISTEN", "127.0.0.1:0"),
            ("RECOVERD_WEBHOOKS__RATE_PER_SECOND", "7"),
            ("RECOVERD_DATADOG__TAGS", "env:prod, team:web,"),
            ("RECOVERD_DATADOG__RESEND_INTERVAL", "30"),
            ("RECOVERD_ADMIN__TOKENS", TOKEN),
            ("HOME", "/root"),
            ("RECOVERD_SERVICE_HOST", "10.0.0.1"),
            ("RECOVERD_PORT_8080_TCP", "tcp://10.0.0.1:8080"),
        ],
    )
    .unwrap();
    assert_eq!(settings.data_dir, Path::new("variable"));
    assert_eq!(settings.webhooks.listen.port(), 0);
    assert_eq!((settings.webhooks.rate_per_second.get(), settings.webhooks.burst.get()), (7, 5));
    assert_eq!(settings.datadog.tags, ["env:prod", "team:web"]);
    assert_eq!(settings.datadog.resend_interval, Duration::from_secs(30));
    assert!(matches!(settings.admin.access(), Access::Tokens(tokens) if tokens.len() == 1));
}

#[test]
fn a_controller_can_be_set_by_the_environment_alone() {
    let settings = set(&[
        ("RECOVERD_JENKINS__0__NAME", "main"),
        ("RECOVERD_JENKINS__0__TOKENS", TOKEN),
        ("RECOVERD_JENKINS__1__NAME", "other"),
        ("RECOVERD_JENKINS__1__AUTH", "none"),
        ("RECOVERD_JENKINS__0__RULES__0__JOBS", "acme/*"),
        ("RECOVERD_JENKINS__0__RULES__0__RESULTS__UNSTABLE", "ok"),
    ])
    .unwrap();
    let names: Vec<_> = settings.controllers().iter().map(|controller| controller.name.as_str()).collect();
    assert_eq!(names, ["main", "other"]);
    let rulebook = settings.rulebook();
    let rules = rulebook.of(&ControllerName::parse("main").unwrap()).unwrap();
    assert_eq!(rules.policy(&JobPath::parse("acme/web").unwrap()).verdict(Outcome::Unstable), Verdict::Ok);
}

#[test]
fn a_variable_wins_over_a_result_in_whatever_case_the_file_has_it() {
    for word in ["UNSTABLE", "Unstable", "unstable"] {
        let text = controller(&format!("[[jenkins.rules]]\njobs = \"a\"\nresults = {{ {word} = \"hold\" }}"));
        let settings = load(&text, &[("RECOVERD_JENKINS__0__RULES__0__RESULTS__UNSTABLE", "ok")]).unwrap();
        let rulebook = settings.rulebook();
        let rules = rulebook.of(&ControllerName::parse("main").unwrap()).unwrap();
        assert_eq!(rules.policy(&JobPath::parse("a").unwrap()).verdict(Outcome::Unstable), Verdict::Ok, "{word}");
        assert!(load(&settings.redacted_toml(), &[]).is_ok());
    }
}

#[test]
fn a_variable_that_there_is_not_is_refused() {
    let table = [
        ("RECOVERD_WEBHOOKS__LISTN", "unknown setting; did you mean `RECOVERD_WEBHOOKS__LISTEN`?"),
        ("RECOVERD_WEBHOOKS_LISTEN", "unknown setting; did you mean `RECOVERD_WEBHOOKS__LISTEN`?"),
        ("RECOVERD_DATADIR", "unknown setting; did you mean `RECOVERD_DATA_DIR`?"),
        ("RECOVERD_JENKINS__0__TOKEN", "unknown setting; did you mean `RECOVERD_JENKINS__0__TOKENS`?"),
        (
            "RECOVERD_JENKINS__3__RULES__2__BRANCHS",
            "unknown setting; did you mean `RECOVERD_JENKINS__3__RULES__2__BRANCHES`?",
        ),
        ("RECOVERD_JENKINS_TOKENS", "unknown setting; did you mean `RECOVERD_JENKINS__0__TOKENS`?"),
        ("RECOVERD_NONSENSE", "unknown setting"),
        ("RECOVERD_", "unknown setting"),
        ("RECOVERD_WEBHOOKS__", "unknown setting"),
        ("RECOVERD_WEBHOOKS__LISTEN.X", "unknown setting; did you mean `RECOVERD_WEBHOOKS__LISTEN`?"),
        ("RECOVERD_WEBHOOKS", "`webhooks` is a table; set its keys one by one"),
        ("RECOVERD_JENKINS", "`jenkins` is a list of tables; number them from 0, as in RECOVERD_JENKINS__0__…"),
        ("RECOVERD_JENKINS__NAME", "`jenkins` is a list of tables; number them from 0, as in RECOVERD_JENKINS__0__…"),
        (
            "RECOVERD_JENKINS__0__RULES__JOBS",
            "`jenkins.rules` is a list of tables; number them from 0, as in RECOVERD_JENKINS__0__RULES__0__…",
        ),
        (
            "RECOVERD_JENKINS__99999999__NAME",
            "`jenkins` is a list of tables; number them from 0, as in RECOVERD_JENKINS__0__…",
        ),
    ];
    for (variable, expected) in table {
        let complaint = set(&[(variable, "x")]).expect_err(variable).to_string();
        assert_eq!(complaint, format!("{variable}: {expected}"));
    }
    let wrong = set(&[("RECOVERD_WEBHOOKS__BURST", "many"), ("RECOVERD_JENKINS__1__NAME", "x")]).unwrap_err();
    assert_eq!(
        wrong.lines(),
        [
            "`jenkins`: expected a table, found nothing",
            "RECOVERD_WEBHOOKS__BURST: `webhooks.burst`: expected a whole number from 1, found a string"
        ]
    );
}

#[test]
fn datadogs_and_sentrys_own_variables_count_last() {
    type Row = (&'static str, &'static [(&'static str, &'static str)], &'static str);
    let table: [Row; 9] = [
        ("", &[("DD_AGENT_HOST", "10.1.2.3")], "udp://10.1.2.3:8125"),
        ("", &[("DD_AGENT_HOST", "fd00::1"), ("DD_DOGSTATSD_PORT", "9")], "udp://[fd00::1]:9"),
        ("", &[("DD_DOGSTATSD_PORT", "9")], "udp://127.0.0.1:9"),
        ("", &[("DD_AGENT_HOST", "x"), ("DD_DOGSTATSD_URL", "unix:///s")], "unix:///s"),
        ("", &[("DD_AGENT_HOST", ""), ("DD_DOGSTATSD_URL", " ")], "udp://127.0.0.1:8125"),
        ("[datadog]\ndogstatsd = \"udp://f:1\"", &[("DD_DOGSTATSD_URL", "unix:///s")], "udp://f:1"),
        ("", &[("RECOVERD_DATADOG__DOGSTATSD", "udp://r:1"), ("DD_AGENT_HOST", "x")], "udp://r:1"),
        ("[datadog]\ntags = []", &[("DD_AGENT_HOST", "x")], "udp://x:8125"),
        ("", &[("DD_DOGSTATSD_URL", "unixgram:///s")], "unixgram:///s"),
    ];
    for (text, variables, expected) in table {
        assert_eq!(load(text, variables).unwrap().datadog.dogstatsd, expected, "{text} {variables:?}");
    }
    let complaint = set(&[("DD_DOGSTATSD_URL", "http://x")]).unwrap_err().to_string();
    assert!(
        complaint.starts_with("DD_DOGSTATSD_URL: `datadog.dogstatsd`: DogStatsD is written to in datagrams"),
        "{complaint}"
    );

    let dsn = |text: &str, variables: &[(&str, &str)]| {
        load(text, variables).unwrap().sentry.dsn.map(|dsn| dsn.expose().to_owned())
    };
    let theirs = ("SENTRY_DSN", "https://theirs@h/1");
    assert_eq!(dsn("", &[theirs]).unwrap(), "https://theirs@h/1");
    assert_eq!(dsn("[sentry]\ndsn = \"https://ours@h/1\"", &[theirs]).unwrap(), "https://ours@h/1");
    assert_eq!(dsn("", &[theirs, ("RECOVERD_SENTRY__DSN", "")]), None);
    assert_eq!(dsn("", &[("SENTRY_DSN", "")]), None);
    let complaint = set(&[("SENTRY_DSN", "marker")]).unwrap_err().to_string();
    let expected = "SENTRY_DSN: `sentry.dsn`: not a DSN; write https://KEY@HOST/PROJECT, as Sentry shows it among the \
                    project's client keys";
    assert_eq!(complaint, expected);
}

#[test]
fn a_secret_can_stand_in_a_file() {
    let room = TempDir::new().unwrap();
    let file = |name: &str, content: &[u8]| {
        let path = room.path().join(name);
        std::fs::File::create(&path).unwrap().write_all(content).unwrap();
        path.display().to_string()
    };
    let tokens = file("tokens", format!("\n {TOKEN}-1\r\n{TOKEN}-2\n\n").as_bytes());
    let dsn = file("dsn", b"https://key@h/1\n");
    let settings =
        load(&format!("[sentry]\ndsn_file = {dsn:?}\n{}tokens_file = {tokens:?}", controller("")), &[]).unwrap();
    assert_eq!(settings.sentry.dsn.as_ref().unwrap().expose(), "https://key@h/1");
    assert!(matches!(&settings.controllers()[0].access, Access::Tokens(tokens) if tokens.len() == 3));
    let nearer = load("[sentry]\ndsn = \"https://a@h/1\"", &[("RECOVERD_SENTRY__DSN_FILE", &dsn)]).unwrap();
    assert_eq!(nearer.sentry.dsn.unwrap().expose(), "https://key@h/1");

    let (absent, empty) = (room.path().join("absent").display().to_string(), file("empty", b"\n"));
    let (binary, huge) = (file("binary", &[0xff, 0xfe]), file("huge", &vec![b'x'; 70_000]));
    let directory = room.path().display().to_string();
    let table = [
        (&absent, format!("cannot read {absent}: No such file or directory (os error 2); create it or remove the key")),
        (&empty, format!("{empty} is empty; write the secret into it")),
        (&tokens, format!("{tokens} has more than one line; leave only the secret in it")),
        (&binary, format!("cannot read {binary}: stream did not contain valid UTF-8; it must be UTF-8 text")),
        (&huge, format!("{huge} is larger than 64 KiB, which no secret is; check the path")),
        (&directory, format!("cannot read {directory}: Is a directory (os error 21); name the file in it")),
    ];
    for (path, expected) in table {
        let complaint = complaint(&format!("[sentry]\ndsn_file = {path:?}"));
        assert_eq!(complaint, format!("recoverd.toml:2: `sentry.dsn_file`: {expected}"));
    }
    assert_eq!(
        complaint(&format!("[admin]\ntokens_file = {empty:?}")),
        format!("recoverd.toml:2: `admin.tokens_file`: {empty} is empty; write one token a line into it")
    );
    assert_eq!(
        complaint(&format!("[sentry]\ndsn = \"https://a@h/1\"\ndsn_file = {dsn:?}")),
        "recoverd.toml:3: `sentry.dsn_file`: `sentry.dsn` is set as well; remove one of them"
    );
}

#[test]
fn datadogs_key_belongs_to_a_site() {
    let settings = set(&[("DD_API_KEY", "0123abc"), ("DD_SITE", " US5.datadoghq.com ")]).unwrap();
    assert_eq!(settings.datadog.api_key.as_ref().unwrap().expose(), "0123abc");
    assert_eq!(settings.datadog.site, "us5.datadoghq.com");
    assert_eq!(load("[datadog]\nsite = \"datadoghq.eu\"", &[("DD_SITE", "x")]).unwrap().datadog.site, "datadoghq.eu");
    let text = "[datadog]\nurl = \"https://proxy.example/datadog\"";
    assert_eq!(load(text, &[]).unwrap().datadog.url.as_deref(), Some("https://proxy.example/datadog/"));
    let table = [
        (
            "site = \"https://datadoghq.eu\"",
            "`datadog.site`: is not the name of a site; write one such as datadoghq.com or us5.datadoghq.com",
        ),
        (
            "url = \"proxy\"",
            "`datadog.url`: \"proxy\" does not start with http:// or https:// and a host; write it whole, such as \
             https://api.datadoghq.com/",
        ),
        (
            "api_key = \"0123 abc\"",
            "`datadog.api_key`: an API key has printable ASCII characters and no spaces; copy it as Datadog shows it",
        ),
    ];
    for (line, expected) in table {
        assert_eq!(complaint(&format!("[datadog]\n{line}")), format!("recoverd.toml:2: {expected}"));
    }
}

#[test]
fn jenkins_is_asked_with_a_user_a_token_and_an_address() {
    let text = controller("url = \"https://ci/jenkins\"\nuser = \" reader \"\napi_token = \"11abc\"");
    let settings = load(&text, &[("RECOVERD_JENKINS__0__POLL_INTERVAL", "5m")]).unwrap();
    let [controller] = settings.controllers() else { panic!("one controller") };
    let api = controller.api.as_ref().unwrap();
    assert_eq!(api.url.as_str(), "https://ci/jenkins/");
    assert_eq!(api.credentials.as_ref().unwrap().user, "reader");
    assert_eq!(controller.poll_interval, Some(Duration::from_mins(5)));
    assert_eq!(settings.warnings(), [""; 0]);

    let alone = "[[jenkins]]\nname = \"main\"\nurl = \"https://ci\"\nuser = \"reader\"\napi_token = \"11abc\"\npoll_interval = 0";
    let settings = load(alone, &[]).unwrap();
    let [controller] = settings.controllers() else { panic!("one controller") };
    assert!(matches!(&controller.access, Access::Tokens(tokens) if tokens.is_empty()), "nobody may report in its name");
    assert_eq!(controller.poll_interval, None);
    assert!(load(&self::controller("user = \"\"\napi_token = \"\""), &[]).unwrap().controllers()[0].api.is_none());
}

#[test]
fn half_of_what_jenkins_is_asked_with_is_refused() {
    let table = [
        ("user = \"reader\"", "4: `jenkins.user`: has no API token; set `api_token` or `api_token_file`, or remove it"),
        ("api_token = \"11abc\"", "4: `jenkins.api_token`: belongs to a user of Jenkins; set `user`"),
        (
            "api_token = \"11abc\"\nuser = \"reader\"",
            "4: `jenkins.api_token`: is of no use without Jenkins' address; set `url`",
        ),
        (
            "user = \"reader:x\"\napi_token = \"11abc\"\nurl = \"https://ci\"",
            "4: `jenkins.user`: has a colon or a control character, which no user's id has",
        ),
        (
            "api_token = \"11 abc\"\nuser = \"reader\"\nurl = \"https://ci\"",
            "4: `jenkins.api_token`: an API token has printable ASCII characters and no spaces; copy it as Jenkins shows it",
        ),
        ("poll_interval = \"999ms\"", "4: `jenkins.poll_interval`: 999ms is not from 1s to 86400s"),
        ("poll_interval = \"2d\"", "4: `jenkins.poll_interval`: 172800s is not from 1s to 86400s"),
    ];
    for (more, expected) in table {
        assert_eq!(complaint(&controller(more)), format!("recoverd.toml:{expected}"), "{more}");
    }
}

#[test]
fn no_settings_file_is_fine_unless_one_was_named() {
    let complaint = Settings::load(Some(Path::new("/nowhere/r.toml")), &environment(&[])).unwrap_err().to_string();
    assert_eq!(
        complaint,
        "/nowhere/r.toml: cannot read the settings: No such file or directory (os error 2); check --config"
    );
    let room = TempDir::new().unwrap();
    let path = room.path().join("r.toml");
    std::fs::write(&path, "data_dir = \"elsewhere\"").unwrap();
    let settings = Settings::load(Some(&path), &environment(&[])).unwrap();
    assert_eq!(settings.data_dir, Path::new("elsewhere"));
}

#[test]
fn what_is_unwise_is_warned_of() {
    let warnings = |text: &str| load(text, &[]).unwrap().warnings().to_vec();
    assert_eq!(warnings(&controller("url = \"https://CI.example\"")), [""; 0]);
    for listen in ["10.1.2.3:8080", "0.0.0.0:8080"] {
        let sentry_alone = integration(&format!("secrets = [\"0123456789abcdef\"]\n[webhooks]\nlisten = \"{listen}\""));
        assert_eq!(warnings(&sentry_alone), [""; 0], "its webhooks are taken");
    }
    let table = [
        (
            "[[jenkins]]\nname = \"main\"\nauth = \"none\"",
            "controller main: `auth` is \"none\", so everybody who reaches the port sets its jobs",
        ),
        (
            "[[jenkins]]\nname = \"main\"\ntokens = [\"short\"]",
            "recoverd.toml:3: `jenkins.tokens`: a token of fewer than 16 characters can be guessed; make it longer",
        ),
        (
            "[webhooks]\nlisten = \"0.0.0.0:8080\"",
            "`webhooks.listen` is 0.0.0.0:8080 but there is no [[jenkins]]: webhooks from other hosts are refused; add one \
             with a name and tokens",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:8081\"",
            "`admin.listen` is 0.0.0.0:8081 but there is no token: metrics and the API answer this host alone; set \
             `admin.tokens_file`",
        ),
        (
            "[admin]\nlisten = \"10.1.2.3:8081\"",
            "`admin.listen` is 10.1.2.3:8081 but there is no token: metrics and the API answer nobody; set \
             `admin.tokens_file`",
        ),
        (
            "[webhooks]\nlisten = \"10.1.2.3:8080\"",
            "`webhooks.listen` is 10.1.2.3:8080 but there is no [[jenkins]]: all webhooks are refused; add one with a name \
             and tokens",
        ),
        (
            "[admin]\nlisten = \"0.0.0.0:8081\"\nauth = \"none\"",
            "`admin.auth` is \"none\": everybody who reaches 0.0.0.0:8081 reads and changes what recoverd knows",
        ),
        (
            "[admin]\nauth = \"none\"",
            "`admin.auth` is \"none\": everybody who reaches 127.0.0.1:8081 reads and changes what recoverd knows",
        ),
        (
            &controller("url = \"http://ci.example/\"\nuser = \"reader\"\napi_token = \"11abc\""),
            "recoverd.toml:6: `jenkins.api_token`: goes over the network unencrypted, as `url` begins with http://; use \
             https://",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(warnings(text), [expected], "{text}");
    }
    let raw =
        "[[jenkins]]\nname = \"main\"\nauth = \"none\"\ntcp_listen = \"0.0.0.0:9001\"\nudp_listen = \"[::1]:9001\"";
    let raw = warnings(raw);
    assert_eq!(raw.len(), 2, "{raw:?}");
    assert_eq!(raw[1], "controller main: `tcp_listen` is 0.0.0.0:9001, so everybody who reaches it sets its jobs");
}

#[test]
fn rules_reach_the_rulebook_with_all_tags() {
    let text = format!(
        "[datadog]\ntags = [\"env:prod\"]\n{}",
        controller(
            "url = \"https://CI.example/jenkins\"\ntags = [\"team:web\", \"env:prod\"]\nexclude = [\"tmp/**\"]\n\
             [[jenkins.rules]]\njobs = \"acme/*\"\nbranches = [\"main\"]\nmode = \"worst\"\n\
             results = { unstable = \"ok\" }\ntags = [\"tier:1\"]"
        )
    );
    let rulebook = load(&text, &[]).unwrap().rulebook();
    let rules = rulebook.of(&ControllerName::parse("main").unwrap()).unwrap();
    assert_eq!(rules.url.as_deref(), Some("https://ci.example/jenkins/"));
    assert_eq!(rules.tags.iter().map(ToString::to_string).collect::<Vec<_>>(), ["env:prod", "team:web"]);
    let job = JobPath::parse("acme/web").unwrap();
    let policy = rules.policy(&job);
    assert_eq!((policy.mode, policy.verdict(Outcome::Unstable)), (Mode::Worst, Verdict::Ok));
    assert!(policy.counts("main") && !policy.counts("PR-1"));
    assert_eq!(policy.tags[0].to_string(), "tier:1");
    assert!(rules.includes(&job) && !rules.includes(&JobPath::parse("tmp/x").unwrap()));
}

/// For all places where a secret may stand: nothing that the settings print holds it.
#[test]
fn a_secret_shows_in_no_output() {
    const MARKER: &str = "marker-0123456789abcdef";
    let room = TempDir::new().unwrap();
    let file = room.path().join("secret");
    std::fs::write(&file, MARKER).unwrap();
    let file = file.display();
    let good = [
        format!("[admin]\ntokens = [\"{MARKER}\", \"{MARKER}2\"]"),
        format!("[admin]\ntokens_file = \"{file}\""),
        format!("[[jenkins]]\nname = \"a\"\ntokens = [\"{MARKER}\"]"),
        format!("[[jenkins]]\nname = \"a\"\ntokens_file = \"{file}\""),
        format!("[sentry]\ndsn = \"https://{MARKER}@h/1\""),
        format!("[datadog]\napi_key = \"{MARKER}\""),
        format!("[datadog]\napi_key_file = \"{file}\""),
        controller(&format!("url = \"http://ci\"\nuser = \"u\"\napi_token = \"{MARKER}\"")),
        controller(&format!("url = \"https://ci\"\nuser = \"u\"\napi_token_file = \"{file}\"")),
        integration(&format!("secrets = [\"{MARKER}\"]\ntokens = [\"{MARKER}2\"]")),
        integration(&format!("secrets_file = \"{file}\"\ntokens_file = \"{file}\"")),
        integration(&format!("url = \"http://s\"\norganization = \"o\"\napi_token = \"{MARKER}\"")),
        integration(&format!("url = \"https://s\"\norganization = \"o\"\napi_token_file = \"{file}\"")),
        format!("[relay]\nproxy = \"http://u:{MARKER}@proxy:3128\""),
        format!("[relay]\nenabled = true\nupstream = \"https://s/\"\nproxy = \"{MARKER}:{MARKER}@proxy:3128\""),
    ];
    for text in good {
        let settings = load(&text, &[]).unwrap();
        let (debug, pretty) = (format!("{settings:?}"), format!("{settings:#?}"));
        let outputs = [debug, pretty, settings.redacted().to_string(), settings.redacted_toml()];
        for output in outputs {
            assert!(output.contains("<redacted>"), "{text}: {output}");
            assert!(!output.contains("marker"), "{text}: {output}");
        }
        assert!(!settings.warnings().join(" ").contains("marker"), "{text}");
    }
    let bad = [
        format!("[admin]\ntokens = \"{MARKER}\""),
        format!("[admin]\ntokens = [[\"{MARKER}\"]]"),
        format!("[admin]\ntokens = [\"{MARKER} \"]"),
        format!("[admin]\ntokens = {{ \"x\" = \"{MARKER}\" }}"),
        format!("[admin]\ntokens = [\"{MARKER}]"),
        format!("[admin]\ntokens = \"{MARKER}\" x"),
        format!("[sentry]\ndsn = \"{MARKER}\""),
        format!("[sentry]\ndsn = [\"{MARKER}\"]"),
        format!("[sentry]\ndsn = \"http://{MARKER}@127.0.0.1:8080/1\""),
        format!("[sentry]\ndsn_file = \"{file}\""),
        format!("[[jenkins]]\nname = \"a\"\nurl = \"https://u:{MARKER}@ci\"\nauth = \"none\""),
        format!("[[jenkins]]\nname = \"a\"\nurl = \"https://u:{MARKER}@ci:port\"\nauth = \"none\""),
        format!("[[jenkins]]\nname = \"a\"\nurl = \"u:{MARKER}@ci\"\nauth = \"none\""),
        format!("[[jenkins]]\nname = \"a\"\nauth = \"none\"\ntokens = [\"{MARKER}\"]"),
        controller(&format!("url = \"https://ci/?api_key={MARKER}\"")),
        controller(&format!("url = \"https://ci/#{MARKER}\"")),
        controller(&format!("url = \"ci/?api_key={MARKER}\"")),
        controller(&format!("url = \"https://ci:port/?api_key={MARKER}\"")),
        format!("[datadog]\nurl = \"https://api/?api_key={MARKER}\""),
        format!("[relay]\nproxy = \"socks5://u:{MARKER}@proxy:1080\""),
        format!("[relay]\nproxy = \"http://u:{MARKER}@:::\""),
        format!("[relay]\nproxy = [\"{MARKER}\"]"),
        format!("[datadog]\napi_key = \"{MARKER} x\""),
        controller(&format!("api_token = \"{MARKER}\"")),
        controller(&format!("url = \"https://ci\"\nuser = \"u\"\napi_token = \"{MARKER} \\t\"")),
        controller(&format!("url = \"https://ci\"\nuser = \"u\"\napi_token = {{ x = \"{MARKER}\" }}")),
        integration(&format!("secrets = \"{MARKER}\"")),
        integration(&format!("secrets = [\"{MARKER} \"]")),
        integration(&format!("auth = \"none\"\nsecrets = [\"{MARKER}\"]")),
        integration(&format!("auth = \"none\"\ntokens_file = \"{file}\"")),
        integration(&format!("api_token = \"{MARKER}\"")),
        integration(&format!("auth = \"none\"\nurl = \"https://u:{MARKER}@s\"")),
        integration(&format!("url = \"https://s\"\norganization = \"o\"\napi_token = \"{MARKER} \t\"")),
    ];
    for text in bad {
        let error = load(&text, &[]).expect_err(&text);
        assert!(!error.to_string().contains("marker") && !format!("{error:?}").contains("marker"), "{text}: {error}");
    }
}

#[test]
fn what_is_shown_can_be_loaded_again() {
    let text = controller("url = \"https://ci\"\n[[jenkins.rules]]\njobs = \"a\"\nresults = { UNSTABLE = \"ok\" }");
    let shown = load(&text, &[]).unwrap().redacted_toml();
    let again = load(&shown, &[]).unwrap();
    assert_eq!(again.redacted_toml(), shown);
}

/// For all keys that there are: the file may hold them, and the environment too.
#[test]
fn every_key_of_the_template_is_known() {
    let template = toml::to_string(&Settings::template()).unwrap();
    let complaint = complaint(&template);
    assert!(!complaint.contains("unknown"), "{complaint}");
}

#[test]
fn the_api_servers_address_is_one_or_none() {
    for (raw, expected) in [("", None), (" ", None), ("http://127.0.0.1:8001", Some("http://127.0.0.1:8001/"))] {
        let settings = load(&format!("[kubernetes]\napi_server = {raw:?}"), &[]).unwrap();
        assert_eq!(settings.api_server().map(url::Url::as_str), expected, "{raw:?}");
    }
    let said = complaint("[kubernetes]\napi_server = \"kubernetes.default.svc\"");
    assert!(said.contains("`kubernetes.api_server`: \"kubernetes.default.svc\" does not start with http://"), "{said}");
}

#[test]
fn a_relay_that_the_wrong_ones_reach_or_nobody_is_warned_of() {
    for (text, expected) in [
        ("mode = \"daemonset\"", Some("no other pod reaches it; set 0.0.0.0:8082")),
        ("mode = \"daemonset\"\nlisten = \"0.0.0.0:8082\"", None),
        ("mode = \"sidecar\"", None),
        ("listen = \"0.0.0.0:8082\"", Some("whoever reaches it sends events in this pod's name")),
    ] {
        let settings =
            load(&format!("[relay]\nenabled = true\nupstream = \"https://s.example/\"\n{text}"), &[]).unwrap();
        let warnings: Vec<_> = settings.warnings().iter().filter(|warning| warning.contains("relay")).collect();
        assert_eq!(warnings.len(), usize::from(expected.is_some()), "{text}: {warnings:?}");
        assert!(expected.is_none_or(|expected| warnings[0].contains(expected)), "{text}: {warnings:?}");
    }
}

#[test]
fn a_relay_without_a_sentry_or_with_one_that_is_recoverd_is_refused() {
    let table = [
        ("enabled = true", "`relay.upstream`: is missing"),
        (
            "enabled = true\nupstream = \"http://localhost:8082/\"",
            "`relay.upstream`: leads back to recoverd's own `relay.listen`",
        ),
        ("enabled = true\nupstream = \"http://127.0.0.1:8080\"", "leads back to recoverd's own `webhooks.listen`"),
        ("enabled = true\nupstream = \"sentry.example.com\"", "does not start with http:// or https://"),
        (
            "enabled = true\nlisten = \"127.0.0.1:8080\"\nupstream = \"https://s.example/\"",
            "is taken by `webhooks.listen`",
        ),
        ("labels = [\"app=pod_name\"]", "`relay.labels`: recoverd sets pod_name itself"),
        ("labels = [\"=x\"]", "names nothing; write label or label=tag"),
        ("ca_file = \"nowhere.pem\"", "`relay.ca_file`: cannot read certificates from nowhere.pem"),
        ("proxy = \"::\"", "`relay.proxy`: is not the address of an HTTP proxy"),
        ("proxy = \"socks5://proxy:1080\"", "`relay.proxy`: is not the address of an HTTP proxy"),
        ("proxy = \"https://proxy:3128\"", "and no other kind is spoken to; write http://HOST:PORT"),
        ("max_body_bytes = 1", "is not from 65536 to 1073741824"),
        (
            "enabled = true\nupstream = \"https://s.example/\"\n[[relay.routes]]\nupstream = \"https://t.example/\"",
            "takes nothing; set `projects` or `keys`",
        ),
        (
            "enabled = true\nupstream = \"https://s.example/\"\n[[relay.routes]]\nkeys = [\"k\"]\nupstream = \"http://[::1]:8082/\"",
            "`relay.routes.upstream`: leads back",
        ),
    ];
    for (text, expected) in table {
        let said = complaint(&format!("[relay]\n{text}"));
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_blank_proxy_is_none() {
    for relay in ["", "enabled = true\nupstream = \"https://s.example/\"\n"] {
        for proxy in ["", " "] {
            let settings = load(&format!("[relay]\n{relay}proxy = {proxy:?}"), &[]).unwrap();
            assert!(settings.relay.proxy.is_none());
            assert!(settings.relay().is_none_or(|plan| plan.way.proxy.is_none()), "what the environment says");
            let text = format!("[relay]\n{relay}proxy = \"http://proxy:3128\"");
            assert!(load(&text, &[("RECOVERD_RELAY__PROXY", proxy)]).unwrap().relay.proxy.is_none());
        }
    }
}

#[test]
fn an_integration_that_cannot_be_is_named() {
    let secret = format!("secrets = [\"{TOKEN}\"]\n");
    let api = |more: &str| format!("{secret}api_token = \"{TOKEN}\"\n{more}");
    let table = [
        (String::new(), "1: `sentry.integrations.secrets`: integration acme has no secret, so none of its webhooks"),
        ("secrets = [\"\"]".into(), "3: `sentry.integrations.secrets`: the secret is empty"),
        ("secrets = [\"two words\"]".into(), "3: `sentry.integrations.secrets`: a secret has printable ASCII"),
        ("secrets_file = \"nowhere\"".into(), "3: `sentry.integrations.secrets_file`: cannot read nowhere"),
        ("tokens = [\"\"]".into(), "3: `sentry.integrations.tokens`: the token is empty"),
        (
            format!("{secret}auth = \"none\""),
            "4: `sentry.integrations.auth`: \"none\" contradicts the secrets or tokens",
        ),
        (format!("{secret}auth = \"token\""), "4: `sentry.integrations.auth`: "),
        (format!("{secret}url = \"sentry.io\""), "4: `sentry.integrations.url`: \"sentry.io\" does not start with"),
        (
            format!("{secret}poll_interval = \"25h\""),
            "4: `sentry.integrations.poll_interval`: 90000s is not from 1s to 86400s",
        ),
        (
            format!("{secret}organization = \"a b\""),
            "4: `sentry.integrations.organization`: is not an organization's slug",
        ),
        (
            api("url = \"https://sentry.io\""),
            "4: `sentry.integrations.api_token`: is of no use without its organization",
        ),
        (api("organization = \"acme\""), "4: `sentry.integrations.api_token`: is of no use without Sentry's address"),
        (format!("{secret}{}", integration(&secret)), "another integration is called acme; rename one"),
        (
            format!("{secret}[[sentry.integrations]]\nname = \"ACME\"\n{secret}"),
            "another integration is called acme, but for case, which Datadog ignores; rename one",
        ),
        (
            format!("{secret}[[sentry.integrations]]\nname = \"a/b\"\n{secret}"),
            "`sentry.integrations.name`: an integration's",
        ),
    ];
    for (more, expected) in table {
        let said = complaint(&integration(&more));
        assert!(said.contains(expected), "{more}: {said}");
    }
}

#[test]
fn an_integration_is_made_ready_with_all_its_ways_in() {
    let room = TempDir::new().unwrap();
    let file = room.path().join("secrets");
    std::fs::write(&file, "the-next-secret-of-acme\n").unwrap();
    let more = format!(
        "secrets = [\"{TOKEN}\"]\nsecrets_file = \"{}\"\ntokens = [\"{TOKEN}\"]\nurl = \"http://sentry.internal\"\n\
         organization = \" acme \"\napi_token = \"{TOKEN}\"\npoll_interval = \"5m\"",
        file.display()
    );
    let settings = load(&integration(&more), &[]).unwrap();
    let [only] = settings.integrations() else { panic!("one integration") };
    assert_eq!((only.name.as_str(), only.secrets.len(), only.poll_interval), ("acme", 2, Some(Duration::from_mins(5))));
    assert!(matches!(&only.access, Access::Tokens(tokens) if tokens.len() == 1));
    let api = only.api.as_ref().unwrap();
    assert_eq!((api.url.as_str(), api.organization.as_str()), ("http://sentry.internal/", "acme"));
    let [warning] = settings.warnings() else { panic!("{:?}", settings.warnings()) };
    assert!(warning.contains("`sentry.integrations.api_token`") && warning.contains("unencrypted"), "{warning}");

    let open = load(&integration("auth = \"none\"\npoll_interval = 0"), &[]).unwrap();
    let [only] = open.integrations() else { panic!("one integration") };
    assert!(matches!(only.access, Access::Open) && only.api.is_none() && only.poll_interval.is_none());
    assert!(open.warnings()[0].contains("integration acme: `auth` is \"none\""), "{:?}", open.warnings());

    let variables =
        [("RECOVERD_SENTRY__INTEGRATIONS__0__NAME", "acme"), ("RECOVERD_SENTRY__INTEGRATIONS__0__AUTH", "none")];
    assert_eq!(set(&variables).unwrap().integrations().len(), 1);
    // It is asked, and need not report.
    let asked = integration(&format!("url = \"https://sentry.io/\"\norganization = \"acme\"\napi_token = \"{TOKEN}\""));
    let settings = load(&asked, &[]).unwrap();
    let [only] = settings.integrations() else { panic!("one integration") };
    assert!(only.api.is_some() && only.secrets.is_empty());
    assert!(matches!(&only.access, Access::Tokens(tokens) if tokens.is_empty()));
}
