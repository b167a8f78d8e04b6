//! The admin API under `/v1`: translation between its wire types and the registry, no decisions.
//!
//! The bodies are `plinth_client::wire`; the table there is the list of routes. Every change waits
//! until this node's snapshot shows it, so that who asks next sees it, and so that a key that was
//! deleted is refused when the answer arrives.

mod aliases;
mod blobs;
mod cache;
mod changes;
mod filters;
mod keys;
mod models;
mod resources;
mod status;
mod versions;
mod view;

use http::Method;
use plinth_net::{Access, Route};

use crate::Services;
use crate::call::{Context, route};

/// The routes of the admin API.
#[must_use]
pub fn routes(services: &Services) -> Vec<Route<Context>> {
    use Access::{Admin, Operate, Platform, Read};
    macro_rules! routes {
        ($($method:ident $pattern:literal $access:ident $name:literal => $handler:path;)*) => {
            vec![$(route(services, Method::$method, $pattern, $access, $name, $handler)),*]
        };
    }
    routes! {
        GET "/v1/status" Read "admin.status" => status::show;
        GET "/v1/models" Read "admin.models.list" => models::list;
        GET "/v1/models/{model}" Read "admin.models.show" => models::show;
        PATCH "/v1/models/{model}" Operate "admin.models.edit" => models::edit;
        DELETE "/v1/models/{model}" Admin "admin.models.delete" => models::delete;
        GET "/v1/models/{model}/versions" Read "admin.versions.list" => versions::list;
        POST "/v1/models/{model}/versions" Operate "admin.versions.create" => versions::create;
        GET "/v1/models/{model}/versions/{version}" Read "admin.versions.show" => versions::show;
        PATCH "/v1/models/{model}/versions/{version}" Operate "admin.versions.edit" => versions::edit;
        DELETE "/v1/models/{model}/versions/{version}" Admin "admin.versions.delete" => versions::delete;
        POST "/v1/models/{model}/versions/{version}/retire" Operate "admin.versions.retire" => versions::retire;
        POST "/v1/models/{model}/versions/{version}/restore" Operate "admin.versions.restore" => versions::restore;
        PUT "/v1/models/{model}/versions/{version}/signature" Operate "admin.versions.sign" => versions::sign;
        GET "/v1/models/{model}/versions/{version}/files/{*path}" Operate "admin.versions.file" => versions::file;
        GET "/v1/models/{model}/versions/{version}/verification" Operate "admin.versions.verify" => versions::verify;
        PUT "/v1/models/{model}/aliases/{alias}" Operate "admin.aliases.move" => aliases::move_to;
        DELETE "/v1/models/{model}/aliases/{alias}" Operate "admin.aliases.delete" => aliases::delete;
        POST "/v1/models/{model}/rollback" Operate "admin.rollback" => aliases::roll_back;
        POST "/v1/models/{model}/cache/warm" Operate "admin.cache.warm" => cache::warm;
        HEAD "/v1/blobs/{digest}" Operate "admin.blobs.has" => blobs::has;
        PUT "/v1/blobs/{digest}" Operate "admin.blobs.put" => blobs::put;
        GET "/v1/audit" Admin "admin.audit.list" => changes::audit;
        GET "/v1/audit/verification" Platform "admin.audit.verify" => changes::verify;
        POST "/v1/audit/{revision}/undo" Admin "admin.audit.undo" => changes::undo;
        POST "/v1/gc" Platform "admin.gc" => changes::collect_garbage;
        POST "/v1/apply" Operate "admin.apply" => changes::apply;
        GET "/v1/resources/{kind}" Operate "admin.resources.list" => resources::list;
        GET "/v1/resources/{kind}/{name}" Operate "admin.resources.show" => resources::show;
        DELETE "/v1/resources/{kind}/{name}" Admin "admin.resources.delete" => resources::delete;
        GET "/v1/filters" Operate "admin.filters.list" => filters::list;
        GET "/v1/filters/{filter}" Operate "admin.filters.show" => filters::show;
        POST "/v1/filters/{filter}/versions" Operate "admin.filters.push" => filters::push;
        DELETE "/v1/filters/{filter}" Admin "admin.filters.delete" => filters::delete;
        DELETE "/v1/filters/{filter}/versions/{version}" Admin "admin.filters.delete_version" => filters::delete_version;
        GET "/v1/keys" Admin "admin.keys.list" => keys::list;
        POST "/v1/keys" Admin "admin.keys.create" => keys::create;
        POST "/v1/keys/{id}/rotate" Admin "admin.keys.rotate" => keys::rotate;
        DELETE "/v1/keys/{id}" Admin "admin.keys.delete" => keys::delete;
    }
}
