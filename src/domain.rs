//! What a build, a job and a status are, and how one follows from the other. Pure: no async, no I/O, no clock.

pub mod amendment;
pub mod announcement;
pub mod build;
pub mod gauges;
pub mod history;
pub mod job;
pub mod pod;
pub mod pod_directory;
pub mod projects;
pub mod record;
pub mod removal;
pub mod rules;
pub mod sentry;
pub mod signal;
pub mod silence;
pub mod status;
pub mod survey;
