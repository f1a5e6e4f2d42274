//! Profile files: the address, user and password of a store, under a name.
//!
//! Invariant: a file that is found only because of where one stands is used only when it is one's own, or root's: whoever
//! writes a profile says who gets its reader's credentials and values.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use etcetera::BaseStrategy;
use serde::{Deserialize, Serialize};

use crate::cli::exit::usage;
use crate::cli::secret;

/// What `run-cluster` writes, relative to the folder it is started in.
pub const LOCAL_CLUSTER_FOLDER: &str = "kv-cluster";
pub const PROFILE_FILE: &str = "profile.toml";
/// Of the folder that `run-cluster` runs.
pub const LOCK_FILE: &str = "lock";
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

/// What a look for a profile found.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Search {
    pub found: Option<Found>,
    /// What was there and is not used, with the reason: to be said where a setting could have come from it.
    pub passed_over: Vec<String>,
}

impl Search {
    /// Of a profile that nobody asked for; `opened` is None when it is somebody else's. One that may not be read is no reason to fail: perhaps
    /// nothing of it is needed.
    fn take_unasked(&mut self, path: &Path, opened: io::Result<Option<fs::File>>) -> anyhow::Result<()> {
        let shown = path.display();
        match opened {
            Ok(Some(file)) => self.found = Some(read(path, &file)?),
            Ok(None) => self.passed_over.push(format!(
                "{shown} belongs to another user and is passed over; with --profile {shown} it is used all the same"
            )),
            Err(error) if is_absent(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                self.passed_over.push(format!("{shown} is passed over: {error}"));
            }
            Err(error) => return Err(unreadable(path, &error)),
        }
        Ok(())
    }
}

/// Where profiles are looked for.
#[derive(Debug, Clone)]
pub struct Folders {
    pub working: PathBuf,
    /// None when the user has no home.
    pub config: Option<PathBuf>,
    /// Users whose file in the working folder is believed without being asked for.
    pub owners: [u32; 2],
}

const ROOT: u32 = 0;

/// Whose files in the working folder are used without being asked for.
pub fn believed_owners() -> [u32; 2] {
    [ROOT, rustix::process::geteuid().as_raw()]
}

impl Folders {
    pub fn of_this_process() -> Self {
        Self {
            working: PathBuf::new(),
            config: etcetera::choose_base_strategy()
                .ok()
                .map(|base| base.config_dir().join(CONFIG_FOLDER)),
            owners: believed_owners(),
        }
    }

    /// The profile asked for, which must exist, or the first of the usual ones that may be used.
    pub fn find(&self, asked: Option<&str>) -> anyhow::Result<Search> {
        let mut search = Search::default();
        if let Some(asked) = asked {
            let path = self.path_of(asked)?;
            let file = match fs::File::open(&path) {
                Err(error) if is_absent(&error) => {
                    let path = path.display();
                    return Err(usage(format!("there is no profile {asked:?}: {path} does not exist")));
                }
                opened => opened.map_err(|error| unreadable(&path, &error))?,
            };
            search.found = Some(read(&path, &file)?);
            return Ok(search);
        }
        let local = self.working.join(LOCAL_CLUSTER_FOLDER).join(PROFILE_FILE);
        search.take_unasked(&local, open_owned(&local, &self.owners))?;
        if let (None, Some(folder)) = (&search.found, &self.config) {
            let own = folder.join(PROFILE_FILE);
            search.take_unasked(&own, fs::File::open(&own).map(Some))?;
        }
        Ok(search)
    }

