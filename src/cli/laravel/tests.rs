//! Tests of the URLs of an application; `tests/it/cli/laravel.rs` tests reading projects.

use super::*;

#[test]
fn origins_are_as_browsers_send_them() {
    assert_eq!(origin_of("https://Shop.test:443/path").as_deref(), Some("https://shop.test"));
    assert_eq!(origin_of("http://localhost:8000").as_deref(), Some("http://localhost:8000"));
    assert_eq!(origin_of("shop.test"), None);
}

#[test]
fn an_application_on_this_machine_has_many_origins() {
    assert_eq!(origins_of("https://Shop.test/path"), ["https://shop.test"]);
    assert_eq!(origins_of("https://shop.test:8443"), ["https://shop.test:8443"]);
    let local = ["http://localhost", "http://localhost:*", "http://127.0.0.1", "http://127.0.0.1:*"];
    for url in ["http://localhost", "http://localhost:8000", "http://127.0.0.1:8000/x"] {
        assert_eq!(origins_of(url), local, "{url}");
    }
    assert_eq!(origins_of("http://[::1]:8000")[4..], ["http://[::1]", "http://[::1]:*"]);
    assert_eq!(origins_of("https://.shop.test"), ["https://*.shop.test"]);
    assert_eq!(origins_of("shop.test"), [""; 0]);
}

#[test]
fn only_this_machine_is_local() {
    for url in ["http://localhost", "https://LOCALHOST/x", "http://127.0.0.1:8000", "http://user:word@127.0.0.2", "http://[::1]:8000"] {
        assert!(is_loopback(url), "{url}");
    }
    for url in ["http://localhost.example.com", "http://127.example.com", "http://localhost@shop.test", "http://shop.test", "localhost"] {
        assert!(!is_loopback(url), "{url}");
    }
    assert_eq!(origins_of("http://127.example.com"), ["http://127.example.com"]);
}
