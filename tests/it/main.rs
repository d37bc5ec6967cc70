//! Integration tests: the server and its command line, seen from outside. One binary, a file per feature.

mod cli;
