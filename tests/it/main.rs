//! Integration tests: the server and its command line, seen from outside. One binary, one file per feature.
//!
//! Tests run in parallel: each has a server on a free port, and its own Redis and Laravel application if it needs them.

mod api;
mod auth_grants;
mod auth_jwt;
mod auth_shield;
mod cli;
mod client_script;
mod cluster;
mod config;
mod dashboard;
mod deflate;
mod events;
mod exact;
mod floors;
mod hints;
mod hostile;
mod limits;
mod malformed;
mod members;
mod polling;
mod presence;
mod proxies;
mod pusher;
mod recovery;
mod redis;
mod redis_server;
mod reload;
mod rules;
mod slow;
mod stop;
mod store;
mod support;
mod tls;
mod topologies;
mod webhooks;
