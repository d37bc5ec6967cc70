//! Laravel's string functions `Str::ascii`, `Str::slug`, `Str::snake`. Pure.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The table of `Str::ascii` for letters and sequences of up to three letters: see the header of the file.
static ASCII: LazyLock<HashMap<String, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("ascii.txt").lines().filter_map(|line| line.split_once('\t'));
    let letters = |codes: &str| codes.split('+').filter_map(|code| char::from_u32(u32::from_str_radix(code, 16).ok()?)).collect();
    lines.flat_map(|(ascii, all)| all.split(' ').map(move |codes| (letters(codes), ascii))).collect()
});

/// The longest sequence in the table.
const MAX_REPLACED: usize = 3;

/// `Str::ascii` of Laravel 7 and later: characters without a counterpart are dropped.
pub(super) fn ascii(text: &str) -> String {
    let is_kept = |c: char| matches!(c, ' '..='~' | '\t' | '\n' | '\r' | '\u{10}' | '\u{13}');
    // Like voku's library: sequences are found after skipping ASCII characters between letters, then replaced everywhere.
    let letters: Vec<char> = text.chars().filter(|c| !is_kept(*c)).collect();
    let mut text = text.to_owned();
    for len in (1..=MAX_REPLACED).rev() {
        for window in letters.windows(len) {
            let sequence: String = window.iter().collect();
            if let Some(ascii) = ASCII.get(&sequence) {
                text = text.replace(&sequence, ascii);
            }
        }
    }
    text.replace(['\n', '\r', '\t'], " ").chars().filter(|c| is_kept(*c)).collect()
}

/// `Str::ascii` of Laravel 5 and 6, which only knows single letters; `None` if there are letters that these or later
/// versions transliterate differently.
pub(super) fn ascii_before_7(text: &str) -> Option<String> {
    let ascii = |c: char| match c {
        ' '..='~' => Some(c.to_string()),
        c if is_other_before_7(u32::from(c)) => None,
        c => Some(ASCII.get(c.encode_utf8(&mut [0; 4])).map_or_else(String::new, |ascii| (*ascii).to_owned())),
    };
    text.chars().map(ascii).collect()
}

fn is_other_before_7(code: u32) -> bool {
    let ranges = include_str!("ascii-before-7.txt").lines().filter(|line| !line.starts_with('#')).flat_map(|line| line.split(' '));
    let number = |text| u32::from_str_radix(text, 16).unwrap_or(0);
    let mut bounds =
        ranges.map(|range| range.split_once('-').map_or((number(range), number(range)), |(from, to)| (number(from), number(to))));
    bounds.any(|(from, to)| (from..=to).contains(&code))
}

/// `Str::slug`, for a text to which [`ascii`] has already been applied where Laravel does so.
pub(super) fn slug(text: &str, separator: &str) -> String {
    let flip = if separator == "-" { "_" } else { "-" };
    let text = text.replace(flip, separator).replace('@', &format!("{separator}at{separator}")).to_lowercase();
    let is_gap = |c: char| c.is_whitespace() || separator.contains(c);
    let kept: String = text.chars().filter(|c| c.is_alphanumeric() || is_gap(*c)).collect();
    kept.split(is_gap).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(separator)
}

/// `Str::snake`.
pub(super) fn snake(text: &str, delimiter: &str) -> String {
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase()) {
        return text.to_owned();
    }
    let joined: String = ucwords(text).chars().filter(|c| !c.is_whitespace()).collect();
    let mut out = String::new();
    for c in joined.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push_str(delimiter);
        }
        out.push(c);
    }
    out.to_lowercase()
}

/// PHP's `ucwords`.
pub(super) fn ucwords(text: &str) -> String {
    let mut is_first = true;
    let upper = |c: char| {
        let is_start = std::mem::replace(&mut is_first, matches!(c, ' ' | '\t' | '\r' | '\n' | '\u{c}' | '\u{b}'));
        if is_start { c.to_ascii_uppercase() } else { c }
    };
    text.chars().map(upper).collect()
}
