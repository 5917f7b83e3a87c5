//! Paths in commands that a message proposes.

use std::path::Path;

/// The path as one word of a shell.
pub fn word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_@%+=:,./-".contains(&byte);
    match !text.is_empty() && text.bytes().all(is_plain) {
        true => text.into_owned(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_takes_each_path_for_one_word() {
        assert_eq!(word(Path::new("/srv/a-b_c.d/1")), "/srv/a-b_c.d/1");
        for path in ["/srv/my data", "it's", "a;b", "$HOME/*", "~", "ä", "a\nb", ""] {
            let line = format!("printf %s, {}", word(Path::new(path)));
            let said = Command::new("sh").args(["-c", &line]).output().expect("a shell").stdout;
            assert_eq!(String::from_utf8_lossy(&said), format!("{path},"));
        }
    }
}
