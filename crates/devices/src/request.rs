//! Requests of a claim as the search needs them.

use std::sync::Arc;

use k8s_openapi::api::resource::v1::{
    CapacityRequirements, DeviceClass, DeviceRequest, DeviceSelector, DeviceSubRequest,
    DeviceToleration, ExactDeviceRequest, ResourceClaim,
};

use crate::capacity::{Amounts, requested};
use crate::environment::{Environment, Fault};

/// `namespace/name`, as faults name a claim.
pub(crate) fn claim_key(claim: &ResourceClaim) -> String {
    let text = |of: &Option<String>| of.clone().unwrap_or_default();
    format!("{}/{}", text(&claim.metadata.namespace), text(&claim.metadata.name))
}

/// One entry of a claim's requests: a request, or alternatives.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'a str,
    pub(crate) has_alternatives: bool,
    /// One if it has no alternatives.
    pub(crate) wants: Vec<Want<'a>>,
    /// The alternative that the search settled on.
    pub(crate) chosen: usize,
}

/// A request or an alternative.
#[derive(Debug)]
pub(crate) struct Want<'a> {
    pub(crate) name: &'a str,
    pub(crate) class: Arc<DeviceClass>,
    pub(crate) amount: Amount,
    /// An administrator's access takes nothing from others.
    pub(crate) is_admin: bool,
    /// What the request says about administrators; results say the same.
    pub(crate) admin_access: Option<bool>,
    pub(crate) selectors: &'a [DeviceSelector],
    pub(crate) tolerations: Option<&'a Vec<DeviceToleration>>,
    pub(crate) capacity: Amounts,
}

/// How many devices.
#[derive(Debug)]
pub(crate) enum Amount {
    Exactly(usize),
    /// All that match: places in the pools, filled in before the search.
    All(Vec<Location>),
}

/// A device's place among the pools of a node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Location {
    pub(crate) pool: usize,
    pub(crate) slice: usize,
    pub(crate) device: usize,
}

impl Want<'_> {
    pub(crate) fn count(&self) -> usize {
        match &self.amount {
            Amount::Exactly(count) => *count,
            Amount::All(places) => places.len(),
        }
    }
}

/// The fields that requests and alternatives share.
struct Fields<'a> {
    name: &'a str,
    class: &'a str,
    mode: Option<&'a str>,
    count: Option<i64>,
    admin_access: Option<bool>,
    selectors: Option<&'a Vec<DeviceSelector>>,
    tolerations: Option<&'a Vec<DeviceToleration>>,
    capacity: Option<&'a CapacityRequirements>,
}

impl<'a> Fields<'a> {
    fn exact(name: &'a str, request: &'a ExactDeviceRequest) -> Fields<'a> {
        Fields {
            name,
            class: &request.device_class_name,
            mode: request.allocation_mode.as_deref(),
            count: request.count,
            admin_access: request.admin_access,
            selectors: request.selectors.as_ref(),
            tolerations: request.tolerations.as_ref(),
            capacity: request.capacity.as_ref(),
        }
    }

    fn alternative(request: &'a DeviceSubRequest) -> Fields<'a> {
        Fields {
            name: &request.name,
            class: &request.device_class_name,
            mode: request.allocation_mode.as_deref(),
            count: request.count,
            admin_access: None,
            selectors: request.selectors.as_ref(),
            tolerations: request.tolerations.as_ref(),
            capacity: request.capacity.as_ref(),
        }
    }
}

/// The requests of a claim; places of requests for all devices are still missing.
pub(crate) fn entries<'a>(
    claim: &'a ResourceClaim,
    environment: &Environment<'_>,
) -> Result<Vec<Entry<'a>>, Fault> {
    let devices = claim.spec.devices.as_ref();
    let requests = devices.into_iter().flat_map(|d| d.requests.iter().flatten());
    requests.map(|request| entry(claim, request, environment)).collect()
}

fn entry<'a>(
    claim: &'a ResourceClaim,
    request: &'a DeviceRequest,
    environment: &Environment<'_>,
) -> Result<Entry<'a>, Fault> {
    let alternatives = request.first_available.as_deref().unwrap_or_default();
    let fields: Vec<Fields<'a>> = match &request.exactly {
        Some(exactly) => vec![Fields::exact(&request.name, exactly)],
        None => alternatives.iter().map(Fields::alternative).collect(),
    };
    if fields.is_empty() {
        let (claim, name) = (claim_key(claim), &request.name);
        return Err(Fault::Claim(format!("claim {claim}, request {name}: unknown request type")));
    }
    let wants = fields.into_iter().map(|fields| want(claim, fields, environment));
    Ok(Entry {
        name: &request.name,
        has_alternatives: request.exactly.is_none(),
        wants: wants.collect::<Result<_, _>>()?,
        chosen: 0,
    })
}

fn want<'a>(
    claim: &ResourceClaim,
    fields: Fields<'a>,
    environment: &Environment<'_>,
) -> Result<Want<'a>, Fault> {
    let fault = |why: String| {
        Fault::Claim(format!("claim {}, request {}: {why}", claim_key(claim), fields.name))
    };
    let selectors = fields.selectors.map_or(&[][..], Vec::as_slice);
    for (at, selector) in selectors.iter().enumerate() {
        if selector.cel.is_none() {
            return Err(fault(format!(
                "selector #{at}: CEL expression empty (unsupported selector type?)"
            )));
        }
    }
    if fields.class.is_empty() {
        return Err(fault("missing device class name (unsupported request type?)".into()));
    }
    let class = (environment.class)(fields.class).ok_or_else(|| {
        let class = fields.class;
        fault(format!(
            "could not retrieve device class {class}: deviceclass.resource.k8s.io {class:?} not found"
        ))
    })?;
    let amount = match fields.mode.unwrap_or("ExactCount") {
        "ExactCount" => {
            let count = fields.count.unwrap_or(1);
            let exact = usize::try_from(count);
            Amount::Exactly(exact.map_err(|_| fault(format!("exact count {count} is too large")))?)
        }
        "All" => Amount::All(Vec::new()),
        other => return Err(fault(format!("unsupported count mode {other}"))),
    };
    Ok(Want {
        name: fields.name,
        class,
        amount,
        is_admin: fields.admin_access == Some(true),
        admin_access: fields.admin_access.filter(|yes| *yes),
        selectors,
        tolerations: fields.tolerations,
        capacity: requested(fields.capacity).map_err(fault)?,
    })
}
