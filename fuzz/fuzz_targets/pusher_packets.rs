//! Bytes for `laravel_echo_server::fuzzing::pusher_packets`, where it says what must hold.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| laravel_echo_server::fuzzing::pusher_packets(bytes));
