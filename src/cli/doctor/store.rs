//! Whether the store's directory can be written, and who has it.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write as _};
use std::path::{Path, PathBuf};

use super::finding::Finding;
use crate::store::DATABASE_FILE;

pub(super) async fn look(data_dir: PathBuf) -> Vec<Finding> {
    let looking = tokio::task::spawn_blocking(move || look_at(&data_dir));
    vec![super::whole(looking.await)]
}

fn look_at(data_dir: &Path) -> Finding {
    let shown = data_dir.display();
    let there = data_dir.ancestors().find(|path| path.as_os_str().is_empty() || path.exists());
    let there = there.filter(|path| !path.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !there.is_dir() {
        return failed(
            format!("{} is no directory", there.display()),
            "set `data_dir` to one, or to a name that is free",
        );
    }
    if let Err(error) = try_to_write(there) {
        let remedy = match error.kind() {
            ErrorKind::PermissionDenied => "give the user that runs recoverd that right, or set `data_dir` elsewhere",
            ErrorKind::ReadOnlyFilesystem => "mount it writable, or set `data_dir` elsewhere",
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "free space there: until then webhooks are refused",
            _ => "mend the disk, or set `data_dir` elsewhere",
        };
        return failed(format!("{} cannot be written: {error}", there.display()), remedy);
    }
    if there != data_dir {
        return Finding::ok("store", format!("{shown} is not there yet, and can be made"));
    }
    let file = data_dir.join(DATABASE_FILE);
    match OpenOptions::new().read(true).append(true).open(&file) {
        Err(error) if error.kind() == ErrorKind::NotFound => Finding::ok("store", format!("{shown} can be written")),
        Err(error) => failed(
            format!("{} cannot be written: {error}", file.display()),
            "give the user that runs recoverd that right: it must own the file",
        ),
        Ok(file) => match file.try_lock() {
            Ok(()) => Finding::ok("store", format!("{shown} can be written, and no process has it open")),
            Err(TryLockError::WouldBlock) => {
                Finding::ok("store", format!("{shown} can be written, and a running recoverd has it open"))
            }
            Err(TryLockError::Error(error)) => failed(
                format!("{shown} cannot be locked: {error}"),
                "put it on a disk of this machine: a network's file system may not lock, nor sync",
            ),
        },
    }
}

/// A byte that goes to the disk, in a file of its own.
fn try_to_write(directory: &Path) -> std::io::Result<()> {
    let path = directory.join(format!(".recoverd-doctor-{}", std::process::id()));
    let written = File::create_new(&path).and_then(|mut file| file.write_all(b"?").and_then(|()| file.sync_all()));
    let removed = std::fs::remove_file(&path);
    written.and(removed)
}

fn failed(found: String, remedy: &str) -> Finding {
    Finding::failed("store", found, remedy)
}