    /// The folder of a local cluster that has not served yet.
    pub fn cluster_without_profile(&self) -> Option<PathBuf> {
        let folder = self.working.join(LOCAL_CLUSTER_FOLDER);
        let is_there = |name| fs::symlink_metadata(folder.join(name)).is_ok();
        (is_there(LOCK_FILE) && !is_there(PROFILE_FILE)).then_some(folder)
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

/// None when the file, or the folder or link that leads to it, is of none of these users.
fn open_owned(path: &Path, owners: &[u32]) -> io::Result<Option<fs::File>> {
    let is_owned = |meta: fs::Metadata| owners.contains(&meta.uid());
    // Before it is opened: somebody else's pipe would be waited for.
    for place in [Some(path), path.parent()].into_iter().flatten() {
        if !is_owned(fs::symlink_metadata(place)?) {
            return Ok(None);
        }
    }
    let file = fs::File::open(path)?;
    Ok(is_owned(file.metadata()?).then_some(file))
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn unreadable(path: &Path, error: &io::Error) -> anyhow::Error {
    usage(format!("cannot read the profile {}: {error}", path.display()))
}

fn read(path: &Path, file: &fs::File) -> anyhow::Result<Found> {
    let text = io::read_to_string(file).map_err(|error| unreadable(path, &error))?;
    let profile: Profile =
        toml::from_str(&text).map_err(|error| usage(format!("the profile {} is wrong: {error}", path.display())))?;
    if profile.password.is_some() {
        secret::warn_if_others_can_read(path, file);
    }
    Ok(Found {
        profile,
        path: path.to_path_buf(),
    })
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
            owners: [ROOT, rustix::process::geteuid().as_raw()],
        }
    }

    /// Whom no file of these tests belongs to.
    const NOBODY: [u32; 2] = [u32::MAX - 7; 2];

    fn user_of(search: Search) -> Option<String> {
        search.found.and_then(|found| found.profile.user)
    }

    fn is_usage(error: &anyhow::Error) -> bool {
        crate::cli::exit::exit_of(error) == crate::cli::exit::Exit::Usage
    }

    #[test]
    fn what_somebody_else_put_into_the_working_folder_is_not_believed_unless_it_is_asked_for() {
        let root = tempfile::tempdir().unwrap();
        let folders = Folders {
            owners: NOBODY,
            ..folders(root.path())
        };
        // Nothing to say about a folder without a profile.
        assert_eq!(folders.find(None).unwrap(), Search::default());
        let local = root.path().join("kv-cluster/profile.toml");
        fs::write(&local, "url = 'http://theirs'").unwrap();
        fs::write(root.path().join("config/profile.toml"), "user = 'own'").unwrap();
        let search = folders.find(None).unwrap();
        let said = search.passed_over.concat();
        assert!(
            said.contains("another user") && said.contains(&format!("--profile {}", local.display())),
            "{said}"
        );
        assert_eq!(user_of(search).unwrap(), "own");
        let asked = folders.find(Some(local.to_str().unwrap())).unwrap();
        assert!(asked.passed_over.is_empty() && asked.found.unwrap().profile.url.is_some());
    }

    #[test]
    fn one_s_own_file_behind_somebody_else_s_folder_or_link_is_not_believed_either() {
        let root = tempfile::tempdir().unwrap();
        let (folder, file) = (root.path().join("kv-cluster"), root.path().join("file"));
        fs::create_dir(&folder).unwrap();
        fs::write(&file, "").unwrap();
        std::os::unix::fs::symlink(&file, folder.join("profile.toml")).unwrap();
        let own = [fs::metadata(&file).unwrap().uid(); 2];
        assert!(open_owned(&folder.join("profile.toml"), &own).unwrap().is_some());
        // Only root can give a file away; whoever else runs this test sees the rest.
        let given = |path: &Path| std::os::unix::fs::lchown(path, Some(NOBODY[0]), None).is_ok();
        for path in [folder.join("profile.toml"), folder.clone(), file.clone()] {
            if given(&path) {
                assert!(
                    open_owned(&folder.join("profile.toml"), &own).unwrap().is_none(),
                    "{path:?}"
                );
                std::os::unix::fs::lchown(&path, Some(own[0]), None).unwrap();
            }
        }
    }

    #[test]
    fn a_profile_that_may_not_be_read_is_passed_over_unless_it_is_asked_for() {
        let path = Path::new("/root/.config/kv-storage/profile.toml");
        let mut search = Search::default();
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        search.take_unasked(path, Err(denied())).unwrap();
        assert!(search.found.is_none());
        let said = search.passed_over.concat();
        assert!(
            said.contains("/root/.config") && said.contains("ermission denied"),
            "{said}"
        );
        let broken = search
            .take_unasked(path, Err(io::Error::other("the disk")))
            .unwrap_err();
        assert!(
            is_usage(&broken) && broken.to_string().contains("/root/.config"),
            "{broken}"
        );
        assert!(is_usage(&unreadable(path, &denied())));
    }

    #[test]
    fn a_profile_that_is_no_file_of_text_is_wrong_usage() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        fs::write(root.path().join("latin1.toml"), b"user = '\xe9'").unwrap();
        for asked in ["/", "latin1.toml"] {
            let error = folders.find(Some(asked)).unwrap_err();
            assert!(is_usage(&error) && error.to_string().contains(asked), "{error}");
        }
        fs::create_dir(root.path().join("kv-cluster/profile.toml")).unwrap();
        assert!(is_usage(&folders.find(None).unwrap_err()));
    }

    #[test]
    fn the_local_clusters_profile_comes_before_the_users_own() {
        let root = tempfile::tempdir().unwrap();
        let folders = folders(root.path());
        assert_eq!(folders.find(None).unwrap(), Search::default());
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
