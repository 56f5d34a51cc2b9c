use tokio::io::{AsyncWriteExt as _, DuplexStream, duplex};
use tokio::task::coop::unconstrained;

use super::*;

/// Than any of these takes.
fn later() -> Instant {
    Instant::now() + Duration::from_mins(1)
}

fn request<'a>(method: &Method, body: &'a [Bytes]) -> Outgoing<'a> {
    Outgoing::new(format!("{method} / HTTP/1.1\r\n\r\n").into(), Payload::held(body), method)
}

async fn body(line: &mut Line<DuplexStream>, mut extent: Extent) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    while let Some(piece) = poll_fn(|context| line.poll_body(context, &mut extent)).await? {
        body.extend_from_slice(&piece);
    }
    Ok(body)
}

/// The status, the body, and whether the line may be asked again, of an answer that comes in two pieces.
async fn asked(method: Method, answer: &str, cut: usize) -> Result<(u16, Vec<u8>, bool), String> {
    let (near, mut far) = duplex(64 << 10);
    let (first, second) = answer.as_bytes().split_at(cut);
    far.write_all(first).await.unwrap();
    let answering = async {
        tokio::task::yield_now().await;
        far.write_all(second).await.unwrap();
        drop(far);
    };
    let asking = async {
        let mut line = Line::new(near);
        let head = line.exchange(&mut request(&method, &[]), later()).await.map_err(|fault| format!("{fault:?}"))?;
        let body = body(&mut line, head.extent).await.map_err(|error| error.to_string())?;
        Ok((head.status.as_u16(), body, head.is_kept))
    };
    tokio::join!(asking, answering).0
}

