//! An import points down or stays in its room, and no party knows another.

use std::fs;
use std::path::{Path, PathBuf};

/// A module of the crate's root, and the floor that it is on.
const FLOORS: &[(u8, &[&str])] = &[
    (5, &["app", "cli", "config", "telemetry", "main", "lib"]),
    (4, &["http"]),
    (3, &["pipeline", "relay", "resend", "catch_up", "sentry_catch_up"]),
    (2, &["jenkins", "datadog", "kubernetes", "sentry", "store"]),
    (1, &["machinery"]),
    (0, &["domain"]),
];

fn floor(room: &str) -> u8 {
    let floor = FLOORS.iter().find(|(_, rooms)| rooms.contains(&room));
    floor.unwrap_or_else(|| panic!("the room {room} is on no floor: add it to FLOORS")).0
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || floor(to) < floor(from) || (floor(from) == 5 && floor(to) == 5)
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The rooms that a source names, by `crate::room`, wherever in the text.
fn named_rooms(text: &str) -> Vec<&str> {
    let rooms = text.split("crate::").skip(1).map(|rest| {
        let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    });
    rooms.filter(|room| !room.is_empty()).collect()
}

#[test]
fn every_import_points_down_or_stays_in_its_room() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&source, &mut files);
    assert!(files.len() > 20, "the sources were not found");
    let mut wrong = Vec::new();
    for file in files {
        let relative = file.strip_prefix(&source).unwrap();
        let first = relative.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
        let room = first.trim_end_matches(".rs");
        let text = fs::read_to_string(&file).unwrap();
        for named in named_rooms(&text).into_iter().filter(|named| !may_import(room, named)) {
            wrong.push(format!("{} must not import crate::{named}", relative.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_test_itself_sees_an_import_that_points_up() {
    assert_eq!(named_rooms("use crate::http::auth;\nfn f() { crate::domain::x() }"), ["http", "domain"]);
    assert!(!may_import("domain", "machinery"));
    assert!(!may_import("jenkins", "datadog"));
    assert!(!may_import("pipeline", "resend"));
    assert!(may_import("http", "jenkins"));
    assert!(may_import("store", "store"));
}
