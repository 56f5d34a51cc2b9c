//! `recoverd doctor` finds each fault and says what to do, in the very words that README shows.

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Output;

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::get;
use recoverd::datadog::decode::decode;
use serde_json::Value;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::process::Command;

use crate::jenkins_server::{API_TOKEN, Class, Fault, JenkinsServer, USER};
use crate::kubernetes_server::KubernetesServer;
use crate::sentry_server::SentryServer;
use crate::tls::TlsFront;
use crate::world::{Process, TOKEN, recoverd};

const KEY: &str = "5eed5eed5eed5eed5eed5eed5eed5eed";

/// Everything that recoverd stands between, and all of it well.
struct Surroundings {
    directory: TempDir,
    jenkins: JenkinsServer,
    webhooks: String,
    admin: String,
    /// Datadog's API, and Sentry.
    cloud: String,
    running: Option<Process>,
    /// Addresses, and what README calls them.
    names: Vec<(String, &'static str)>,
}

impl Surroundings {
    async fn new() -> Self {
        let jenkins = JenkinsServer::spawn().await;
        jenkins.jenkins().create(Class::Pipeline, "acme/web");
        let directory = tempfile::tempdir().unwrap();
        read_as_the_agent_does(&directory.path().join("dsd.socket"));
        let [webhooks, admin, cloud] = [free_address().await, free_address().await, cloud().await];
        let names = vec![
            (jenkins.url(), JENKINS),
            (format!("http://{}/", jenkins.address), JENKINS),
            (webhooks.clone(), "127.0.0.1:8080"),
            (admin.clone(), "127.0.0.1:8081"),
            (format!("http://{cloud}/"), "https://cloud.example.com/"),
            (directory.path().display().to_string(), "/var/run/datadog"),
        ];
        let mut around = Self { directory, jenkins, webhooks, admin, cloud, running: None, names };
        around.start(&around.settings()).await;
        around
    }

    async fn start(&mut self, text: &str) {
        if let Some(mut running) = self.running.take() {
            running.child.kill().await.unwrap();
        }
        let directory = self.directory.path().join("serve");
        std::fs::create_dir_all(&directory).unwrap();
        let mut command = Command::new(recoverd());
        command.current_dir(self.directory.path());
        self.running = Some(Process::spawn(&directory, text, command).await);
    }

    fn settings(&self) -> String {
        let Self { webhooks, admin, cloud, .. } = self;
        format!(
            "[webhooks]\nlisten = \"{webhooks}\"\n[admin]\nlisten = \"{admin}\"\n\
             [datadog]\ndogstatsd = \"unix://{}\"\napi_key = \"{KEY}\"\nurl = \"http://{cloud}/\"\n\
             [sentry]\ndsn = \"http://public@{cloud}/1\"\n{}",
            self.socket(),
            self.jenkins.settings("main").replace("poll_interval = \"1s\"", "poll_interval = 0"),
        )
    }

    fn socket(&self) -> String {
        self.directory.path().join("dsd.socket").display().to_string()
    }

    async fn doctor(&self, text: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
        std::fs::write(self.directory.path().join("recoverd.toml"), text).unwrap();
        let mut command = Command::new(recoverd());
        command.arg("doctor").args(arguments).envs(variables.iter().copied());
        command.current_dir(self.directory.path()).env_remove("RECOVERD_CONFIG").output().await.unwrap()
    }

    /// The verdict of one check, and what it found.
    async fn finds(&self, text: &str, variables: &[(&str, &str)], check: &str) -> (String, String) {
        let finding = self.finding(text, variables, check).await;
        let word = |key: &str| finding[key].as_str().unwrap().to_owned();
        (word("verdict"), word("found"))
    }

    async fn finding(&self, text: &str, variables: &[(&str, &str)], check: &str) -> Value {
        let output = self.doctor(text, &["--json"], variables).await;
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let mut findings = report["findings"].as_array().unwrap().iter();
        findings.find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("{check}: {report}")).clone()
    }

    /// Its exit code and what it says, with the names that README uses.
    async fn says(&self, text: &str) -> (i32, String) {
        let output = self.doctor(text, &[], &[]).await;
        let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        for secret in [API_TOKEN, TOKEN, KEY, "public"] {
            assert!(!said.contains(secret), "{said}");
        }
        let said = self.names.iter().fold(said, |said, (from, to)| said.replace(from.as_str(), to));
        (output.status.code().unwrap(), said)
    }
}

const JENKINS: &str = "https://jenkins.example.com/";

