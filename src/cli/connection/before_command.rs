//! The flags of a connection, where they stand before the command: `kv --url URL get_value KEY`.
//!
//! Invariant: what stands behind the command counts more.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, CommandFactory, FromArgMatches};

use crate::cli::Cli;
use crate::types::Consistency;

use super::{ConnectionArgs, KeyConnectionArgs};

const TIMEOUT: &str = "timeout";

/// What a command has of these flags.
pub struct Flags<'a> {
    pub common: &'a mut ConnectionArgs,
    /// Of a command on keys.
    pub consistency: Option<&'a mut Option<Consistency>>,
}

impl<'a> From<&'a mut KeyConnectionArgs> for Flags<'a> {
    fn from(args: &'a mut KeyConnectionArgs) -> Self {
        Self {
            common: &mut args.common,
            consistency: Some(&mut args.consistency),
        }
    }
}

impl<'a> From<&'a mut ConnectionArgs> for Flags<'a> {
    fn from(common: &'a mut ConnectionArgs) -> Self {
        Self {
            common,
            consistency: None,
        }
    }
}

/// What stands before the command. The help shows it with the commands.
#[derive(Debug, Default)]
pub struct Before {
    args: KeyConnectionArgs,
    has_timeout: bool,
}

impl Before {
    fn is_none(&self) -> bool {
        let common = &self.args.common;
        let common_given = common.user.is_some() || common.password_file.is_some() || common.profile.is_some();
        let timed = self.has_timeout || common.deadline.is_some();
        common.url.is_empty() && !common_given && !timed && self.args.consistency.is_none()
    }
}

fn wrong(text: String) -> clap::Error {
    Cli::command().error(ErrorKind::ArgumentConflict, text)
}

impl Cli {
    /// The command line, with the flags before the command where that has its own.
    pub fn of(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut cli = Self::from_arg_matches(matches)?;
        let before = std::mem::take(&mut cli.before);
        if before.is_none() {
            return Ok(cli);
        }
        let (mut name, mut behind) = (String::new(), matches);
        while let Some((next, inner)) = behind.subcommand() {
            name = format!("{name} {next}");
            behind = inner;
        }
        let name = name.trim_start();
        let Some(flags) = cli.command.connection() else {
            return Err(wrong(format!(
                "'{name}' asks no node: the flags before it are of no use; those of its own stand behind it"
            )));
        };
        let KeyConnectionArgs { common, consistency } = before.args;
        if flags.common.url.is_empty() {
            flags.common.url = common.url;
        }
        take(&mut flags.common.user, common.user);
        take(&mut flags.common.password_file, common.password_file);
        take(&mut flags.common.profile, common.profile);
        take(&mut flags.common.deadline, common.deadline);
        if before.has_timeout && behind.value_source(TIMEOUT) != Some(ValueSource::CommandLine) {
            flags.common.timeout = common.timeout;
        }
        match flags.consistency {
            Some(own) => take(own, consistency),
            None if consistency.is_some() => return Err(wrong(format!("'{name}' has no --consistency"))),
            None => {}
        }
        Ok(cli)
    }
}

fn take<T>(own: &mut Option<T>, before: Option<T>) {
    *own = own.take().or(before);
}

impl Args for Before {
    fn augment_args(command: clap::Command) -> clap::Command {
        KeyConnectionArgs::augment_args(command).mut_args(|arg| arg.hide(true))
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Before {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        Ok(Self {
            args: KeyConnectionArgs::from_arg_matches(matches)?,
            has_timeout: matches.value_source(TIMEOUT) == Some(ValueSource::CommandLine),
        })
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        let matches = Cli::command().try_get_matches_from(line.split(' '))?;
        Cli::of(&matches)
    }

    fn connection(line: &str) -> ConnectionArgs {
        let mut cli = parse(line).expect(line);
        cli.command.connection().expect(line).common.clone()
    }

    #[test]
    fn the_flags_of_a_connection_may_stand_before_any_command_that_asks_a_node() {
        for command in [
            "add_value k v",
            "add_value_part k v",
            "get_value k",
            "clear_key k",
            "keys",
            "export",
            "import f",
            "bench",
            "users list",
            "users add n",
            "users remove n",
            "users passwd",
            "cluster status",
            "cluster members",
            "cluster remove n",
            "cluster replace a b",
        ] {
            let line = format!("kv --url u --user n --password-file f --profile p --deadline 2 --timeout 5 {command}");
            let common = connection(&line);
            assert_eq!(common.url, ["u"], "{line}");
            assert_eq!(
                (common.user.as_deref(), common.profile.as_deref()),
                (Some("n"), Some("p"))
            );
            assert_eq!(common.password_file.as_deref(), Some("f".as_ref()));
            assert_eq!(
                (common.timeout, common.deadline.map(|time| time.as_secs())),
                (5, Some(2))
            );
        }
        let mut keys = parse("kv --consistency one keys").unwrap();
        assert_eq!(
            keys.command.connection().unwrap().consistency.copied(),
            Some(Some(Consistency::One))
        );
    }

    #[test]
    fn what_stands_behind_the_command_counts_more() {
        let common = connection("kv --url a --url b --user n --timeout 5 get_value k --url c --timeout 30");
        assert_eq!((common.url, common.timeout), (vec!["c".to_owned()], 30));
        assert_eq!(common.user.as_deref(), Some("n"));
        assert_eq!(connection("kv --url a --url b keys").url, ["a", "b"]);
    }

    #[test]
    fn before_a_command_that_has_no_use_for_them_they_are_wrong_usage() {
        for line in [
            "kv --user n serve",
            "kv --url u run-cluster",
            "kv --url u cluster keygen",
            "kv --timeout 5 completions bash",
            "kv --consistency one users list",
            "kv --json keys",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
        let error = parse("kv --user n cluster keygen").unwrap_err().to_string();
        assert!(error.contains("'cluster keygen' asks no node"), "{error}");
    }
}
