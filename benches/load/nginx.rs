//! nginx with Lua in recoverd's place, as teams write it by hand: it parses the same body and sends a check to the same
//! Agent, without a token, a store or a resend.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// What Debian installs with `nginx-light libnginx-mod-http-lua lua-cjson`.
const MODULES: &str = "/usr/lib/nginx/modules";

pub(crate) struct Nginx {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Nginx {
    /// `None` where it is not installed.
    pub(crate) fn start(directory: &Path, agent: &Path) -> Option<Self> {
        if !Path::new(MODULES).join("ngx_http_lua_module.so").exists() {
            return None;
        }
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let configuration = format!(
            r#"
load_module {MODULES}/ndk_http_module.so;
load_module {MODULES}/ngx_http_lua_module.so;
worker_processes auto;
daemon off;
pid {home}/nginx.pid;
error_log {home}/error.log error;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  keepalive_requests 1000000;
  client_body_buffer_size 64k;
  client_body_temp_path {home}/body;
  proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi;
  uwsgi_temp_path {home}/uwsgi;
  scgi_temp_path {home}/scgi;
  init_worker_by_lua_block {{ cjson = require "cjson.safe" }}
  server {{
    listen {address};
    location /jenkins/ {{
      default_type application/json;
      content_by_lua_block {{
        ngx.req.read_body()
        local document = cjson.decode(ngx.req.get_body_data())
        local job = document.url:gsub("/?job/", "/"):gsub("[|,\n]", "_")
        local status = document.build.status == "SUCCESS" and 0 or 2
        local agent = ngx.socket.udp()
        agent:setpeername("unix:{agent}")
        agent:send("_sc|jenkins.job.status|" .. status .. "|h:main|#job:" .. job .. ",controller:main")
        agent:close()
        ngx.print('{{"result":"finished"}}')
      }}
    }}
  }}
}}
"#,
            home = directory.display(),
            agent = agent.display()
        );
        let file = directory.join("nginx.conf");
        std::fs::write(&file, configuration).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-c").arg(&file).arg("-p").arg(directory).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().ok()?;
        let mut nginx = Self { child, address };
        while TcpStream::connect(address).is_err() {
            assert!(nginx.child.try_wait().unwrap().is_none(), "nginx ended");
            std::thread::sleep(Duration::from_millis(20));
        }
        Some(nginx)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers only when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