/// What each fault shows, as README has it.
#[derive(Default)]
struct Faults(String);

impl Faults {
    /// `code` is how it must end.
    async fn show(&mut self, title: &str, around: &Surroundings, text: &str, code: i32) {
        let (ended, said) = around.says(text).await;
        assert_eq!(ended, code, "{title}:\n{said}");
        let troubles = troubles(&said);
        assert!(!troubles.is_empty(), "{title}:\n{said}");
        self.0.extend(["# ", title, "\n", &troubles]);
    }
}

/// The lines of what is not well, without the head and the sum.
fn troubles(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    let [_, findings @ .., _] = lines.as_slice() else { panic!("{said}") };
    let troubles = findings.iter().filter(|line| !line.starts_with("ok ") && !line.starts_with("skipped "));
    troubles.flat_map(|line| [line, "\n"]).collect()
}

fn readme(name: &str) -> String {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let begin = format!("<!-- {name} -->\n```\n");
    let (_, rest) = text.split_once(&begin).unwrap_or_else(|| panic!("README lacks {begin}"));
    rest.split_once("```").unwrap().0.to_owned()
}

async fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string()
}

fn read_as_the_agent_does(path: &Path) {
    let socket = UnixDatagram::bind(path).unwrap();
    std::thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(length) = socket.recv(&mut buffer) {
            assert!(decode(&buffer[..length]).is_ok(), "nobody tells the Agent anything odd");
        }
    });
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    #[expect(clippy::disallowed_methods, reason = "it ends with the test")]
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    address
}

/// Datadog's API, as far as it validates a key, and a Sentry that is there.
async fn cloud() -> String {
    let validate = |headers: HeaderMap| async move {
        let known = headers.get("dd-api-key").is_some_and(|key| key == KEY);
        if known {
            (StatusCode::OK, "{\"valid\":true}")
        } else {
            (StatusCode::FORBIDDEN, "{\"errors\":[\"Forbidden\"]}")
        }
    };
    serve(Router::new().route("/api/v1/validate", get(validate)).route("/", get(async || "ok"))).await
}

#[tokio::test]
async fn when_all_is_well_it_says_so_of_each_part() {
    let around = Surroundings::new().await;
    let text = around.settings();
    let (code, said) = around.says(&text).await;
    assert_eq!((code, said.as_str()), (0, readme("doctor").as_str()), "{said}");
    for line in said.lines() {
        assert_eq!(line, line.trim_end(), "a line ends in blanks");
    }
    let json = around.doctor(&text, &["--json"], &[]).await;
    let json: Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!(json["ok"], true);
    let findings = json["findings"].as_array().unwrap();
    assert!(findings.iter().all(|finding| finding["verdict"] == "ok"), "{json}");
    assert_eq!(findings.len() + 2, said.lines().count());
    let mut left = around.directory.path().join("data").read_dir().unwrap();
    let is_ours = |name: std::ffi::OsString| name.to_string_lossy().starts_with("recoverd.");
    assert!(left.all(|entry| is_ours(entry.unwrap().file_name())), "it looks and leaves nothing");
}