#[tokio::test]
async fn an_answer_is_the_same_however_it_comes() {
    let table = [
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", 200, "hello", true),
        (Method::POST, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", 200, "", true),
        (
            Method::POST,
            "HTTP/1.1 429 X\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            429,
            "hello",
            true,
        ),
        (Method::POST, "HTTP/1.1 200 OK\r\n\r\nhello", 200, "hello", false),
        (
            Method::POST,
            "HTTP/1.1 100 Go on\r\n\r\nHTTP/1.1 103 X\r\na: b\r\n\r\nHTTP/1.1 204 No\r\n\r\n",
            204,
            "",
            true,
        ),
        (Method::POST, "HTTP/1.1 200 OK\r\nConnection: x, close\r\nContent-Length: 1\r\n\r\na", 200, "a", false),
        (Method::POST, "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\na", 200, "a", false),
        (Method::POST, "HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 1\r\n\r\na", 200, "a", true),
        (
            Method::POST,
            "HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            200,
            "a",
            false,
        ),
        (Method::HEAD, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", 200, "", true),
        (Method::GET, "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", 304, "", true),
    ];
    for (method, answer, status, body, is_kept) in table {
        for cut in 0..answer.len() {
            let expected = Ok((status, body.as_bytes().to_vec(), is_kept));
            assert_eq!(asked(method.clone(), answer, cut).await, expected, "{answer:?} cut at {cut}");
        }
    }
}

#[tokio::test]
async fn what_is_no_answer_is_none() {
    let endless = "HTTP/1.1 200 OK\r\na: ".to_owned() + &"b".repeat(LONGEST_HEAD);
    let table = [
        ("", "before an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Le", "before an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "within an answer"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "within an answer"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\n\r\nhello", "length"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", "transfer coding"),
        ("HTTP/1.1 101 Switching Protocols\r\n\r\n", "another protocol"),
        ("SSH-2.0-OpenSSH_9.2\r\n", "version"),
        (&endless, "no end"),
    ];
    for (answer, why) in table {
        let error = asked(Method::POST, answer, answer.len().min(60_000)).await.unwrap_err();
        assert!(error.to_lowercase().contains(why), "{why}: {error}");
    }
}

#[tokio::test]
async fn who_answers_before_all_is_sent_is_heard_and_asked_no_more() {
    let (near, mut far) = duplex(64);
    far.write_all(b"HTTP/1.1 413 X\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    let mut line = Line::new(near);
    let pieces = [vec![b'x'; 1 << 20].into()];
    let mut request = request(&Method::POST, &pieces);
    let head = line.exchange(&mut request, later()).await.unwrap();
    assert_eq!((head.status.as_u16(), head.is_kept, request.is_whole()), (413, false, false));
    assert_eq!(body(&mut line, head.extent).await.unwrap(), b"no");
}

#[tokio::test]
async fn a_request_of_which_nothing_was_sent_can_be_sent_again() {
    let (near, far) = duplex(64);
    drop(far);
    let bytes: Vec<u8> = (0..1_u32 << 20).map(|at| (at % 251).to_le_bytes()[0]).collect();
    let pieces: Vec<Bytes> = bytes.chunks(99_999).flat_map(|piece| [Bytes::new(), piece.to_vec().into()]).collect();
    let mut request = request(&Method::POST, &pieces);
    assert!(matches!(Line::new(near).exchange(&mut request, later()).await, Err(Fault::Broken(_))));
    assert!(request.is_whole());
    let (near, mut far) = duplex(4 << 20);
    far.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
    assert!(Line::new(near).exchange(&mut request, later()).await.unwrap().is_kept);
    let mut arrived = Vec::new();
    far.read_to_end(&mut arrived).await.unwrap();
    assert!(arrived == [b"POST / HTTP/1.1\r\n\r\n", &bytes[..]].concat(), "{} bytes", arrived.len());
}

#[tokio::test]
async fn who_says_without_end_that_an_answer_will_come_is_not_waited_for_any_longer() {
    // More than a task reads before it has to let others go first.
    let (near, mut far) = duplex(16 << 20);
    let words = b"HTTP/1.1 100 Continue\r\n\r\n".repeat(1_000);
    let talking = unconstrained(async { while far.write_all(&words).await.is_ok() {} });
    let asking = async {
        let deadline = Instant::now() + Duration::from_millis(100);
        let (mut line, mut request) = (Line::new(near), request(&Method::POST, &[]));
        tokio::time::timeout(Duration::from_secs(10), line.exchange(&mut request, deadline)).await
    };
    let (asked, ()) = tokio::join!(asking, talking);
    assert!(matches!(asked, Ok(Err(Fault::Late))), "{asked:?}");
}

#[tokio::test]
async fn a_body_that_is_read_as_it_is_sent_arrives_whole_or_not_at_all() {
    for (announced, is_sent) in [(6, true), (7, false), (5, false)] {
        let (near, mut far) = duplex(1024);
        far.write_all(b"HTTP/1.1 204 X\r\n\r\n").await.unwrap();
        let pieces = ["ab", "", "cdef"].map(|piece| Ok(Bytes::from_static(piece.as_bytes())));
        let payload = Payload::read(announced, futures_util::stream::iter(pieces));
        let mut request = Outgoing::new(b"head:".to_vec(), payload, &Method::POST);
        let mut line = Line::new(near);
        let exchanged = line.exchange(&mut request, later()).await;
        drop(line);
        let mut arrived = Vec::new();
        far.read_to_end(&mut arrived).await.unwrap();
        match exchanged {
            Ok(head) => assert_eq!((head.is_kept, arrived.as_slice(), is_sent), (true, &b"head:abcdef"[..], true)),
            Err(fault) => assert!(matches!(fault, Fault::Unreadable) && !is_sent, "{announced}: {fault:?}"),
        }
    }
}

#[tokio::test]
async fn a_line_on_which_something_came_unasked_is_not_quiet() {
    let (near, mut far) = duplex(64);
    let mut line = Line::new(near);
    let is_quiet = async |line: &mut Line<_>| poll_fn(|context| Poll::Ready(line.is_quiet(context))).await;
    assert!(is_quiet(&mut line).await);
    far.write_all(b"x").await.unwrap();
    assert!(!is_quiet(&mut line).await);
    let (near, far) = duplex(64);
    drop(far);
    assert!(!is_quiet(&mut Line::new(near)).await);
}
