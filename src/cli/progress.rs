//! A bar for what takes a while.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Shown on a terminal when it takes longer than two seconds.
pub(super) fn bar(length: usize, of: &str) -> ProgressBar {
    let progress = ProgressBar::with_draw_target(Some(length as u64), ProgressDrawTarget::hidden());
    let style = ProgressStyle::with_template(&format!("{{bar:40}} {{pos}}/{{len}} {of}, {{eta}} left"));
    progress.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    let bar = progress.clone();
    std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        if !bar.is_finished() {
            bar.set_draw_target(ProgressDrawTarget::stderr());
        }
    });
    progress
}
