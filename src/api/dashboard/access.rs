//! Access control of the dashboard.
//!
//! Input: sign-in credentials, and the cookie and headers of requests. Output: [`Session`] for viewing, [`Act`] for actions,
//! or 401, 403 and 429. A session is a random number in this process's memory, so a restart signs everyone
//! out.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher as _, RandomState};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use axum::Json;
use axum::body::Body;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::header::{COOKIE, HOST, ORIGIN, SET_COOKIE};
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use parking_lot::Mutex;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tracing::info;

use super::Dashboard;
use crate::admission::client_network;
use crate::api::ApiError;
use crate::config::Config;
use crate::config::value::Secret;
use crate::net::connection::Peer;
use crate::warn_throttled;

/// The name of the cookie.
const NAME: &str = "laravel_echo_dashboard";

/// A header that a page of another origin can send only after a CORS preflight, and a form not at all.
const OWN_HEADER: &str = "x-dashboard";

/// Sessions last for a working day.
const LIFETIME: Duration = Duration::from_secs(12 * 3600);

/// Maximum number of sessions; the oldest are dropped.
const MAX_SESSIONS: usize = 1000;

/// Failed sign-ins that one address may make within [`WINDOW`].
const MAX_FAILURES: u32 = 5;
const WINDOW: Duration = Duration::from_secs(60);
/// Failed sign-ins of all addresses within [`WINDOW`], against guessing from many machines. Addresses that have signed in before,
/// and this machine's own, only have their own limit, so that such an attack does not lock them out.
const MAX_FAILURES_OF_ALL: u32 = 300;

/// Maximum number of addresses whose failures are tracked.
const MAX_ADDRESSES: usize = 10_000;

/// Maximum body size, except for events; the longest content is a token.
const MAX_BODY: usize = 16 * 1024;

/// Maximum number of networks remembered for a successful sign-in.
const MAX_KNOWN: usize = 1000;

/// The credentials that open the dashboard, besides the entries of `clients`.
pub(super) struct Credentials {
    password: Option<Secret>,
    /// Changes when the credentials do.
    generation: u64,
}

impl Credentials {
    pub(super) fn new(config: &Config) -> Self {
        // The hash is only compared within this process.
        static HASHER: std::sync::OnceLock<RandomState> = std::sync::OnceLock::new();
        let clients: Vec<_> = config
            .clients
            .iter()
            .map(|client| {
                let exposed = |secret: &Option<Secret>| secret.as_ref().map(|secret| secret.expose().to_owned());
                (&client.app_id, client.key.expose(), exposed(&client.secret), exposed(&client.jwt), client.require_signature)
            })
            .collect();
        let password = config.dashboard.password.clone();
        let generation = HASHER.get_or_init(RandomState::new).hash_one((clients, password.as_ref().map(Secret::expose)));
        Self { password, generation }
    }

    fn opens(&self, given: &str) -> bool {
        self.password.as_ref().is_some_and(|password| password.is(given.as_bytes()))
    }
}

/// Signed-in sessions.
#[derive(Default)]
pub(super) struct Sessions(Mutex<HashMap<u128, Known>>);

#[derive(Clone, Copy)]
struct Known {
    began: Instant,
    generation: u64,
}

impl Sessions {
    fn begin(&self, generation: u64) -> u128 {
        let id = rand::random();
        let mut known = self.0.lock();
        known.retain(|_, session| session.began.elapsed() < LIFETIME);
        if known.len() >= MAX_SESSIONS
            && let Some(oldest) = known.iter().min_by_key(|(_, session)| session.began).map(|(id, _)| *id)
        {
            known.remove(&oldest);
        }
        known.insert(id, Known { began: Instant::now(), generation });
        id
    }

    /// Whether the session is still valid.
    pub(super) fn lasts(&self, id: u128, generation: u64) -> bool {
        self.0.lock().get(&id).is_some_and(|session| session.began.elapsed() < LIFETIME && session.generation == generation)
    }

