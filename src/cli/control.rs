//! The way from a command to the running service: POSTs on its loopback address, with a token that lies in the
//! store's folder and that only the store's owner can read.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Json as Reply, Router};
use serde::{Deserialize, Serialize};
use serde_json::{Value as Json, json};
use subtle::ConstantTimeEq;

use super::pause::Change;
use super::runs;
use super::service::Handle;
use crate::error::{Error, ExitCode};
use crate::flow::model::Mode;
use crate::id::RunId;
use crate::journal::Op;
use crate::trigger::house::{self, Allowance, Order};
use crate::trigger::letters::Again;
use crate::trigger::manual::{self, Start};
use crate::worker::{Told, Word};

const FILE: &str = "control.json";
const MAX_BODY: usize = 256 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct Address {
    url: String,
    token: String,
}

/// The file that tells commands where the service is; it goes with the service.
pub(super) struct Published(PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        drop(std::fs::remove_file(&self.0));
    }
}

/// Writes the file and answers the token to ask for.
pub(super) fn publish(store: &Path, url: &str) -> Result<(Published, String), Error> {
    let path = store.join(FILE);
    let token = crate::clock::secret_token();
    let body = serde_json::to_vec(&Address { url: url.to_owned(), token: token.clone() }).unwrap_or_default();
    write_private(&path, &body)
        .map_err(|error| Error::unavailable(format!("writing {} for commands: {error}", path.display())))?;
    Ok((Published(path), token))
}

/// Writes a file that its owner alone can read, whatever stood there before.
pub(super) fn write_private(path: &Path, body: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    if let Err(error) = std::fs::remove_file(path)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt;
        options.mode(0o600);
    }
    options.open(path)?.write_all(body)
}

struct Control {
    token: String,
    handle: Handle,
}

pub(super) fn routes(token: String, handle: Handle) -> Router {
    let state = Arc::new(Control { token, handle });
    Router::new()
        .route("/control/start", post(start))
        .route("/control/alerts", post(alerts))
        .route("/control/allow", post(allow))
        .route("/control/cancel", post(cancel))
        .route("/control/settle", post(settle))
        .route("/control/dlq", post(dlq))
        .route("/control/status", post(status))
        .route("/control/pause", post(pause))
        .route("/control/resume", post(resume))
        .with_state(state)
}

struct Refused(Error);

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused(error)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let status = match self.0.code {
            ExitCode::Permission => StatusCode::FORBIDDEN,
            ExitCode::NothingMatched => StatusCode::NOT_FOUND,
            ExitCode::Temporary | ExitCode::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        };
        let body = json!({ "error": self.0.message, "help": self.0.help, "code": self.0.code as u8 });
        (status, Reply(body)).into_response()
    }
}

impl Control {
    async fn read<T: for<'de> Deserialize<'de>>(&self, headers: &HeaderMap, body: Body) -> Result<T, Error> {
        let given = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok()).unwrap_or("");
        let given = given.strip_prefix("Bearer ").unwrap_or("");
        if !bool::from(given.as_bytes().ct_eq(self.token.as_bytes())) {
            return Err(Error::new(ExitCode::Permission, "the token of the running service is another one"));
        }
        let body = to_bytes(body, MAX_BODY).await.map_err(|_| Error::usage("the request is larger than 256 KiB"))?;
        serde_json::from_slice(&body).map_err(|error| Error::usage(format!("the request: {error}")))
    }
}

async fn status(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let _: Json = control.read(&headers, body).await?;
    let handle = &control.handle;
    let (flows, gate) = (handle.intake.flows.now(), &handle.intake.gate);
    let live = flows.iter().filter(|deployed| deployed.mode == Mode::Live).count();
    let load = handle.worker.load().await;
    Ok(Reply(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "since": handle.since,
        "flows": { "live": live, "shadow": flows.iter().len() - live },
        "last_reload": handle.history.last(),
        "connections": handle.holds.broken(),
        "expires": handle.client.expiries(),
        "backlog": { "open": gate.open_runs(), "max": gate.max(), "queued": load.queued, "calling": load.busy },
    }))
    .into_response())
}

