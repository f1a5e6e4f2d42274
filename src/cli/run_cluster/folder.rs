//! The folder of a local cluster: `node-1`, `node-2`, … with their logs, the demo user's password, the cluster's key, the profile.
//!
//! Invariant: only one process at a time runs it; and what was made once (password, key) is made again only with everything else.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cli::cluster::new_key;
use crate::cli::connection::profile::{LOCK_FILE, PROFILE_FILE, Profile, Urls};
use crate::cli::exit::usage;
use crate::cli::secret;
use crate::client::{Client, entropy};

use super::made::Made;
use super::{NODES_DEFAULT, NODES_MAX};

/// The user that is made, an admin.
pub const DEMO_USER: &str = "demo";
pub const PASSWORD_FILE: &str = "demo-password";
pub const KEY_FILE: &str = "cluster-key";
/// Of randomness, in the demo user's password.
pub const PASSWORD_BYTES: usize = 16;

pub struct Folder {
    path: PathBuf,
    lock: fs::File,
    /// How many nodes it was made for; 0 when it holds no data.
    nodes: usize,
    /// All nodes of it served once.
    was_whole: bool,
    made: Made,
}

impl Drop for Folder {
    fn drop(&mut self) {
        // As long as nobody else can run it.
        self.made.remove();
        // Closing the file is not enough: a child that is just being started holds a copy of it until it runs its program.
        let _ = self.lock.unlock();
    }
}

impl Folder {
    /// What is made is removed again unless [`keep`](Self::keep) is called.
    pub fn prepare(path: &Path) -> anyhow::Result<Self> {
        let mut made = Made::default();
        let cannot = || format!("cannot make the folder {}", path.display());
        made.folder(path).with_context(cannot)?;
        let lock_file = path.join(LOCK_FILE);
        let is_first = !lock_file.exists();
        let lock = lock(path)?;
        if is_first {
            made.file(lock_file);
        }
        let mut folder = Self {
            path: path.to_path_buf(),
            lock,
            nodes: 0,
            was_whole: false,
            made,
        };
        let highest = |path_of: fn(&Self, usize) -> PathBuf| {
            let mut numbers = (1..=usize::from(NODES_MAX)).rev();
            numbers.find(|number| path_of(&folder, *number).exists()).unwrap_or(0)
        };
        // A node whose data folder was removed is one of them all the same: it is started again under its number, empty. The profile is
        // written when all serve; before, only the logs tell of those that have no folder yet.
        let (with_data, with_log) = (highest(Self::data), highest(Self::log));
        if with_data == 0 {
            folder.remove_profile()?;
        } else {
            let told = folder.nodes_in_profile();
            folder.nodes = with_data.max(told.unwrap_or(with_log)).min(usize::from(NODES_MAX));
            folder.was_whole = told.is_some();
        }
        let password = folder.password_file();
        if !password.exists() {
            if folder.nodes > 0 {
                anyhow::bail!(
                    "{} is gone, but the data of its user is there: put the file back, or remove {} to begin anew",
                    password.display(),
                    path.display()
                );
            }
            folder.made.file(password.clone());
            secret::write_private(&password, &format!("{}\n", entropy::hex::<PASSWORD_BYTES>()))?;
        }
        Ok(folder)
    }

    /// From now on there are nodes whose data, and logs, are in it.
    pub fn keep(&mut self) {
        self.made.keep();
    }

    pub fn was_whole(&self) -> bool {
        self.was_whole
    }

    /// The nodes that served once and whose data is gone, when that of others is there.
    pub fn lost(&self) -> Vec<usize> {
        let all = 1..=if self.was_whole { self.nodes } else { 0 };
        all.filter(|number| !self.data(*number).exists()).collect()
    }

    /// None when there is none that was written here.
    fn nodes_in_profile(&self) -> Option<usize> {
        let text = fs::read_to_string(self.path.join(PROFILE_FILE)).ok()?;
        let profile: Profile = toml::from_str(&text).ok()?;
        profile.url.map(|url| url.list().len())
    }

