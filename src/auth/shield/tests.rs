//! The shield in front of an application with scripted answers.

use std::hash::DefaultHasher;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::HeaderMap;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::*;

/// Counters and scripted replies of the application.
#[derive(Default)]
struct Told {
    asked: AtomicUsize,
    in_flight: AtomicUsize,
    peak: AtomicUsize,
    replies: Mutex<Vec<Reply>>,
}

struct App {
    told: Arc<Told>,
    answers: Arc<Semaphore>,
    delay: Duration,
}

struct Setup {
    shield: Arc<Shield<App>>,
    told: Arc<Told>,
    answers: Arc<Semaphore>,
    metrics: Arc<Metrics>,
}

struct Leaving<'a>(&'a Told);

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::SeqCst);
    }
}

#[async_trait]
impl Application for App {
    fn prepare(&self, request: AuthRequest<'_>) -> Result<Call, Denied> {
        let mut headers = HeaderMap::new();
        for (name, value) in request.headers {
            headers.insert(name.parse::<HeaderName>().unwrap(), value.parse().unwrap());
        }
        let target = Target::new("http://app", "/auth").unwrap();
        Ok(Call::new(Arc::new(target), request.channel.clone(), headers))
    }

    async fn ask(&self, _: &Call) -> Reply {
        self.told.asked.fetch_add(1, Ordering::SeqCst);
        let now = self.told.in_flight.fetch_add(1, Ordering::SeqCst) + 1;
        self.told.peak.fetch_max(now, Ordering::SeqCst);
        let _leaving = Leaving(&self.told);
        tokio::time::sleep(self.delay).await;
        self.answers.acquire().await.unwrap().forget();
        self.told.replies.lock().pop().unwrap_or_else(granted)
    }
}

fn granted() -> Reply {
    Reply::Granted(Grant::default())
}

fn unanswered(may_retry: bool) -> Reply {
    Reply::Unanswered { may_retry, cause: "refused".to_owned(), hint: String::new() }
}

/// `answers`: how many calls are answered at once; `add_permits` allows more.
fn setup(answers: usize, delay: Duration, change: impl FnOnce(&mut AuthConfig)) -> Setup {
    let mut config = AuthConfig::default();
    change(&mut config);
    let (told, metrics) = (Arc::<Told>::default(), Arc::new(Metrics::new()));
    let answers = Arc::new(Semaphore::new(answers));
    let app = App { told: Arc::clone(&told), answers: Arc::clone(&answers), delay };
    Setup { shield: Arc::new(Shield::new(&config, app, Arc::clone(&metrics))), told, answers, metrics }
}

impl Setup {
    async fn subscribe(&self, channel: &str, cookie: &str) -> Answer {
        subscribe(Arc::clone(&self.shield), channel.to_owned(), cookie.to_owned(), false).await
    }

    fn asked(&self) -> usize {
        self.told.asked.load(Ordering::SeqCst)
    }

    async fn until(&self, what: &str, probe: impl Fn(&Self) -> bool) {
        let waiting = async {
            while !probe(self) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), waiting).await.is_ok(), "timed out waiting for {what}");
    }
}

async fn subscribe(shield: Arc<Shield<App>>, channel: String, cookie: String, is_again: bool) -> Answer {
    let (channel, handshake): (ChannelName, _) = (channel.into(), HeaderMap::new());
    let headers = [("cookie".to_owned(), cookie)];
    let mut hasher = DefaultHasher::new();
    channel.as_str().hash(&mut hasher);
    let socket = SocketId::new(1, hasher.finish());
    shield
        .authorize(AuthRequest { socket, channel: &channel, headers: &headers, handshake: &handshake, peer: None, by: None, is_again })
        .await
}

