//! What SDKs send, and a Sentry that takes all of it.

use std::fmt::Write as _;
use std::io::Write as _;
use std::net::SocketAddr;

use bytes::Bytes;
use compression_codecs::brotli::params::EncoderParams;
use compression_codecs::core::Level;
use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{BrotliEncoder, EncodeV2, ZstdEncoder};
use flate2::Compression;
use flate2::write::{GzEncoder, ZlibEncoder};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// An error as SDKs send it, of about `size` bytes. `tags`: those that the application has set, an object or nothing.
pub(crate) fn error(size: usize, tags: &str) -> String {
    let tags = if tags.is_empty() { String::new() } else { format!(r#""tags":{tags},"#) };
    let mut event = format!(
        r#"{{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","timestamp":1780000000.5,"platform":"python","level":"error","release":"shop@1.0.0","environment":"production",{tags}"exception":{{"values":[{{"type":"ValueError","value":"no such article","stacktrace":{{"frames":["#
    );
    for line in 1_u64.. {
        // Differs as source code does: gzip makes a fifth of it.
        let noise = line.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let _ = write!(
            event,
            r#"{{"filename":"shop/views/v{}.py","function":"f_{noise:x}","lineno":{line},"context_line":"    return self.call({noise})","in_app":true}},"#,
            noise % 97
        );
        if event.len() >= size {
            break;
        }
    }
    event.pop();
    event + "]}}]}}"
}

/// Of items, each with the fields of its header but for the length.
pub(crate) fn envelope(items: &[(&str, &[u8])]) -> Vec<u8> {
    let header = r#"{"event_id":"9ec79c33ec9942ab8353589fcb2e04dc","sent_at":"2026-11-24T15:26:00Z"}"#;
    let mut envelope = [header, "\n"].concat().into_bytes();
    for (fields, payload) in items {
        envelope.extend_from_slice(format!("{{{fields},\"length\":{}}}\n", payload.len()).as_bytes());
        envelope.extend_from_slice(payload);
        envelope.push(b'\n');
    }
    envelope
}

/// A request with this body in this coding.
pub(crate) fn post(path: &str, coding: &str, body: &[u8]) -> Bytes {
    let (field, body) = match coding {
        "identity" => (String::new(), body.to_vec()),
        _ => (format!("Content-Encoding: {coding}\r\n"), encoded(coding, body)),
    };
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: bench\r\nUser-Agent: sentry.python/2.75.0\r\nX-Sentry-Auth: Sentry sentry_key=abc, sentry_version=7, sentry_client=sentry.python/2.75.0\r\nContent-Type: application/x-sentry-envelope\r\n{field}Content-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), &body].concat().into()
}

fn encoded(coding: &str, text: &[u8]) -> Vec<u8> {
    match coding {
        "gzip" => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "deflate" => {
            let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
            encoder.write_all(text).unwrap();
            encoder.finish().unwrap()
        }
        "br" => encoded_by(BrotliEncoder::new(EncoderParams::default().quality(Level::Fastest)), text),
        "zstd" => encoded_by(ZstdEncoder::new(3), text),
        other => unreachable!("no coding {other}"),
    }
}

fn encoded_by(mut encoder: impl EncodeV2, text: &[u8]) -> Vec<u8> {
    let mut room = vec![0; text.len() * 2 + 1024];
    let mut output = WriteBuffer::new_initialized(&mut room);
    let mut input = PartialBuffer::new(text);
    while !input.unwritten().is_empty() {
        encoder.encode(&mut input, &mut output).unwrap();
    }
    while !encoder.finish(&mut output).unwrap() {}
    output.written().to_vec()
}

/// Stands where Sentry does, as lean as can be: it reads a body and answers.
pub(crate) fn upstream() -> SocketAddr {
    let (sender, receiver) = std::sync::mpsc::sync_channel(1);
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            sender.send(listener.local_addr().unwrap()).unwrap();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                #[expect(clippy::disallowed_methods, reason = "it ends with the process")]
                tokio::spawn(answer(stream));
            }
        });
    });
    receiver.recv().unwrap()
}

async fn answer(mut stream: TcpStream) {
    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 41\r\n\r\n{\"id\":\"9ec79c33ec9942ab8353589fcb2e04dc\"}";
    let mut buffer = vec![0; 256 << 10];
    let (mut filled, mut length) = (0, None);
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer[filled..]).await else { return };
        filled += read;
        length = length.or_else(|| crate::load::whole(&buffer[..filled]));
        if length.is_some_and(|length| filled >= length) {
            (filled, length) = (0, None);
            if stream.write_all(ANSWER).await.is_err() {
                return;
            }
        }
    }
}
