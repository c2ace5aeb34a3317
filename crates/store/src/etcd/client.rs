//! etcd's operations, typed.

use grpc::Answers;

use super::grpc::{CallError, Channel};
use super::wire::{
    CompactionRequest, Compare, DeleteRangeRequest, Header, HeaderResponse, KeyValue,
    LeaseGrantRequest, LeaseGrantResponse, Operand, Operation, PutRequest, RangeRequest,
    RangeResponse, RequestOp, Target, TxnRequest, TxnResponse, WatchCreateRequest, WatchRequest,
    WatchResponse,
};

/// Keys read at once.
const PAGE: i64 = 500;

/// How a conditional write went, at etcd's revision then.
pub(super) struct Outcome {
    pub(super) revision: u64,
    /// Absent when it was carried out; otherwise the present state, if any.
    pub(super) refused: Option<Option<KeyValue>>,
}

fn revision(header: &Option<Header>) -> u64 {
    header.as_ref().map_or(0, |h| u64::try_from(h.revision).unwrap_or(0))
}

fn number(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// The first key behind all that begin with `prefix`.
fn behind(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            return end;
        }
    }
    vec![0]
}

fn op(operation: Operation) -> RequestOp {
    RequestOp { operation: Some(operation) }
}

impl Channel {
    async fn range(&self, request: RangeRequest) -> Result<RangeResponse, CallError> {
        self.call("/etcdserverpb.KV/Range", &request).await
    }

    /// etcd's revision, as of after this call began.
    pub(super) async fn revision(&self, key: &str) -> Result<u64, CallError> {
        let request = RangeRequest { key: key.into(), keys_only: true, ..RangeRequest::default() };
        Ok(revision(&self.range(request).await?.header))
    }

    /// Everything below `prefix` as of one revision, which is returned.
    pub(super) async fn read_all(
        &self,
        prefix: &str,
        visit: &mut (dyn FnMut(KeyValue) + Send),
    ) -> Result<u64, CallError> {
        let (mut key, range_end) = (prefix.as_bytes().to_vec(), behind(prefix.as_bytes()));
        let mut at = 0;
        loop {
            let request = RangeRequest {
                key: key.clone(),
                range_end: range_end.clone(),
                limit: PAGE,
                revision: number(at),
                keys_only: false,
            };
            let page = self.range(request).await?;
            if at == 0 {
                at = revision(&page.header);
            }
            if let Some(last) = page.kvs.last() {
                key = [last.key.as_slice(), &[0]].concat();
            }
            page.kvs.into_iter().for_each(&mut *visit);
            if !page.more {
                return Ok(at);
            }
        }
    }

    /// Puts or deletes `key` if its last change was `expected` (0: it does not exist). What is put
    /// goes with `lease`, unless that is 0.
    pub(super) async fn write_if(
        &self,
        key: &str,
        expected: u64,
        value: Option<Vec<u8>>,
        lease: i64,
    ) -> Result<Outcome, CallError> {
        let key = key.as_bytes().to_vec();
        let compare = Compare {
            target: Target::ModRevision.into(),
            key: key.clone(),
            operand: Some(Operand::ModRevision(number(expected))),
        };
        let change = match value {
            Some(value) => Operation::Put(PutRequest { key: key.clone(), value, lease }),
            None => Operation::Delete(DeleteRangeRequest { key: key.clone() }),
        };
        let present = Operation::Range(RangeRequest { key, ..RangeRequest::default() });
        let answer = self.transact(compare, change, present).await?;
        let revision = revision(&answer.header);
        let present = |r: TxnResponse| first(r).and_then(|range| range.kvs.into_iter().next());
        let refused = if answer.succeeded { None } else { Some(present(answer)) };
        Ok(Outcome { revision, refused })
    }

    async fn transact(
        &self,
        compare: Compare,
        success: Operation,
        failure: Operation,
    ) -> Result<TxnResponse, CallError> {
        let request = TxnRequest {
            compare: vec![compare],
            success: vec![op(success)],
            failure: vec![op(failure)],
        };
        self.call("/etcdserverpb.KV/Txn", &request).await
    }

    /// Puts `value` if the key was put `version` times so far. The version from then on, and
    /// etcd's revision; whether it was put.
    pub(super) async fn put_if_version(
        &self,
        key: &str,
        version: i64,
        value: String,
    ) -> Result<(bool, i64, u64), CallError> {
        let key = key.as_bytes().to_vec();
        let operand = Some(Operand::Version(version));
        let compare = Compare { target: Target::Version.into(), key: key.clone(), operand };
        let value = value.into_bytes();
        let put = Operation::Put(PutRequest { key: key.clone(), value, lease: 0 });
        let present = Operation::Range(RangeRequest { key, ..RangeRequest::default() });
        let answer = self.transact(compare, put, present).await?;
        let (put, now) = (answer.succeeded, revision(&answer.header));
        let present = first(answer).and_then(|r| r.kvs.into_iter().next());
        let version = if put { version + 1 } else { present.map_or(0, |kv| kv.version) };
        Ok((put, version, now))
    }

    pub(super) async fn put(&self, key: &str) -> Result<u64, CallError> {
        let request = PutRequest { key: key.into(), ..PutRequest::default() };
        let answer: HeaderResponse = self.call("/etcdserverpb.KV/Put", &request).await?;
        Ok(revision(&answer.header))
    }

    pub(super) async fn compact(&self, at: u64) -> Result<(), CallError> {
        let request = CompactionRequest { revision: number(at) };
        self.call::<_, HeaderResponse>("/etcdserverpb.KV/Compact", &request).await.map(drop)
    }

    /// A new lease of so many seconds: its id.
    pub(super) async fn grant(&self, seconds: u64) -> Result<i64, CallError> {
        let request = LeaseGrantRequest { ttl: number(seconds) };
        let granted: LeaseGrantResponse =
            self.call("/etcdserverpb.Lease/LeaseGrant", &request).await?;
        match granted.error.is_empty() {
            true => Ok(granted.id),
            false => Err(CallError::Lost(format!("no lease was granted: {}", granted.error))),
        }
    }

    /// Every change below `prefix` after a revision.
    pub(super) async fn watch(
        &self,
        prefix: &str,
        after: u64,
    ) -> Result<Answers<WatchResponse>, CallError> {
        let create = WatchCreateRequest {
            key: prefix.into(),
            range_end: behind(prefix.as_bytes()),
            start_revision: number(after + 1),
        };
        self.0.stream("/etcdserverpb.Watch/Watch", &WatchRequest { create: Some(create) }).await
    }
}

fn first(answer: TxnResponse) -> Option<RangeResponse> {
    answer.responses.into_iter().next()?.range
}

#[cfg(test)]
mod tests {
    use super::behind;

    #[test]
    fn a_prefix_ends_before_its_successor() {
        assert_eq!(behind(b"/registry/"), b"/registry0");
        assert_eq!(behind(&[b'a', 0xff]), b"b");
        assert_eq!(behind(&[0xff]), [0]);
    }
}
