//! The Downward API: what Kubernetes tells a pod of itself, by environment variables that never change and by a volume
//! that does.
//!
//! The kubelet writes a volume into a new directory and then swaps the symlink `..data` to it, so that all files change at
//! once (kubernetes, `pkg/volume/util/atomic_writer.go`). A line of `labels` is `key="value"`, the value as Go's
//! `strconv.Quote` writes it (`pkg/fieldpath/fieldpath.go`).

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::domain::pod::PodIdentity;

/// Kubernetes stores no more than 256 KiB of annotations; escaped, that is at most four times as long.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// Why the volume could not be read.
#[derive(Debug, thiserror::Error)]
pub enum DownwardError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{} is larger than 1 MiB", path.display())]
    TooLarge { path: PathBuf },
    #[error("{} was put in another's place while it was read", path.display())]
    Swapped { path: PathBuf },
    #[error("line {line} of {} is not key=\"value\"", path.display())]
    Line { path: PathBuf, line: usize },
}

/// What the environment tells. An empty variable counts as absent.
pub fn from_environment(environment: &BTreeMap<String, String>) -> PodIdentity {
    let read = |name: &str| environment.get(name).map(|value| value.trim()).filter(|value| !value.is_empty());
    let read = |name: &str| read(name).map(str::to_owned);
    PodIdentity {
        name: read("POD_NAME"),
        namespace: read("POD_NAMESPACE"),
        node: read("NODE_NAME"),
        ip: read("POD_IP"),
        ..PodIdentity::default()
    }
}

/// `pod` with the labels and annotations that the volume in `dir` has now. A volume or a file that is not there has none.
///
/// # Errors
/// When a file is there and cannot be understood, or the kubelet has swapped the volume meanwhile; then nothing of it should be
/// believed.
pub fn with_volume(dir: &Path, pod: &PodIdentity) -> Result<PodIdentity, DownwardError> {
    let begun = version(dir);
    let place = begun.as_ref().map_or_else(|| dir.to_owned(), |version| dir.join(version));
    let (labels, annotations) = (read(&place.join("labels"))?, read(&place.join("annotations"))?);
    // First the link is swapped, then what it led to is removed: a file that is missing then says nothing.
    if version(dir) != begun || (begun.is_some() && !place.is_dir()) {
        return Err(DownwardError::Swapped { path: place });
    }
    Ok(PodIdentity { labels, annotations, ..pod.clone() })
}

/// Follows the volume in `dir` until `stop`, and publishes what changed. Looks every `every`; a volume that appears later
/// is found, one that vanishes leaves what was last known. Trouble is logged when it begins, not at every look.
///
/// # Cancel safety
/// Dropping it stops the watch; what was published stays.
pub async fn watch(dir: PathBuf, pod: watch::Sender<PodIdentity>, stop: CancellationToken, every: Duration) {
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    let mut in_trouble = false;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let (place, known, last) = (dir.clone(), pod.borrow().clone(), seen.clone());
        let look = tokio::task::spawn_blocking(move || {
            let now = version(&place).filter(|now| last.as_ref() != Some(now))?;
            Some((now, with_volume(&place, &known)))
        });
        match look.await {
            Ok(Some((now, Ok(identity)))) => {
                // A swap between the two looks shows at the next tick as one more change.
                seen = Some(now);
                in_trouble = false;
                let changed = pod.send_if_modified(|known| {
                    let changed = *known != identity;
                    *known = identity;
                    changed
                });
                if changed {
                    info!(dir = %dir.display(), "the pod's labels or annotations changed");
                }
            }
            Ok(Some((_, Err(error)))) if !in_trouble => {
                in_trouble = true;
                warn!(error = &error as &dyn std::error::Error, "the pod's labels and annotations stay as they were");
            }
            Ok(_) | Err(_) => {}
        }
    }
}

/// Where `..data` leads: a name that is new with every change. `None` when `dir` is no such volume.
fn version(dir: &Path) -> Option<PathBuf> {
    std::fs::read_link(dir.join("..data")).ok()
}

fn read(path: &Path) -> Result<BTreeMap<String, String>, DownwardError> {
    let failed = |source| DownwardError::Read { path: path.to_owned(), source };
    // Opening a pipe would wait for a writer.
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(failed(std::io::Error::other("not a file"))),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(BTreeMap::new());
        }
        Err(error) => return Err(failed(error)),
    }
    let mut content = Vec::new();
    let bytes = std::fs::File::open(path)
        .and_then(|file| file.take(MAX_FILE_BYTES + 1).read_to_end(&mut content))
        .map_err(failed)?;
    if bytes as u64 > MAX_FILE_BYTES {
        return Err(DownwardError::TooLarge { path: path.to_owned() });
    }
    parse(&String::from_utf8_lossy(&content)).map_err(|line| DownwardError::Line { path: path.to_owned(), line })
}

