//! PrioritySort: the order of the queue, by priority and then by time. It is the only order there is, so
//! the plugin is a name for configurations.

use super::names;
use crate::framework::{Plugin, Points};

#[derive(Debug)]
pub(crate) struct PrioritySort;

impl Plugin for PrioritySort {
    fn name(&self) -> &'static str {
        names::PRIORITY_SORT
    }

    fn points(&self) -> Points {
        Points::QUEUE_SORT
    }
}
