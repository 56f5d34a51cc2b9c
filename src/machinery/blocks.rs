//! A file, or a part of one, block by block. It is read by place and not by a cursor, so that any number may read it at once.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::Stream;
use futures_util::stream::try_unfold;

/// What is read at once.
pub const BLOCK: usize = 256 << 10;

/// Ends early where the file does.
pub fn blocks(file: Arc<File>, place: Range<u64>) -> impl Stream<Item = io::Result<Bytes>> + Send + Sync + 'static {
    try_unfold((file, place), async |(file, place)| {
        if place.is_empty() {
            return Ok(None);
        }
        let reading = tokio::task::spawn_blocking(move || {
            let block = read(&file, &place)?;
            io::Result::Ok((block, file, place))
        });
        let (block, file, place) = reading.await.map_err(io::Error::other)??;
        let rest = place.start + block.len() as u64..place.end;
        Ok((!block.is_empty()).then_some((block, (file, rest))))
    })
}

/// The next block of it, shorter at the end of the file.
pub fn read(file: &File, place: &Range<u64>) -> io::Result<Bytes> {
    let wanted = usize::try_from(place.end.saturating_sub(place.start)).unwrap_or(BLOCK).min(BLOCK);
    let mut block = vec![0; wanted];
    let read = loop {
        match file.read_at(&mut block, place.start) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    block.truncate(read);
    Ok(block.into())
}
