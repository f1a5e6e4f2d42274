//! A network namespace of this run alone: nothing but the nodes and their clients uses its loopback.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

const INSIDE: &str = "KV_FAILOVER_INSIDE";
/// For root, and for anybody where user namespaces are permitted.
const WAYS: [&[&str]; 2] = [&["--net"], &["--net", "--map-root-user"]];

/// Starts this program anew inside one, in place of this process. Where that cannot be, it returns false.
pub fn enter() -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return is_up();
    }
    let quiet = |command: &mut Command| {
        let status = command.stdout(Stdio::null()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success())
    };
    let Some(way) = WAYS.into_iter().find(|way| {
        quiet(
            Command::new("unshare")
                .args(*way)
                .arg("ip")
                .args(["link", "set", "lo", "up"]),
        )
    }) else {
        eprintln!("no network namespace can be had: what an idle cluster sends is not measured");
        return false;
    };
    let Ok(program) = std::env::current_exe() else {
        return false;
    };
    let error = Command::new("unshare")
        .args(way)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1")
        .exec();
    eprintln!("cannot start inside a network namespace: {error}");
    false
}

fn is_up() -> bool {
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status();
    up.is_ok_and(|status| status.success())
}