    /// One of nodes that are not there any more.
    fn remove_profile(&self) -> anyhow::Result<()> {
        let path = self.path.join(PROFILE_FILE);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot remove {}", path.display()))
            }
            _ => Ok(()),
        }
    }

    /// How many nodes to run. Others cannot join those of the folder, which may hold data.
    pub fn nodes(&self, asked: Option<u16>) -> anyhow::Result<u16> {
        // At most NODES_MAX.
        let nodes = self.nodes as u16;
        let here = self.path.display();
        match asked {
            None if nodes == 0 => Ok(NODES_DEFAULT),
            None => Ok(nodes),
            Some(asked) if nodes == 0 || asked == nodes => Ok(asked),
            Some(asked) if nodes == 1 => Err(usage(format!(
                "--nodes {asked}: {here} holds a single node, which is no cluster; leave --nodes out, or choose another folder with \
                 --dir"
            ))),
            Some(asked) if asked < nodes => Err(usage(format!(
                "--nodes {asked}: {here} holds {nodes} nodes, and its data needs them; leave --nodes out, or choose another folder \
                 with --dir"
            ))),
            Some(asked) => Err(usage(format!(
                "--nodes {asked}: {here} was made for {nodes} nodes, and more cannot join them; leave --nodes out, or choose another \
                 folder with --dir"
            ))),
        }
    }

    pub fn data(&self, number: usize) -> PathBuf {
        self.path.join(format!("node-{number}"))
    }

    pub fn all_data(&self, nodes: u16) -> Vec<PathBuf> {
        (1..=usize::from(nodes)).map(|number| self.data(number)).collect()
    }

    pub fn log(&self, number: usize) -> PathBuf {
        self.path.join(format!("node-{number}.log"))
    }

    pub fn password_file(&self) -> PathBuf {
        self.path.join(PASSWORD_FILE)
    }

    /// The file of the key that the nodes share; made when there is none.
    pub fn cluster_key(&mut self) -> anyhow::Result<PathBuf> {
        let key = self.path.join(KEY_FILE);
        if !key.exists() {
            self.made.file(key.clone());
            secret::write_private(&key, &new_key())?;
        }
        Ok(key)
    }

    /// Speaks as the demo user.
    pub fn client(&self, urls: &[String]) -> Option<Client> {
        let password = secret::read_password(&self.password_file()).ok()?;
        let builder = Client::builder().urls(urls).user(DEMO_USER).password(&password);
        builder.retries(0).build().ok()
    }

    pub fn write_profile(&self, mut urls: Vec<String>) -> anyhow::Result<()> {
        let url = match urls.pop() {
            Some(only) if urls.is_empty() => Urls::One(only),
            last => {
                urls.extend(last);
                Urls::Several(urls)
            }
        };
        let profile = Profile {
            url: Some(url),
            user: Some(DEMO_USER.to_owned()),
            password: None,
            password_file: Some(PASSWORD_FILE.into()),
            consistency: None,
        };
        secret::write_private(&self.path.join(PROFILE_FILE), &toml::to_string(&profile)?)
    }
}

/// Who can write into the folder can have files of this process's user written over, and knows the password; so a folder that is only found
/// there is one's own, or root's.
pub fn check_owner(folder: &Path, owners: &[u32]) -> anyhow::Result<()> {
    for meta in [fs::symlink_metadata(folder), fs::metadata(folder)]
        .into_iter()
        .flatten()
    {
        if !owners.contains(&meta.uid()) {
            let shown = folder.display();
            return Err(usage(format!(
                "{shown} belongs to another user; with --dir ./{shown} it is run all the same"
            )));
        }
    }
    Ok(())
}

fn lock(folder: &Path) -> anyhow::Result<fs::File> {
    let place = || format!("cannot lock the folder {}", folder.display());
    let path = folder.join(LOCK_FILE);
    loop {
        let file = fs::File::create(&path).with_context(place)?;
        match file.try_lock() {
            // A run that failed may have removed it since it was opened here.
            Ok(()) if is_at(&file, &path).with_context(place)? => return Ok(file),
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => anyhow::bail!(
                "{} is run by another `kv run-cluster` already; stop that, or choose another folder with --dir",
                folder.display()
            ),
            Err(fs::TryLockError::Error(error)) => return Err(error).with_context(place),
        }
    }
}

fn is_at(file: &fs::File, path: &Path) -> io::Result<bool> {
    let of_file = file.metadata()?;
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        at_path => at_path.map(|meta| (meta.dev(), meta.ino()) == (of_file.dev(), of_file.ino())),
    }
}

/// A new log; the one of the run before is kept beside it.
pub fn new_log(log: &Path) -> anyhow::Result<fs::File> {
    let old = log.with_extension("log.old");
    match fs::rename(log, old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| format!("cannot rename {}", log.display()));
        }
        _ => {}
    }
    fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))
}

/// The log of a node that is started again in the same run.
pub fn same_log(log: &Path) -> anyhow::Result<fs::File> {
    let opened = fs::OpenOptions::new().append(true).create(true).open(log);
    opened.with_context(|| format!("cannot write {}", log.display()))
}
