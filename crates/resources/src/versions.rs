//! The versions in which a request's resource is served, as admission asks for them.

use ::admission::{BoxFuture, Versions};
use api::Status;
use api::apply::{self, Node};
use api::registry::Resource;
use api::schema::Shape;
use serde_json::Value;
use validation::convert;

use crate::call::Call;
use extensions::Served;
use strategy::decode::Input;

impl Versions for Call<'_> {
    fn equivalents(&self) -> Vec<&'static Resource> {
        let row = self.row;
        let is_other = |other: &Resource| {
            other.subresource == row.subresource
                && (other.group, other.version) != (row.group, row.version)
        };
        let main = self.main_row();
        if self.resources.registry.find(main.group, main.version, main.name, "").is_some() {
            let prefix = main.prefix.as_str();
            let rows = self.resources.registry.rows().iter();
            let same = rows.filter(|other| !prefix.is_empty() && other.prefix == prefix);
            return same.filter(|other| is_other(other)).collect();
        }
        let installed = self.resources.customs.installed();
        let same = |served: &&std::sync::Arc<Served>| {
            served.row.group == row.group && served.row.name == row.name
        };
        let rows = installed.all().iter().filter(same).flat_map(|served| served.rows());
        rows.filter(|other| is_other(other)).collect()
    }

    fn convert<'a>(
        &'a self,
        object: Value,
        from: &'a Resource,
        to: &'a Resource,
    ) -> BoxFuture<'a, Result<Value, Status>> {
        Box::pin(self.converted(object, from, to))
    }

    fn patched(&self, row: &Resource, tree: Value, strict: bool) -> Result<Value, Status> {
        let path = (row.group, row.version, row.name);
        let found = self.resources.find(path, row.subresource);
        let (row, strategy) = found.ok_or_else(Status::no_such_path)?;
        let is_custom = row.ty.is_none() && self.resources.customs.find(path, "").is_some();
        let mut object = match is_custom {
            true => tree,
            false => {
                let found = strategy.decode(row, Input::Tree(tree))?;
                if strict && !found.strict.is_empty() {
                    let faults = found.strict.join(", ");
                    return Err(Status::internal(format!("strict decoding error: {faults}")));
                }
                found.value
            }
        };
        // Objects of subresources of their own kind have no defaults.
        if row.kind == strategy.resource().kind {
            strategy.default(row, &mut object)?;
        }
        Ok(object)
    }

    fn merge(&self, row: &Resource, live: &Value, partial: &Value) -> Result<Value, String> {
        let path = (row.group, row.version, row.name);
        let (row, strategy) = self
            .resources
            .find(path, row.subresource)
            .ok_or_else(|| format!("the resource {} is not served", row.qualified()))?;
        let (types, own);
        let (schema, shape) = match row.ty {
            Some(ty) => {
                own = Shape::Struct(ty);
                (self.resources.schema, &own)
            }
            None => {
                types = strategy.types();
                (types.schema(), types.shape())
            }
        };
        let root = Node::root(shape);
        let faults = apply::check(schema, root, partial);
        if !faults.is_empty() {
            let faults = match faults.as_slice() {
                [one] => one.clone(),
                many => format!("errors:\n  {}", many.join("\n  ")),
            };
            return Err(format!("failed to convert patch object to typed object: {faults}"));
        }
        let atomics = apply::atomics(schema, root, partial);
        if !atomics.is_empty() {
            return Err(format!(
                "invalid ApplyConfiguration: may not mutate atomic arrays, maps or structs: {}",
                atomics.join(", ")
            ));
        }
        let merged = apply::merge(schema, root, Some(live), Some(partial));
        let merged = merged.map_err(|fault| format!("failed to merge patch: {fault}"))?;
        Ok(merged.unwrap_or_else(|| live.clone()))
    }

    fn pruned(&self, object: Value) -> Result<Value, Status> {
        Ok(self.strategy.decode(self.row, Input::Tree(object))?.value)
    }
}

impl Call<'_> {
    async fn converted(
        &self,
        mut object: Value,
        from: &Resource,
        to: &Resource,
    ) -> Result<Value, Status> {
        let same = (from.group, from.version) == (to.group, to.version);
        if same || object.is_null() {
            return Ok(object);
        }
        let wanted = to.kind_api_version();
        // A kind of its own (a scale) is the same in all versions of its resource.
        if object["apiVersion"] == wanted.as_str() {
            return Ok(object);
        }
        let path = (to.group, to.version, to.name);
        if let Some((_, served)) = self.resources.customs.find(path, "") {
            let converted = served.convert(vec![object], &wanted, None).await;
            let converted = converted.map_err(Status::internal)?.into_iter().next();
            return converted.ok_or_else(|| Status::internal("CR conversion failed"));
        }
        convert::to_stored(from, &mut object);
        convert::to_shown(to, &mut object);
        object["apiVersion"] = wanted.into();
        Ok(object)
    }
}