#[tokio::test]
async fn a_storm_stays_within_the_cap_and_is_granted() {
    const COUNT: usize = 5_000;
    let setup = setup(COUNT, Duration::from_millis(5), |config| config.max_concurrent = 50);
    let mut storm = JoinSet::new();
    for n in 0..COUNT {
        storm.spawn(subscribe(Arc::clone(&setup.shield), format!("private-{n}"), String::new(), false));
    }
    assert!(storm.join_all().await.iter().all(Result::is_ok));
    assert_eq!(setup.told.peak.load(Ordering::SeqCst), 50);
    let text = setup.metrics.render(std::iter::empty());
    assert!(text.contains(&format!("laravel_echo_auth_queue_seconds_count {COUNT}\n")), "{text}");
    assert!(text.contains("laravel_echo_auth_queued 0\n"), "{text}");
}

#[tokio::test]
async fn equal_calls_are_one() {
    let setup = setup(0, Duration::ZERO, |_| {});
    let mut calls = JoinSet::new();
    for n in 0..30 {
        calls.spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), format!("user={}", n % 3), false));
    }
    setup.until("the calls", |setup| setup.asked() == 3).await;
    setup.until("the sharing", |setup| setup.metrics.render(std::iter::empty()).contains("{by=\"sharing\"} 27")).await;
    setup.answers.add_permits(3);
    assert!(calls.join_all().await.iter().all(Result::is_ok));
    assert_eq!(setup.asked(), 3);
    setup.answers.add_permits(1);
    setup.subscribe("private-a", "user=0").await.unwrap();
    assert_eq!(setup.asked(), 4, "an answer is not kept without auth.cacheTtl");
    assert!(setup.shield.0.open.lock().questions.is_empty());
}

#[tokio::test]
async fn no_answer_from_before_a_removal_is_shared_after_it() {
    let setup = setup(0, Duration::ZERO, |_| {});
    let before = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), false));
    setup.until("the call", |setup| setup.asked() == 1).await;
    setup.shield.removed(Some("1"), None);
    let after = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), false));
    setup.until("a call of its own", |setup| setup.asked() == 2).await;
    setup.answers.add_permits(2);
    before.await.unwrap().unwrap();
    after.await.unwrap().unwrap();
    assert!(setup.shield.0.open.lock().questions.is_empty());
}

#[tokio::test]
async fn a_question_lives_as_long_as_somebody_wants_to_know() {
    let setup = setup(0, Duration::ZERO, |config| config.max_concurrent = 1);
    let first = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), false));
    setup.until("the call", |setup| setup.asked() == 1).await;
    let second = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), false));
    let queued = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-b".to_owned(), String::new(), false));
    setup.until("the queue", |setup| setup.metrics.auth.queued.get() == 1).await;
    setup.until("the sharing", |setup| setup.metrics.render(std::iter::empty()).contains("{by=\"sharing\"} 1")).await;
    queued.abort();
    setup.until("the queue to be left", |setup| setup.metrics.auth.queued.get() == 0).await;
    first.abort();
    setup.answers.add_permits(1);
    second.await.unwrap().unwrap();
    assert_eq!(setup.asked(), 1);

    let only = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-c".to_owned(), String::new(), false));
    setup.until("the call", |setup| setup.asked() == 2).await;
    only.abort();
    setup.until("the call to be given up", |setup| setup.told.in_flight.load(Ordering::SeqCst) == 0).await;
    assert!(setup.shield.0.open.lock().questions.is_empty());
}

#[tokio::test]
async fn who_waits_too_long_is_refused_with_503() {
    let change = |config: &mut AuthConfig| {
        config.max_concurrent = 1;
        config.queue_timeout = Duration::from_millis(50);
    };
    let setup = setup(0, Duration::ZERO, change);
    let first = tokio::spawn(subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), false));
    setup.until("the call", |setup| setup.asked() == 1).await;
    assert_eq!(setup.subscribe("private-b", "").await.unwrap_err().status, 503);
    assert!(setup.metrics.render(std::iter::empty()).contains("auth_busy_total{cause=\"queue_timeout\"} 1"));
    setup.answers.add_permits(1);
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_connection_that_failed_is_tried_once_more() {
    let setup = setup(100, Duration::ZERO, |_| {});
    setup.told.replies.lock().push(unanswered(true));
    setup.subscribe("private-a", "").await.unwrap();
    assert_eq!(setup.asked(), 2);
    setup.told.replies.lock().extend([unanswered(true), unanswered(true)]);
    assert_eq!(setup.subscribe("private-a", "").await.unwrap_err().status, 0);
    assert_eq!(setup.asked(), 4);
    setup.told.replies.lock().push(unanswered(false));
    assert_eq!(setup.subscribe("private-a", "").await.unwrap_err().status, 0);
    assert_eq!(setup.asked(), 5);
}

