//! Which service a request is for, its credentials and throttle, and the control routes below `/_sandbox`.

use serde_json::{Value as Json, json};

use super::auth::{self, Service};
use super::call::{Answer, Call};
use super::faults::{Faults, Limit};
use super::ledger::DEMO_FLOWS;
use super::state::{Hunt, State, World};
use super::{azure, cloud, generic, graph, mde, teams, token, vault};

/// Answers one request of a client.
pub(super) fn answer(world: &World, call: &Call) -> Answer {
    let path: Vec<&str> = call.path.iter().map(String::as_str).collect();
    let mut state = world.state();
    let state = &mut *state;
    count(state, call, &path);
    match path.as_slice() {
        [tenant, "oauth2", "v2.0", "token"] if call.method == "POST" => {
            return token::answer(world, state, call, tenant);
        }
        ["metadata", "identity", "oauth2", "token"] => return auth::managed_identity(world, state, call),
        ["msi", "token"] => return auth::app_service_identity(world, state, call),
        ["secrets", rest @ ..] if call.method == "GET" => return vault::answer(world, state, call, rest),
        ["workflows", ..] => return teams::answer(world, state, call),
        _ => {}
    }
    let Some((service, rest)) = service(&path) else { return unknown(call) };
    if let Some(refusal) = auth::gate(world, state, call, service) {
        return refusal;
    }
    if let Some(refusal) = throttle(world, state, call, service, rest) {
        return refusal;
    }
    let stateful = match service {
        Service::Mde => mde::answer(world, state, call, rest),
        Service::Graph => graph::answer(world, state, call, rest),
        Service::CloudApps => cloud::answer(world, state, call, rest),
        Service::Azure => azure::answer(world, state, call, rest),
        Service::Logs => (rest == ["query"] && call.method == "POST").then(|| azure::query(world, state, call)),
    };
    stateful.or_else(|| generic::answer(&world.catalog, call, service, rest)).unwrap_or_else(|| unknown(call))
}

