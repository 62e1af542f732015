//! Who may read: basic and digest (RFC 2617, MD5, as cameras have it).

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use md5::{Digest as _, Md5};

use crate::manner::Login;

const REALM: &str = "camera";

/// What a reader is asked with.
pub(crate) fn challenge(login: &Login, nonce: &str, stale: bool) -> String {
    if login.basic {
        format!("Basic realm=\"{REALM}\"")
    } else {
        let stale = if stale { ", stale=true" } else { "" };
        format!("Digest realm=\"{REALM}\", nonce=\"{nonce}\"{stale}")
    }
}

pub(crate) fn opens(login: &Login, nonce: &str, method: &str, answer: &str) -> bool {
    let Login {
        user,
        password,
        basic,
        ..
    } = login;
    match answer.split_once(' ') {
        Some(("Basic", coded)) => {
            *basic && coded.trim() == BASE64.encode(format!("{user}:{password}"))
        }
        Some(("Digest", fields)) => {
            let field = |name: &str| {
                let value = fields
                    .split(',')
                    .find_map(|field| field.trim().strip_prefix(name)?.strip_prefix('='));
                value.map_or("", |value| value.trim_matches('"'))
            };
            let secret = md5(&format!("{user}:{REALM}:{password}"));
            let request = md5(&format!("{method}:{}", field("uri")));
            !basic
                && field("username") == user
                && field("nonce") == nonce
                && field("response") == md5(&format!("{secret}:{nonce}:{request}"))
        }
        _ => false,
    }
}

fn md5(text: &str) -> String {
    hex::encode(Md5::digest(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_answer_opens() {
        let login = |basic| Login {
            user: "Mufasa".into(),
            password: "Circle".into(),
            basic,
            ..Login::default()
        };
        let secret = md5("Mufasa:camera:Circle");
        let request = md5("DESCRIBE:rtsp://h/p");
        let response = md5(&format!("{secret}:n1:{request}"));
        let answer = |response: &str| {
            format!(
                "Digest username=\"Mufasa\", realm=\"camera\", nonce=\"n1\", uri=\"rtsp://h/p\", response=\"{response}\""
            )
        };
        assert!(opens(&login(false), "n1", "DESCRIBE", &answer(&response)));
        assert!(!opens(&login(false), "n1", "SETUP", &answer(&response)));
        assert!(!opens(&login(false), "n2", "DESCRIBE", &answer(&response)));
        assert!(!opens(&login(false), "n1", "DESCRIBE", &answer(&secret)));
        let basic = format!("Basic {}", BASE64.encode("Mufasa:Circle"));
        assert!(opens(&login(true), "n1", "DESCRIBE", &basic));
        assert!(!opens(&login(false), "n1", "DESCRIBE", &basic));
        assert!(!opens(&login(true), "n1", "DESCRIBE", &answer(&response)));
    }
}