    fn end(&self, id: u128) {
        self.0.lock().remove(&id);
    }
}

/// Limits failed sign-ins.
#[derive(Default)]
pub(super) struct Throttle(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    by_address: HashMap<IpAddr, (u32, Instant)>,
    of_all: Option<(u32, Instant)>,
    /// Networks with a successful sign-in.
    known: HashSet<IpAddr>,
}

impl Failures {
    fn knows(&self, address: IpAddr) -> bool {
        address.is_loopback() || self.known.contains(&client_network(address))
    }
}

impl Throttle {
    /// Counts an attempt before it is checked, so that concurrent attempts count, too. `false`: too many for now.
    fn begin(&self, address: IpAddr) -> bool {
        let network = client_network(address);
        let mut failures = self.0.lock();
        let is_known = failures.knows(address);
        if failures.by_address.len() >= MAX_ADDRESSES && !failures.by_address.contains_key(&network) {
            failures.by_address.retain(|_, (_, since)| since.elapsed() < WINDOW);
            if failures.by_address.len() >= MAX_ADDRESSES && !is_known {
                return false;
            }
        }
        let Failures { by_address, of_all, .. } = &mut *failures;
        let own = by_address.entry(network).or_insert((0, Instant::now()));
        let all = of_all.get_or_insert((0, Instant::now()));
        for (count, since) in [&mut *own, &mut *all] {
            if since.elapsed() >= WINDOW {
                (*count, *since) = (0, Instant::now());
            }
        }
        if own.0 >= MAX_FAILURES || !is_known && all.0 >= MAX_FAILURES_OF_ALL {
            return false;
        }
        own.0 += 1;
        all.0 += u32::from(!is_known);
        true
    }

    /// Clears the failures of an address after a successful attempt, and remembers its network.
    fn succeeded(&self, address: IpAddr) {
        let network = client_network(address);
        let mut failures = self.0.lock();
        failures.by_address.remove(&network);
        if failures.knows(address) {
            return;
        }
        if let Some((count, _)) = &mut failures.of_all {
            *count = count.saturating_sub(1);
        }
        if failures.known.len() >= MAX_KNOWN {
            failures.known.clear();
        }
        failures.known.insert(network);
    }
}

/// Proof that the request is from a signed-in user.
#[derive(Debug, Clone, Copy)]
pub(super) struct Session {
    id: u128,
    generation: u64,
}

impl Session {
    /// Whether the session is still valid.
    pub(super) fn lasts(self, dashboard: &Dashboard) -> bool {
        dashboard.settings.load().credentials.generation == self.generation && dashboard.sessions.lasts(self.id, self.generation)
    }
}

impl FromRequestParts<Dashboard> for Session {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, ApiError> {
        // Browsers also send the cookie for pages on other ports; these could read the response only with CORS.
        if parts.headers.contains_key(ORIGIN) {
            check_origin(&parts.headers, &parts.uri)?;
        }
        let generation = dashboard.settings.load().credentials.generation;
        let mut ids = session_ids(&parts.headers);
        let id = ids.find(|id| dashboard.sessions.lasts(*id, generation)).ok_or_else(ApiError::signed_out)?;
        Ok(Self { id, generation })
    }
}

/// Proof that a signed-in user may perform actions, and that the request comes from the dashboard's own page.
#[derive(Debug, Clone, Copy)]
pub(super) struct Act;

impl FromRequestParts<Dashboard> for Act {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, dashboard: &Dashboard) -> Result<Self, ApiError> {
        check_own(&parts.headers, &parts.uri)?;
        Session::from_request_parts(parts, dashboard).await?;
        if !dashboard.settings.load().allows_actions {
            return Err(ApiError::forbidden("the dashboard is read-only: set dashboard.actions = true to allow actions"));
        }
        Ok(Self)
    }
}

