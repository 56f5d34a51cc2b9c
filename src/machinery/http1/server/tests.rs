use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::*;

/// Says what it was asked, in an answer of the manner that the path names.
struct Echo {
    /// Dropped with an answering that waits.
    waits: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

struct Said(Option<Bytes>, bool);

impl Body for Said {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        Poll::Ready(self.0.take().map(|text| Ok(Frame::data(text))))
    }

    fn size_hint(&self) -> SizeHint {
        let bytes = self.0.as_ref().map_or(0, Bytes::len) as u64;
        if self.1 { SizeHint::with_exact(bytes) } else { SizeHint::new() }
    }
}

impl Responder for Echo {
    type Body = Said;

    async fn respond(&self, request: Request<'_, '_>, peer: &Peer) -> Reply<Said> {
        assert!(peer.address.ip().is_loopback());
        assert_eq!(peer.name, "127.0.0.1");
        let Request { method, target, body, .. } = request;
        if target.path() == "/unread" {
            return Reply::new(Said(Some(Bytes::from_static(b"no")), true));
        }
        let text = match body.collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) => error.to_string().into(),
        };
        if target.path() == "/waits" {
            let _held = self.waits.lock().unwrap().take();
            std::future::pending::<()>().await;
        }
        let text = [method.as_str().as_bytes(), b" ", &text].concat();
        let mut reply = Reply::new(Said(Some(text.into()), target.path() != "/chunked"));
        reply.fields.push(&DATE, "now");
        reply
    }
}

struct Served {
    stream: TcpStream,
    stop: CancellationToken,
    ended: tokio::task::JoinHandle<io::Result<()>>,
    dropped: oneshot::Receiver<()>,
}

async fn serving(head_time: Duration) -> Served {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (accepted, peer) = listener.accept().await.unwrap();
    let (waits, dropped) = oneshot::channel();
    let (stop, echo) = (CancellationToken::new(), Echo { waits: std::sync::Mutex::new(Some(waits)) });
    #[expect(clippy::disallowed_methods, reason = "the test waits for it")]
    let ended = tokio::spawn(serve(accepted, peer, Arc::new(echo), head_time, stop.clone()));
    Served { stream, stop, ended, dropped }
}

const LONG: Duration = Duration::from_mins(1);

/// All that comes back until it is closed.
async fn said(request: &[u8]) -> String {
    let mut served = serving(LONG).await;
    served.stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    served.stream.read_to_string(&mut answer).await.unwrap();
    served.ended.await.unwrap().unwrap();
    answer
}

#[tokio::test]
async fn requests_are_answered_one_behind_another_until_one_is_the_last() {
    let requests = "POST / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc\
         \r\nPOST /chunked HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\ndef\r\n0\r\n\r\n\
         HEAD / HTTP/1.1\r\n\r\nGET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /chunked HTTP/1.1\r\nConnection: close\r\n\r\n\
         GET / HTTP/1.1\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: 8\r\n\r\nPOST abc\
         HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\n\r\n8\r\nPOST def\r\n0\r\n\r\n\
         HTTP/1.1 200 OK\r\ndate: now\r\n\r\nHTTP/1.1 200 OK\r\ndate: now\r\nconnection: keep-alive\r\ncontent-length: 4\r\n\r\nGET \
         HTTP/1.1 200 OK\r\ndate: now\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n4\r\nGET \r\n0\r\n\r\n";
    assert_eq!(said(requests.as_bytes()).await, expected);
    let old = said(b"GET /chunked HTTP/1.0\r\n\r\n").await;
    let expected = "HTTP/1.1 200 OK\r\ndate: now\r\nconnection: close\r\n\r\nGET ";
    assert_eq!(old, expected);
    let kept = said(b"GET /chunked HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await;
    assert_eq!(kept, expected, "where it ends is told by its end alone");
}

#[tokio::test]
async fn a_request_is_the_same_however_it_comes() {
    let text = "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\nPOST / HTTP/1.1\r\nConnection: close\r\nContent-Length: 2\r\n\r\nde";
    for cut in 1..text.len() {
        let mut served = serving(LONG).await;
        served.stream.set_nodelay(true).unwrap();
        let (first, second) = text.as_bytes().split_at(cut);
        served.stream.write_all(first).await.unwrap();
        tokio::task::yield_now().await;
        served.stream.write_all(second).await.unwrap();
        let mut answer = String::new();
        served.stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.contains("POST abcHTTP") && answer.ends_with("POST de"), "{cut}: {answer}");
    }
}

#[tokio::test]
async fn a_large_body_comes_whole_whether_it_is_gathered_or_not() {
    for bytes in [5_000, 100_000, 1 << 20] {
        let body = "x".repeat(bytes);
        let head = format!("POST / HTTP/1.1\r\nConnection: close\r\nContent-Length: {bytes}\r\n\r\n");
        let answer = said((head + &body).as_bytes()).await;
        assert!(answer.ends_with(&format!("\r\n\r\nPOST {body}")), "{bytes}");
    }
}

