//! What plugins remember from one extension point of a cycle to the next.

use std::any::{Any, TypeId};
use std::fmt;

/// A plugin's memory of one cycle. It is cloned when something is tried on a node.
pub(crate) trait StateData: Any + Send {
    fn boxed_clone(&self) -> Box<dyn StateData>;
    fn as_any(&self) -> &dyn Any;
    fn as_any_mut(&mut self) -> &mut dyn Any;
}

impl<T: Any + Send + Clone> StateData for T {
    fn boxed_clone(&self) -> Box<dyn StateData> {
        Box::new(self.clone())
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}

#[derive(Default)]
pub(crate) struct CycleState {
    data: Vec<(TypeId, Box<dyn StateData>)>,
    /// Plugins (by their place in the profile) whose Filter has nothing to say about this pod.
    pub(crate) skip_filter: u64,
}

impl fmt::Debug for CycleState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CycleState({} entries)", self.data.len())
    }
}

impl Clone for CycleState {
    fn clone(&self) -> CycleState {
        let data = self.data.iter().map(|(id, data)| (*id, (**data).boxed_clone())).collect();
        CycleState { data, skip_filter: self.skip_filter }
    }
}

impl CycleState {
    pub(crate) fn set<T: StateData>(&mut self, data: T) {
        let id = TypeId::of::<T>();
        self.data.retain(|(other, _)| *other != id);
        self.data.push((id, Box::new(data)));
    }

    pub(crate) fn get<T: StateData>(&self) -> Option<&T> {
        let found = self.data.iter().find(|(id, _)| *id == TypeId::of::<T>())?;
        (*found.1).as_any().downcast_ref()
    }

    pub(crate) fn get_mut<T: StateData>(&mut self) -> Option<&mut T> {
        let found = self.data.iter_mut().find(|(id, _)| *id == TypeId::of::<T>())?;
        (*found.1).as_any_mut().downcast_mut()
    }
}
