//! Passes bytes to `laravel_echo_server::fuzzing::auth_answer`, which describes what it asserts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::auth_answer(bytes));
