//! Profile files: the address, user and password of a store, under a name.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use super::exit::usage;
use super::secret;

/// What `run-cluster` writes, relative to the folder it is started in.
pub const LOCAL_CLUSTER_FOLDER: &str = "kv-cluster";
pub const PROFILE_FILE: &str = "profile.toml";
/// The folder below the user's configuration folder.
const CONFIG_FOLDER: &str = "kv-storage";

/// One address or several.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "write a text or a list of texts")]
pub enum Urls {
    One(String),
    Several(Vec<String>),
}

impl Urls {
    pub fn list(&self) -> Vec<String> {
        match self {
            Self::One(url) => split_urls(url),
            Self::Several(urls) => urls.iter().flat_map(|url| split_urls(url)).collect(),
        }
    }
}

/// Addresses may stand in one text, with commas between.
pub fn split_urls(text: &str) -> Vec<String> {
    let trimmed = text.split(',').map(str::trim);
    trimmed.filter(|url| !url.is_empty()).map(str::to_owned).collect()
}

/// The content of a profile file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// One node or several.
    #[serde(alias = "urls", skip_serializing_if = "Option::is_none")]
    pub url: Option<Urls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
    /// Relative to the folder of the profile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password_file: Option<PathBuf>,
    /// How many replicas each request must reach: one, quorum or all.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consistency: Option<String>,
}

/// A profile and where it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    pub profile: Profile,
    pub path: PathBuf,
}

/// Where profiles are looked for.
#[derive(Debug, Clone)]
pub struct Folders {
    pub working: PathBuf,
    /// None when the user has no home.
    pub config: Option<PathBuf>,
}

impl Folders {
    pub fn of_this_process() -> Self {
        Self {
            working: PathBuf::new(),
            config: etcetera::choose_base_strategy()
                .ok()
                .map(|base| base.config_dir().join(CONFIG_FOLDER)),
        }
    }

    /// The profile asked for, which must exist, or the first of the usual ones that does.
    pub fn find(&self, asked: Option<&str>) -> anyhow::Result<Option<Found>> {
        if let Some(asked) = asked {
            let path = self.path_of(asked)?;
            return match read(&path)? {
                Some(found) => Ok(Some(found)),
                None => Err(usage(format!(
                    "there is no profile {asked:?}: {} does not exist",
                    path.display()
                ))),
            };
        }
        let local = self.working.join(LOCAL_CLUSTER_FOLDER).join(PROFILE_FILE);
        let own = self.config.as_ref().map(|folder| folder.join(PROFILE_FILE));
        for path in [Some(local), own].into_iter().flatten() {
            if let Some(found) = read(&path)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// A path, or a name that stands for `NAME.toml` in the configuration folder.
    fn path_of(&self, asked: &str) -> anyhow::Result<PathBuf> {
        if asked.contains(std::path::MAIN_SEPARATOR) || asked.ends_with(".toml") {
            return Ok(self.working.join(asked));
        }
        match &self.config {
            Some(folder) => Ok(folder.join(format!("{asked}.toml"))),
            None => Err(usage(format!(
                "there is no configuration folder to look for the profile {asked:?} in; give the file's path"
            ))),
        }
    }
}

/// None when there is no such file.
fn read(path: &Path) -> anyhow::Result<Option<Found>> {
    let place = || format!("cannot read the profile {}", path.display());
    let file = match fs::File::open(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        opened => opened.with_context(place)?,
    };
    let text = io::read_to_string(&file).with_context(place)?;
    let profile: Profile =
        toml::from_str(&text).map_err(|error| usage(format!("the profile {} is wrong: {error}", path.display())))?;
    if profile.password.is_some() {
        secret::warn_if_others_can_read(path, &file);
    }
    Ok(Some(Found {
        profile,
        path: path.to_path_buf(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folders(root: &Path) -> Folders {
        let config = root.join("config");
        fs::create_dir_all(root.join(LOCAL_CLUSTER_FOLDER)).unwrap();
        fs::create_dir_all(&config).unwrap();
        Folders {
            working: root.to_path_buf(),
            config: Some(config),
        }
    }

    fn user_of(found: Option<Found>) -> Option<String> {
        found.and_then(|found| found.profile.user)
    }

    #[test]
    fn the_local_clusters_profile_comes_before_the_users_own() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        assert_eq!(folders.find(None).unwrap(), None);
        fs::write(root.path().join("config/profile.toml"), "user = 'own'").unwrap();
        assert_eq!(user_of(folders.find(None).unwrap()).unwrap(), "own");
        fs::write(root.path().join("kv-cluster/profile.toml"), "user = 'demo'").unwrap();
        assert_eq!(user_of(folders.find(None).unwrap()).unwrap(), "demo");
    }

    #[test]
    fn a_profile_is_asked_for_by_name_or_path_and_must_exist() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        fs::write(root.path().join("config/staging.toml"), "user = 'a'").unwrap();
        fs::write(root.path().join("here.toml"), "user = 'b'").unwrap();
        assert_eq!(user_of(folders.find(Some("staging")).unwrap()).unwrap(), "a");
        assert_eq!(user_of(folders.find(Some("here.toml")).unwrap()).unwrap(), "b");
        let error = folders.find(Some("missing")).unwrap_err().to_string();
        assert!(error.contains("missing.toml does not exist"), "{error}");
    }

    #[test]
    fn an_unknown_key_in_a_profile_is_an_error_that_names_it() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        fs::write(root.path().join("config/p.toml"), "usr = 'a'").unwrap();
        let error = folders.find(Some("p")).unwrap_err().to_string();
        assert!(error.contains("p.toml") && error.contains("usr"), "{error}");
        fs::write(root.path().join("config/p.toml"), "url = 5").unwrap();
        let error = folders.find(Some("p")).unwrap_err().to_string();
        assert!(error.contains("url") && error.contains("a list of texts"), "{error}");
    }

    #[test]
    fn addresses_may_be_a_list_or_stand_between_commas() {
        let profile: Profile = toml::from_str("url = ['http://a', 'http://b,http://c']").unwrap();
        assert_eq!(profile.url.unwrap().list(), ["http://a", "http://b", "http://c"]);
        assert_eq!(split_urls(" a , b,"), ["a", "b"]);
    }
}
