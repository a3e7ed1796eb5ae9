//! One HTTP client under all connections: HTTP/1.1 over hyper, whose pool keeps what is in flight open. It has no redirects,
//! no proxies of the environment, no cookies and no retries, so that whatever is sent is sent once, by us, to the host that
//! the configuration names.
//!
//! Not here: what a failed exchange proves (`wire`), who we are (`auth`), which addresses may be talked to (`address`).

use std::fmt;
use std::future::Future;
use std::io::Read as _;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::header::{ACCEPT_ENCODING, CONTENT_ENCODING, HeaderMap, HeaderValue, USER_AGENT};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body as _, Incoming};
use hyper_rustls::{HttpsConnector, MaybeHttpsStream};
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tower_service::Service;

use super::address::Names;
use super::wire::CONNECT;

/// A server that says nothing for this long on an open connection is asked by TCP whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(15);
/// A compressed answer longer than this is unpacked beside the other runs.
const LARGE: usize = 64 << 10;

/// Whom a client trusts.
pub(super) enum Roots {
    /// Nobody: where nothing speaks TLS, the system's roots of trust stay unread.
    Nobody,
    /// The system's authorities, and these.
    System(Vec<CertificateDer<'static>>),
}

/// A client with its pool; cloning shares both.
#[derive(Clone)]
pub(crate) struct Http(Client<Connector, Full<Bytes>>);

/// An answer, of which the head is there.
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(super) headers: HeaderMap,
    body: Incoming,
}

/// Why a body was not had.
#[derive(Debug)]
pub(crate) enum ReadError {
    TooLarge,
    Broken(String),
}

impl Http {
    /// For the service on this machine: no TLS, and names as they resolve.
    ///
    /// # Errors
    /// One sentence.
    pub(crate) fn local() -> Result<Self, String> {
        Http::open(Roots::Nobody, Names::Any)
    }

    /// # Errors
    /// One sentence where the roots of trust can't be used.
    pub(super) fn open(roots: Roots, names: Names) -> Result<Self, String> {
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let config = config.map_err(|error| error.to_string())?;
        let mut tls = match roots {
            Roots::Nobody => config.with_root_certificates(RootCertStore::empty()),
            Roots::System(more) => {
                let verifier = rustls_platform_verifier::Verifier::new_with_extra_roots(more, provider);
                let verifier = Arc::new(verifier.map_err(|error| error.to_string())?);
                config.dangerous().with_custom_certificate_verifier(verifier)
            }
        }
        .with_no_client_auth();
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut tcp = HttpConnector::new_with_resolver(names);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_keepalive(Some(KEEPALIVE));
        tcp.set_keepalive_interval(Some(KEEPALIVE));
        let connector = Connector(HttpsConnector::from((tcp, tls)));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(256)
            // Shorter than any server's own idle limit, so that a request rarely meets a connection that is being closed.
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Http(client))
    }

    /// Sends one request and waits for the head of its answer.
    ///
    /// # Errors
    /// See `wire::failure` for what one proves.
    pub(crate) async fn exchange(
        &self,
        method: Method,
        uri: Uri,
        mut headers: HeaderMap,
        body: Option<Bytes>,
    ) -> Result<Response, Error> {
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("watchfloor/", env!("CARGO_PKG_VERSION"))));
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("gzip"));
        if body.is_none() && matches!(method, Method::POST | Method::PUT | Method::PATCH) {
            headers.insert(http::header::CONTENT_LENGTH, HeaderValue::from_static("0"));
        }
        let mut request = http::Request::new(Full::new(body.unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        let (head, body) = self.0.request(request).await?.into_parts();
        Ok(Response { status: head.status.as_u16(), headers: head.headers, body })
    }
}

impl Response {
    /// Reads the body to its end, counting decoded bytes, so that a small compressed answer can't become a large one.
    pub(crate) async fn read(mut self, cap: usize) -> Result<Vec<u8>, ReadError> {
        let hint = usize::try_from(self.body.size_hint().lower()).unwrap_or(usize::MAX);
        if hint > cap {
            return Err(ReadError::TooLarge);
        }
        let mut body = Vec::with_capacity(hint.min(1 << 20));
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| ReadError::Broken(super::wire::cause(&error)))?;
            let Ok(chunk) = frame.into_data() else { continue };
            if body.len() + chunk.len() > cap {
                return Err(ReadError::TooLarge);
            }
            body.extend_from_slice(&chunk);
        }
        let packed = self.headers.get(CONTENT_ENCODING).is_some_and(|how| how.as_bytes().eq_ignore_ascii_case(b"gzip"));
        if !packed || body.is_empty() {
            return Ok(body);
        }
        if body.len() <= LARGE {
            return unpack(&body, cap);
        }
        let unpacked = tokio::task::spawn_blocking(move || unpack(&body, cap)).await;
        unpacked.unwrap_or_else(|_| Err(ReadError::Broken("it could not be unpacked".to_owned())))
    }
}

fn unpack(packed: &[u8], cap: usize) -> Result<Vec<u8>, ReadError> {
    let mut out = Vec::new();
    let most = u64::try_from(cap).unwrap_or(u64::MAX).saturating_add(1);
    match MultiGzDecoder::new(packed).take(most).read_to_end(&mut out) {
        Err(error) => Err(ReadError::Broken(error.to_string())),
        Ok(_) if out.len() > cap => Err(ReadError::TooLarge),
        Ok(_) => Ok(out),
    }
}

/// A connection was not made within [`CONNECT`].
#[derive(Debug)]
pub(super) struct Late;

impl fmt::Display for Late {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no connection within {} s", CONNECT.as_secs())
    }
}

impl std::error::Error for Late {}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Name, TCP and TLS, all of them within the time limit.
#[derive(Clone)]
struct Connector(HttpsConnector<HttpConnector<Names>>);

impl Service<Uri> for Connector {
    type Response = MaybeHttpsStream<TokioIo<TcpStream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let made = self.0.call(uri);
        Box::pin(async move { tokio::time::timeout(CONNECT, made).await.unwrap_or_else(|_| Err(Box::new(Late))) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pack(text: &[u8]) -> Vec<u8> {
        use std::io::Write as _;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(text).unwrap();
        packer.finish().unwrap()
    }

    #[test]
    fn what_unpacks_beyond_the_bound_is_refused_and_what_is_cut_is_broken() {
        let packed = pack(&[b'x'; 5000]);
        assert_eq!(unpack(&packed, 5000).unwrap(), [b'x'; 5000]);
        assert!(matches!(unpack(&packed, 4999), Err(ReadError::TooLarge)));
        assert!(matches!(unpack(&packed[..packed.len() - 3], 5000), Err(ReadError::Broken(_))));
        assert!(matches!(unpack(b"{\"a\": 1}", 5000), Err(ReadError::Broken(_))));
        let twice = [pack(b"a"), pack(b"b")].concat();
        assert_eq!(unpack(&twice, 5000).unwrap(), b"ab");
    }
}
