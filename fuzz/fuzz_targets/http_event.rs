//! Passes bytes to `laravel_echo_server::fuzzing::http_event`, which describes what it asserts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::http_event(bytes));
