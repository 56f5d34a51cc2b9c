//! What it costs to look at a Jenkins of 10,000 jobs: for the first time, and again when nothing has changed. Repeat it with
//! `cargo bench --bench catch_up`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::unchecked_time_subtraction,
    dead_code,
    unused_imports,
    missing_debug_implementations,
    unreachable_pub,
    reason = "a benchmark prints what it finds, and ends where it cannot go on; of what it shares it uses a part"
)]

#[path = "../tests/it"]
mod it {
    pub mod jenkins_server;
}
mod load;
#[path = "load/process.rs"]
mod process;

use std::time::Duration;

use it::jenkins_server::{Class, Jenkins, JenkinsServer};
use process::Process;

/// What the stand-in for Jenkins takes from the tests' world.
mod world {
    pub const CREATED: i64 = 1_780_000_000_000;
    pub const TOKEN: &str = super::load::TOKEN;
}

const FOLDERS: usize = 50;
const JOBS_OF_A_FOLDER: usize = 100;
const PROJECTS: usize = 250;
const BRANCHES: usize = 20;
/// Further looks.
const LOOKS: u64 = 5;

/// 5,000 jobs in folders and 5,000 branches, of which one in twenty failed and one in twenty was aborted last.
fn populate(jenkins: &mut Jenkins) {
    let folders = (0..FOLDERS).flat_map(|folder| (0..JOBS_OF_A_FOLDER).map(move |job| (folder, job)));
    for (folder, job) in folders {
        let name = format!("team-{folder}/service-{job}");
        jenkins.create(Class::FreeStyle, &name);
        build(jenkins, &name, job);
    }
    for project in 0..PROJECTS {
        let project = format!("organisation/repository-{project}");
        let branches: Vec<String> = (0..BRANCHES).map(|branch| format!("feature/{branch}")).collect();
        let names: Vec<&str> = branches.iter().map(String::as_str).collect();
        jenkins.create_project(&project, &names);
        for branch in 0..BRANCHES {
            build(jenkins, &format!("{project}/feature%2F{branch}"), branch);
        }
    }
}

fn build(jenkins: &mut Jenkins, name: &str, turn: usize) {
    jenkins.build(name, if turn % 20 == 1 { "FAILURE" } else { "SUCCESS" });
    if turn % 20 == 2 {
        jenkins.build(name, "ABORTED");
    }
}

/// Waits until so many looks have come to their end.
async fn looks(process: &Process, wanted: u64) {
    let client = reqwest::Client::new();
    loop {
        let page = client.get(format!("http://{}/metrics", process.admin)).send().await.unwrap().text().await.unwrap();
        let line = page.lines().find(|line| line.starts_with("recoverd_surveys_total"));
        if line.is_some_and(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap() >= wanted) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::main]
async fn main() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("dsd.socket");
    let agent = load::Agent::start(&socket);
    let server = JenkinsServer::spawn().await;
    populate(&mut server.jenkins());
    let jobs = server.jenkins().jobs().len();

    let process = Process::start(directory.path(), &socket, "1h", &server.settings("main"));
    let idle = process.resident_mib();
    looks(&process, 1).await;
    // What was joined is told behind it.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let first = process.cpu().as_secs_f64();
    println!("the first look at {jobs} jobs: {first:.2} s of CPU with the start and the telling (bar: 2)");
    println!("checks told: {}", agent.checks());
    println!(
        "after it: {:.1} MiB resident, {:.1} at most; {idle:.1} at the start",
        process.resident_mib(),
        process.peak_mib()
    );

    looks(&process, 2).await;
    let before = process.cpu();
    looks(&process, 2 + LOOKS).await;
    let each = (process.cpu() - before).as_secs_f64() / LOOKS as f64;
    println!("each further look, nothing changed: {each:.2} s of CPU");
    println!("after them: {:.1} MiB resident, {:.1} at most", process.resident_mib(), process.peak_mib());
    process.stop();
}