#[tokio::test]
async fn what_could_be_taken_for_two_things_is_refused() {
    let many = format!("GET / HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(MOST_HEADERS + 1));
    let long = format!("GET / HTTP/1.1\r\na: {}", "b".repeat(LONGEST_HEAD));
    let table = [
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "400"),
        ("GET / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nTransfer-Encoding : chunked\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\nContent-Length: +1\r\n\r\na", "400"),
        ("GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"),
        ("GET / HTTP/1.1\r\na: b\r\n c\r\n\r\n", "400"),
        ("GET / HTTP/2.0\r\n\r\n", "400"),
        ("no request\r\n\r\n", "400"),
        ("GET /\u{e4} x HTTP/1.1\r\n\r\n", "400"),
        (&many, "431"),
        (&long, "431"),
    ];
    for (request, status) in table {
        let answer = said(request.as_bytes()).await;
        let shown = &request[..request.len().min(60)];
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains("connection: close"),
            "{shown}: {answer}"
        );
    }
}

#[tokio::test]
async fn who_asks_for_leave_gets_it_once_the_body_is_wanted() {
    let mut served = serving(LONG).await;
    let head = b"POST / HTTP/1.1\r\nExpect: 100-Continue\r\nConnection: close\r\nContent-Length: 2\r\n\r\n";
    served.stream.write_all(head).await.unwrap();
    let mut leave = [0; 25];
    served.stream.read_exact(&mut leave).await.unwrap();
    assert_eq!(&leave, b"HTTP/1.1 100 Continue\r\n\r\n");
    served.stream.write_all(b"ab").await.unwrap();
    let mut answer = String::new();
    served.stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("POST ab"), "{answer}");
    let mut served = serving(LONG).await;
    served
        .stream
        .write_all(b"POST /unread HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n")
        .await
        .unwrap();
    let mut answer = vec![0; 12];
    served.stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 200");
}

#[tokio::test]
async fn what_nobody_read_keeps_no_answer_from_its_sender() {
    let mut served = serving(LONG).await;
    let body = vec![b'x'; 4 << 20];
    served
        .stream
        .write_all(format!("POST /unread HTTP/1.1\r\nContent-Length: {}\r\n\r\n", body.len()).as_bytes())
        .await
        .unwrap();
    served.stream.write_all(&body[..512 << 10]).await.unwrap();
    let mut answer = String::new();
    served.stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("\r\n\r\nno") && answer.contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn who_says_nothing_is_let_go() {
    for begun in ["", "GET / HT"] {
        let mut served = serving(Duration::from_millis(20)).await;
        served.stream.write_all(begun.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        served.stream.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer, b"");
        served.ended.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn who_leaves_is_answered_no_more() {
    let mut served = serving(LONG).await;
    served.stream.write_all(b"POST /waits HTTP/1.1\r\nContent-Length: 1\r\n\r\na").await.unwrap();
    drop(served.stream);
    assert!(served.dropped.await.is_err(), "the answering is dropped");
    served.ended.await.unwrap().unwrap();
}

#[tokio::test]
async fn who_takes_nothing_of_an_answer_is_left() {
    let mut served = serving(LONG).await;
    let length = 64 << 20;
    let request = format!("POST / HTTP/1.1\r\nContent-Length: {length}\r\n\r\n");
    served.stream.write_all(request.as_bytes()).await.unwrap();
    served.stream.write_all(&vec![b'a'; length]).await.unwrap();
    // It waits for nothing but that.
    tokio::task::yield_now().await;
    tokio::time::pause();
    assert_eq!(served.ended.await.unwrap().unwrap_err().kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn at_a_stop_the_idle_go_and_the_busy_end_what_they_do() {
    let idle = serving(LONG).await;
    idle.stop.cancel();
    idle.ended.await.unwrap().unwrap();
    let mut busy = serving(LONG).await;
    busy.stream.write_all(b"POST / HTTP/1.1\r\nContent-Length: 2\r\n\r\na").await.unwrap();
    // Until it has been seen, it is idle.
    let mut first = serving(LONG).await;
    first.stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    first.stream.read_u8().await.unwrap();
    busy.stop.cancel();
    busy.stream.write_all(b"b").await.unwrap();
    let mut answer = String::new();
    busy.stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.contains("connection: close") && answer.ends_with("POST ab"), "{answer}");
}

#[test]
fn the_date_is_as_http_has_it() {
    let mut text = Vec::new();
    with_date(|date| text.extend_from_slice(date.as_bytes()));
    let text = String::from_utf8(text).unwrap();
    assert_eq!(text.len(), "Sun, 06 Nov 1994 08:49:37 GMT".len());
    assert!(chrono::DateTime::parse_from_rfc2822(&text).is_ok(), "{text}");
}
