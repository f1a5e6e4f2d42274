//! Settings from the environment.
//!
//! Invariant: a variable that is asked for and is no text is an error. Taken for one that is not set, it would let a node serve another folder, or a
//! command speak to another address.

use std::cell::RefCell;
use std::env::VarError;

use super::exit::usage;

/// What `read` makes of the variables of this process.
pub fn with_environment<T>(
    read: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    with_variables(|name| std::env::var(name), read)
}

fn with_variables<T>(
    look_up: impl Fn(&str) -> Result<String, VarError>,
    read: impl FnOnce(&dyn Fn(&str) -> Option<String>) -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let refused = RefCell::new(None);
    let outcome = read(&|name| match look_up(name) {
        Ok(text) => Some(text),
        Err(VarError::NotPresent) => None,
        Err(VarError::NotUnicode(_)) => {
            refused.borrow_mut().get_or_insert_with(|| name.to_owned());
            None
        }
    });
    match refused.into_inner() {
        Some(name) => Err(usage(format!("the environment variable {name} is not UTF-8"))),
        None => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::exit::{Exit, exit_of};

    fn look_up(name: &str) -> Result<String, VarError> {
        match name {
            "KV_DATA" => Err(VarError::NotUnicode("\u{fffd}".into())),
            "KV_USER" => Ok("ann".to_owned()),
            _ => Err(VarError::NotPresent),
        }
    }

    #[test]
    fn a_variable_that_is_no_text_is_an_error_once_it_is_asked_for() {
        let asked = |names: &[&str]| {
            with_variables(look_up, |variable| {
                Ok(names.iter().map(|name| variable(name)).collect::<Vec<_>>())
            })
        };
        assert_eq!(asked(&["KV_USER", "KV_URL"]).unwrap(), [Some("ann".to_owned()), None]);
        let error = asked(&["KV_DATA", "KV_USER"]).unwrap_err();
        assert_eq!(exit_of(&error), Exit::Usage);
        assert!(error.to_string().contains("KV_DATA"), "{error}");
        // Also before what else is wrong, which may come of it.
        let error = with_variables(look_up, |variable| {
            variable("KV_DATA").ok_or_else(|| anyhow::anyhow!("no data"))
        });
        assert!(error.unwrap_err().to_string().contains("KV_DATA"));
    }
}
