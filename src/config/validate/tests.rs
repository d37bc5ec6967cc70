//! Each rule once: a value that must be refused, and the key that the error names.

use super::*;
use serde_json::{Value, json};

/// The keys with problems when only `settings` are set.
fn refused(settings: Value) -> Vec<String> {
    let config: Config = serde_json::from_value(settings).unwrap();
    match check(&config) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.0.into_iter().map(|problem| problem.key).collect(),
    }
}

#[test]
fn the_defaults_are_fine() {
    assert_eq!(check(&Config::default()), Ok(()));
}

#[test]
fn values_that_cannot_work_are_refused_under_their_key() {
    let redis = |redis: Value| json!({"databaseConfig": {"redis": redis}});
    for (settings, key) in [
        (json!({"protocol": "https", "sslCertPath": "cert.pem"}), "sslKeyPath"),
        (json!({"protocol": "https", "sslKeyPath": "key.pem"}), "sslCertPath"),
        (json!({"metrics": {"port": 6001}}), "metrics.port"),
        (json!({"redisServer": {"enabled": true, "port": 6001}}), "redisServer.port"),
        (json!({"redisServer": {"enabled": true, "host": "0.0.0.0"}}), "redisServer.password"),
        (json!({"redisServer": {"enabled": true, "tls": {"certPath": "c.pem"}}}), "redisServer.tls.keyPath"),
        (json!({"redisServer": {"enabled": true, "tls": {"keyPath": "k.pem"}}, "sslCertPath": "c.pem"}), "redisServer.tls.certPath"),
        (json!({"redisServer": {"enabled": true, "tls": true}, "sslCertPath": "c.pem"}), "redisServer.tls.keyPath"),
        (json!({"log": {"level": "verbose"}}), "log.level"),
        (json!({"log": {"level": "info,x=verbose"}}), "log.level"),
        (json!({"log": {"level": "laravel-echo-server=debug"}}), "log.level"),
        (json!({"authHost": "*.app.test"}), "authHost"),
        (json!({"authHost": ["http://app.test", "ftp://app.test"]}), "authHost"),
        (json!({"authHost": "http://"}), "authHost"),
        (json!({"authHost": "http//app.test"}), "authHost"),
        (json!({"authHost": "https:/app.test"}), "authHost"),
        (json!({"authHost": "http:app.test"}), "authHost"),
        (json!({"authHost": "app.test//sub"}), "authHost"),
        (json!({"authHost": "http://app.test:99999"}), "authHost"),
        (json!({"authHost": "http://app.test:0"}), "authHost"),
        (json!({"authHost": "http://app.test?x=1"}), "authHost"),
        (json!({"authHost": "http://app.test/#x"}), "authHost"),
        (json!({"authEndpoint": "broadcasting/auth"}), "authEndpoint"),
        (json!({"authEndpoint": "/http://app.test/broadcasting/auth"}), "authEndpoint"),
        (json!({"authEndpoint": "/broadcasting/auth "}), "authEndpoint"),
        (json!({"auth": {"timeout": 0}}), "auth.timeout"),
        (json!({"auth": {"maxConcurrent": 0}}), "auth.maxConcurrent"),
        (json!({"auth": {"forward": ["X Y"]}}), "auth.forward"),
        (json!({"socketio": {"transports": []}}), "socketio.transports"),
        (json!({"socketio": {"transports": ["websocket", "flashsocket"]}}), "socketio.transports"),
        (json!({"socketio": {"path": "socket.io"}}), "socketio.path"),
        (json!({"socketio": {"path": "/"}}), "socketio.path"),
        (json!({"socketio": {"path": "//"}}), "socketio.path"),
        (json!({"socketio": {"path": "/a b"}}), "socketio.path"),
        (json!({"socketio": {"path": "/x?y"}}), "socketio.path"),
        (json!({"socketio": {"path": "/{x}"}}), "socketio.path"),
        (json!({"socketio": {"path": "/caf\u{e9}"}}), "socketio.path"),
        (json!({"socketio": {"path": "/a/../b"}}), "socketio.path"),
        (json!({"socketio": {"path": "/apps"}}), "socketio.path"),
        (json!({"socketio": {"path": "/health/"}}), "socketio.path"),
        (json!({"socketio": {"path": "/apps/a/ws"}, "clients": [{"appId": "a", "key": "k"}]}), "socketio.path"),
        (json!({"socketio": {"cookie": "a;b"}}), "socketio.cookie"),
        (json!({"socketio": {"pingInterval": 0}}), "socketio.pingInterval"),
        (json!({"socketio": {"pingTimeout": u64::MAX}}), "socketio.pingTimeout"),
        (json!({"limits": {"clientQueue": u64::MAX}}), "limits.clientQueue"),
        (json!({"presence": {"lease": "1000000h"}}), "presence.lease"),
        (json!({"flatChannels": ["news", "private-*"]}), "flatChannels"),
        (json!({"flatChannels": ["*presence-room"]}), "flatChannels"),
        (json!({"allowedOrigins": ["https://app.test/path"]}), "allowedOrigins"),
        (json!({"allowedOrigins": ["app.test"]}), "allowedOrigins"),
        (json!({"trustProxies": ["10.0.0.0/33"]}), "trustProxies"),
        (json!({"trustProxies": ["proxy"]}), "trustProxies"),
        (json!({"cluster": {"enabled": true}}), "cluster.enabled"),
        (redis(json!({"url": "http://x"})), "databaseConfig.redis.url"),
        (redis(json!({"cluster": [{"host": "a"}], "sentinels": [{"host": "b"}], "name": "m"})), "databaseConfig.redis.cluster"),
        (redis(json!({"sentinels": [{"host": "b"}]})), "databaseConfig.redis.name"),
        (json!({"clients": [{"appId": "", "key": "k"}]}), "clients[0].appId"),
        (json!({"clients": [{"appId": "a", "key": "k"}, {"appId": "b"}]}), "clients[1].key"),
        (json!({"clients": [{"appId": "a", "key": "k", "requireSignature": true}]}), "clients[0].secret"),
        (json!({"auth": {"jwt": {"secret": "s"}}}), "auth.jwt.algorithm"),
        (json!({"auth": {"jwt": {"algorithm": "none"}}}), "auth.jwt.algorithm"),
        (json!({"auth": {"jwt": {"algorithm": "HS256"}}}), "auth.jwt.secret"),
        (json!({"auth": {"jwt": {"algorithm": "RS256"}}}), "auth.jwt.publicKey"),
        (json!({"limits": {"subscriptions": 0}}), "limits.subscriptions"),
        (json!({"presence": {"lease": "10ms"}}), "presence.lease"),
        (json!({"apiOriginAllow": {"allowOrigin": "a\nb"}}), "apiOriginAllow.allowOrigin"),
        (json!({"headers": {"X Y": "z"}}), "headers.X Y"),
    ] {
        assert_eq!(refused(settings.clone()), [key], "{settings}");
    }
}