async fn pause(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let wanted: Change = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    // In a task of its own: a command that is ended meanwhile must not leave half a pause.
    let paused = tokio::spawn(async move { wanted.pause(&handle.holds, &handle.intake).await });
    paused.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(json!({})).into_response())
}

async fn resume(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let wanted: Change = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    let resumed = tokio::spawn(async move { wanted.resume(&handle.holds, &handle.intake).await });
    resumed.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(json!({})).into_response())
}

async fn start(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let wanted: Start = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    if let Some(why) = handle.intake.gate.closed() {
        return Err(Error::new(ExitCode::Temporary, why).into());
    }
    // In a task of its own: a command that is ended meanwhile must not leave a run on disk that nobody takes up.
    let started =
        tokio::spawn(async move { manual::start(&handle.intake, &handle.catalog, &*handle.fetch, &wanted).await });
    let run = started.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(json!({ "run": run.as_str() })).into_response())
}

/// An order of a person about alerts: a run of a flow of our own.
async fn alerts(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let order: Order = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    if let Some(why) = handle.intake.gate.closed() {
        return Err(Error::new(ExitCode::Temporary, why).into());
    }
    // In a task of its own: a command that is ended meanwhile must not leave a run on disk that nobody takes up.
    let begun = tokio::spawn(async move { house::begin(&handle.intake, &handle.catalog, &order).await });
    let begun = begun.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(json!(begun)).into_response())
}

/// The indicators of a suppression rule: a run of a flow of our own.
async fn allow(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let allowance: Allowance = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    if let Some(why) = handle.intake.gate.closed() {
        return Err(Error::new(ExitCode::Temporary, why).into());
    }
    let begun = tokio::spawn(async move { house::allow(&handle.intake, &handle.catalog, &allowance).await });
    let begun = begun.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(json!(begun)).into_response())
}

#[derive(Deserialize)]
struct Cancel {
    run: String,
    by: String,
    reason: String,
}

async fn cancel(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let Cancel { run, by, reason } = control.read(&headers, body).await?;
    let run = RunId::parse(&run).ok_or_else(|| Error::usage("this is no run id"))?;
    let answer = control.handle.worker.cancel(run, by, reason).await;
    answer.map_err(|message| Error::new(ExitCode::NothingMatched, message))?;
    Ok(Reply(json!({})).into_response())
}

#[derive(Deserialize)]
struct Settle {
    run: String,
    said: String,
    step: Option<String>,
    output: Option<Json>,
    by: String,
    reason: String,
}

async fn settle(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let Settle { run, said, step, output, by, reason } = control.read(&headers, body).await?;
    let run = RunId::parse(&run).ok_or_else(|| Error::usage("this is no run id"))?;
    let said = match (said.as_str(), output) {
        ("done", output) => Told::Done { output },
        (_, Some(_)) => return Err(Error::usage("only what is done has an output").into()),
        ("not-done", None) => Told::NotDone,
        ("failed", None) => Told::Failed,
        _ => return Err(Error::usage("wanted one of done not-done failed").into()),
    };
    let word = Word::Settle { step, said };
    let answer = control.handle.worker.word(run, word, by, bounded(&reason)).await;
    answer.map_err(|message| Error::new(ExitCode::NothingMatched, message))?;
    Ok(Reply(json!({})).into_response())
}

#[derive(Deserialize)]
struct Dlq {
    id: String,
    what: String,
    by: String,
    reason: String,
}

/// A dead letter goes on or is dropped: a run, or an event.
async fn dlq(State(control): State<Arc<Control>>, headers: HeaderMap, body: Body) -> Result<Response, Refused> {
    let Dlq { id, what, by, reason } = control.read(&headers, body).await?;
    let handle = control.handle.clone();
    let reason = bounded(&reason);
    let (word, outcome) = match what.as_str() {
        "retry" => (Word::Retry, "goes on"),
        "drop" => (Word::Drop, "dropped"),
        _ => return Err(Error::usage("wanted one of retry drop").into()),
    };
    if let (Some(why), Word::Retry) = (handle.intake.gate.closed(), &word) {
        return Err(Error::new(ExitCode::Temporary, why).into());
    }
    if let Some(run) = RunId::parse(&id) {
        let answer = handle.worker.word(run.clone(), word, by, reason).await;
        answer.map_err(|message| Error::new(ExitCode::NothingMatched, message))?;
        return Ok(Reply(json!({ "outcome": outcome, "run": run.as_str() })).into_response());
    }
    // In a task of its own: a command that is ended meanwhile must not leave a run on disk that nobody takes up.
    let done = tokio::spawn(async move { event_letter(&handle, &id, &word, &by, &reason).await });
    let answer = done.await.map_err(|_| Error::new(ExitCode::Temporary, "the service is stopping"))??;
    Ok(Reply(answer).into_response())
}

