//! The calls on users. An admin may do all of them; anyone may change their own password.

use hyper::StatusCode;

use crate::api::{ListUsers, RemoveUser, SetPassword, UserChange, UserEntries, UserEntry};
use crate::http::answer::Answer;
use crate::http::backend::Backend;
use crate::http::failure::Failure;
use crate::http::request::Submitted;
use crate::users::{Principal, UserInfo, UsersError};

pub(super) fn only_admins(principal: &Principal) -> Result<(), Failure> {
    if principal.admin {
        return Ok(());
    }
    Err(Failure::new(StatusCode::FORBIDDEN, "only an admin may do this"))
}

pub async fn list<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: ListUsers = submitted.parse()?;
    let credentials = submitted.credentials(&body.user)?;
    only_admins(&submitted.authenticate(credentials).await?)?;
    let users = submitted.front.backend.list_users().await;
    let users = users.map_err(|error| match error {
        UsersError::Store(error) => Failure::of_read(error),
        other => other.into(),
    })?;
    let entry = |info: UserInfo| UserEntry {
        user_id: info.user.as_str().to_owned(),
        admin: info.admin,
    };
    Ok(Answer::of(&UserEntries {
        users: users.into_iter().map(entry).collect(),
    }))
}

pub async fn add<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: UserChange = submitted.parse()?;
    let name = submitted.user_id(&body.name)?;
    let password_hash = submitted.password_hash(body.password_hash.as_deref())?;
    let credentials = submitted.credentials(&body.user)?;
    let principal = submitted.authenticate(credentials).await?;
    only_admins(&principal)?;
    submitted
        .front
        .backend
        .add_user(&principal, &name, password_hash, body.admin, body.keep_data)
        .await?;
    Ok(Answer::status_ok())
}

pub async fn remove<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: RemoveUser = submitted.parse()?;
    let name = submitted.user_id(&body.name)?;
    let credentials = submitted.credentials(&body.user)?;
    let principal = submitted.authenticate(credentials).await?;
    only_admins(&principal)?;
    submitted.front.backend.remove_user(&principal, &name).await?;
    Ok(Answer::status_ok())
}

pub async fn passwd<B: Backend>(submitted: &Submitted<'_, B>) -> Result<Answer, Failure> {
    let body: SetPassword = submitted.parse()?;
    let name = submitted.user_id(&body.name)?;
    let password_hash = submitted.password_hash(Some(&*body.password_hash))?;
    let credentials = submitted.credentials(&body.user)?;
    let principal = submitted.authenticate(credentials).await?;
    if principal.user != name {
        only_admins(&principal)?;
    }
    let backend = &submitted.front.backend;
    backend.set_password(&principal, &name, password_hash).await?;
    Ok(Answer::status_ok())
}
