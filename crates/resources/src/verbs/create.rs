//! POST to a collection.

use api::{Object, Status};
use bytes::Bytes;
use serde_json::Value;
use store::{Expect, Write, WriteError};

use super::update::Operation;
use super::{Answer, metadata, steps};
use crate::admit::Admitted;
use crate::body;
use crate::call::Call;
use crate::managed;
use strategy::decode::Format;
use strategy::meta;
use strategy::write_failure::write_failure;

/// Tries when a generated name is taken (upstream's 8).
const GENERATE_TRIES: usize = 8;

pub async fn create(call: &Call<'_>, body: Bytes, content_type: &str) -> Result<Answer, Status> {
    let format = Format::of(content_type)?;
    let decoded = body::decode(call, &body, format)?;
    decoded.warnings.into_iter().for_each(|w| call.context.warn(w));
    create_object(call, decoded.value, Operation::Update).await
}

/// Creates a decoded object; also the end of a server-side apply of something new.
pub async fn create_object(
    call: &Call<'_>,
    mut object: Value,
    operation: Operation,
) -> Result<Answer, Status> {
    let row = call.row;
    // Managers own what was sent and its defaults, not what the server makes of it below.
    call.strategy.default(call.row, &mut object)?;
    if operation == Operation::Update {
        while let Err(status) = managed::track(call, None, &mut object) {
            if !call.fetch_views().await {
                return Err(status);
            }
        }
    }
    metadata::begin_create(call, &mut object)?;
    let name = meta::text(&object, "name").to_owned();
    Admitted::created(&name).mutate(call, &mut object).await?;
    metadata::fill_created(call, &mut object)?;
    steps::reset_status(call, &mut object);
    steps::prepare_create(call, &mut object)?;
    call.strategy.default(call.row, &mut object)?;
    call.strategy.canonicalize(&mut object);
    call.validate((row.kind, meta::text(&object, "name")), &object, None)?;
    let name = meta::text(&object, "name").to_owned();
    Admitted::created(&name).validate(call, &object).await?;
    write(call, &mut object, operation).await
}

async fn write(
    call: &Call<'_>,
    object: &mut Value,
    operation: Operation,
) -> Result<Answer, Status> {
    let row = call.row;
    let collection = call.resources.collection(row);
    let generated = !meta::text(object, "generateName").is_empty();
    for attempt in 1.. {
        let name = meta::text(object, "name").to_owned();
        let key = row.key(&call.context.info.namespace, &name);
        if call.context.dry_run {
            if let Some(there) = collection.get(&key) {
                return Err(taken(call, &there, &name));
            }
            return Ok(Answer::Tree { code: 201, value: object.clone() });
        }
        steps::book(call, object).await?;
        let draft = Some(call.strategy.draft(object).await?);
        let write = Write { collection: collection.clone(), key, expect: Expect::Absent, draft };
        match call.write(row, write).await {
            Ok(object) => {
                call.transaction.commit();
                return Ok(Answer::Object { code: 201, object });
            }
            Err(WriteError::Conflict(_)) if generated && attempt < GENERATE_TRIES => {
                let meta = meta::of(object);
                meta.remove("name");
                meta::generate_name(meta);
                call.transaction.unbook().await;
            }
            // Managed fields may be most of it, and can be done without; an apply cannot.
            Err(WriteError::TooLarge)
                if operation == Operation::Update
                    && meta::of(object).remove("managedFields").is_some() =>
            {
                call.transaction.unbook().await;
            }
            Err(WriteError::Conflict(_)) => {
                let there = collection.get(&row.key(&call.context.info.namespace, &name));
                return Err(there.map_or_else(
                    || Status::already_exists(call.row.group, row.name, &name),
                    |there| taken(call, &there, &name),
                ));
            }
            Err(other) => return Err(write_failure(other, row, &name)),
        }
    }
    unreachable!("the loop ends by returning")
}

/// The name is another's, that may be on its way out.
fn taken(call: &Call<'_>, there: &Object, name: &str) -> Status {
    let mut status = Status::already_exists(call.row.group, call.row.name, name);
    if there.meta().deletion_timestamp.is_some() {
        status.message = format!("object is being deleted: {}", status.message);
    }
    status
}
