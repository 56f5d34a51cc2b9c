//! nginx with Lua in recoverd's place, as a team writes it by hand that knows both: it asks for the token, parses the same body,
//! looks at the phase, makes the names safe, and sends the same check, count and duration with the same tags in one datagram to the
//! same Agent, until the Agent takes it. It has no memory, and so no event, no mttr and the like, no order and no resend.

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
# As the Agent's socket is this process' own.
user root;
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
  init_worker_by_lua_block {{
    cjson = require "cjson.safe"
    function clean(text)
      return (ngx.re.gsub(text, "[\\x00-\\x20\\x7f|,#]", "_", "jo"))
    end
  }}
  server {{
    listen {address} backlog=4096 reuseport;
    location /jenkins/ {{
      default_type application/json;
      content_by_lua_block {{
        if ngx.var.http_authorization ~= "Bearer {TOKEN}" then
          return ngx.exit(401)
        end
        ngx.req.read_body()
        local document = cjson.decode(ngx.req.get_body_data())
        local build = type(document) == "table" and document.build
        if type(build) ~= "table" or type(document.url) ~= "string" or type(build.number) ~= "number" then
          ngx.status = 400
          return ngx.print('{{"error":"not a build"}}')
        end
        if build.phase ~= "COMPLETED" and build.phase ~= "FINALIZED" then
          return ngx.print('{{"result":"ignored"}}')
        end
        local path = ngx.re.gsub(document.url, "job/([^/]+)/", "$1/", "jo"):sub(1, -2)
        local job = clean(ngx.unescape_uri(path))
        local result = clean(build.status)
        local status = result == "SUCCESS" and 0 or result == "UNSTABLE" and 1 or 2
        local branch = build.scm and build.scm.branch or ""
        local tags = "|#job:" .. job .. ",controller:main,dd.internal.card:none,jenkins_url:https://ci.example.org/"
        local sampled = tags .. ",branch:" .. clean(branch:gsub("^origin/", "")) .. ",result:" .. result
        local message = "_sc|jenkins.job.status|" .. status .. "|h:main" .. tags
          .. "|m:" .. job .. " #" .. build.number .. ": " .. result
          .. "\njenkins.job.completed:1|c" .. sampled
          .. "\njenkins.job.duration:" .. build.duration / 1000 .. "|g" .. sampled
        local agent = ngx.socket.udp()
        local ok, why = agent:setpeername("unix:{agent}")
        for _ = 1, 1000 do
          ok, why = agent:send(message)
          if ok then break end
          ngx.sleep(0.001)
        end
        agent:close()
        if not ok then
          ngx.log(ngx.ERR, "not told: ", why)
        end
        ngx.print('{{"result":"finished"}}')
      }}
    }}
  }}
}}
"#,
            home = directory.display(),
            agent = agent.display(),
            TOKEN = crate::load::TOKEN,
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

    pub(crate) fn cpu(&self) -> Duration {
        let master = self.child.id();
        let workers = std::fs::read_to_string(format!("/proc/{master}/task/{master}/children")).unwrap();
        workers.split_whitespace().map(crate::load::cpu_of).sum()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The master ends its workers only when it is asked to.
        let _ = Command::new("kill").arg(self.child.id().to_string()).status();
        let _ = self.child.wait();
    }
}
