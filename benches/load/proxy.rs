//! nginx in the relay's place, as one sets it up who knows it: connections kept on both sides, nothing logged, bodies in memory.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) struct Proxy {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Proxy {
    /// `None` where it is not installed: Debian's `nginx-light`. As many workers as processors, as the relay has threads.
    pub(crate) fn start(directory: &Path, upstream: SocketAddr) -> Option<Self> {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = format!(
            r#"
worker_processes auto;
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log error;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_requests 1000000;
  client_max_body_size 200m;
  client_body_buffer_size 256k;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  upstream sentry {{
    server {upstream};
    keepalive 128;
    keepalive_requests 1000000;
  }}
  server {{
    listen {address} backlog=4096 reuseport;
    location /api/ {{
      proxy_pass http://sentry;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    }}
  }}
}}
"#,
            home = directory.display()
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
        let mut proxy = Self { child: command.spawn().ok()?, address };
        while TcpStream::connect(address).is_err() {
            assert!(proxy.child.try_wait().unwrap().is_none(), "nginx ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(proxy)
    }

    /// The processes that do the work.
    fn workers(&self) -> Vec<u32> {
        let master = self.child.id();
        let children = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        children.split_whitespace().map(|process| process.parse().unwrap()).collect()
    }

    pub(crate) fn cpu(&self) -> Duration {
        self.workers().into_iter().map(crate::load::cpu_of).sum()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // The master ends its workers only when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