#[test]
fn values_that_work_are_taken() {
    for settings in [
        json!({"protocol": "https", "sslCertPath": "cert.pem", "sslKeyPath": "key.pem"}),
        json!({"authHost": [".example.test", "https://.example.test", "http://app.test:8000/sub", "app.test:8000", "http://[::1]:80"]}),
        json!({"authHost": ["HTTP://App.test", " http://app.test:8000/ ", "HTTPS://user:p%40ss@app.test"]}),
        json!({"authEndpoint": ""}),
        json!({"authEndpoint": "/auth?next=http://app.test"}),
        json!({"socketio": {"path": "/ws/v1.0/"}}),
        json!({"socketio": {"path": "/apps/socket.io"}, "clients": [{"appId": "a", "key": "k"}]}),
        json!({"socketio": {"path": "/health/caf%C3%A9"}}),
        json!({"flatChannels": ["news", "public.*", "*"]}),
        json!({"allowedOrigins": ["https://*.example.test", "http://localhost:*", "*.example.test", "null", "*"]}),
        json!({"trustProxies": ["10.0.0.0/8", "::1", "fd00::/8"]}),
        json!({"cluster": {"enabled": true}, "database": "redis"}),
        json!({"redisServer": {"enabled": true, "host": "0.0.0.0", "password": "p"}}),
        json!({"redisServer": {"enabled": true}}),
        json!({"redisServer": {"enabled": true, "tls": {"certPath": "c.pem", "keyPath": "k.pem"}}}),
        json!({"redisServer": {"enabled": true, "tls": true}, "sslCertPath": "c.pem", "sslKeyPath": "k.pem"}),
        json!({"auth": {"jwt": {"algorithm": "ES256", "jwks": "https://issuer.test/keys"}}}),
        json!({"log": {"level": "warn,laravel_echo_server=trace"}}),
        json!({"limits": {"whispersPerSecond": 0, "connections": 0}}),
    ] {
        assert_eq!(refused(settings.clone()), [""; 0], "{settings}");
    }
}

