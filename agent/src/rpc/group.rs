//! GroupService.

use std::sync::Arc;

use tidemark_proto::v1::{self, group_service_server::GroupService};
use tonic::{Request, Response, Status};

use super::auth::{Role, require};
use crate::manager::{Error, Group, Manager};

pub(super) struct Groups(pub(super) Arc<Manager>);

#[tonic::async_trait]
impl GroupService for Groups {
    async fn create_group(
        &self,
        request: Request<v1::CreateGroupRequest>,
    ) -> Result<Response<v1::CreateGroupResponse>, Status> {
        require(&request, Role::Backup)?;
        let group = request.into_inner().group;
        let group = group.ok_or_else(|| Error::invalid("group", "it must be set"))?;
        let made = self.0.create_group(Group {
            name: group.name,
            volumes: group.volumes,
        });
        Ok(Response::new(v1::CreateGroupResponse {
            group: Some(message(made.await?)),
        }))
    }

    async fn list_groups(
        &self,
        request: Request<v1::ListGroupsRequest>,
    ) -> Result<Response<v1::ListGroupsResponse>, Status> {
        require(&request, Role::View)?;
        let groups = self.0.groups().await?;
        Ok(Response::new(v1::ListGroupsResponse {
            groups: groups.into_iter().map(message).collect(),
        }))
    }

    async fn get_group(
        &self,
        request: Request<v1::GetGroupRequest>,
    ) -> Result<Response<v1::GetGroupResponse>, Status> {
        require(&request, Role::View)?;
        let group = self.0.group(&request.into_inner().name).await?;
        Ok(Response::new(v1::GetGroupResponse {
            group: Some(message(group)),
        }))
    }

    async fn delete_group(
        &self,
        request: Request<v1::DeleteGroupRequest>,
    ) -> Result<Response<v1::DeleteGroupResponse>, Status> {
        require(&request, Role::Backup)?;
        self.0.delete_group(&request.into_inner().name).await?;
        Ok(Response::new(v1::DeleteGroupResponse {}))
    }
}

fn message(group: Group) -> v1::Group {
    v1::Group {
        name: group.name,
        volumes: group.volumes,
    }
}
