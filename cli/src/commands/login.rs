//! `skep login`, `skep logout`.

use super::block_on;
use crate::args::LoginArgs;
use crate::client::{Api, dial_tls, limit};
use crate::error::Failure;
use crate::output::Output;
use crate::places::Places;
use crate::remote::{Address, Login, Logins, first_look};
use crate::{secret, view};
use serde_json::json;
use skep_api::v1::users_client::UsersClient;
use skep_api::v1::{DeleteTokenRequest, LoginRequest, LoginResponse};
use skep_proto::{Reason, TraceId};
use std::time::Duration;

/// Exchanges a password for a token, and keeps that with the certificate's fingerprint.
pub fn login(args: &LoginArgs, within: Option<Duration>, output: Output) -> Result<u8, Failure> {
    let logins = Logins::read()?;
    let address = &args.address;
    block_on(async {
        let known = logins.of(address).map(|login| login.fingerprint.clone());
        let fingerprint = match args.fingerprint.clone().or(known) {
            Some(fingerprint) => fingerprint,
            None => trusted(address).await?,
        };
        // The password is asked for, and sent, when the certificate is known to be the right one.
        let mut users = UsersClient::new(dial_tls(address, &fingerprint).await?);
        let mut password = secret::password(&format!("Password of {} at {address}", args.user))?;
        // Which of somebody's machines, for whoever looks at a list of tokens.
        let here = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
        let here: String = here.chars().filter(|c| c.is_ascii_alphanumeric() || "-._".contains(*c)).take(40).collect();
        let name = format!("login-{here}-{:08x}", TraceId::random().0 >> 32);
        let lifetime = i64::try_from(args.lifetime.as_secs()).unwrap_or(i64::MAX);
        let request = LoginRequest {
            user: args.user.clone(),
            password: std::mem::take(&mut *password),
            token: name.clone(),
            lifetime: Some(prost_types::Duration { seconds: lifetime, nanos: 0 }),
        };
        let mut request = tonic::Request::new(request);
        limit(&mut request, within);
        let LoginResponse { token, user, expire_time } = users.login(request).await?.into_inner();
        let expires = view::time(expire_time.as_ref()).as_str().unwrap_or_default().to_owned();
        let login = Login { address: address.clone(), fingerprint, user, name, token: token.into(), expires };
        if output.json {
            output.line(json!({
                "address": address.to_string(), "user": login.user, "expires": login.expires, "fingerprint": login.fingerprint,
                "token": login.name,
            }));
        } else {
            output.remark(format_args!("logged in to {address} as {} until {}", login.user, login.expires));
        }
        logins.keep(login)?;
        Ok(0)
    })
}

/// At the first login somebody has to say that it is the right one.
async fn trusted(address: &Address) -> Result<String, Failure> {
    let look = first_look(address).await;
    let seen = look.map_err(|e| Failure::new(Reason::Unavailable, address, format_args!("connect: {e}")))?;
    let question = format!(
        "The certificate of {address} has the fingerprint\n  {seen}\n`skep host show` there prints the right one. Is it this?"
    );
    match secret::confirmed(&question) {
        Some(true) => Ok(seen),
        Some(false) => {
            Err(Failure::new(Reason::Unauthenticated, address, "the certificate is not trusted").advice("nothing was sent"))
        }
        None => {
            let note = format!("its certificate, {seen}, was not seen before");
            Err(Failure::new(Reason::Unauthenticated, address, note).advice("say which is right with --fingerprint"))
        }
    }
}

/// Has the token deleted, and forgets it.
pub fn logout(address: Option<Address>, within: Option<Duration>, output: Output) -> Result<u8, Failure> {
    let logins = Logins::read()?;
    let found = match &address {
        Some(address) => logins.of(address),
        None => logins.only(),
    };
    let Some(login) = found.cloned() else {
        let note = if address.is_some() { "there is no such login" } else { "say which one: there is none, or more than one" };
        let object = address.map_or("login".to_owned(), |address| format!("login {address}"));
        return Err(Failure::new(Reason::NotFound, object, note).advice(""));
    };
    let (address, name) = (login.address.clone(), login.name.clone());
    let places = Places::new(None, None, None).map_err(crate::up::UpError::from)?;
    let ended = block_on(async {
        let api = Api::connect_to(&places, Some(login), within).await?;
        api.host().delete_token(DeleteTokenRequest { name, user: String::new() }).await?;
        Ok(())
    });
    // Forgotten in any case: it may have ended there by itself.
    logins.forget(&address)?;
    if let Err(failure) = ended {
        output.warning(format_args!("the token could not be deleted there: {failure}"));
    }
    if output.json {
        output.line(json!({"deleted": {"kind": "login", "name": address.to_string()}}));
    } else {
        output.remark(format_args!("logged out of {address}"));
    }
    Ok(0)
}
