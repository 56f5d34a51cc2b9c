//! A load of webhooks over keep-alive connections, as lean as can be, so that it is the server that is measured.

use std::net::SocketAddr;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

pub(crate) const TOKEN: &str = "a-token-for-the-benchmark";

/// A COMPLETED document of usual size: build `number` of job `job`. One in five fails, so that two statuses in five move.
pub(crate) fn document(job: usize, number: u64) -> String {
    let timestamp = 1_780_000_000_000 + number * 60_000;
    let status = if number.is_multiple_of(5) { "FAILURE" } else { "SUCCESS" };
    format!(
        r#"{{"name":"service-{job}","display_name":"service {job}","url":"job/acme/job/service-{job}/","build":{{"full_url":"https://ci.example.org/job/acme/job/service-{job}/{number}/","number":{number},"queue_id":{number},"timestamp":{timestamp},"duration":30000,"phase":"COMPLETED","status":"{status}","url":"job/acme/job/service-{job}/{number}/","scm":{{"url":"git@git.example.org:acme/service.git","branch":"origin/main","commit":"89abcdef0123456789abcdef0123456789abcdef","changes":[],"culprits":[]}},"parameters":{{"TARGET":"staging"}},"log":"","notes":"","artifacts":{{}}}}}}"#
    )
}

pub(crate) fn request(body: &str) -> Vec<u8> {
    format!(
        "POST /jenkins/main HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: application/json;charset=UTF-8\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// One connection that asks and waits for its answer.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: vec![0; 16 * 1024] }
    }

    /// Returns the answer's status.
    pub(crate) async fn ask(&mut self, request: &[u8]) -> u16 {
        self.stream.write_all(request).await.unwrap();
        let mut filled = 0;
        loop {
            let read = self.stream.read(&mut self.buffer[filled..]).await.unwrap();
            assert!(read > 0, "the server closed the connection");
            filled += read;
            let seen = &self.buffer[..filled];
            if whole(seen).is_some_and(|length| filled >= length) {
                return std::str::from_utf8(&seen[9..12]).unwrap().parse().unwrap();
            }
        }
    }
}

/// How long the message is in all whose beginning this is; `None` while its head is not whole.
pub(crate) fn whole(message: &[u8]) -> Option<usize> {
    const LENGTH: &[u8] = b"\ncontent-length:";
    let head = memchr::memmem::find(message, b"\r\n\r\n")?;
    let is_length =
        |at: &usize| message[*at..head].get(..LENGTH.len()).is_some_and(|name| name.eq_ignore_ascii_case(LENGTH));
    let Some(at) = memchr::memchr_iter(b'\n', &message[..head]).find(is_length) else { return Some(head + 4) };
    let digits = message[at + LENGTH.len()..head].trim_ascii_start().iter().take_while(|byte| byte.is_ascii_digit());
    Some(head + 4 + digits.fold(0, |length, digit| length * 10 + usize::from(digit - b'0')))
}

/// Builds `first..first + rounds` of `jobs` jobs over `connections` connections, each as fast as it is answered. Returns
/// when the first was sent, and how long it took until all were answered.
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) fn flood(
    address: SocketAddr,
    connections: usize,
    jobs: usize,
    first: u64,
    rounds: u64,
) -> (Instant, Duration) {
    let builds = (first..first + rounds).flat_map(|number| (0..jobs).map(move |job| (job, number)));
    send(address, connections, builds.map(of_build))
}

/// Build `number` of `webhooks` of the `jobs` jobs, strewn over all of them.
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) fn flood_sample(address: SocketAddr, connections: usize, jobs: usize, webhooks: usize, number: u64) {
    // A step that shares no factor with the number of jobs comes to each once before it comes to any twice.
    send(address, connections, (0..webhooks).map(|turn| of_build(((turn * 7_919) % jobs, number))));
}

#[allow(dead_code, reason = "each benchmark uses its part")]
fn of_build((job, number): (usize, u64)) -> (usize, Bytes) {
    (job, request(&document(job, number)).into())
}

/// Requests, each with a number that says by which connection it goes, and which must be answered with 200. Returns when the
/// first was sent, and how long it took until all were answered.
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) fn send(
    address: SocketAddr,
    connections: usize,
    requests: impl IntoIterator<Item = (usize, Bytes)>,
) -> (Instant, Duration) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // What is sent is made beforehand: the load must not cost more than need be.
        let mut shares: Vec<Vec<Bytes>> = vec![Vec::new(); connections];
        for (turn, request) in requests {
            shares[turn % connections].push(request);
        }
        let mut tasks = tokio::task::JoinSet::new();
        let start = Instant::now();
        for share in shares {
            tasks.spawn(async move {
                let mut connection = Connection::open(address).await;
                for request in &share {
                    assert_eq!(connection.ask(request).await, 200);
                }
            });
        }
        tasks.join_all().await;
        (start, start.elapsed())
    })
}

/// What an Agent has got.
#[derive(Clone)]
pub(crate) struct Agent(Arc<Got>);

struct Got {
    start: Instant,
    checks: AtomicU64,
    /// When the last of them came, in nanoseconds since `start`.
    last: AtomicU64,
}

impl Agent {
    /// Reads as the Agent does.
    pub(crate) fn start(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        let got = Arc::new(Got { start: Instant::now(), checks: AtomicU64::new(0), last: AtomicU64::new(0) });
        let counted = got.clone();
        let read = move || {
            let check = memchr::memmem::Finder::new(b"_sc|");
            let mut buffer = [0; 8192];
            while let Ok(length) = socket.recv(&mut buffer) {
                let found = check.find_iter(&buffer[..length]).count() as u64;
                counted.last.store(u64::try_from(counted.start.elapsed().as_nanos()).unwrap(), Ordering::Relaxed);
                counted.checks.fetch_add(found, Ordering::Release);
            }
        };
        std::thread::Builder::new().name("agent".to_owned()).spawn(read).unwrap();
        Self(got)
    }

    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) fn checks(&self) -> u64 {
        self.0.checks.load(Ordering::Acquire)
    }

    /// Waits until there are `checks` in all, or none has come for half a second. Returns when the last one came.
    #[allow(dead_code, reason = "each benchmark uses its part")]
    pub(crate) fn wait_for(&self, checks: u64) -> Instant {
        let (mut seen, mut since) = (self.checks(), Instant::now());
        while seen < checks && since.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(Duration::from_millis(1));
            let now = self.checks();
            if now > seen {
                (seen, since) = (now, Instant::now());
            }
        }
        self.0.start + Duration::from_nanos(self.0.last.load(Ordering::Relaxed))
    }
}

/// Processor time so far of this process' threads whose name `is` so.
#[allow(dead_code, reason = "each benchmark uses its part")]
pub(crate) fn cpu_of_threads(is: impl Fn(&str) -> bool) -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap().path());
    let time = |thread: std::path::PathBuf| {
        let name = std::fs::read_to_string(thread.join("comm")).ok()?;
        // The first field of schedstat is nanoseconds on a processor (Documentation/scheduler/sched-stats in the kernel).
        let stat = std::fs::read_to_string(thread.join("schedstat")).ok()?;
        is(name.trim()).then(|| Duration::from_nanos(stat.split(' ').next().unwrap().parse().unwrap()))
    };
    threads.filter_map(time).sum()
}

/// Processor time of a process so far, in steps of 10 ms.
pub(crate) fn cpu_of(process: impl std::fmt::Display) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
    // `utime` and `stime` of proc_pid_stat(5), in hundredths.
    Duration::from_millis(10 * (fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()))
}
