//! Why a pod does not get its place: reason and message, as upstream has them.

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionError {
    pub reason: &'static str,
    pub message: String,
}

impl AdmissionError {
    /// Nothing that the pod can help.
    pub fn unexpected(why: impl std::fmt::Display) -> AdmissionError {
        let message = format!("Allocate failed due to {why}, which is unexpected");
        AdmissionError { reason: "UnexpectedAdmissionError", message }
    }

    pub(crate) fn topology() -> AdmissionError {
        let message = "Resources cannot be allocated with Topology locality".into();
        AdmissionError { reason: "TopologyAffinityError", message }
    }

    pub(crate) fn alignment(why: &str) -> AdmissionError {
        let message = format!("SMT Alignment Error: {why}");
        AdmissionError { reason: "SMTAlignmentError", message }
    }
}
