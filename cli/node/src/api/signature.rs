//! Who signed a request, and whether they may.

use std::time::{SystemTime, UNIX_EPOCH};

use super::incoming::{Incoming, bad};
use super::routes::Api;
use crate::auth::{
    Expected, HEADER_MESSAGE, HEADER_RECOVERY_ID, HEADER_SIGNATURE, Level, NOTHING, SignedRequest, authorise,
    check_entry,
};
use crate::core::Signed;
use crate::error::{ApiError, ErrorCode};
use crate::store::{ClusterRecord, InstanceRecord};

/// What a request is about.
#[derive(Clone, Copy)]
pub(super) enum Subject<'a> {
    /// Nothing that exists yet: anyone with a key may ask.
    Nothing,
    /// An instance, and with it its cluster.
    Instance(&'a InstanceRecord, &'a ClusterRecord),
}

/// The values of the three headers, if they are all there.
pub(super) fn from_headers(incoming: &Incoming) -> Result<SignedRequest, ApiError> {
    let message = incoming.header(HEADER_MESSAGE)?;
    let signature = incoming.header(HEADER_SIGNATURE)?;
    let recovery_id = incoming.header(HEADER_RECOVERY_ID)?;
    let (Some(message), Some(signature), Some(recovery_id)) = (message, signature, recovery_id) else {
        return Err(not_signed());
    };
    SignedRequest::from_headers(message, signature, recovery_id)
}

pub(super) fn not_signed() -> ApiError {
    ApiError::new(ErrorCode::NotAllowed, "this request must be signed")
        .cause("X-Message, X-Signature and X-Recovery-Id are not all there")
        .remedy("sign it with a key that may do this")
}

impl Api {
    /// Checks a request at its entry: its signature fits what is asked (`body` are the bytes that were signed for), it
    /// is recent, and its signer may. The store has not been told of it: see [`Api::once`].
    pub(super) async fn check(
        &self,
        incoming: &Incoming,
        request: SignedRequest,
        body: &[u8],
        subject: Subject<'_>,
        needed: Level,
    ) -> Result<Signed, ApiError> {
        let installation = self.core.installation_id();
        let (cluster_id, instance_id) = match subject {
            Subject::Nothing => (NOTHING, NOTHING),
            Subject::Instance(instance, cluster) => (cluster.cluster_id.as_str(), instance.instance_id.as_str()),
        };
        let uri = &incoming.parts.uri;
        let expected = Expected {
            installation: &installation,
            cluster: cluster_id,
            instance: instance_id,
            method: incoming.parts.method.as_str(),
            path: uri.path_and_query().map_or(uri.path(), |p| p.as_str()),
        };
        let recovered = check_entry(&request, &expected, body, now_ms())?;
        let held = match subject {
            // Whoever makes something new is its owner.
            Subject::Nothing => Some(Level::Owner),
            Subject::Instance(instance, cluster) => {
                self.owner_is_pinned(instance, cluster).await?;
                self.core.store().held_level(cluster, recovered.signer()).await?
            }
        };
        let authorised = authorise(&recovered, needed, held)?;
        Ok(Signed { authorised, request, body: body.to_vec() })
    }

    /// As [`Api::check`] for a request that carries its signature in headers, and refuses it if it was made before.
    pub(super) async fn check_once(
        &self,
        incoming: &Incoming,
        subject: Subject<'_>,
        needed: Level,
    ) -> Result<Signed, ApiError> {
        let request = from_headers(incoming)?;
        let signed = self.check(incoming, request, &incoming.body, subject, needed).await?;
        self.once(&signed).await?;
        Ok(signed)
    }

    /// Whoever can write the store can't give an instance to somebody else: its node remembers the owner.
    async fn owner_is_pinned(&self, instance: &InstanceRecord, cluster: &ClusterRecord) -> Result<(), ApiError> {
        match self.core.pinned_owner(&instance.instance_id).await? {
            Some(pinned) if pinned != cluster.owner => Err(ApiError::new(
                ErrorCode::NotAllowed,
                format!("the owner of {} is not the one it was made by", instance.name),
            )
            .cause(format!("the store names {}, its node knows {pinned}", cluster.owner))
            .remedy("find out who changed the state store")),
            _ => Ok(()),
        }
    }

    async fn once(&self, signed: &Signed) -> Result<(), ApiError> {
        let hash = hex::encode(signed.authorised.request_hash());
        if self.core.store().note_request(&hash, now_ms()).await? {
            return Ok(());
        }
        Err(ApiError::new(ErrorCode::ReplayedRequest, "this very request was made before")
            .remedy("sign a new one: each has a nonce of its own"))
    }

    /// The instance and cluster that a request names.
    pub(super) async fn instance(&self, id_or_name: &str) -> Result<(InstanceRecord, ClusterRecord), ApiError> {
        let found = self.core.store().find_instance(id_or_name).await?;
        let instance = found.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("there is no instance {id_or_name:?}"))
                .remedy("form manage instances lists them")
        })?;
        let cluster = self.core.store().cluster(&instance.cluster_id).await?.ok_or_else(|| {
            ApiError::new(ErrorCode::NotFound, format!("the cluster of instance {} is gone", instance.name))
                .cause(format!("there is no cluster {}", instance.cluster_id))
        })?;
        Ok((instance, cluster))
    }
}

/// Unix time.
fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Two carriers of one signature are refused: nobody could say which one counts.
pub(super) fn no_signature_headers(incoming: &Incoming) -> Result<(), ApiError> {
    if incoming.header(HEADER_SIGNATURE)?.is_some() || incoming.header(HEADER_RECOVERY_ID)?.is_some() {
        return Err(
            bad("the request carries its signature twice: in headers and in its body").remedy("send one of them")
        );
    }
    Ok(())
}
