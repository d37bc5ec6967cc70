//! What the repository says about the HTTP face, against a server: the OpenAPI document and the Grafana dashboard.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BEARER, get, send};
use crate::support::TestServer;

const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

#[tokio::test]
async fn every_documented_route_is_there() {
    let server = TestServer::start(json!({})).await;
    let document = send(&server, "GET", "/openapi.json", &[], "").await.json();
    assert_eq!(document["info"]["version"], env!("CARGO_PKG_VERSION"));
    let mut count = 0;
    for (path, item) in document["paths"].as_object().expect("paths") {
        let filled = path.replace("{app_id}", "app").replace("{channel}", "presence-x").replace("{user}", "1");
        for method in item.as_object().expect("a path item").keys().filter(|key| *key != "parameters") {
            let answer = send(&server, &method.to_uppercase(), &filled, &[BEARER], "").await;
            let documented = &item[method]["responses"][answer.status.to_string()];
            assert!(documented.is_object(), "{method} {path} answers {}, which is not documented: {}", answer.status, answer.text);
            count += 1;
        }
        let other = if item.get("get").is_some() { "POST" } else { "GET" };
        assert_eq!(send(&server, other, &filled, &[BEARER], "").await.status, 405, "{other} {path}");
    }
    assert!(count >= 12, "only {count} operations are documented");
}

/// Names of metrics in the queries of a dashboard.
fn names(dashboard: &Value) -> BTreeSet<String> {
    let panels = dashboard["panels"].as_array().expect("panels");
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let queries = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    let words =
        queries.flat_map(|query| query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').map(str::to_owned).collect::<Vec<_>>());
    words.filter(|word| word.starts_with("laravel_echo_")).collect()
}

#[tokio::test]
async fn the_dashboard_asks_for_metrics_that_there_are() {
    let server = TestServer::start(json!({})).await;
    let text = get(&server, "/metrics").await.text;
    let samples: BTreeSet<&str> =
        text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split(['{', ' ']).next()).collect();
    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let shown = names(&dashboard);
    for name in &shown {
        assert!(samples.contains(name.as_str()), "the dashboard asks for {name}, which the server does not have");
    }
    assert!(shown.len() >= 20, "the dashboard shows only {shown:?}");
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(panel["title"].is_string() && panel["gridPos"].is_object(), "{panel}");
    }
}
