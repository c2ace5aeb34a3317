//! GET of one object.

use api::Status;

use super::Answer;
use crate::call::Call;

pub fn get(call: &Call<'_>) -> Result<Answer, Status> {
    let collection = call.resources.collection(call.row);
    let object = collection.get(&call.key()).ok_or_else(|| call.not_found())?;
    Ok(Answer::Object { code: 200, object })
}
