//! The real binary against services, lists and callers that fail in the ways of HTTP: answers that are cut, late, endless or
//! of another kind, waits that are asked for in every form, lists that lead astray, and deliveries that come twice or never
//! end. Nothing is lost, no device is isolated twice, and nobody else hears of it.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use jiff::fmt::rfc2822;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;
use watchfloor::clock::{Clock, stopwatch};

use crate::bin::toxic::{Proxy, Toxic, http, json as json_answer};
use crate::bin::{HOOK_TOKEN, ISOLATE, MAIL, Site, Tenant, wait_for};
use crate::matrix::each;

/// The clock of a case, and the variable by which the service goes by it too.
fn paced(pace: u32) -> (Clock, String) {
    let from = Clock::system().now().as_second();
    (Clock::paced(Timestamp::from_second(from).unwrap(), pace), format!("{from}:{pace}"))
}

/// Somebody else on this network: must never hear of us.
struct Stranger(TcpListener);

impl Stranger {
    fn new() -> Stranger {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        Stranger(listener)
    }

    fn address(&self) -> SocketAddr {
        self.0.local_addr().unwrap()
    }

    fn heard_nothing(&self) {
        assert!(self.0.accept().is_err(), "the service went to where the answer pointed");
    }
}

const CONTAIN: &str = r#"
flow: contain
owner: soc@contoso.example
trigger: { type: webhook, name: w, fields: { alertId: string, machineId: string }, dedupe: trigger.alertId }
steps:
  - action: mde.isolate_machine
    timeout: 2s
    with: { machine_id: "{{ trigger.machineId }}", comment: "about {{ trigger.alertId }}" }
  - action: email.send
    with: { to: [soc@contoso.example], subject: "Isolated {{ trigger.alertId }}", text: "{{ trigger.alertId }}" }
"#;

/// Lets one event through a proxy that spoils the first isolation; answers the run and when isolations were asked for.
fn contained(
    pace: u32,
    toxic: impl Fn(&Clock) -> Toxic + Send + Sync + 'static,
) -> (serde_json::Value, Vec<Timestamp>, u32) {
    let (clock, variable) = paced(pace);
    let tenant = Tenant::with_clock(clock.clone(), 88, 24, |options| options.action_delay = Duration::ZERO);
    tenant.feed(24);
    let (alert, machine) = tenant.high().swap_remove(0);
    let its = clock.clone();
    let rule = move |request: &str, before: usize| {
        let is_it = before == 0 && request.starts_with("POST") && request.contains("/isolate ");
        is_it.then(|| toxic(&its))
    };
    let proxy = Proxy::start(tenant.http_addr(), clock, rule);
    let site = Site::new(&tenant).flow("contain", CONTAIN).set("fresh_for", "off");
    let site = site.lead(tenant.http_addr(), proxy.address()).env("WATCHFLOOR_CLOCK", &variable);
    let service = site.start(&[]);
    let (status, body) = tenant.hook(&service.url, &json!({ "alertId": alert, "machineId": machine })).unwrap();
    assert_eq!(status, 202, "{body}");
    let run = site.settled(1, 60).swap_remove(0);
    service.kill();
    assert_eq!(proxy.spoiled(), 1);
    let effects = tenant.effects();
    let done = effects.get(ISOLATE).copied().unwrap_or(0);
    if run["status"] == "succeeded" {
        assert_eq!((done, effects[MAIL]), (1, 1), "{run}");
    }
    (run, proxy.asked("/isolate "), done)
}

