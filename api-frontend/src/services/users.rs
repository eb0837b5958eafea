//! Users.

use super::{Answer, Api};
use crate::convert::{self, access};
use skep_api::v1::users_server::Users;
use skep_api::v1::{
    CreateUserRequest, DeleteUserRequest, DisableUserRequest, GetUserRequest, GrantRoleRequest, ListRolesRequest,
    ListRolesResponse, ListUsersRequest, ListUsersResponse, LoginRequest, LoginResponse, RenameUserRequest, RevokeRoleRequest,
    SetPasswordRequest, User,
};
use skep_proto::broker::{
    RoleGrant, RoleList, RoleRevoke, TokenCreate, UserCreate, UserDelete, UserDisable, UserGet, UserList, UserPassword,
    UserRename,
};
use tonic::Request;

/// How long a login lasts, unless it is said.
const LOGIN: u64 = 12 * 3600;

#[tonic::async_trait]
impl Users for Api {
    async fn login(&self, request: Request<LoginRequest>) -> Answer<LoginResponse> {
        let (call, request) = self.enter("Users.Login", request)?;
        call.run(async {
            let user = convert::named("login", "user", &request.user)?;
            let password = access::secret("password", request.password)?;
            let name = convert::named("token", "token", &request.token)?;
            let seconds = request.lifetime.map_or(Ok(LOGIN), access::seconds)?;
            let made = call.log_in(user, password, TokenCreate { name, user: None, seconds }).await?;
            let expire_time = convert::time(made.expires_ns);
            Ok(LoginResponse { token: made.token.to_string(), user: made.user.to_string(), expire_time })
        })
        .await
    }

    async fn create(&self, request: Request<CreateUserRequest>) -> Answer<User> {
        let (call, request) = self.enter("Users.Create", request)?;
        call.run(async {
            let name = convert::value("user", "name", &request.name)?;
            let password = request.password.map(|text| access::secret("password", text)).transpose()?;
            Ok(access::user(call.make(&request.request_id, UserCreate { name, password, local_uid: request.local_uid }).await?.0))
        })
        .await
    }

    async fn get(&self, request: Request<GetUserRequest>) -> Answer<User> {
        let (call, request) = self.enter("Users.Get", request)?;
        call.run(async {
            let user = convert::maybe_named("user", "user", &request.user)?;
            Ok(access::user(call.read(UserGet { user }).await?.0))
        })
        .await
    }

    async fn list(&self, request: Request<ListUsersRequest>) -> Answer<ListUsersResponse> {
        let (call, request) = self.enter("Users.List", request)?;
        call.run(async {
            let page = call.pages(
                "user",
                request.page_size,
                &request.page_token,
                |after| UserList { after },
                |page| page.users,
                |v| &v.name,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListUsersResponse { users: got.into_iter().map(access::user).collect(), next_page_token })
        })
        .await
    }

    async fn rename(&self, request: Request<RenameUserRequest>) -> Answer<User> {
        let (call, request) = self.enter("Users.Rename", request)?;
        call.run(async {
            let user = convert::named("user", "user", &request.user)?;
            let name = convert::value("user", "name", &request.name)?;
            Ok(access::user(call.act(UserRename { user, name }).await?.0))
        })
        .await
    }

    async fn disable(&self, request: Request<DisableUserRequest>) -> Answer<User> {
        let (call, request) = self.enter("Users.Disable", request)?;
        call.run(async {
            let user = convert::named("user", "user", &request.user)?;
            Ok(access::user(call.act(UserDisable { user, disabled: request.disabled }).await?.0))
        })
        .await
    }

    async fn set_password(&self, request: Request<SetPasswordRequest>) -> Answer<()> {
        let (call, request) = self.enter("Users.SetPassword", request)?;
        call.run(async {
            let user = convert::maybe_named("user", "user", &request.user)?;
            let old = request.old_password.map(|text| access::secret("old_password", text)).transpose()?;
            let new = access::secret("new_password", request.new_password)?;
            call.act(UserPassword { user, old, new }).await.map(drop)
        })
        .await
    }

    async fn delete(&self, request: Request<DeleteUserRequest>) -> Answer<()> {
        let (call, request) = self.enter("Users.Delete", request)?;
        call.run(async {
            let user = convert::named("user", "user", &request.user)?;
            call.act(UserDelete { user }).await.map(drop)
        })
        .await
    }

    async fn grant(&self, request: Request<GrantRoleRequest>) -> Answer<()> {
        let (call, request) = self.enter("Users.Grant", request)?;
        call.run(async {
            let user = convert::named("user", "user", &request.user)?;
            let group = convert::maybe_named("group", "group", &request.group)?;
            call.act(RoleGrant { user, group, role: access::role(request.role)? }).await.map(drop)
        })
        .await
    }

    async fn revoke(&self, request: Request<RevokeRoleRequest>) -> Answer<()> {
        let (call, request) = self.enter("Users.Revoke", request)?;
        call.run(async {
            let user = convert::named("user", "user", &request.user)?;
            let group = convert::maybe_named("group", "group", &request.group)?;
            call.act(RoleRevoke { user, group }).await.map(drop)
        })
        .await
    }

    async fn list_roles(&self, request: Request<ListRolesRequest>) -> Answer<ListRolesResponse> {
        let (call, request) = self.enter("Users.ListRoles", request)?;
        call.run(async {
            let page = call.pages(
                "role",
                request.page_size,
                &request.page_token,
                |after| RoleList { after },
                |page| page.roles,
                |v| &v.key,
            );
            let (got, next_page_token) = page.await?;
            Ok(ListRolesResponse { roles: got.into_iter().map(access::role_of_user).collect(), next_page_token })
        })
        .await
    }
}
