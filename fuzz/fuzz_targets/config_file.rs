//! Passes bytes to `laravel_echo_server::fuzzing::config_file`, which describes what it asserts.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::config_file(bytes));