/// The service did as it was asked, and what comes back tells nothing of it: it is looked up and adopted.
#[test]
fn an_isolation_with_a_spoilt_answer_is_found_again_and_not_repeated() {
    type Spoil = fn(&str) -> Vec<u8>;
    let cases: [(&str, Option<Spoil>); 9] = [
        ("JSON that ends in the middle", Some(|body| json_answer(half(body)))),
        (
            "a body shorter than it was promised",
            Some(|body| {
                let whole = json_answer(body);
                whole[..whole.len() - 9].to_vec()
            }),
        ),
        ("a page for people", Some(|_| http("200 OK", "Content-Type: text/html\r\n", "<html>Sign in</html>"))),
        ("nothing", Some(|_| json_answer(""))),
        ("a list", Some(|_| json_answer("[]"))),
        ("an object of another kind", Some(|_| json_answer(r#"{"value":[]}"#))),
        ("bytes that do not unpack", Some(|_| http("200 OK", "Content-Encoding: gzip\r\n", "not gzip"))),
        ("an error of a box in between", Some(|_| http("502 Bad Gateway", "", "<html>Bad Gateway</html>"))),
        ("a byte at a time", None),
    ];
    each(&cases, |(name, spoil)| {
        let spoil = *spoil;
        let (run, asked, done) = contained(25, move |_| match spoil {
            Some(spoil) => Toxic::After(Box::new(spoil)),
            None => Toxic::Trickle,
        });
        assert_eq!((run["status"].as_str(), done), (Some("succeeded"), 1), "{name}: {run}");
        assert_eq!(asked.len(), 1, "{name}: what took effect was asked for again");
    });
}

/// The wait that a service asks for is kept, in every form, and bounded where it makes no sense. Nothing is asked in between.
#[test]
fn a_wait_that_a_service_asks_for_is_kept_in_every_form_and_bounded() {
    type Form = fn(Timestamp) -> String;
    fn date(now: Timestamp, seconds: i64) -> String {
        let at = now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
        rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
    }
    // How long it must be waited at least, and at most but for what a busy machine adds, in seconds of the service's clock.
    let cases: [(&str, Form, i64, i64); 7] = [
        ("seconds", |_| "300".into(), 300, 900),
        ("a date", |now| date(now, 400), 399, 1000),
        ("a date of long ago", |now| date(now, -86_400), 1, 600),
        ("none in reason", |_| "99999999".into(), 3600, 4200),
        ("a date in years", |now| date(now, 1_000_000_000), 3600, 4200),
        ("less than nothing", |_| "-5".into(), 1, 600),
        ("a word", |_| "soon".into(), 0, 600),
    ];
    each(&cases, |(name, form, least, most)| {
        let form = *form;
        let (run, asked, done) = contained(300, move |clock| {
            let wait = format!("Retry-After: {}\r\n", form(clock.now()));
            Toxic::Instead(http("429 Too Many Requests", &wait, r#"{"error":{"code":"TooManyRequests"}}"#))
        });
        assert_eq!((run["status"].as_str(), done), (Some("succeeded"), 1), "{name}: {run}");
        assert_eq!(asked.len(), 2, "{name}");
        let waited = asked[1].duration_since(asked[0]).as_secs();
        assert!(
            (*least..=*most).contains(&waited),
            "{name}: asked again after {waited} s, {least} to {most} are right"
        );
    });
}

/// A redirect is no answer and is not followed: neither the token nor the request go elsewhere.
#[test]
fn a_redirect_leads_nowhere() {
    let cases = ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"];
    each(&cases, |status| {
        let (status, stranger) = (*status, Stranger::new());
        let to = format!("Location: http://{}/api/machines/x/isolate\r\n", stranger.address());
        let (run, asked, done) = contained(25, move |_| Toxic::Instead(http(status, &to, "")));
        assert_eq!((run["status"].as_str(), done, asked.len()), (Some("failed"), 0, 1), "{status}: {run}");
        stranger.heard_nothing();
    });
}

const LISTED: &str = "
flow: one
owner: soc@contoso.example
trigger: { type: xdr.alert.new, connection: graph }
steps:
  - { set: { seen: trigger.alert_id } }
";

/// Whatever the first readings of a list come to, each alert starts one run once the list is read well, and nothing that
/// an answer points to is asked.
#[test]
fn a_list_that_leads_astray_costs_no_alert_and_starts_none_twice() {
    type Spoil = fn(&str, &str, SocketAddr) -> Vec<u8>;
    // Of the body of the true answer, the path that was asked for, and the address of a stranger.
    let cases: [(&str, Spoil); 10] = [
        ("a circle", |body, path, _| linked(body, &format!("http://{{host}}{path}"))),
        ("another host", |body, _, stranger| linked(body, &format!("http://{stranger}/v1.0/security/alerts_v2"))),
        ("a link that is none", |body, _, _| linked(body, "javascript:alert(1)")),
        ("each alert twice", |body, _, _| {
            let mut page: serde_json::Value = serde_json::from_str(body).unwrap();
            let items = page["value"].as_array_mut().unwrap();
            items.extend(items.clone());
            json_answer(&page.to_string())
        }),
        ("the alerts in another order", |body, _, _| {
            let mut page: serde_json::Value = serde_json::from_str(body).unwrap();
            page["value"].as_array_mut().unwrap().reverse();
            json_answer(&page.to_string())
        }),
        ("half of it", |body, _, _| json_answer(half(body))),
        ("a page for people", |_, _, _| http("200 OK", "Content-Type: text/html\r\n", "<html>Sign in</html>")),
        ("no list in it", |_, _, _| json_answer("{}")),
        ("null for a list", |_, _, _| json_answer(r#"{"value":null}"#)),
        ("a redirect", |_, _, stranger| {
            http("302 Found", &format!("Location: http://{stranger}/v1.0/security/alerts_v2\r\n"), "")
        }),
    ];
    each(&cases, |(name, spoil)| {
        let spoil = *spoil;
        let (tenant, stranger) = (Tenant::new(89, 40, |_| {}), Stranger::new());
        tenant.feed(40);
        let elsewhere = stranger.address();
        let proxy = Proxy::start(tenant.http_addr(), Clock::system(), move |request, before| {
            let first = request.lines().next()?;
            let path = first.strip_prefix("GET ")?.strip_suffix(" HTTP/1.1")?.to_owned();
            let host = request.lines().find_map(|line| line.strip_prefix("host: "))?.to_owned();
            let spoils = before < 3 && path.contains("alerts_v2");
            spoils.then(|| {
                Toxic::After(Box::new(move |body| {
                    let answer = spoil(body, &path, elsewhere);
                    match String::from_utf8(answer) {
                        // The length is that of what stands there now.
                        Ok(text) if text.contains("{host}") => {
                            json_answer(&text.split_once("\r\n\r\n").unwrap().1.replace("{host}", &host))
                        }
                        Ok(text) => text.into_bytes(),
                        Err(bytes) => bytes.into_bytes(),
                    }
                }))
            })
        });
        let site = Site::new(&tenant).flow("one", LISTED).set("poll", "{ xdr.alert.new: 1s }");
        // The connections of Defender and of Graph, and who gives tokens to the former.
        let site = (0..3).fold(site, |site, _| site.lead(tenant.http_addr(), proxy.address()));
        let service = site.start(&["--from", "1d"]);
        let world = tenant.world();
        let all = world.born().len();
        wait_for(&format!("{name}: four readings"), 60, || (proxy.asked("alerts_v2").len() >= 4).then_some(()));
        let runs = site.settled(all, 60);
        assert_eq!(runs.len(), all, "{name}");
        let keys: std::collections::BTreeSet<_> = runs.iter().map(|run| run["key"].to_string()).collect();
        assert_eq!(keys.len(), all, "{name}");
        stranger.heard_nothing();
        assert_eq!(proxy.spoiled(), 3, "{name}");
        assert!(service.stop().success());
    });
}

/// What is no JSON any more.
fn half(body: &str) -> &str {
    body.get(..body.len() / 2).unwrap()
}

/// The page with a link to a next one.
fn linked(body: &str, link: &str) -> Vec<u8> {
    let mut page: serde_json::Value = serde_json::from_str(body).unwrap();
    page["@odata.nextLink"] = json!(link);
    json_answer(&page.to_string())
}

/// A caller that was not answered brings it again, several do at once, and one does after a crash: it is one event.
#[test]
fn a_delivery_that_comes_many_times_is_one_event_also_through_a_kill() {
    let tenant = Tenant::new(90, 24, |_| {});
    tenant.feed(24);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = Site::new(&tenant).flow("contain", CONTAIN);
    let event = json!({ "alertId": alert, "machineId": machine });
    let mut started = Vec::new();
    for life in 0..3 {
        let service = site.start(&[]);
        let answers: Vec<_> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..8).map(|_| scope.spawn(|| tenant.hook(&service.url, &event))).collect();
            calls.into_iter().map(|call| call.join().unwrap()).collect()
        });
        for (status, body) in answers.into_iter().flatten() {
            assert_eq!(status, 202, "{body}");
            started.extend(body["run"].as_str().map(str::to_owned));
        }
        if life < 2 {
            service.kill();
        } else {
            let runs = site.settled(1, 60);
            assert_eq!((runs.len(), &runs[0]["status"]), (1, &json!("succeeded")), "{runs:?}");
            assert!(service.stop().success());
        }
    }
    assert_eq!(started.len(), 1, "one of them started it: {started:?}");
    assert_eq!(tenant.effects()[ISOLATE], 1);
}

/// Callers that break off or never end: nothing comes of what they sent, others are answered meanwhile, and the service
/// stops when it is told to.
#[test]
fn callers_that_never_end_stand_in_nobodys_way() {
    let tenant = Tenant::new(92, 24, |_| {});
    tenant.feed(24);
    let (alert, machine) = tenant.high().swap_remove(0);
    let site = Site::new(&tenant).flow("contain", CONTAIN);
    let service = site.start(&[]);
    let address: SocketAddr = service.url.trim_start_matches("http://").parse().unwrap();
    let event = json!({ "alertId": "cut", "machineId": machine }).to_string();
    let head = format!(
        "POST /hooks/w HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {HOOK_TOKEN}\r\nContent-Type: \
         application/json\r\nContent-Length: {}\r\n\r\n",
        event.len()
    );
    let say = |text: &str| {
        let mut line = TcpStream::connect(address).unwrap();
        line.write_all(text.as_bytes()).unwrap();
        line
    };
    // Cut off in the body, and then for good.
    for cut in [0, 1, event.len() / 2, event.len() - 1] {
        drop(say(&format!("{head}{}", event.get(..cut).unwrap())));
    }
    // Open in the head and in the body, for as long as the test lasts.
    let open: Vec<TcpStream> = (0..60)
        .map(|n| if n % 2 == 0 { say("POST /hooks/w HTTP/1.1\r\nHos") } else { say(&format!("{head}{{")) })
        .collect();
    let watch = stopwatch();
    let (status, body) = tenant.hook(&service.url, &json!({ "alertId": alert, "machineId": machine })).unwrap();
    assert_eq!(status, 202, "{body}");
    assert!(watch.elapsed() < Duration::from_secs(5), "another caller waited {:?}", watch.elapsed());
    let runs = site.settled(1, 60);
    assert_eq!((runs.len(), &runs[0]["status"]), (1, &json!("succeeded")), "{runs:?}");
    let watch = stopwatch();
    assert!(service.stop().success());
    assert!(watch.elapsed() < Duration::from_secs(15), "it waited for callers that never end: {:?}", watch.elapsed());
    drop(open);
    assert_eq!(site.runs().len(), 1, "a delivery that was cut off started a run");
}