fn session_ids(headers: &HeaderMap) -> impl Iterator<Item = u128> {
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(';'));
    let own = cookies.filter_map(|cookie| cookie.trim().strip_prefix(NAME)?.strip_prefix('='));
    own.filter_map(|value| u128::from_str_radix(value, 16).ok())
}

/// Checks that the request comes from the dashboard's own script.
fn check_own(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    if !headers.contains_key(OWN_HEADER) {
        return Err(ApiError::forbidden(format!("the header {OWN_HEADER} is missing: this is for the dashboard's own page")));
    }
    check_origin(headers, uri)
}

/// Checks that the request comes from a page of this origin. Browsers say so (`Sec-Fetch-Site`) if the page is on https or on
/// this machine; otherwise the `Origin` has to match the server's host.
fn check_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_own = match text("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => {
            let host = text(HOST.as_str()).or_else(|| uri.authority().map(|authority| authority.as_str()));
            let origin = text(ORIGIN.as_str()).and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
            origin.is_some() && origin == host
        }
    };
    if is_own {
        return Ok(());
    }
    let (origin, host) = (text(ORIGIN.as_str()).unwrap_or("none"), text(HOST.as_str()).unwrap_or("none"));
    let hint = "a proxy has to forward the Host header, as in `proxy_set_header Host $http_host`";
    warn_throttled!(
        class = 0,
        key = origin,
        origin,
        host,
        hint,
        "refused a request to the dashboard: it came from a page of another origin"
    );
    Err(ApiError::forbidden("the request came from a page of another origin"))
}

#[derive(Deserialize)]
struct Given {
    secret: String,
}

/// Parses a small JSON body.
pub(super) async fn read<T: DeserializeOwned>(body: Body) -> Result<T, ApiError> {
    let body = axum::body::to_bytes(body, MAX_BODY).await.map_err(|_| ApiError::over(MAX_BODY))?;
    serde_json::from_slice(&body).map_err(|error| ApiError::bad_request(format!("body: {error}")))
}

/// `POST /dashboard/session` with `{"secret":"…"}`: the password, a key or a token.
pub(super) async fn sign_in(State(dashboard): State<Dashboard>, request: Request) -> Result<Response, ApiError> {
    let (parts, body) = request.into_parts();
    check_own(&parts.headers, &parts.uri)?;
    let peer = parts.extensions.get::<Peer>().map_or(IpAddr::from([0, 0, 0, 0]), |peer| peer.0.ip());
    let address = dashboard.proxies.client(peer, &parts.headers);
    let given: Given = read(body).await?;
    if !dashboard.throttle.begin(address) {
        warn_throttled!(class = 1, key = &address, %address, "refused a sign-in to the dashboard: too many wrong passwords");
        return Err(ApiError::slow_down("too many wrong passwords, wait a minute"));
    }
    let settings = dashboard.settings.load();
    let secret = given.secret.trim();
    if !settings.credentials.opens(secret) && !settings.api.clients.iter().any(|client| client.opens_dashboard(secret)) {
        warn_throttled!(class = 2, key = &address, %address, "a wrong password for the dashboard");
        return Err(ApiError::wrong_password());
    }
    dashboard.throttle.succeeded(address);
    info!(%address, "signed in to the dashboard");
    let id = dashboard.sessions.begin(settings.credentials.generation);
    let is_secure = parts.headers.get(ORIGIN).is_some_and(|origin| origin.as_bytes().starts_with(b"https://"));
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie(&format!("{id:032x}"), LIFETIME, is_secure))]).into_response())
}

/// `DELETE /dashboard/session`
pub(super) async fn sign_out(State(dashboard): State<Dashboard>, request: Request) -> Result<Response, ApiError> {
    check_own(request.headers(), request.uri())?;
    session_ids(request.headers()).for_each(|id| dashboard.sessions.end(id));
    Ok((StatusCode::NO_CONTENT, [(SET_COOKIE, cookie("", Duration::ZERO, false))]).into_response())
}