/// # Errors
/// The number of the first line that is not `key="value"`.
fn parse(content: &str) -> Result<BTreeMap<String, String>, usize> {
    let lines = content.split('\n').enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            let pair = line.split_once('=').filter(|(key, _)| !key.is_empty());
            let pair = pair.and_then(|(key, value)| Some((key.to_owned(), unquote(value)?)));
            pair.ok_or(index + 1)
        })
        .collect()
}

/// The text that Go's `strconv.Quote` made `quoted` of. Bytes that are not UTF-8 become U+FFFD.
fn unquote(quoted: &str) -> Option<String> {
    let inner = quoted.trim_end_matches('\r').strip_prefix('"')?.strip_suffix('"')?;
    let mut bytes = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    let mut buffer = [0; 4];
    while let Some(c) = rest.next() {
        let plain = match c {
            '"' => return None,
            '\\' => match rest.next()? {
                'a' => '\x07',
                'b' => '\x08',
                'f' => '\x0c',
                'n' => '\n',
                'r' => '\r',
                't' => '\t',
                'v' => '\x0b',
                same @ ('\\' | '"' | '\'') => same,
                'x' => {
                    bytes.push(u8::try_from(hexadecimal(&mut rest, 2)?).ok()?);
                    continue;
                }
                'u' => char::from_u32(hexadecimal(&mut rest, 4)?)?,
                'U' => char::from_u32(hexadecimal(&mut rest, 8)?)?,
                _ => return None,
            },
            c => c,
        };
        bytes.extend_from_slice(plain.encode_utf8(&mut buffer).as_bytes());
    }
    Some(String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned()))
}

