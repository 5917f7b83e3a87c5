//! The built-in pages: `/`, where one sees the log live and tries it, and `/problems`, where every
//! `type` of a problem opens.
//!
//! They need nothing from elsewhere, and a strict policy keeps it so: scripts, styles and requests
//! only from this server, nothing inline. What others wrote (events, answers) is put into the page
//! as text, never as markup.

use crate::http::operation::Asset;
use crate::http::response::{Answer, AnswerTo};
use crate::problem::{CLOSE_CODES, PROBLEMS, ProblemEntry};

const HOME: &str = include_str!("pages/home.html");
const STYLE: &str = include_str!("pages/style.css");
const SCRIPT: &str = include_str!("pages/app.js");
const ICON: &str = include_str!("pages/icon.svg");

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Appends the answer that is an asset.
pub fn write_asset(asset: Asset, to: &AnswerTo, out: &mut Vec<u8>) {
    let (content_type, content) = match asset {
        Asset::Style => ("text/css; charset=utf-8", STYLE),
        Asset::Script => ("text/javascript; charset=utf-8", SCRIPT),
        Asset::Icon => ("image/svg+xml", ICON),
    };
    Answer::start(200, to, out)
        .field("Content-Security-Policy", POLICY)
        .body(content_type, content.as_bytes());
}

/// Appends the answer that is the page at `/`.
pub fn write_home(to: &AnswerTo, out: &mut Vec<u8>) {
    write_page(HOME, to, out);
}

/// Appends the page of one problem.
pub fn write_problem_page(entry: &ProblemEntry, to: &AnswerTo, out: &mut Vec<u8>) {
    let ProblemEntry { slug, status, title, meaning, advice, .. } = entry;
    let (meaning, advice) = (markup(meaning), markup(advice));
    let main = format!(
        "<p class=\"status\">{status} {slug}</p>\n<h1>{title}</h1>\n<p>{meaning}</p>\n\
         <h2>What to do</h2>\n<p>{advice}</p>\n<footer><a href=\"/problems\">All problems</a></footer>"
    );
    write_page(&text_page(title, &main), to, out);
}

/// Appends the page that lists all problems, and the close codes of WebSockets.
pub fn write_problems(to: &AnswerTo, out: &mut Vec<u8>) {
    let problems: String = PROBLEMS
        .iter()
        .map(|ProblemEntry { slug, status, title, .. }| {
            format!("<tr><td>{status}</td><td><a href=\"/problems/{slug}\">{title}</a></td></tr>\n")
        })
        .collect();
    let codes: String = CLOSE_CODES
        .iter()
        .map(|row| {
            let (code, reason, advice) = (row.code, row.reason, markup(row.advice));
            format!("<tr><td>{code}</td><td>{reason}</td><td>{advice}</td></tr>\n")
        })
        .collect();
    let main = format!(
        "<h1>Problems</h1>\n<p>What an error of this server means and what to do about it. An error \
         answer is <code>application/problem+json</code>; its <code>type</code> opens here.</p>\n\
         <table>\n{problems}</table>\n<h2>Why a WebSocket was closed</h2>\n<table>\n{codes}</table>"
    );
    write_page(&text_page("Problems", &main), to, out);
}

fn write_page(html: &str, to: &AnswerTo, out: &mut Vec<u8>) {
    Answer::start(200, to, out)
        .field("Content-Security-Policy", POLICY)
        .field("Referrer-Policy", "no-referrer")
        .body("text/html; charset=utf-8", html.as_bytes());
}

fn text_page(title: &str, main: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{title} · Strandline</title>\n\
         <link rel=\"icon\" href=\"/assets/icon.svg\" type=\"image/svg+xml\">\n\
         <link rel=\"stylesheet\" href=\"/assets/style.css\">\n</head>\n<body>\n\
         <div class=\"page text\">\n\
         <header><a class=\"name\" href=\"/\"><img src=\"/assets/icon.svg\" alt=\"\">Strandline</a>\
         </header>\n<main>\n{main}\n</main>\n</div>\n</body>\n</html>\n"
    )
}

/// The table's text as HTML: escaped, and what stands between backticks as code.
fn markup(text: &str) -> String {
    let mut html = String::with_capacity(text.len() + 64);
    for (index, part) in text.split('`').enumerate() {
        if index > 0 {
            html.push_str(if index % 2 == 1 { "<code>" } else { "</code>" });
        }
        for character in part.chars() {
            match character {
                '&' => html.push_str("&amp;"),
                '<' => html.push_str("&lt;"),
                '>' => html.push_str("&gt;"),
                _ => html.push(character),
            }
        }
    }
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to() -> AnswerTo {
        AnswerTo { keep_alive: true, ..AnswerTo::unreadable(None) }
    }

    fn answer(write: impl Fn(&AnswerTo, &mut Vec<u8>)) -> String {
        let mut out = Vec::new();
        write(&to(), &mut out);
        String::from_utf8(out).unwrap()
    }

    /// They work without any other server, and under the strictest content security policy.
    #[test]
    fn pages_need_nothing_from_elsewhere_and_have_nothing_inline() {
        for (name, text) in [("home", HOME), ("style", STYLE), ("script", SCRIPT)] {
            let outside = ["https://", "http://", "//cdn", "@import", "url("];
            let cleaned =
                text.replace("http://127.0.0.1:7400", "").replace("http://www.w3.org/2000/svg", "");
            assert!(outside.iter().all(|mark| !cleaned.contains(mark)), "{name}");
        }
        for mark in ["<style", "style=", "onclick", "onload", "javascript:", "<script>"] {
            assert!(!HOME.contains(mark), "the policy would block {mark:?}");
        }
        assert!(!SCRIPT.contains("innerHTML"), "what others wrote is text");
    }

    #[test]
    fn the_page_refers_only_to_assets_that_exist() {
        for part in HOME.split("\"/assets/").skip(1) {
            let name = part.split('"').next().unwrap();
            assert!(Asset::find(&format!("/assets/{name}")).is_some(), "{name}");
        }
    }

    #[test]
    fn pages_carry_their_policy() {
        for text in [answer(write_home), answer(write_problems)] {
            assert!(text.starts_with("HTTP/1.1 200 OK\r\n"));
            assert!(
                text.contains("Content-Security-Policy: default-src 'none'; script-src 'self'")
            );
            assert!(text.contains("X-Content-Type-Options: nosniff\r\n"));
        }
    }

    /// API §9: "`type` opens on the server as a page that says what it means and what to do".
    #[test]
    fn every_problem_has_a_page_and_is_listed() {
        let list = answer(write_problems);
        for entry in PROBLEMS {
            let page = answer(|to, out| write_problem_page(entry, to, out));
            assert!(page.contains(&markup(entry.meaning)) && page.contains(&markup(entry.advice)));
            assert!(list.contains(&format!("href=\"/problems/{}\"", entry.slug)));
            assert_eq!(entry.meaning.matches('`').count() % 2, 0, "{}", entry.slug);
            assert_eq!(entry.advice.matches('`').count() % 2, 0, "{}", entry.slug);
        }
    }

    #[test]
    fn markup_escapes() {
        assert_eq!(markup("a `<b>` & c"), "a <code>&lt;b&gt;</code> &amp; c");
    }
}