#[test]
fn rules_of_channels_that_contradict_themselves_are_refused_under_their_key() {
    let rule = |rule: Value| refused(json!({ "channels": [{ "pattern": "a" }, rule] }));
    for (settings, key) in [
        (json!({ "pattern": "" }), "pattern"),
        (json!({ "pattern": "private-{id" }), "pattern"),
        (json!({ "pattern": "a", "last": 1, "deliver": "volatile" }), "last"),
        (json!({ "pattern": "a", "last": 1001 }), "last"),
        (json!({ "pattern": "a", "lastFor": "1m" }), "lastFor"),
        (json!({ "pattern": "a", "last": 0, "lastFor": "1m" }), "lastFor"),
        (json!({ "pattern": "a", "last": 1, "lastFor": 0 }), "lastFor"),
        (json!({ "pattern": "private-*", "maxMembers": 5 }), "maxMembers"),
        (json!({ "pattern": "news.*", "whispers": "members" }), "whispers"),
        (json!({ "pattern": "news.*", "whispers": "stamped" }), "whispers"),
        (json!({ "pattern": "news.*", "auth": "callback" }), "auth"),
        (json!({ "pattern": "private-*", "auth": "jwt" }), "auth"),
        (json!({ "pattern": "*", "auth": "none" }), "auth"),
        (json!({ "pattern": "presence-*", "auth": "none" }), "auth"),
        (json!({ "pattern": "news", "auth": "none" }), "auth"),
        (json!({ "pattern": "private-*", "auth": "none", "whispers": "stamped" }), "whispers"),
    ] {
        assert_eq!(rule(settings.clone()), [format!("channels[1].{key}")], "{settings}");
    }
    for settings in [
        json!({ "pattern": "*", "whispers": "stamped", "auth": "callback", "maxMembers": 5, "last": 1000, "lastFor": "1h" }),
        json!({ "pattern": "private-doc.{id}", "whispers": "off", "auth": "none", "deliver": "volatile", "last": 0 }),
        json!({ "pattern": "presence-room", "maxMembers": 1, "deliver": "latest", "last": 1 }),
        json!({ "pattern": "p*", "maxMembers": 1, "whispers": "members" }),
        json!({ "pattern": "news.*", "whispers": "off", "webhooks": ["channel_occupied", "client_event"], "maxMembers": 0 }),
    ] {
        assert_eq!(rule(settings.clone()), [""; 0], "{settings}");
    }
    let jwt =
        json!({ "channels": [{ "pattern": "private-*", "auth": "jwt" }], "auth": { "jwt": { "algorithm": "HS256", "secret": "s" } } });
    assert_eq!(refused(jwt), [""; 0]);
}

#[test]
fn all_problems_are_told_at_once_with_what_to_do() {
    let config: Config = serde_json::from_value(json!({"protocol": "https", "authHost": "ftp://app.test"})).unwrap();
    let text = check(&config).unwrap_err().to_string();
    for part in ["`sslCertPath` is empty", "set both", "`sslKeyPath`", "`authHost` is \"ftp://app.test\", expected a URL such as"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}