fn hexadecimal(digits: &mut std::str::Chars<'_>, count: usize) -> Option<u32> {
    (0..count).try_fold(0_u32, |number, _| Some(number.checked_mul(16)? + digits.next()?.to_digit(16)?))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use proptest::prelude::*;
    use tempfile::TempDir;

    use super::*;

    /// Writes a version of the volume as the kubelet does: a new directory, a new link, one rename, the old one removed.
    fn publish(dir: &Path, version: &str, labels: &str) {
        let fresh = dir.join(version);
        std::fs::create_dir(&fresh).unwrap();
        std::fs::write(fresh.join("labels"), labels).unwrap();
        std::fs::write(fresh.join("annotations"), "").unwrap();
        let old = std::fs::read_link(dir.join("..data")).ok();
        symlink(version, dir.join("..data_tmp")).unwrap();
        std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
        for file in ["labels", "annotations"] {
            let _ = symlink(format!("..data/{file}"), dir.join(file));
        }
        if let Some(old) = old {
            std::fs::remove_dir_all(dir.join(old)).unwrap();
        }
    }

    fn label(pod: &PodIdentity, key: &str) -> Option<String> {
        pod.labels.get(key).cloned()
    }

    #[test]
    fn an_empty_variable_is_absent() {
        let table = [("POD_NAME", "web-1"), ("POD_NAMESPACE", ""), ("NODE_NAME", " "), ("POD_IP", "10.0.0.7")];
        let environment = table.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let pod = from_environment(&environment);
        let expected =
            PodIdentity { name: Some("web-1".to_owned()), ip: Some("10.0.0.7".to_owned()), ..PodIdentity::default() };
        assert_eq!(pod, expected);
    }

    #[test]
    fn a_value_is_what_go_quoted() {
        let table = [
            (r#""web""#, Some("web")),
            (r#""""#, Some("")),
            (r#""a\"b\\c""#, Some("a\"b\\c")),
            (r#""a\nb\tc\r\a\b\f\v""#, Some("a\nb\tc\r\x07\x08\x0c\x0b")),
            (r#""\x1b\u2028\U0001f600é""#, Some("\x1b\u{2028}😀é")),
            (r#""\xff""#, Some("\u{fffd}")),
            (r#""\xc3\xa9""#, Some("é")),
            (r#""a=b""#, Some("a=b")),
            ("web", None),
            (r#"""#, None),
            (r#""a"b""#, None),
            (r#""a\"#, None),
            (r#""\q""#, None),
            (r#""\x1""#, None),
            (r#""\ud800""#, None),
        ];
        for (quoted, expected) in table {
            assert_eq!(unquote(quoted).as_deref(), expected, "{quoted}");
        }
    }

    proptest! {
        /// For all texts: a value survives being quoted, and nothing makes the reader fail.
        #[test]
        fn a_value_survives_its_quotes(value in ".*", noise in ".*") {
            let quoted = value.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
            prop_assert_eq!(parse(&format!("key=\"{quoted}\"\n")).unwrap().remove("key"), Some(value));
            let _ = parse(&noise);
        }
    }

    #[test]
    fn a_volume_that_is_not_there_has_no_labels() {
        let room = TempDir::new().unwrap();
        let pod = PodIdentity { name: Some("web-1".to_owned()), ..PodIdentity::default() };
        assert_eq!(with_volume(&room.path().join("absent"), &pod).unwrap(), pod);
        assert_eq!(with_volume(room.path(), &pod).unwrap(), pod);
        std::fs::write(room.path().join("labels"), "app=\"web\"\ntier=\"1\"").unwrap();
        let plain = with_volume(room.path(), &pod).unwrap();
        assert_eq!((label(&plain, "app").as_deref(), label(&plain, "tier").as_deref()), (Some("web"), Some("1")));
    }

    #[test]
    fn what_is_no_volume_is_refused() {
        let room = TempDir::new().unwrap();
        let labels = room.path().join("labels");
        let why = |content: &[u8]| {
            std::fs::write(&labels, content).unwrap();
            with_volume(room.path(), &PodIdentity::default()).unwrap_err().to_string()
        };
        let path = labels.display();
        assert_eq!(why(b"app=\"web\"\n\nnonsense"), format!("line 3 of {path} is not key=\"value\""));
        assert_eq!(why(&vec![b'a'; 1024 * 1024 + 1]), format!("{path} is larger than 1 MiB"));
        std::fs::remove_file(&labels).unwrap();
        std::fs::create_dir(&labels).unwrap();
        let error = with_volume(room.path(), &PodIdentity::default()).unwrap_err();
        assert_eq!(error.to_string(), format!("cannot read {path}"));
    }

    #[test]
    fn a_version_that_is_removed_while_it_is_read_has_not_lost_its_labels() {
        let room = TempDir::new().unwrap();
        publish(room.path(), "..2026_1", "app=\"web\"");
        std::fs::remove_dir_all(room.path().join("..2026_1")).unwrap();
        let error = with_volume(room.path(), &PodIdentity::default()).unwrap_err();
        assert!(matches!(error, DownwardError::Swapped { .. }), "{error}");
        std::fs::create_dir(room.path().join("..2026_1")).unwrap();
        publish(room.path(), "..2026_2", "app=\"web\"");
        assert_eq!(label(&with_volume(room.path(), &PodIdentity::default()).unwrap(), "app").as_deref(), Some("web"));
        std::fs::remove_file(room.path().join("..2026_2").join("labels")).unwrap();
        assert_eq!(label(&with_volume(room.path(), &PodIdentity::default()).unwrap(), "app"), None, "none were chosen");
    }

    #[tokio::test]
    async fn a_swap_of_the_volume_is_noticed() {
        let room = TempDir::new().unwrap();
        let dir = room.path().join("podinfo");
        let pod = PodIdentity { name: Some("web-1".to_owned()), ..PodIdentity::default() };
        let (sender, mut receiver) = watch::channel(pod);
        let stop = CancellationToken::new();
        let watching = watch(dir.clone(), sender, stop.clone(), Duration::from_millis(5));
        let story = async {
            std::fs::create_dir(&dir).unwrap();
            for (version, labels, expected) in [
                ("..2026_1", "app=\"web\"", "web"),
                ("..2026_2", "app=\"api\"\nteam=\"a\\nb\"", "api"),
                ("..2026_3", "nonsense", "api"),
                ("..2026_4", "app=\"job\"", "job"),
            ] {
                publish(&dir, version, labels);
                let seen = receiver.wait_for(|pod| label(pod, "app").as_deref() == Some(expected)).await.unwrap();
                assert_eq!(seen.name.as_deref(), Some("web-1"), "{version}");
            }
            assert_eq!(label(&receiver.borrow(), "team"), None);
            receiver.mark_unchanged();
            std::fs::remove_dir_all(&dir).unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
            assert!(!receiver.has_changed().unwrap(), "what was last known stays");
            stop.cancel();
        };
        let both = async { tokio::join!(watching, story) };
        tokio::time::timeout(Duration::from_secs(10), both).await.unwrap();
    }
}
