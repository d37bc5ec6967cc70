//! Passes bytes to `laravel_echo_server::fuzzing::client_packets`, which describes what it asserts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::client_packets(bytes));
