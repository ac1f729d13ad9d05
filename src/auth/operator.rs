//! What an operator does with accounts: revoking tokens, and making accounts where there is no Django.

use anyhow::{Context as _, bail, ensure};
use chrono::{DateTime, SubsecRound as _, TimeDelta, Utc};
use secrecy::{ExposeSecret, SecretString};
use tokio::task::spawn_blocking;

use super::{
    password,
    sign_in::{is_email, trimmed},
    store,
};
use crate::db;

/// What [`revoke_tokens`] has done.
pub struct Revoked {
    pub user_id: i64,
    /// Tokens issued from this second on are good.
    pub from: DateTime<Utc>,
    pub sessions: u64,
}

/// Revokes the Bearer tokens and ends the portal sessions of `user`: an id, or an email address compared
/// case-sensitively. Tokens record only the second in which they were issued, so all tokens of the current second are
/// revoked. Those of later sign-ins here are good; those of Django are from the next second on.
///
/// # Errors
/// A sentence for the operator when there is no such account.
pub async fn revoke_tokens(db: &db::Pool, now: DateTime<Utc>, user: &str) -> anyhow::Result<Revoked> {
    let account = match user.parse() {
        Ok(id) => store::account_by_id(db, id).await?,
        Err(_) => store::account_by_email(db, user).await?,
    };
    let user_id = account.with_context(|| format!("there is no account with the id or e-mail address {user}"))?.user.id;
    let from = now.trunc_subsecs(0) + TimeDelta::seconds(1);
    Ok(Revoked { user_id, from, sessions: store::revoke_tokens(db, user_id, from).await? })
}

/// An account to be made by [`create_user`].
#[derive(Debug)]
pub struct NewUser {
    /// Also the user name.
    pub email: String,
    pub password: SecretString,
    pub first_name: String,
    pub last_name: String,
    pub role: Role,
}

#[derive(Debug)]
pub enum Role {
    /// Without a company nobody can schedule.
    Recruiter {
        company: Option<String>,
    },
    Applicant,
}

/// Makes an active account, for an installation without Django's sign-up, and returns its id.
///
/// # Errors
/// A sentence for the operator when the e-mail is malformed or taken, or a value cannot be stored.
pub async fn create_user(db: &db::Pool, now: DateTime<Utc>, user: NewUser) -> anyhow::Result<i64> {
    let company = match &user.role {
        Role::Recruiter { company } => company.as_deref(),
        Role::Applicant => None,
    };
    ensure!(is_email(&user.email), "\"{}\" is not an e-mail address", user.email);
    let password = user.password.expose_secret();
    ensure!(!password.is_empty(), "the password is empty");
    ensure!(trimmed(password) == password, "the password begins or ends with white space, which signing in drops");
    for (what, text, most) in [
        ("e-mail address", user.email.as_str(), 150),
        ("password", password, usize::MAX),
        ("first name", &user.first_name, 50),
        ("last name", &user.last_name, 50),
        ("company's name", company.unwrap_or_default(), 100),
    ] {
        ensure!(text.chars().count() <= most, "the {what} is longer than {most} characters");
        ensure!(!text.contains('\0'), "the {what} contains a null character");
    }
    let password = user.password.clone();
    let hash = spawn_blocking(move || password::hash(password.expose_secret())).await?;
    let mut tx = db.begin().await?;
    let Some(id) = store::insert_user(&mut tx, now, &user, &hash).await? else {
        bail!("there already is an account with the e-mail address {}", user.email);
    };
    if let Some(company) = company {
        store::insert_company(&mut tx, now, id, company).await?;
    }
    tx.commit().await?;
    Ok(id)
}
