//! Bytes for `laravel_echo_server::fuzzing::node_messages`, where it says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::node_messages(bytes));
