//! Tests of the origins of an application's pages; `tests/it/cli/laravel.rs` tests reading projects.

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
