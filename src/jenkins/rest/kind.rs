//! What an item is, by the class that Jenkins says it has. Pure.

use crate::domain::survey::Kind;

/// What an item shows besides its class.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shows {
    /// `buildable` or `lastCompletedBuild`, which every `hudson.model.Job` has, and no folder.
    pub(super) builds: bool,
    /// `jobs`, which everything has that holds items.
    pub(super) items: bool,
}

/// The one place that decides it.
///
/// Multibranch projects are named so by all who make them: `WorkflowMultiBranchProject` (workflow-multibranch), and those
/// of multi-branch-project-plugin. `jenkins.branch.OrganizationFolder` holds such projects and is a folder. A matrix project
/// is a job: its configurations are no `jobs`, and only the parent is reported. A class that nobody here has heard of is
/// what it shows itself to be.
pub(super) fn of(class: &str, shows: Shows) -> Kind {
    let name = class.rsplit(['.', '$']).next().unwrap_or_default();
    if name.to_ascii_lowercase().ends_with("multibranchproject") {
        Kind::Project
    } else if shows.items && !shows.builds {
        Kind::Folder
    } else {
        Kind::Job
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_decides_and_else_what_the_item_shows() {
        let job = Shows { builds: true, items: false };
        let folder = Shows { builds: false, items: true };
        let table = [
            ("hudson.model.FreeStyleProject", job, Kind::Job),
            ("org.jenkinsci.plugins.workflow.job.WorkflowJob", job, Kind::Job),
            ("hudson.matrix.MatrixProject", job, Kind::Job),
            ("hudson.maven.MavenModuleSet", job, Kind::Job),
            ("hudson.model.ExternalJob", job, Kind::Job),
            ("com.cloudbees.hudson.plugins.folder.Folder", folder, Kind::Folder),
            ("jenkins.branch.OrganizationFolder", folder, Kind::Folder),
            ("org.example.SomeComputedFolder", folder, Kind::Folder),
            ("", folder, Kind::Folder),
            ("org.jenkinsci.plugins.workflow.multibranch.WorkflowMultiBranchProject", folder, Kind::Project),
            ("com.github.mjdetullio.jenkins.plugins.multibranch.FreeStyleMultiBranchProject", folder, Kind::Project),
            ("com.github.mjdetullio.jenkins.plugins.multibranch.MavenMultiBranchProject", folder, Kind::Project),
            // A multi-job holds jobs, and is built itself.
            ("com.tikal.jenkins.plugins.multijob.MultiJobProject", Shows { builds: true, items: true }, Kind::Job),
            ("org.example.Unheard", Shows::default(), Kind::Job),
            ("", Shows::default(), Kind::Job),
        ];
        for (class, shows, expected) in table {
            assert_eq!(of(class, shows), expected, "{class} {shows:?}");
        }
    }
}
