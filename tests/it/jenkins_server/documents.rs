//! What the Notification plugin sends of a build (`com.tikal.hudson.plugins.notification`, 1.19).

use serde_json::{Value, json};

use super::model::{Class, Jenkins};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Phase {
    Queued,
    Started,
    Completed,
    Finalized,
}

impl Jenkins {
    /// The document of this phase. The last two need a build that has ended.
    pub fn document(&self, full: &str, number: u64, phase: Phase) -> Value {
        let item = self.item(full);
        let build = item.builds.iter().rfind(|build| build.number == number).expect("there is such a build");
        let (word, timestamp) = match phase {
            Phase::Queued => ("QUEUED", build.created - 1_000),
            Phase::Started => ("STARTED", build.created),
            Phase::Completed => ("COMPLETED", build.created + build.duration),
            Phase::Finalized => ("FINALIZED", build.created + build.duration + 2_000),
        };
        let has_ended = matches!(phase, Phase::Completed | Phase::Finalized);
        let url = url(full);
        let name = full.rsplit('/').next().unwrap();
        let mut document = json!({
            "name": name,
            "display_name": name.replace("%2F", "/"),
            "url": url,
            "build": {
                "full_url": format!("{}{url}{number}/", self.root_url),
                "number": number,
                "queue_id": build.queue_id,
                "timestamp": timestamp,
                "duration": if has_ended { build.duration } else { 0 },
                "phase": word,
                "url": format!("{url}{number}/"),
                "scm": {},
                "log": "",
                "notes": "",
                "artifacts": {},
            },
        });
        if has_ended {
            document["build"]["status"] = build.result.expect("it has ended").into();
        }
        // Freestyle jobs of this Jenkins build nothing from source control.
        if item.class == Class::Pipeline {
            let branch = name.replace("%2F", "/");
            document["build"]["scm"] = json!({ "changes": [], "culprits": [], "branch": format!("origin/{branch}") });
        }
        document
    }

    /// All documents that a build which has ended makes, in their order.
    pub fn documents(&self, full: &str, number: u64) -> Vec<Value> {
        let phases = [Phase::Queued, Phase::Started, Phase::Completed, Phase::Finalized];
        phases.into_iter().map(|phase| self.document(full, number, phase)).collect()
    }
}

/// `hudson.model.AbstractItem.getUrl`: each name encoded once.
pub(super) fn url(full: &str) -> String {
    const KEPT: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC
        .remove(b'-')
        .remove(b'_')
        .remove(b'.')
        .remove(b'~')
        .remove(b'+')
        .remove(b',')
        .remove(b'=');
    let mut url = String::new();
    for name in full.split('/') {
        url.push_str("job/");
        url.extend(percent_encoding::utf8_percent_encode(name, KEPT));
        url.push('/');
    }
    url
}