#[tokio::test]
async fn each_fault_is_found_with_its_remedy() {
    let mut around = Surroundings::new().await;
    let mut faults = Faults::default();
    let good = around.settings();
    let with = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replace(from, to)
    };

    faults.show("A key of the settings is misspelt", &around, &with("[webhooks]", "[webhooks]\nlistn = 1"), 2).await;
    let short = with(&format!("\"{TOKEN}\"]"), &format!("\"{TOKEN}\", \"short\"]"));
    faults.show("A token can be guessed", &around, &short, 0).await;

    std::fs::write(around.directory.path().join("file"), "").unwrap();
    faults.show("`data_dir` is a file", &around, &format!("data_dir = \"file\"\n{good}"), 1).await;

    let socket = around.socket();
    let other = |end: &str| with(&socket, &format!("{socket}{end}"));
    faults.show("The Agent's socket is not mounted", &around, &other(".missing"), 1).await;
    drop(UnixDatagram::bind(format!("{socket}.left")).unwrap());
    faults.show("The Agent is gone and has left its socket", &around, &other(".left"), 1).await;
    let _hung = UnixDatagram::bind(format!("{socket}.hung")).unwrap();
    faults.show("The Agent hangs", &around, &other(".hung"), 1).await;
    faults.show("Datadog's key is another site's", &around, &with(KEY, &KEY.replace('5', "9")), 1).await;

    let nobody = free_address().await;
    around.names.push((format!("http://{nobody}/jenkins/"), JENKINS));
    let elsewhere = with(&around.jenkins.url(), &format!("http://{nobody}/jenkins/"));
    faults.show("Jenkins does not run", &around, &elsewhere, 1).await;
    let front = TlsFront::before(around.jenkins.address).await;
    around.names.push((format!("https://{}/jenkins/", front.address), JENKINS));
    let private = with(&around.jenkins.url(), &format!("https://{}/jenkins/", front.address));
    faults.show("Its certificate is a private authority's", &around, &private, 1).await;
    faults.show("The context path is missing", &around, &with("/jenkins/\"", "/\""), 1).await;
    faults.show("The API token has been revoked", &around, &with(API_TOKEN, "11ffffffffffffffff"), 1).await;
    around.jenkins.jenkins().locked_out.insert(USER.to_owned());
    faults.show("The user has no Overall/Read", &around, &good, 1).await;
    around.jenkins.jenkins().locked_out.clear();
    around.jenkins.jenkins().hidden.insert("acme".to_owned());
    faults.show("The user has no Job/Read", &around, &good, 0).await;
    around.jenkins.jenkins().hidden.clear();
    let table = [
        ("Single sign-on stands before the API", "", Fault::LoginPage),
        ("Jenkins has moved", "", Fault::Redirect("https://ci.example.com/login".to_owned())),
        ("Jenkins is starting", "", Fault::Status(503)),
        ("The user may not see the nodes", "computer/", Fault::Status(403)),
        ("Jenkins' clock is wrong", "", Fault::ClockOff(86_400)),
    ];
    for (title, path, fault) in table {
        around.jenkins.fault_at(path, fault);
        faults.show(title, &around, &good, i32::from(path.is_empty())).await;
        around.jenkins.heal();
    }

    around.names.push((format!("http://{nobody}/"), "https://sentry.example.com/"));
    let sentry = with(&format!("public@{}", around.cloud), &format!("public@{nobody}"));
    faults.show("Sentry is not there", &around, &sentry, 1).await;

    let alone = with(&around.jenkins.url(), "https://ci.example.com/");
    let alone: String = alone
        .lines()
        .filter(|line| !line.starts_with("user") && !line.starts_with("api_token"))
        .flat_map(|line| [line, "\n"])
        .collect();
    faults.show("Jenkins is elsewhere, and only this machine is listened to", &around, &alone, 0).await;
    let renewed = with(TOKEN, "another-token-than-at-the-start");
    faults.show("The token was changed without a restart", &around, &renewed, 1).await;
    let renamed = with("name = \"main\"", "name = \"other\"");
    faults.show("The controller was renamed without a restart", &around, &renamed, 1).await;
    around.start(&other(".missing")).await;
    faults.show("recoverd was started without the Agent's socket", &around, &good, 1).await;
    around.running.take().unwrap().child.kill().await.unwrap();
    faults.show("recoverd does not run", &around, &good, 0).await;
    let stranger = serve(Router::new().fallback(async || "hello")).await;
    around.names.push((stranger.clone(), "127.0.0.1:8080"));
    faults.show("Another program has the port", &around, &with(&around.webhooks, &stranger), 1).await;

    let Faults(shown) = faults;
    assert_eq!(shown, readme("doctor's faults"), "{shown}");
}

#[tokio::test]
async fn a_private_authority_is_trusted_once_it_is_named() {
    let around = Surroundings::new().await;
    let front = TlsFront::before(around.jenkins.address).await;
    let authority = around.directory.path().join("ca.pem").display().to_string();
    std::fs::write(&authority, &front.certificate).unwrap();
    let text = around.settings().replace(&around.jenkins.url(), &format!("https://{}/jenkins/", front.address));
    assert_eq!(around.doctor(&text, &[], &[]).await.status.code(), Some(1));
    let trusting = around.doctor(&text, &[], &[("SSL_CERT_FILE", &authority)]).await;
    assert_eq!(trusting.status.code(), Some(0), "{}", String::from_utf8_lossy(&trusting.stdout));
}

