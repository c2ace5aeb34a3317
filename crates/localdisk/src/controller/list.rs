//! Lists, page by page. A page's token names the last id before it, so that what comes and goes between two
//! pages moves nothing.

use csi::v1::*;
use grpc::Code;
use grpc::server::Status;

use super::snapshots;
use crate::errors::{internal, invalid};
use crate::inner::Inner;
use crate::state::{Record, Snapshot as SnapshotRecord, Volume as VolumeRecord, is_id};

const AFTER: &str = "after:";

/// The ids of a page, and the token of the next one.
fn page(
    ids: Vec<String>,
    max_entries: i32,
    starting_token: &str,
) -> Result<(Vec<String>, String), Status> {
    let Ok(max) = usize::try_from(max_entries) else {
        return Err(invalid("max_entries is negative"));
    };
    let after = match starting_token {
        "" => "",
        token => match token.strip_prefix(AFTER).filter(|id| is_id(id)) {
            Some(id) => id,
            None => {
                let why = format!("starting_token {token:?} is not one of this driver's");
                return Err(Status::new(Code::Aborted, why));
            }
        },
    };
    let mut rest: Vec<String> = ids.into_iter().filter(|id| id.as_str() > after).collect();
    let more = max != 0 && rest.len() > max;
    if more {
        rest.truncate(max);
    }
    let last = rest.last().filter(|_| more);
    let next = last.map_or_else(String::new, |last| format!("{AFTER}{last}"));
    Ok((rest, next))
}

impl Inner {
    fn records<R: Record>(&self, ids: Vec<String>) -> Result<Vec<R>, Status> {
        let mut records = Vec::new();
        for id in ids {
            // One that was deleted meanwhile is left out.
            records.extend(self.state.get(&id).map_err(internal("a record cannot be read"))?);
        }
        Ok(records)
    }

    pub(super) fn list_volumes(
        &self,
        q: &ListVolumesRequest,
    ) -> Result<ListVolumesResponse, Status> {
        let ids = self.state.ids::<VolumeRecord>().map_err(internal("volumes"))?;
        let (ids, next_token) = page(ids, q.max_entries, &q.starting_token)?;
        let entries = self.records::<VolumeRecord>(ids)?.into_iter().map(|record| ListedVolume {
            volume: Some(self.volume_answer(&record)),
            status: Some(ListedVolumeStatus {
                published_node_ids: self.published(&record),
                volume_condition: Some(self.condition(&record.id)),
            }),
        });
        Ok(ListVolumesResponse { entries: entries.collect(), next_token })
    }

    pub(super) fn list_snapshots(
        &self,
        q: &ListSnapshotsRequest,
    ) -> Result<ListSnapshotsResponse, Status> {
        let ids = match q.snapshot_id.is_empty() {
            true => self.state.ids::<SnapshotRecord>().map_err(internal("snapshots"))?,
            false => vec![q.snapshot_id.clone()],
        };
        let mut records = self.records::<SnapshotRecord>(ids)?;
        records.retain(|s| q.source_volume_id.is_empty() || s.source == q.source_volume_id);
        let ids = records.iter().map(|snapshot| snapshot.id.clone()).collect();
        let (ids, next_token) = page(ids, q.max_entries, &q.starting_token)?;
        records.retain(|snapshot| ids.contains(&snapshot.id));
        let entries =
            records.iter().map(|s| ListedSnapshot { snapshot: Some(snapshots::answer(s)) });
        Ok(ListSnapshotsResponse { entries: entries.collect(), next_token })
    }
}

#[cfg(test)]
mod tests {
    use super::page;

    fn ids(of: &[&str]) -> Vec<String> {
        of.iter().map(|id| (*id).to_owned()).collect()
    }

    #[test]
    fn a_page_goes_on_where_the_last_one_ended_whatever_came_and_went() {
        let (first, token) = page(ids(&["a", "b", "c"]), 2, "").unwrap();
        assert_eq!(first, ["a", "b"]);
        let (second, token) = page(ids(&["a", "bb", "c"]), 2, &token).unwrap();
        assert_eq!((second, token), (ids(&["bb", "c"]), String::new()));
        assert_eq!(page(ids(&["a"]), 0, "").unwrap(), (ids(&["a"]), String::new()));
    }

    #[test]
    fn foreign_tokens_and_negative_numbers_are_refused() {
        assert_eq!(page(vec![], 0, "invalid-token").unwrap_err().code, grpc::Code::Aborted);
        assert_eq!(page(vec![], 0, "after:../x").unwrap_err().code, grpc::Code::Aborted);
        assert_eq!(page(vec![], -1, "").unwrap_err().code, grpc::Code::InvalidArgument);
    }
}
