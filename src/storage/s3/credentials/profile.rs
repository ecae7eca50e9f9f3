//! The files that the tools of AWS share: `~/.aws/credentials` with keys, `~/.aws/config` with everything else. What stands
//! in both counts as the first says.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use super::Variable;

/// Where the two files are, if anywhere.
pub(super) struct Files {
    credentials: Option<PathBuf>,
    config: Option<PathBuf>,
}

/// The settings of one section.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Profile(BTreeMap<String, String>);

impl Files {
    pub(super) fn of(variable: Variable<'_>) -> Self {
        let place = |named: &str, usual: &str| {
            let in_home = || variable("HOME").map(|home| Path::new(&home).join(".aws").join(usual));
            variable(named).map(PathBuf::from).or_else(in_home)
        };
        Self {
            credentials: place("AWS_SHARED_CREDENTIALS_FILE", "credentials"),
            config: place("AWS_CONFIG_FILE", "config"),
        }
    }

    /// The profile `name`; empty where nobody has written one.
    ///
    /// # Errors
    /// When a file is there and can't be read.
    pub(super) fn profile(&self, name: &str) -> io::Result<Profile> {
        let headed = format!("profile {name}");
        // A config says `[profile x]`, but `[default]`.
        let in_config = if name == "default" { vec!["default", &headed] } else { vec![headed.as_str()] };
        let mut profile = Profile::default();
        profile.add(self.config.as_deref(), &in_config)?;
        profile.add(self.credentials.as_deref(), &[name])?;
        Ok(profile)
    }
}

impl Profile {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    fn add(&mut self, file: Option<&Path>, sections: &[&str]) -> io::Result<()> {
        let Some(file) = file else { return Ok(()) };
        match std::fs::read_to_string(file) {
            Ok(text) => self.0.extend(settings(&text, sections)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(io::Error::new(error.kind(), format!("{}: {error}", file.display()))),
        }
        Ok(())
    }
}

/// What `text` says in one of `sections`. Lines that are set in belong to a table of the line above, which nobody here needs.
fn settings(text: &str, sections: &[&str]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut is_inside = false;
    for line in text.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let name = name.0.split_whitespace().collect::<Vec<_>>().join(" ");
            is_inside = sections.contains(&name.as_str());
        } else if is_inside
            && !line.starts_with(char::is_whitespace)
            && !line.starts_with(['#', ';'])
            && let Some((name, value)) = line.split_once('=')
        {
            let value = value.split(" #").next().unwrap_or(value).split(" ;").next().unwrap_or(value);
            found.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_names_and_comments_are_read_as_the_tools_of_aws_do() {
        let text = "# [default]\nregion = outside\n[default]\n Region = none\nregion=eu-west-1 # here\ns3 =\n  region = inner\n\
                    [ profile   night ]\nAWS_Access_Key_Id = A=B\r\n[nightly]\naws_access_key_id = C\n";
        assert_eq!(settings(text, &["default"]).get("region").map(String::as_str), Some("eu-west-1"));
        let night = settings(text, &["profile night"]);
        assert_eq!(night.get("aws_access_key_id").map(String::as_str), Some("A=B"));
        assert!(settings(text, &["profile nightly"]).is_empty());
    }

    #[test]
    fn the_file_of_keys_counts_before_the_other_and_one_that_is_missing_is_empty() {
        let place = tempfile::TempDir::new().expect("a directory");
        let variable = |name: &str| match name {
            "HOME" => place.path().to_str().map(str::to_owned),
            "AWS_CONFIG_FILE" => place.path().join("elsewhere").to_str().map(str::to_owned),
            _ => None,
        };
        let files = Files::of(&variable);
        assert_eq!(files.profile("x").expect("nothing is there"), Profile::default());
        std::fs::create_dir(place.path().join(".aws")).expect("it is new");
        std::fs::write(place.path().join(".aws/credentials"), "[x]\nkey = secret\n").expect("it is new");
        std::fs::write(place.path().join("elsewhere"), "[profile x]\nkey = other\nregion = r\n").expect("it is new");
        let profile = files.profile("x").expect("both can be read");
        assert_eq!((profile.get("key"), profile.get("region"), profile.get("y")), (Some("secret"), Some("r"), None));
        let name = place.path().join(".aws").to_str().map(str::to_owned);
        let unreadable = |_: &str| name.clone();
        Files::of(&unreadable).profile("x").expect_err("a directory is no file");
    }
}
