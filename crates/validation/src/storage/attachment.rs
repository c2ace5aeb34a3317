//! Volume attachments.

use api::names;

use crate::check::At;
use crate::core::persistent_volume;
use crate::golang;
use crate::shared::csi_driver_name;
use crate::{Kind, PLAIN};

pub(crate) static KIND: Kind = Kind {
    create: attachment,
    update: |object| {
        attachment(object);
        let spec = object.get("spec");
        if spec.old().is_some_and(|old| !golang::same(old, spec.value())) {
            spec.invalid_struct("storage.VolumeAttachmentSpec", "field is immutable");
        }
    },
    status: attachment,
    again: true,
    ..PLAIN
};

fn attachment(object: &At<'_>) {
    const ONE: &str = "must specify exactly one of inlineVolumeSpec and persistentVolumeName";
    let (spec, status) = (object.get("spec"), object.get("status"));
    csi_driver_name(&spec.get("attacher"));
    let source = spec.get("source");
    let (inline, name) = (source.get("inlineVolumeSpec"), source.get("persistentVolumeName"));
    match (!inline.is_absent(), !name.is_absent()) {
        (false, false) => source.required(ONE),
        (true, true) => source.forbidden(ONE),
        (false, true) if name.is_empty() => {
            name.required("must specify non empty persistentVolumeName");
        }
        (false, true) => {}
        (true, false) => persistent_volume::spec(&inline, None),
    }
    let node = spec.get("nodeName");
    names::dns_subdomain(node.text()).iter().for_each(|fault| node.invalid_text(fault));
    metadata(&status.get("attachmentMetadata"));
    for field in ["attachError", "detachError"] {
        let error = status.get(field);
        if error.get("message").text().len() > 1024 {
            error.get("message").too_long(256 * 1024);
        }
        let code = error.get("errorCode");
        if code.number() < 0 {
            code.invalid("must be between 0 and 2147483647, inclusive");
        }
    }
    if !name.is_absent() {
        name.named(names::dns_subdomain);
    }
}

fn metadata(at: &At<'_>) {
    let entries = at.value().as_object().into_iter().flatten();
    let size: usize = entries.map(|(k, v)| k.len() + v.as_str().map_or(0, str::len)).sum();
    if size > 256 * 1024 {
        at.too_long(256 * 1024);
    }
}
