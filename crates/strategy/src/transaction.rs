//! Cluster IPs and node ports that one request allocates: released unless the object that holds them is
//! stored.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::Value;
use store::WriteError;

use crate::allocate::{Allocators, Claim, Claims, Unbooked};
use crate::meta;

/// The allocations of one request. Dropping it releases what was not committed.
pub struct Transaction<'a> {
    allocators: &'a Allocators,
    claims: Mutex<Claims>,
}

impl<'a> Transaction<'a> {
    pub fn new(allocators: &'a Allocators) -> Transaction<'a> {
        Transaction { allocators, claims: Mutex::default() }
    }

    pub fn allocators(&self) -> &'a Allocators {
        self.allocators
    }

    fn claims(&self) -> MutexGuard<'_, Claims> {
        self.claims.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers an allocation.
    pub fn claim(&self, claim: Claim) {
        self.claims().all.push(claim);
    }

    /// Books the allocations for `object` in the ledger of servers that share the store; may replace in
    /// `object` those that the server chose.
    pub async fn book(&self, object: &mut Value) -> Result<(), Unbooked> {
        let text = |key| meta::text(object, key).to_owned();
        let parent = (text("namespace"), text("name"));
        let mut booking =
            Booking { transaction: self, claims: std::mem::take(&mut *self.claims()) };
        self.allocators.book(&mut booking.claims, &parent, object).await
    }

    /// Takes back what was booked, to book it for another name.
    pub async fn unbook(&self) {
        let booked = self.claims().unbooked();
        self.allocators.return_booked(&booked).await;
    }

    /// Runs a write of the object. A client that stops waiting does not stop the write, so the allocations
    /// are in doubt meanwhile, and remain so when the store cannot tell.
    pub async fn writing<T>(
        &self,
        write: impl Future<Output = Result<T, WriteError>>,
    ) -> Result<T, WriteError> {
        self.claims().in_doubt = true;
        let written = write.await;
        self.claims().in_doubt = matches!(written, Err(WriteError::Unknown(_)));
        written
    }

    /// The object is stored: the allocations are its own.
    pub fn commit(&self) {
        let claims = std::mem::take(&mut *self.claims());
        self.allocators.settle(claims);
    }

    /// Releases everything, before another try.
    pub async fn roll_back(&self) {
        let claims = std::mem::take(&mut *self.claims());
        self.allocators.give_back(claims).await;
    }

    /// Releases what a stored object held and its next state (`None`: it is gone) does not.
    pub async fn release(&self, old: &Value, kept: Option<&Value>) {
        self.allocators.release(old, kept).await;
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        let claims = std::mem::take(&mut *self.claims());
        self.allocators.give_back_later(claims);
    }
}

/// Claims that are being booked; back in their transaction when that ends, however it does.
struct Booking<'t, 'a> {
    transaction: &'t Transaction<'a>,
    claims: Claims,
}

impl Drop for Booking<'_, '_> {
    fn drop(&mut self) {
        *self.transaction.claims() = std::mem::take(&mut self.claims);
    }
}
