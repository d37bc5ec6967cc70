//! Checks documents of the repository against a server: the OpenAPI description, the Grafana dashboard and the pages on
//! metrics.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{BEARER, get, send};
use crate::support::TestServer;

const DASHBOARD: &str = include_str!("../../../docs/grafana-dashboard.json");

/// The pages that describe metrics.
const PAGES: [&str; 2] = [include_str!("../../../docs/http-api.md"), include_str!("../../../docs/auth.md")];

#[tokio::test]
async fn every_documented_route_exists() {
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

/// Words of a text that may be metric names.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_')
}

/// The metric family of a sample.
fn family(sample: &str) -> &str {
    ["_total", "_bucket"].into_iter().find_map(|suffix| sample.strip_suffix(suffix)).unwrap_or(sample)
}

#[tokio::test]
async fn the_grafana_dashboard_and_the_pages_cover_exactly_the_existing_metrics() {
    let server = TestServer::start(json!({})).await;
    let text = get(&server, "/metrics").await.text;
    let samples: BTreeSet<&str> = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| words(line).next()).collect();
    let there_are: BTreeSet<&str> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE laravel_echo_")?.split(' ').next()).map(family).collect();
    assert!(there_are.len() >= 24, "the server has only {there_are:?}");

    let dashboard: Value = serde_json::from_str(DASHBOARD).expect("the dashboard is JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    let queries = panels.iter().flat_map(|panel| panel["targets"].as_array().expect("queries"));
    let shown: BTreeSet<&str> = queries
        .flat_map(|query| words(query["expr"].as_str().expect("a query")))
        .filter(|word| word.starts_with("laravel_echo_"))
        .collect();
    assert_eq!(shown.difference(&samples).collect::<Vec<_>>(), [&""; 0], "the dashboard queries metrics that the server does not have");
    let shown: BTreeSet<&str> = shown.iter().filter_map(|name| name.strip_prefix("laravel_echo_")).map(family).collect();
    assert_eq!(there_are.difference(&shown).collect::<Vec<_>>(), [&""; 0], "the dashboard does not show it");
    for panel in panels {
        assert!(panel["title"].is_string() && panel["gridPos"].is_object(), "{panel}");
    }

    // In code, with or without the common prefix, or with `…` instead of it.
    let code = PAGES.iter().flat_map(|page| page.split('`').skip(1).step_by(2)).flat_map(words);
    let told: BTreeSet<&str> =
        code.map(|word| family(word.strip_prefix("laravel_echo_").or_else(|| word.strip_prefix('_')).unwrap_or(word))).collect();
    assert_eq!(there_are.difference(&told).collect::<Vec<_>>(), [&""; 0], "no page describes it");
}
