//! What packages and containers use of the command line.

use rustix::process::Signal;

use super::Folder;

#[test]
fn health_tells_a_living_server_from_none() {
    let (folder, _) = Folder::with_config();
    let gone = folder.run(&["health"]);
    assert_eq!(gone.code, 1);
    assert!(gone.stderr.contains("no answer from http://127.0.0.1:"), "{}", gone.stderr);
    let mut running = folder.start(&[]);
    for arguments in [&["health"][..], &["health", "--ready"]] {
        let well = folder.run(arguments);
        assert_eq!(well.code, 0, "{}", well.stderr);
        assert!(well.stdout.contains(r#""status":"#), "{}", well.stdout);
    }
    running.signal(Signal::TERM);
    running.end();
}

#[test]
fn the_manual_page_has_every_command_and_flag() {
    let folder = Folder::new();
    let page = folder.run(&["man"]);
    assert_eq!(page.code, 0, "{}", page.stderr);
    for part in [".TH laravel-echo-server 1", ".SH \"START\"", ".SH \"CLIENT:ADD\"", "\\-\\-no\\-lock", ".SH SIGNALS"] {
        assert!(page.stdout.contains(part), "{part} is missing in {}", page.stdout);
    }
}
