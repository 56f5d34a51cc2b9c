//! Columns for people.

use std::fmt::Write as _;

use anstyle::{AnsiColor, Style};
use chrono::{DateTime, Datelike as _, SecondsFormat};
use clap::ValueEnum;

use crate::domain::status::Status;

/// Left-aligned columns, two spaces apart. `style` colours the cell of that column after it has been padded, so that
/// colours never shift anything.
pub(super) fn print(header: &[&str], rows: &[Vec<String>], style: impl Fn(usize, &str) -> Style) {
    for line in lines(header, rows, style) {
        anstream::println!("{line}");
    }
}

/// The last column is not padded, so that no line ends in blanks.
fn lines(header: &[&str], rows: &[Vec<String>], style: impl Fn(usize, &str) -> Style) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column).map(String::as_str));
        cells.chain(header.get(column).copied()).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let last = header.len().saturating_sub(1);
    let widths: Vec<usize> = (0..last).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = (usize, &str)>, style: &dyn Fn(usize, &str) -> Style| {
        let mut line = String::new();
        for (column, cell) in cells {
            if column > 0 {
                line.push_str("  ");
            }
            let width = widths.get(column).copied().unwrap_or(0);
            let style = style(column, cell);
            let _ = write!(line, "{style}{cell:width$}{style:#}");
        }
        line
    };
    let head = line(&mut header.iter().copied().enumerate(), &|_, _| Style::new().bold());
    let rows = rows.iter().map(|row| line(&mut row.iter().map(String::as_str).enumerate(), &style));
    std::iter::once(head).chain(rows).collect()
}

/// Green, yellow, red.
pub(super) fn colour(status: &str) -> Style {
    let is = |of: Status| status == of.as_str();
    let colour = if is(Status::Ok) {
        AnsiColor::Green
    } else if is(Status::Warning) {
        AnsiColor::Yellow
    } else if is(Status::Critical) {
        AnsiColor::Red
    } else {
        return Style::new();
    };
    colour.on_default()
}

/// Text from outside, for a terminal: no control character reaches it, nor anything that turns text around.
pub(super) fn harmless(text: &str) -> String {
    let harmful = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
    };
    text.chars().map(|c| if harmful(c) { '\u{fffd}' } else { c }).collect()
}

/// A status, on the command line.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum StatusArg {
    Ok,
    Warning,
    Critical,
}

impl From<StatusArg> for Status {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Ok => Self::Ok,
            StatusArg::Warning => Self::Warning,
            StatusArg::Critical => Self::Critical,
        }
    }
}

/// RFC 3339 to the second; what lies outside of its years stays a number.
pub(super) fn utc(millis: i64) -> String {
    let time = DateTime::from_timestamp_millis(millis).filter(|time| (0..=9999).contains(&time.year()));
    time.map_or_else(|| format!("{millis} ms"), |time| time.to_rfc3339_opts(SecondsFormat::Secs, true))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_of_a_table_ends_in_blanks() {
        let rows =
            [["a", "OK", "short"], ["longer", "CRITICAL", "much longer"]].map(|row| row.map(str::to_owned).to_vec());
        let found = lines(&["job", "status", "why"], &rows, |_, _| Style::new());
        let plain: Vec<_> = found.iter().map(|line| anstream::adapter::strip_str(line).to_string()).collect();
        assert_eq!(plain, ["job     status    why", "a       OK        short", "longer  CRITICAL  much longer"]);
    }

    #[test]
    fn a_terminal_is_not_steered_by_a_jobs_name() {
        assert_eq!(harmless("a\u{1b}[31mb\n\u{202e}c"), "a\u{fffd}[31mb\u{fffd}\u{fffd}c");
        assert_eq!(harmless("Größe/日本"), "Größe/日本");
    }

    #[test]
    fn a_time_is_utc_to_the_second() {
        let table = [
            (0, "1970-01-01T00:00:00Z"),
            (1_780_000_060_999, "2026-05-28T20:27:40Z"),
            (-1, "1969-12-31T23:59:59Z"),
            (i64::MAX, "9223372036854775807 ms"),
        ];
        for (millis, expected) in table {
            assert_eq!(utc(millis), expected);
        }
    }
}