#[tokio::test]
async fn the_sentries_that_are_asked_and_relayed_to_are_looked_at() {
    let around = Surroundings::new().await;
    let sentry = SentryServer::spawn().await;
    let nobody = free_address().await;
    let integration = sentry.settings("acme", TOKEN).replace("poll_interval = \"1s\"", "poll_interval = 0");
    let relay = |upstream: &str| {
        format!("[relay]\nenabled = true\nlisten = \"127.0.0.1:0\"\nupstream = \"http://{upstream}/\"\n")
    };
    let good = format!("{}\n{integration}\n{}", around.settings(), relay(&around.cloud));
    let table = [
        (good.clone(), vec![], "ok", "ok"),
        (good.replace(crate::sentry_server::API_TOKEN, "of-somebody-else"), vec![], "FAILED", "ok"),
        (good.clone(), vec![("incidents/", crate::sentry_server::Fault::Status(403))], "warning", "ok"),
        (good.clone(), vec![("incidents/", crate::sentry_server::Fault::Status(404))], "ok", "ok"),
        (good.replace(&relay(&around.cloud), &relay(&nobody)), vec![], "ok", "FAILED"),
        (good.replace("api_token = \"6f", "# \"6f").replace("organization =", "# "), vec![], "skipped", "ok"),
    ];
    for (text, faults, asked, relayed) in table {
        for (path, fault) in faults {
            sentry.fault_at(path, fault);
        }
        let (_, said) = around.says(&text).await;
        sentry.heal();
        let verdict = |check: &str| {
            let line = said.lines().find(|line| line.contains(check)).unwrap_or_else(|| panic!("no {check}:\n{said}"));
            line.split(' ').next().unwrap().to_owned()
        };
        assert_eq!(
            (verdict("sentry acme").as_str(), verdict("relay 127").as_str()),
            (asked, relayed),
            "{text}\n{said}"
        );
    }
}

#[tokio::test]
async fn sentrys_door_is_tried_with_a_signature() {
    let mut around = Surroundings::new().await;
    let sentry = |name: &str, secrets: &str| {
        format!("[[sentry.integrations]]\nname = \"{name}\"\n{secrets}\ntokens = [\"{TOKEN}\"]\n")
    };
    let before = around.settings();
    let good = format!("{before}\n{}", sentry("acme", &format!("secrets = [\"{TOKEN}\"]")));
    around.start(&good).await;
    let renewed = format!("{before}\n{}", sentry("acme", "secrets = [\"another-secret-than-before\"]"));
    let renamed = good.replace("\"acme\"", "\"other\"");
    let unsigned = format!("{before}\n{}", sentry("acme", ""));
    let table = [
        (&good, "acme", "ok", "takes them with the right secret"),
        (&renewed, "acme", "failed", "refuses this integration's secret, so it runs with other settings"),
        (&renamed, "other", "failed", "knows no integration other"),
        (&unsigned, "acme", "skipped", "it has no secret"),
    ];
    for (text, name, verdict, found) in table {
        let (said, what) = around.finds(text, &[], &format!("sentry {name} webhooks")).await;
        assert!(said == verdict && what.contains(found), "{said}: {what}");
    }
}

#[tokio::test]
async fn the_relay_is_looked_at_from_all_sides() {
    let mut around = Surroundings::new().await;
    let (listen, kubernetes) = (free_address().await, KubernetesServer::spawn().await);
    let good = format!(
        "{}\n[relay]\nenabled = true\nlisten = \"{listen}\"\nupstream = \"http://{}/\"\n[kubernetes]\napi_server = \
         \"http://{}/\"\n",
        around.settings(),
        around.cloud,
        kubernetes.address
    );
    let (verdict, found) = around.finds(&good, &[], "relay").await;
    assert!(verdict == "warning" && found.contains("nobody takes events at"), "{verdict}: {found}");
    assert_eq!(around.finds(&good, &[], "relay spool").await.0, "ok", "it was never there");
    around.start(&good).await;
    let (verdict, found) = around.finds(&good, &[], "relay").await;
    assert_eq!((verdict.as_str(), found), ("ok", format!("{listen} takes events")));
    let stranger = serve(Router::new().fallback(async || "hello")).await;
    let (verdict, found) = around.finds(&good.replace(&listen, &stranger), &[], "relay").await;
    assert!(verdict == "failed" && found.contains("something else answers"), "{verdict}: {found}");

    assert_eq!(around.finds(&good, &[], "relay spool").await.0, "ok");
    let mut spools = around.directory.path().join("data/relay/spool").read_dir().unwrap();
    let spool = spools.next().unwrap().unwrap().path();
    for (number, came) in [(7, 1_780_000_000_000_i64), (8, 1_790_000_000_000)] {
        std::fs::write(spool.join(format!("{number:020}.{came}.5.00000000")), "12345").unwrap();
    }
    let (verdict, found) = around.finds(&good, &[], "relay spool").await;
    assert!(verdict == "warning" && found.contains("/: 2, the oldest for "), "{verdict}: {found}");

    let node = [("NODE_NAME", crate::kubernetes_server::NODE)];
    let daemonset = good.replace("enabled = true", "enabled = true\nmode = \"daemonset\"");
    let (verdict, found) = around.finds(&daemonset, &[], "relay pods").await;
    assert_eq!((verdict.as_str(), found.as_str()), ("failed", "the name of this node is not known"));
    assert_eq!(around.finds(&daemonset, &node, "relay pods").await.0, "ok");
    let forbidden = "pods is forbidden: User \"system:serviceaccount:recoverd:recoverd-relay\" cannot list resource \"pods\" \
                     in API group \"\" at the cluster scope";
    kubernetes.refuse(403, forbidden);
    let finding = around.finding(&daemonset, &node, "relay pods").await;
    let remedy = "bind it to a ClusterRole with get, list and watch on pods, as in deploy/k8s/relay-daemonset";
    let expected = format!("the service account may not see pods (403, {forbidden})");
    assert_eq!(
        (&finding["verdict"], &finding["found"], &finding["remedy"]),
        (&"failed".into(), &expected.into(), &remedy.into())
    );
    kubernetes.refuse(401, "Unauthorized");
    let finding = around.finding(&daemonset, &node, "relay pods").await;
    assert!(finding["remedy"].as_str().unwrap().starts_with("see that its token is mounted"), "{finding}");
    let away = daemonset.replace(&kubernetes.address.to_string(), &free_address().await);
    let finding = around.finding(&away, &node, "relay pods").await;
    assert!(finding["remedy"].as_str().unwrap().starts_with("check `kubernetes.api_server`"), "{finding}");
}

