//! Rivals that are not installed are had from Debian.

use std::process::{Command, Stdio};

use anyhow::Context;

/// The system's package tool.
const INSTALLER: &str = "apt-get";

fn is_installed(program: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
}

/// Ok when the program is there, perhaps only now.
pub fn install(program: &str, package: &str) -> anyhow::Result<()> {
    if is_installed(program) {
        return Ok(());
    }
    eprintln!("{program} is not there; trying {INSTALLER} install {package}");
    let installer = Command::new(INSTALLER)
        .args(["install", "-y", "--no-install-recommends", package])
        .env("DEBIAN_FRONTEND", "noninteractive")
        // The package would start a server of its own otherwise.
        .env("RUNLEVEL", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .with_context(|| format!("{program} is not installed, and there is no {INSTALLER}"))?;
    anyhow::ensure!(
        installer.success() && is_installed(program),
        "{program} is not installed, and {INSTALLER} install {package} failed"
    );
    Ok(())
}
