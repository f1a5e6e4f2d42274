//! `kv users`: who may use the store.

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use crate::api::{STATUS_OK, UserEntries, UserEntry};
use crate::client::ClientError;

use super::add::print_status;
use super::connection::{CommonArgs, Connection, ConnectionArgs};
use super::exit::usage;
use super::output::output;
use super::shown::{json_for_stdout, shown};
use super::{prompt, secret};

#[derive(Debug, clap::Subcommand)]
pub enum UsersCommand {
    /// Make a user
    Add(AddArgs),
    /// Print all users, one a line, the admins marked; a name that holds control characters or begins with a quotation mark is quoted and escaped
    List(ListArgs),
    /// Remove a user and everything under their keys
    Remove(RemoveArgs),
    /// Change a password: one's own, or as an admin anyone's
    Passwd(PasswdArgs),
}

#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Name of the new user, without control characters; one with a colon in it cannot log in by HTTP Basic
    pub name: String,
    /// Make an admin, who may manage users and the nodes of the cluster
    #[arg(long)]
    pub admin: bool,
    /// Give what is stored under the name, though there is no such user, to the new user
    #[arg(long)]
    pub keep_data: bool,
    #[command(flatten)]
    pub password: NewPasswordArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct ListArgs {
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct RemoveArgs {
    /// Name of the user
    pub name: String,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct PasswdArgs {
    /// Name of the user [default: oneself]
    pub name: Option<String>,
    #[command(flatten)]
    pub password: NewPasswordArgs,
    #[command(flatten)]
    pub common: CommonArgs,
}

#[derive(Debug, clap::Args)]
pub struct NewPasswordArgs {
    /// File whose text is the new password, or - for standard input (--password-file is the password to log in with) [default: asked for at a terminal, else standard input]
    #[arg(long, value_name = "FILE")]
    pub new_password_file: Option<PathBuf>,
}

impl UsersCommand {
    pub fn connection(&mut self) -> &mut ConnectionArgs {
        let common = match self {
            Self::Add(args) => &mut args.common,
            Self::List(args) => &mut args.common,
            Self::Remove(args) => &mut args.common,
            Self::Passwd(args) => &mut args.common,
        };
        &mut common.connection
    }
}

pub async fn run(command: UsersCommand) -> anyhow::Result<()> {
    match command {
        UsersCommand::Add(args) => {
            let connection = Connection::new(&args.common.connection)?;
            let password = new_password(args.password.new_password_file.as_deref(), &args.name)?;
            let client = &connection.client;
            let added = match args.keep_data {
                true => client.users_adopt(&args.name, &password, args.admin).await,
                false => client.users_add(&args.name, &password, args.admin).await,
            };
            finish(added, &connection, LISTED, args.common.json)
        }
        UsersCommand::List(args) => list(&args.common).await,
        UsersCommand::Remove(args) => {
            let connection = Connection::new(&args.common.connection)?;
            let removed = connection.client.users_remove(&args.name).await;
            finish(removed, &connection, LISTED, args.common.json)
        }
        UsersCommand::Passwd(args) => {
            let connection = Connection::new(&args.common.connection)?;
            let name = args.name.as_deref().unwrap_or(connection.client.user_id());
            let password = new_password(args.password.new_password_file.as_deref(), name)?;
            let changed = connection.client.users_passwd(name, &password).await;
            let doubt =
                "try the new password; where it is refused, change it again with the one that you logged in with";
            finish(changed, &connection, doubt, args.common.json)
        }
    }
}

async fn list(args: &CommonArgs) -> anyhow::Result<()> {
    let connection = Connection::new(&args.connection)?;
    let listed = connection.client.users_list().await;
    let users = listed.map_err(|error| connection.explain(error.into()))?;
    let mut out = output();
    if args.json {
        let json = serde_json::to_string(&UserEntries { users })?;
        writeln!(out, "{}", json_for_stdout(&json))?;
    } else {
        for user in users {
            writeln!(out, "{}", line(&user))?;
        }
    }
    Ok(out.flush()?)
}

/// No name looks like another one's line, or like the mark of an admin.
fn line(user: &UserEntry) -> String {
    let mark = if user.admin { "\tadmin" } else { "" };
    let name = &user.user_id;
    match name.starts_with('"') {
        // It would look like one that is quoted.
        true => format!("{name:?}{mark}"),
        false => format!("{}{mark}", shown(name)),
    }
}

/// What to do when it is not known whether a user was added or removed.
const LISTED: &str = "`kv users list` tells";

fn finish(outcome: Result<(), ClientError>, connection: &Connection, doubt: &str, json: bool) -> anyhow::Result<()> {
    outcome.map_err(|error| connection.explain_change(error, doubt))?;
    print_status(STATUS_OK, json)
}

/// Without a file the password is taken from standard input; a person is asked for it.
fn new_password(file: Option<&Path>, name: &str) -> anyhow::Result<String> {
    match file {
        Some(path) if path != Path::new("-") => secret::read_password(path),
        None if io::stdin().is_terminal() && io::stderr().is_terminal() => prompt::new_password(name),
        // It would be typed in sight, and unasked.
        None if io::stdin().is_terminal() => Err(usage(
            "no new password: give --new-password-file FILE, or pipe the password in",
        )),
        _ => secret::read_password_from_stdin(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_makes_up_a_line_or_the_mark_of_an_admin() {
        let line_of = |name: &str, admin| {
            line(&UserEntry {
                user_id: name.to_owned(),
                admin,
            })
        };
        assert_eq!([line_of("ann", true), line_of("bob", false)], ["ann\tadmin", "bob"]);
        assert_eq!(line_of("eve\tadmin", false), r#""eve\tadmin""#);
        assert_eq!(line_of("a\nb", false), r#""a\nb""#);
        // One that is already what the line of another one is.
        assert_eq!(line_of(r#""a\nb""#, false), r#""\"a\\nb\"""#);
    }
}