#[tokio::test]
async fn a_default_controller_that_lets_nobody_in_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[webhooks]\nlisten = \"192.0.2.1:8080\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                    [datadog]\ndogstatsd = \"udp://127.0.0.1:1\"\n";
    std::fs::write(directory.path().join("recoverd.toml"), settings).unwrap();
    let output = Command::new(recoverd()).arg("doctor").current_dir(directory.path()).output().await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.contains("192.0.2.1:8080 refuses everybody"), "{said}");
}

#[tokio::test]
async fn where_there_is_a_sentry_alone_nobody_asks_for_a_jenkins() {
    let directory = tempfile::tempdir().unwrap();
    for listen in ["192.0.2.1:8080", "0.0.0.0:8080"] {
        let settings = format!(
            "[webhooks]\nlisten = \"{listen}\"\n[admin]\nlisten = \"127.0.0.1:0\"\n[datadog]\ndogstatsd = \
             \"udp://127.0.0.1:1\"\n[[sentry.integrations]]\nname = \"acme\"\nsecrets = [\"{TOKEN}\"]\n"
        );
        std::fs::write(directory.path().join("recoverd.toml"), settings).unwrap();
        let mut command = Command::new(recoverd());
        let output = command.args(["doctor", "--json"]).current_dir(directory.path()).output().await.unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let findings = report["findings"].as_array().unwrap();
        for (check, verdict) in [("settings", "ok"), ("webhooks default", "skipped")] {
            let finding = findings.iter().find(|finding| finding["check"] == check).unwrap();
            assert_eq!(finding["verdict"], verdict, "{listen}: {finding}");
        }
    }
}

#[tokio::test]
async fn where_nothing_is_set_up_nothing_is_asked() {
    let directory = tempfile::tempdir().unwrap();
    let settings = "[webhooks]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                    [datadog]\ndogstatsd = \"udp://127.0.0.1:1\"\n";
    std::fs::write(directory.path().join("recoverd.toml"), settings).unwrap();
    let mut command = Command::new(recoverd());
    let output = command.args(["doctor", "--json"]).current_dir(directory.path()).output().await.unwrap();
    assert_eq!(output.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let findings = report["findings"].as_array().unwrap().iter();
    let verdicts: Vec<_> = findings.map(|finding| format!("{} {}", finding["check"], finding["verdict"])).collect();
    let expected = [
        r#""settings" "ok""#,
        r#""store" "ok""#,
        r#""recoverd" "skipped""#,
        r#""jenkins default" "skipped""#,
        r#""webhooks default" "skipped""#,
        r#""agent" "failed""#,
        r#""datadog key" "skipped""#,
        r#""sentry" "skipped""#,
    ];
    assert_eq!(verdicts, expected);
    assert!(!directory.path().join("data").exists(), "it looks and leaves nothing");
}