async fn event_letter(handle: &Handle, id: &str, word: &Word, by: &str, reason: &str) -> Result<Json, Error> {
    let intake = &handle.intake;
    let letter = intake.store.letter(id).map_err(runs::failed)?;
    let letter = letter.ok_or_else(|| Error::new(ExitCode::NothingMatched, format!("there is no dead letter {id}")))?;
    let at = intake.clock.now();
    let what = if matches!(word, Word::Retry) { "retry" } else { "drop" };
    let line = json!({
        "at": at.to_string(), "event": id, "flow": letter.flow, "key": letter.key, "what": what, "by": by, "reason": reason,
    });
    let audit = Op::Audit { at, body: line.to_string().into_bytes() };
    if !matches!(word, Word::Retry) {
        intake.drop_letter(&letter, audit).await.map_err(runs::failed)?;
        return Ok(json!({ "outcome": "dropped" }));
    }
    let again = intake.again(&letter, audit).await.map_err(|why| Error::new(ExitCode::NothingMatched, why))?;
    Ok(match again {
        Again::Started(run) => json!({ "outcome": "started", "run": run.as_str() }),
        Again::Gathered => json!({ "outcome": "gathered" }),
        Again::Duplicate => json!({ "outcome": "duplicate" }),
        Again::Filtered => json!({ "outcome": "filtered" }),
    })
}

/// What a person gives as a reason stands in rows and in the audit log.
fn bounded(reason: &str) -> String {
    reason.chars().take(500).collect()
}

fn address(store: &Path) -> Option<Address> {
    serde_json::from_slice(&std::fs::read(store.join(FILE)).ok()?).ok()
}

/// The address of the service that works on a store, if one answers, and what it says of itself.
pub(super) fn running(store: &Path) -> Option<(String, Json)> {
    let said = call(store, "status", &json!({})).ok()?;
    address(store).map(|address| (address.url, said))
}

/// Asks the running service.
pub(super) fn call(store: &Path, what: &str, body: &Json) -> Result<Json, Error> {
    let absent = || {
        Error::unavailable(format!("no service is running on the store {}", store.display()))
            .help("start it with `watchfloor run`")
    };
    let address = address(store).ok_or_else(absent)?;
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .build()
            .map_err(|error| Error::unavailable(format!("asking the service: {error}")))?;
        let request = client.post(format!("{}/control/{what}", address.url)).bearer_auth(&address.token).json(body);
        let response = request.send().await.map_err(|error| {
            if error.is_connect() {
                absent()
            } else {
                Error::new(ExitCode::Temporary, format!("asking the service: {error}"))
            }
        })?;
        let fine = response.status().is_success();
        let answer: Json = response
            .json()
            .await
            .map_err(|error| Error::new(ExitCode::Temporary, format!("reading the service's answer: {error}")))?;
        if fine { Ok(answer) } else { Err(refusal(&answer)) }
    })
}

fn refusal(answer: &Json) -> Error {
    let code = match answer.get("code").and_then(Json::as_u64) {
        Some(2) => ExitCode::Usage,
        Some(3) => ExitCode::NothingMatched,
        Some(69) => ExitCode::Unavailable,
        Some(77) => ExitCode::Permission,
        Some(78) => ExitCode::Config,
        _ => ExitCode::Temporary,
    };
    let text = |key: &str| answer.get(key).and_then(Json::as_str);
    let error = Error::new(code, text("error").unwrap_or("the service refused"));
    match text("help") {
        Some(help) => error.help(help),
        None => error,
    }
}
