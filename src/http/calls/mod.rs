//! The calls, a file for what each of them is about. Each checks the form of its body, then the credentials, then acts.

pub mod batch;
pub mod cluster;
mod escape;
pub mod keys;
pub mod users;
mod values;