#[tokio::test]
async fn answers_are_kept_only_when_asked_to_and_never_for_a_recheck() {
    let setup = setup(100, Duration::ZERO, |config| config.cache_ttl = Duration::from_secs(60));
    setup.told.replies.lock().push(Reply::Refused(Denied::new(403)));
    for _ in 0..3 {
        assert_eq!(setup.subscribe("private-a", "").await.unwrap_err().status, 403);
    }
    assert_eq!(setup.asked(), 1);
    setup.subscribe("private-a", "user=2").await.unwrap();
    assert_eq!(setup.asked(), 2);
    subscribe(Arc::clone(&setup.shield), "private-a".to_owned(), String::new(), true).await.unwrap();
    assert_eq!(setup.asked(), 3);
    setup.subscribe("private-a", "").await.unwrap();
    assert_eq!(setup.asked(), 3, "the new answer is the one that counts");
}

#[tokio::test]
async fn while_the_application_is_away_one_at_a_time_looks_for_it() {
    let setup = setup(1_000, Duration::from_millis(1), |_| {});
    setup.told.replies.lock().extend((0..12).map(|_| Reply::Refused(Denied::new(503))));
    for n in 0..10 {
        assert_eq!(setup.subscribe(&format!("private-{n}"), "").await.unwrap_err().status, 503);
    }
    assert_eq!(setup.metrics.auth.breakers_open.get(), 0, "it may be those clients' own doing");
    let mut waiting = JoinSet::new();
    for n in 0..200 {
        waiting.spawn(subscribe(Arc::clone(&setup.shield), format!("private-{n}"), String::new(), false));
    }
    let answers = waiting.join_all().await;
    assert!(answers.iter().all(Result::is_ok), "a probe costs nobody a channel");
    assert_eq!(setup.asked(), 10 + 3 + 200);
    assert_eq!(setup.metrics.auth.breakers_open.get(), 0);
    assert_eq!(setup.metrics.auth.breaker_opens.get(), 1);
}

#[tokio::test]
async fn an_application_that_stays_away_is_a_503() {
    let setup = setup(1_000, Duration::ZERO, |config| config.queue_timeout = Duration::from_millis(100));
    setup.told.replies.lock().extend((0..1_000).map(|_| unanswered(false)));
    for n in 0..10 {
        assert_eq!(setup.subscribe(&format!("private-{n}"), "").await.unwrap_err().status, 0);
    }
    assert_eq!(setup.subscribe("private-x", "").await.unwrap_err().status, 503);
    assert_eq!(setup.asked(), 11);
    assert!(setup.metrics.render(std::iter::empty()).contains("auth_busy_total{cause=\"outage\"} 1"));
}

#[test]
fn calls_are_not_alike_to_the_hash_by_moving_bytes_from_one_piece_to_the_next() {
    let hash = |channel: &str, headers: &[(&'static str, &'static str)]| {
        let headers = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)));
        let call = Call::new(Arc::new(Target::new("http://app", "/auth").unwrap()), channel.into(), headers.collect());
        let mut hasher = DefaultHasher::new();
        call.hash(&mut hasher);
        hasher.finish()
    };
    let one = hash("private-a", &[("b", "1c2")]);
    assert_eq!(one, hash("private-a", &[("b", "1c2")]));
    assert_ne!(one, hash("private-a", &[("b", "1"), ("c", "2")]));
    assert_ne!(one, hash("private-ab", &[("1c", "2")]));
}
