//! A proxy in front of the tenant that does to single requests what services and the boxes before them do: answers itself,
//! lets the service act and spoils its answer, or passes the answer on a byte at a time.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;
use watchfloor::clock::Clock;

/// Makes the whole answer of the body of the true one.
pub(crate) type Spoil = Box<dyn FnOnce(&str) -> Vec<u8>>;

/// What becomes of one request.
pub(crate) enum Toxic {
    /// The service never sees it; this is the whole answer.
    Instead(Vec<u8>),
    /// The service acts; this is made of the body of its answer.
    After(Spoil),
    /// The service acts; its answer begins and then comes a byte at a time, without end.
    Trickle,
}

/// Is asked for each request with its text and how many came before it that the proxy spoiled.
type Rule = dyn Fn(&str, usize) -> Option<Toxic> + Send + Sync;

pub(crate) struct Proxy {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<(Timestamp, String)>>>,
    spoiled: Arc<Mutex<usize>>,
}

/// Between two bytes of a trickle.
const DROP: Duration = Duration::from_millis(50);

impl Proxy {
    /// `clock` is the one by which requests are noted.
    pub(crate) fn start(
        target: SocketAddr,
        clock: Clock,
        rule: impl Fn(&str, usize) -> Option<Toxic> + Send + Sync + 'static,
    ) -> Proxy {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let (rule, spoiled): (Arc<Rule>, _) = (Arc::new(rule), Arc::new(Mutex::new(0)));
        let seen: Arc<Mutex<Vec<_>>> = Arc::default();
        let (noted, counted) = (Arc::clone(&seen), Arc::clone(&spoiled));
        std::thread::spawn(move || {
            for line in listener.incoming().map_while(Result::ok) {
                let (rule, spoiled, noted) = (Arc::clone(&rule), Arc::clone(&counted), Arc::clone(&noted));
                let clock = clock.clone();
                std::thread::spawn(move || {
                    let mut line = line;
                    let Some(request) = read_request(&mut line) else { return };
                    noted.lock().unwrap().push((clock.now(), request.clone()));
                    let toxic = {
                        let mut spoiled = spoiled.lock().unwrap();
                        let toxic = rule(&request, *spoiled);
                        *spoiled += usize::from(toxic.is_some());
                        toxic
                    };
                    // Who has gone does not hear the answer.
                    drop(answer(&mut line, target, &request, toxic));
                });
            }
        });
        Proxy { address, seen, spoiled }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// How many requests it spoiled.
    pub(crate) fn spoiled(&self) -> usize {
        *self.spoiled.lock().unwrap()
    }

    /// When requests came whose text contains this.
    pub(crate) fn asked(&self, what: &str) -> Vec<Timestamp> {
        self.seen.lock().unwrap().iter().filter(|(_, text)| text.contains(what)).map(|(at, _)| *at).collect()
    }
}

/// A whole HTTP answer, after which the connection closes.
pub(crate) fn http(status: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}").into_bytes()
}

/// As `http`, with JSON that is well or not.
pub(crate) fn json(body: &str) -> Vec<u8> {
    http("200 OK", "Content-Type: application/json\r\n", body)
}

fn answer(line: &mut TcpStream, target: SocketAddr, request: &str, toxic: Option<Toxic>) -> std::io::Result<()> {
    match toxic {
        Some(Toxic::Instead(answer)) => line.write_all(&answer),
        Some(Toxic::After(spoil)) => {
            let whole = ask(target, request)?;
            let body = whole.split_once("\r\n\r\n").map_or("", |(_, body)| body);
            line.write_all(&spoil(body))
        }
        Some(Toxic::Trickle) => {
            ask(target, request)?;
            line.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")?;
            // It ends when the client has had enough.
            loop {
                line.write_all(b" ")?;
                std::thread::park_timeout(DROP);
            }
        }
        None => line.write_all(ask(target, request)?.as_bytes()),
    }
}

/// One request with its body; nothing where the caller goes before it is whole.
fn read_request(line: &mut TcpStream) -> Option<String> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let n = line.read(&mut chunk).ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes);
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.to_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text.into_owned());
        }
    }
}

/// Asks the tenant over a connection of its own.
fn ask(target: SocketAddr, request: &str) -> std::io::Result<String> {
    let mut far = TcpStream::connect(target)?;
    let (first, rest) = request.split_once("\r\n").unwrap_or((request, ""));
    far.write_all(format!("{first}\r\nConnection: close\r\n{rest}").as_bytes())?;
    let mut answer = String::new();
    far.read_to_string(&mut answer)?;
    Ok(answer)
}