/// The service and the path below its version. Each is also mounted below a name of its own (`/mde`, `/graph`, `/mdca`),
/// so that a base URL may be written with or without one.
fn service<'p>(path: &'p [&'p str]) -> Option<(Service, &'p [&'p str])> {
    let (mount, path) = match path {
        ["mde", rest @ ..] => (Some(Service::Mde), rest),
        ["graph", rest @ ..] => (Some(Service::Graph), rest),
        ["mdca", rest @ ..] => (Some(Service::CloudApps), rest),
        _ => (None, path),
    };
    let (service, rest) = match path {
        [
            "subscriptions",
            _,
            "resourceGroups",
            _,
            "providers",
            "Microsoft.OperationalInsights",
            "workspaces",
            _,
            rest @ ..,
        ] => (Service::Azure, rest),
        ["v1", "workspaces", _, rest @ ..] => (Service::Logs, rest),
        ["api", "v1", rest @ ..] | ["cas", "api", "v1", rest @ ..] => (Service::CloudApps, rest),
        ["api", "v1.0", rest @ ..] | ["api", rest @ ..] => (Service::Mde, rest),
        ["v1.0" | "beta", rest @ ..] => (Service::Graph, rest),
        rest => (mount?, rest),
    };
    (mount.is_none() || mount == Some(service)).then_some((service, rest))
}

fn unknown(call: &Call) -> Answer {
    Answer::error(404, "NotFound", format!("the simulated tenant has no {} /{}", call.method, call.path.join("/")))
}

/// Ids are told from words by their shape, so that the books list routes and not objects.
fn template(path: &[&str]) -> String {
    let id = |part: &&str| part.len() > 15 && part.bytes().any(|byte| byte.is_ascii_digit()) || part.contains('@');
    let parts: Vec<&str> = path.iter().map(|part| if id(part) { "{id}" } else { *part }).collect();
    parts.join("/")
}

fn count(state: &mut State, call: &Call, path: &[&str]) {
    let route = format!("{} /{}", call.method, template(path));
    // A client that invents paths must not fill the books.
    if state.by_route.len() < 500 || state.by_route.contains_key(&route) {
        *state.by_route.entry(route).or_default() += 1;
    }
}

/// The documented limits. Only Identity Protection keeps silent about when to come back.
fn throttle(world: &World, state: &mut State, call: &Call, service: Service, path: &[&str]) -> Option<Answer> {
    if !world.settings.throttles {
        return None;
    }
    let limit = |calls, seconds| Limit { calls, seconds, says_when: true };
    let (bucket, limit) = match (service, path) {
        (Service::Mde, ["advancedqueries", ..]) => ("mde hunting".to_owned(), limit(45, 60)),
        (Service::Mde, ["alerts", "batchUpdate"]) => ("mde batch".to_owned(), limit(10, 60)),
        (Service::Mde, path) => (format!("mde {} {}", call.method, template(path)), limit(100, 60)),
        (Service::Graph, ["identityProtection", ..]) => {
            ("identity protection".to_owned(), Limit { calls: 1, seconds: 1, says_when: false })
        }
        (Service::Graph, ["security", "runHuntingQuery"]) => ("graph hunting".to_owned(), limit(45, 60)),
        (Service::Graph, ["security", ..]) => ("graph security".to_owned(), limit(150, 60)),
        (Service::Graph, _) => ("graph".to_owned(), limit(2000, 1)),
        (Service::Azure, _) => ("azure".to_owned(), limit(1200, 60)),
        (Service::Logs, _) => ("log analytics".to_owned(), limit(200, 30)),
        (Service::CloudApps, _) => ("cloud apps".to_owned(), limit(30, 60)),
    };
    let seconds = state.throttle.take(&bucket, limit, world.clock.now()).err()?;
    let answer = Answer::error(429, "TooManyRequests", format!("too many requests: {bucket}"));
    Some(Answer { retry_after: limit.says_when.then_some(seconds), ..answer })
}

/// `GET /_sandbox/ledger[?flows=a,b]`, `POST /_sandbox/faults|feed|hunting|ends|certificate|federated|roles|secret`. No
/// credentials: it listens on loopback.
pub(super) fn control(world: &World, call: &Call) -> Answer {
    let refuse = |message: String| Answer::error(400, "BadRequest", message);
    let done = |done: Result<(), String>| done.map_or_else(refuse, |()| Answer::empty(204));
    let path: Vec<&str> = call.path.iter().skip(1).map(String::as_str).collect();
    match (call.method.as_str(), path.as_slice()) {
        ("GET", ["ledger"]) => {
            let flows: Vec<&str> = call.param("flows").map_or(DEMO_FLOWS.to_vec(), |names| names.split(',').collect());
            serde_json::to_value(world.ledger(&flows)).map_or_else(|error| refuse(error.to_string()), Answer::ok)
        }
        ("POST", ["faults"]) => match serde_json::from_slice::<Faults>(&call.body) {
            Ok(faults) => {
                world.state().faults = faults;
                Answer::ok(json!(faults))
            }
            Err(error) => refuse(format!("reading the faults: {error}")),
        },
        ("POST", ["feed"]) => {
            let n = call.object().ok().and_then(|body| body.get("n").and_then(Json::as_u64));
            let n = n.and_then(|n| usize::try_from(n).ok()).unwrap_or(usize::MAX);
            Answer::ok(json!({"fed": world.feed(n), "visible": world.visible()}))
        }
        ("POST", ["hunting"]) => match hunt(call) {
            Ok(hunt) => {
                world.state().hunts.push(hunt);
                Answer::empty(204)
            }
            Err(message) => refuse(message),
        },
        ("POST", ["ends"]) => done(super::machine_action::ends(world, call)),
        ("POST", ["certificate"]) => done(world.state().trust.certificate(&String::from_utf8_lossy(&call.body))),
        ("POST", ["secret"]) => done(vault::set(world, &call.body)),
        ("POST", ["federated"]) => done(world.state().trust.federate(&call.body)),
        ("POST", ["roles"]) => done(match serde_json::from_slice(&call.body) {
            Ok(roles) => {
                world.state().roles = Some(roles);
                Ok(())
            }
            Err(error) => Err(format!("reading the roles, a list of names: {error}")),
        }),
        _ => unknown(call),
    }
}

/// `{"words": ["…"], "schema": [{"name", "type"}], "results": [{…}]}`
fn hunt(call: &Call) -> Result<Hunt, String> {
    let body = call.object()?;
    let list = |key: &str| body.get(key).and_then(Json::as_array).cloned().ok_or_else(|| format!("{key} is no list"));
    let words = list("words")?.iter().filter_map(|word| word.as_str().map(str::to_owned)).collect();
    Ok(Hunt { words, schema: Json::Array(list("schema")?), rows: list("results")? })
}
