//! Where a repository is: `s3://BUCKET/PREFIX`.

use std::{fmt, str::FromStr};

use super::error::SettingsError;

const SCHEME: &str = "s3://";
/// A key has at most 1,024 bytes; the longest name of an object in a repository has 73.
const MAX_PREFIX_BYTES: usize = 900;

/// A bucket, and what stands before the names of all objects there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    bucket: String,
    prefix: String,
}

impl Place {
    /// The bucket.
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What stands before names, without a slash at its ends; empty: nothing.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The key of an object.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() {
            return name.to_owned();
        }
        format!("{}/{name}", self.prefix)
    }

    /// The object's name; `None`: the key is outside.
    pub(super) fn name<'a>(&self, key: &'a str) -> Option<&'a str> {
        if self.prefix.is_empty() {
            return Some(key);
        }
        key.strip_prefix(&self.prefix)?.strip_prefix('/')
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.bucket)?;
        if self.prefix.is_empty() {
            return Ok(());
        }
        write!(f, "/{}", self.prefix)
    }
}

impl FromStr for Place {
    type Err = SettingsError;

    fn from_str(text: &str) -> Result<Self, SettingsError> {
        let wrong = |why| SettingsError::Place {
            text: text.to_owned(),
            why,
        };
        let rest = text.strip_prefix(SCHEME);
        let rest = rest.ok_or_else(|| wrong("it does not begin with s3://"))?;
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let letters = |c: char| matches!(c, 'a'..='z' | '0'..='9' | '.' | '-');
        if !(3..=63).contains(&bucket.len()) || !bucket.chars().all(letters) {
            return Err(wrong(
                "a bucket's name has 3 to 63 small letters, digits, dots and hyphens",
            ));
        }
        let prefix = prefix.trim_end_matches('/');
        let plain = |c: char| c.is_ascii_alphanumeric() || "!-_.*'()/".contains(c);
        if prefix.len() > MAX_PREFIX_BYTES || !prefix.chars().all(plain) {
            return Err(wrong(
                "a prefix has at most 900 letters, digits, slashes and any of !-_.*'()",
            ));
        }
        let odd = |part: &str| matches!(part, "" | "." | "..");
        if !prefix.is_empty() && prefix.split('/').any(odd) {
            return Err(wrong("a part of the prefix is empty, . or .."));
        }
        Ok(Self {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_read_back() {
        for (text, bucket, prefix, shown) in [
            ("s3://abc", "abc", "", "s3://abc"),
            ("s3://abc/", "abc", "", "s3://abc"),
            ("s3://a.b-1/x/y_Z/", "a.b-1", "x/y_Z", "s3://a.b-1/x/y_Z"),
        ] {
            let place: Place = text.parse().unwrap();
            assert_eq!((place.bucket(), place.prefix()), (bucket, prefix));
            assert_eq!(place.to_string(), shown);
            assert_eq!(place.name(&place.key("points/1")), Some("points/1"));
        }
        let place: Place = "s3://abc/x".parse().unwrap();
        assert_eq!(place.name("xy/points/1"), None);
    }

    #[test]
    fn what_is_no_place_says_why() {
        for (text, why) in [
            ("/var/backups", "begin with s3://"),
            ("S3://abc", "begin with s3://"),
            ("s3://", "3 to 63"),
            ("s3:///x", "3 to 63"),
            ("s3://key:secret@abc/x", "3 to 63"),
            ("s3://ABC/x", "3 to 63"),
            ("s3://abc//x", "empty"),
            ("s3://abc/x/../y", "empty"),
            ("s3://abc/x?y", "900 letters"),
            ("s3://abc/\u{e9}", "900 letters"),
        ] {
            let told = text.parse::<Place>().unwrap_err().to_string();
            assert!(told.contains(why), "{text}: {told}");
        }
    }
}