/// `GET /dashboard/session`: the permissions of the session.
pub(super) async fn who(_: Session, State(dashboard): State<Dashboard>) -> Json<Value> {
    let settings = dashboard.settings.load();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "actions": settings.allows_actions,
        "checks": dashboard.set_up.checks.get().is_some(),
        "clustered": settings.api.hub.is_clustered(),
        "uptime": settings.api.readiness.started.elapsed().as_secs(),
    }))
}

/// Not readable by scripts, not sent by other sites, and only sent to the dashboard.
fn cookie(value: &str, lifetime: Duration, is_secure: bool) -> String {
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{NAME}={value}; Path={}; Max-Age={}; HttpOnly; SameSite=Strict{secure}", super::PATH, lifetime.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (axum::http::HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    #[test]
    fn requests_of_other_origins_are_detected() {
        let uri = Uri::from_static("/dashboard/api/act");
        for own in [
            &[("sec-fetch-site", "same-origin"), ("origin", "https://a.test"), ("host", "127.0.0.1:6001")][..],
            &[("origin", "http://a.test:6001"), ("host", "a.test:6001")],
        ] {
            assert!(check_origin(&headers(own), &uri).is_ok(), "{own:?}");
        }
        for other in [
            &[("sec-fetch-site", "same-site"), ("origin", "http://localhost:8000"), ("host", "localhost:6001")][..],
            &[("sec-fetch-site", "none"), ("host", "localhost:6001")],
            &[("origin", "http://localhost:8000"), ("host", "localhost:6001")],
            &[("origin", "null"), ("host", "null")],
            &[("host", "localhost:6001")],
        ] {
            assert!(check_origin(&headers(other), &uri).is_err(), "{other:?}");
        }
    }

    #[test]
    fn each_address_has_its_own_limit() {
        let throttle = Throttle::default();
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        assert_eq!((0..10).filter(|_| throttle.begin(one)).count(), MAX_FAILURES as usize);
        assert!(throttle.begin(other));
        throttle.succeeded(other);
        throttle.succeeded(one);
        assert!(throttle.begin(one));
    }

    #[test]
    fn known_addresses_are_not_locked_out_by_guesses_from_others() {
        let throttle = Throttle::default();
        let (known, local) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([127, 0, 0, 1]));
        assert!(throttle.begin(known));
        throttle.succeeded(known);
        let many = (0..u32::try_from(MAX_ADDRESSES).unwrap()).map(|n| IpAddr::from((0x0b00_0000 + n).to_be_bytes()));
        assert_eq!(many.filter(|address| throttle.begin(*address)).count(), MAX_FAILURES_OF_ALL as usize);
        assert!(!throttle.begin(IpAddr::from([10, 0, 0, 2])), "an unknown address has to wait");
        for address in [known, local] {
            assert_eq!((0..10).filter(|_| throttle.begin(address)).count(), MAX_FAILURES as usize, "{address} has its own count");
        }
        throttle.succeeded(known);
        assert!(throttle.begin(known));
    }

    #[test]
    fn sessions_end_when_their_credentials_change() {
        let sessions = Sessions::default();
        let id = sessions.begin(1);
        assert!(sessions.lasts(id, 1) && !sessions.lasts(id, 2) && !sessions.lasts(id + 1, 1));
        sessions.end(id);
        assert!(!sessions.lasts(id, 1));
        for _ in 0..2 * MAX_SESSIONS {
            sessions.begin(1);
        }
        assert_eq!(sessions.0.lock().len(), MAX_SESSIONS);
    }

    #[test]
    fn other_cookies_are_ignored() {
        let found = |text| session_ids(&headers(&[("cookie", text)])).collect::<Vec<_>>();
        assert_eq!(found("a=b; laravel_echo_dashboard=ff; laravel_session=x"), [255]);
        assert_eq!(found("laravel_echo_dashboards=ff; laravel_echo_dashboard=; laravel_echo_dashboard=g"), Vec::<u128>::new());
    }
}
