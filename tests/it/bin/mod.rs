//! The real binary: a folder with flows and a configuration, the service in it as a child process, commands beside it.
//!
//! The simulated tenant (`tenant`) lives in the test's own process, so that it outlives a killed service.

mod switch;
mod tenant;
pub(crate) mod toxic;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::time::Duration;

use serde_json::Value as Json;
pub(crate) use switch::Switch;
pub(crate) use tenant::{ISOLATE, MAIL, Tenant};
use watchfloor::clock::stopwatch;
use watchfloor::journal::sqlite::SqliteStore;
use watchfloor::sandbox::{API_TOKEN, CLIENT_ID, CLIENT_SECRET, SHIPPED, TENANT};

const BINARY: &str = env!("CARGO_BIN_EXE_watchfloor");
/// The bearer token of the webhook `w`.
pub(crate) const HOOK_TOKEN: &str = "let-me-in";
/// How long a service may take to be ready, or to stop: far more than it needs, since tests share the machine.
const PATIENCE: Duration = Duration::from_secs(40);

/// Asks until there is an answer; after the deadline the test ends with what it waited for.
pub(crate) fn wait_for<T>(what: &str, seconds: u64, mut ask: impl FnMut() -> Option<T>) -> T {
    let watch = stopwatch();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(watch.elapsed() < Duration::from_secs(seconds), "not within {seconds} s: {what}");
        std::thread::park_timeout(Duration::from_millis(25));
    }
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Json {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command in a folder, to its end.
pub(crate) fn command(folder: &Path, args: &[&str]) -> Said {
    let output = Command::new(BINARY).args(args).current_dir(folder).stdin(Stdio::null()).output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Said { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
}

/// A folder as an operator would make it: `config.yaml`, `flows/`, secrets, and the store below it.
pub(crate) struct Site {
    folder: tempfile::TempDir,
    keys: BTreeMap<&'static str, String>,
    /// The environment of every service that is started here.
    env: Vec<(&'static str, String)>,
}

impl Site {
    /// Live, without limits, everything polled each second, and a webhook `w`.
    pub(crate) fn new(tenant: &Tenant) -> Site {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("flows/kql")).unwrap();
        let site = Site { folder, keys: BTreeMap::new(), env: Vec::new() };
        for (path, text) in SHIPPED.iter().filter(|(path, _)| path.starts_with("kql/")) {
            site.write(&format!("flows/{path}"), text);
        }
        let base = format!("http://{}", tenant.http_addr());
        site.write("secret-client", CLIENT_SECRET);
        site.write("secret-mdca", API_TOKEN);
        site.write("secret-teams", &format!("{base}/workflows/soc-triage"));
        site.write("secret-hook", HOOK_TOKEN);
        let entra = format!(
            "credential: {{ entra: {{ tenant_id: {TENANT}, client_id: {CLIENT_ID}, client_secret: {{ file: secret-client }}, \
             authority: \"{base}\" }} }}, rate: off"
        );
        let connections = format!(
            "{{ mde: {{ kind: mde, base_url: \"{base}\", {entra} }}, graph: {{ kind: graph, base_url: \"{base}\", {entra} }}, \
             mdca: {{ kind: cloud_apps, base_url: \"{base}\", credential: {{ api_token: {{ file: secret-mdca }} }}, rate: off }}, \
             mail: {{ kind: email, server: \"{}\", tls: none, from: soc@contoso.example, rate: off }}, \
             soc-triage: {{ kind: teams, webhook_url: {{ file: secret-teams }}, rate: off }} }}",
            tenant.smtp_addr()
        );
        site.set("connections", &connections)
            .set("mode", "live")
            .set("server", "{ listen: \"127.0.0.1:0\" }")
            .set("limits", "{ destructive: off, write: off }")
            .set("webhooks", "{ w: { auth: { bearer: { file: secret-hook } } } }")
            .set("poll", "{ mde.alert.new: 1s, cloud_apps.alert.new: 1s }")
    }

    /// Sets a top key of the configuration, in flow style.
    pub(crate) fn set(mut self, key: &'static str, value: &str) -> Site {
        self.keys.insert(key, value.to_owned());
        let lines: Vec<_> = self.keys.iter().map(|(key, value)| format!("{key}: {value}\n")).collect();
        self.write("config.yaml", &lines.concat());
        self
    }

    /// A variable of the environment of every service that is started here.
    pub(crate) fn env(mut self, name: &'static str, value: &str) -> Site {
        self.env.retain(|(known, _)| *known != name);
        self.env.push((name, value.to_owned()));
        self
    }

    pub(crate) fn flow(self, name: &str, text: &str) -> Site {
        self.write(&format!("flows/{name}.yaml"), text);
        self
    }

    /// A flow of this repository as it is shipped.
    pub(crate) fn shipped(self, name: &str) -> Site {
        let file = format!("{name}.yaml");
        let (_, text) = SHIPPED.iter().find(|(path, _)| *path == file).unwrap();
        self.flow(name, text)
    }

    /// Leads a connection elsewhere: the first that has this address, in the order mde, graph, mdca, mail, Teams.
    pub(crate) fn lead(self, from: SocketAddr, to: SocketAddr) -> Site {
        let connections = self.keys["connections"].replacen(&from.to_string(), &to.to_string(), 1);
        self.set("connections", &connections)
    }

    /// The store, for what no command tells.
    pub(crate) fn store(&self) -> SqliteStore {
        SqliteStore::open_read(&self.path().join("data")).unwrap()
    }

    /// The store's file.
    pub(crate) fn database(&self) -> rusqlite::Connection {
        rusqlite::Connection::open(self.path().join("data/watchfloor.db")).unwrap()
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes a file as an editor does: whole, by its owner alone.
    pub(crate) fn write(&self, path: &str, text: &str) {
        let path: PathBuf = self.folder.path().join(path);
        std::fs::write(&path, text).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// A command in the site's folder.
    pub(crate) fn cli(&self, args: &[&str]) -> Said {
        command(self.path(), args)
    }

    /// A command's data; it must succeed or find nothing.
    pub(crate) fn json(&self, args: &[&str]) -> Json {
        let said = self.cli(&[args, &["-o", "json"]].concat());
        assert!(matches!(said.code, 0 | 3), "{args:?}: {said:?}");
        said.json()
    }

    /// All runs, newest first.
    pub(crate) fn runs(&self) -> Vec<Json> {
        self.json(&["runs", "list", "--limit", "100000"]).as_array().unwrap().clone()
    }

    /// Waits until a run has one of these statuses, and answers its row.
    pub(crate) fn run_is(&self, id: &str, wanted: &[&str], seconds: u64) -> Json {
        let mut last = String::new();
        let watch = stopwatch();
        loop {
            let said = self.cli(&["runs", "show", id, "-o", "json"]);
            if said.code == 0 {
                let row = said.json();
                if wanted.iter().any(|status| row["status"] == *status) {
                    return row;
                }
                last = format!("{} {}", row["status"], row["reason"]);
            }
            assert!(watch.elapsed() < Duration::from_secs(seconds), "run {id} is not {wanted:?} but {last}");
            std::thread::park_timeout(Duration::from_millis(50));
        }
    }

    /// Waits until there are `n` runs and each has ended or needs a person; answers them.
    pub(crate) fn settled(&self, n: usize, seconds: u64) -> Vec<Json> {
        const SETTLED: [&str; 6] = ["succeeded", "failed", "cancelled", "uncertain", "dead", "waiting"];
        let mut open = BTreeMap::new();
        let watch = stopwatch();
        loop {
            let runs = self.runs();
            open.clear();
            for run in &runs {
                *open.entry(run["status"].as_str().unwrap().to_owned()).or_insert(0usize) += 1;
            }
            if runs.len() >= n && open.keys().all(|status| SETTLED.contains(&status.as_str())) {
                return runs;
            }
            assert!(watch.elapsed() < Duration::from_secs(seconds), "wanted {n} settled runs in {seconds} s: {open:?}");
            std::thread::park_timeout(Duration::from_millis(100));
        }
    }

    /// Starts the service; returns when it says that it is ready.
    pub(crate) fn start(&self, args: &[&str]) -> Service {
        self.try_start(args).unwrap_or_else(|log| panic!("the service did not get ready:\n{log}"))
    }

    /// As `start`; the error is what the service said before it ended.
    pub(crate) fn try_start(&self, args: &[&str]) -> Result<Service, String> {
        let mut command = Command::new(BINARY);
        command.arg("run").args(args);
        let mut service = self.begin(command);
        match service.hears("ready on ") {
            Some(url) => {
                service.url = url;
                Ok(service)
            }
            None => Err(service.log()),
        }
    }

    /// Starts a command that is the service, or becomes it; what it says is kept.
    pub(crate) fn begin(&self, mut command: Command) -> Service {
        command.envs(self.env.iter().map(|(name, value)| (name, value.as_str())));
        command.current_dir(self.path()).stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let log = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let kept = Arc::clone(&log);
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                let mut log = kept.lock().unwrap();
                log.push_str(&line);
                log.push('\n');
                drop(log);
                drop(sender.send(line));
            }
        });
        Service { child, url: String::new(), log, lines: Mutex::new(lines) }
    }
}

/// The service as a child; it is killed when this is dropped.
pub(crate) struct Service {
    child: Child,
    pub(crate) url: String,
    log: Arc<Mutex<String>>,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Service {
    /// Waits for a line, and answers what follows a text in it.
    pub(crate) fn says(&self, text: &str) -> String {
        self.hears(text).unwrap_or_else(|| panic!("the service did not say {text:?}:\n{}", self.log()))
    }

    /// As `says`; nothing where it said no such thing before it ended.
    fn hears(&self, text: &str) -> Option<String> {
        let lines = self.lines.lock().unwrap();
        loop {
            let line = lines.recv_timeout(PATIENCE).ok()?;
            if let Some((_, rest)) = line.split_once(text) {
                return Some(rest.trim().to_owned());
            }
        }
    }

    /// Sends a signal to it.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args([name, &id]).status().unwrap().success());
    }

    /// How large a file it may write, in bytes: all later writes beyond that fail as on a full disk.
    pub(crate) fn limit_files(&self, limit: &str) {
        let (id, limit) = (self.child.id().to_string(), format!("--fsize={limit}:"));
        assert!(Command::new("prlimit").args(["--pid", &id, &limit]).status().unwrap().success());
    }

    /// What it wrote to stderr until now.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// SIGHUP: read everything again.
    pub(crate) fn hangup(&self) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    }

    /// kill -9, as a power cut would.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// How it ended by itself; `None` while it goes on.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }

    /// SIGTERM, and its end.
    pub(crate) fn stop(self) -> ExitStatus {
        self.signal("-TERM");
        self.end()
    }

    /// Its end, which is on its way.
    pub(crate) fn end(mut self) -> ExitStatus {
        wait_for("the service stops after SIGTERM", PATIENCE.as_secs(), || self.child.try_wait().unwrap())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            let log = self.log();
            let tail: Vec<_> = log.lines().rev().take(25).collect();
            // The harness shows it below the failed test.
            let _ = std::io::Write::write_all(&mut std::io::stderr(), tail.join("\n").as_bytes());
        }
    }
}
