//! Scripts that broadcast, in the forms they are met in, and some that do not.

use super::*;

fn bytes<'a>(texts: &[&'a str]) -> Vec<&'a [u8]> {
    texts.iter().map(|text| text.as_bytes()).collect()
}

fn parse(text: &str) -> Result<Script, UnknownScript> {
    Script::parse(text.as_bytes())
}

fn run(script: &str, keys: &[&str], args: &[&str]) -> Vec<(String, String)> {
    let (keys, args) = (bytes(keys), bytes(args));
    let script = parse(script).unwrap_or_else(|_| panic!("not known: {script}"));
    let publishes = script.run(&keys, &args).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    publishes.messages.iter().map(|(channel, payload)| (text(channel), text(payload))).collect()
}

fn expected(channels: &[&str]) -> Vec<(String, String)> {
    channels.iter().map(|&channel| (channel.to_owned(), "payload".to_owned())).collect()
}

#[test]
fn laravel_publishes_its_first_argument_to_all_others() {
    for script in [
        "for i = 2, #ARGV do\n  redis.call('publish', ARGV[i], ARGV[1])\nend",
        "for i=2,#ARGV do redis.call(\"PUBLISH\",ARGV[i],ARGV[1]); end;",
        "-- broadcast\nlocal payload = ARGV[1]\nfor n = 2, #ARGV, 1 do\n\tredis.pcall('publish', ARGV[n], payload)\nend\nreturn nil",
        "for i = 2, #ARGV do local count = redis.call('spublish', ARGV[i], ARGV[1]) end return 1",
    ] {
        assert_eq!(run(script, &[], &["payload", "a", "b"]), expected(&["a", "b"]), "{script}");
    }
}

#[test]
fn channels_may_come_as_keys() {
    for script in [
        "for i = 1, #KEYS do redis.call('publish', KEYS[i], ARGV[1]) end",
        "for _, channel in ipairs(KEYS) do redis.call('publish', channel, ARGV[1]) end",
        "for index, _ in pairs(KEYS) do redis.call('publish', KEYS[index], ARGV[1]) end",
    ] {
        assert_eq!(run(script, &["a", "b"], &["payload"]), expected(&["a", "b"]), "{script}");
    }
}

#[test]
fn a_single_publish_may_return_its_count() {
    let script = parse("return redis.call('publish', KEYS[1], ARGV[1])").unwrap();
    let payload = bytes(&["payload"]);
    assert_eq!(script.run(&[b"a"], &payload).unwrap().returned, Some(0));
    assert_eq!(script.run(&[], &payload), Err(RunError));
}

#[test]
fn other_scripts_do_not_run() {
    for script in [
        "",
        "return 1",
        "return redis.call('get', KEYS[1])",
        "redis.call('publish', 'a', 'b') redis.call('del', 'c')",
        "for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1])",
        "for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) end end",
        "while true do redis.call('publish', ARGV[2], ARGV[1]) end",
        "for i = 2, #ARGV do os.execute(ARGV[i]) end",
        "redis.call('publish', 'a\\'', 'b')",
        "redis.call('lpush', KEYS[1], ARGV[1]) return redis.call('llen', KEYS[1])",
    ] {
        assert_eq!(parse(script), Err(UnknownScript), "{script}");
    }
    let nested = "for i = 1, #ARGV do ".repeat(1_000) + "redis.call('publish', 'a', 'b')" + &" end".repeat(1_000);
    assert_eq!(parse(&nested), Err(UnknownScript));
    let long = format!("redis.call('publish', 'a', '{}')", "x".repeat(LONGEST));
    assert_eq!(parse(&long), Err(UnknownScript));
}

#[test]
fn a_run_comes_to_an_end() {
    let loops = "for a = 1, #ARGV do for b = 1, #ARGV do for c = 1, #ARGV do redis.call('publish', ARGV[a], ARGV[b]) end end end";
    let args = vec![&b"x"[..]; 1_000];
    assert_eq!(parse(loops).unwrap().run(&[], &args), Err(RunError));
    let idle = "for a = 1, #ARGV do for b = 1, #ARGV do for c = 1, #ARGV do end end end redis.call('publish', 'a', 'b')";
    assert_eq!(parse(idle).unwrap().run(&[], &args), Err(RunError));
    let first = "for i = 2, #ARGV do redis.call('publish', ARGV[i], ARGV[1]) return 1 end";
    assert_eq!(run(first, &[], &["payload", "a", "b"]), expected(&["a"]));
}

proptest::proptest! {
    #[test]
    fn no_text_breaks_it(text in "(for|do|end|in|local|return|redis\\.call\\(|'publish'|KEYS|ARGV|\\[|\\]|\\)|#|=|,|i|1|2| |\\PC){0,40}") {
        if let Ok(script) = parse(&text) {
            let _ = script.run(&bytes(&["k"]), &bytes(&["a", "b"]));
        }
    }
}
