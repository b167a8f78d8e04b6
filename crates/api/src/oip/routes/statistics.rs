//! What versions have done (statistics extension).

use plinth_net::Response;
use plinth_types::Result;

use super::version;
use crate::Services;
use crate::call::Call;
use crate::oip::statistics::StatisticsReply;
use crate::reply;

/// Of all the tenant's versions that answer. A model called `stats` has its metadata under the path with its version.
pub async fn all(services: Services, call: Call) -> Result<Response> {
    let statistics = services.serving.statistics(&call.principal.tenant, None, None)?;
    let statistics: Vec<_> = statistics.into_iter().filter(|s| call.principal.may_use(&s.model)).collect();
    reply::json(&StatisticsReply::from(statistics))
}

pub async fn of_model(services: Services, call: Call) -> Result<Response> {
    let statistics = services.serving.statistics(&call.principal.tenant, Some(&call.model()?), version(&call)?)?;
    reply::json(&StatisticsReply::from(statistics))
}
